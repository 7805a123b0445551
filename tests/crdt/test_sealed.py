"""A sealed field's value becomes bytes only through who seals it, and no message of the kernel shows it."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from rich.pretty import pretty_repr

from crdt.contents import Contents
from crdt.document import Document
from crdt.errors import SchemaError, ValidationError
from crdt.fields import Item, Kind, Sealed, SealedValue, field_type
from crdt.records import conflicts, create, operations, read
from crdt.schema import Field, Record, schema_of
from crdt.sealed import sealed_bytes
from crdt.values import encode_edit, encode_value

__all__: list[str] = []

sealed: Any = Sealed  # for mypy an alias, which cannot be a value
NOW = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
READING = 1 << 62
MARK = "Sesam-öffne-dich"


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    code: Literal["a", "b"]
    notes: dict[str, str] = {}


class Safe(Record, collection="safes"):
    title: str = ""
    secret: Sealed[str | None] = None
    short: Sealed[Annotated[str, Meta(max_length=3)] | None] = None
    number: Sealed[int | None] = None
    keys: Sealed[dict[str, Any] | None] = None
    inner: Sealed[Inner | None] = None
    few: Sealed[dict[str, Literal[1, 2]] | None] = None
    always: Sealed[str] = "default"


SAFE = schema_of(Safe)


def mirrored(field: Field, plain: bytes) -> bytes:
    """Return a value's bytes backwards, with the field's name: not secret, and easy to see."""
    return field.key + plain[::-1]


def created(record: Safe, *, is_chosen: bool = False) -> tuple[bytes, dict[str, Any], Contents]:
    return create(
        SAFE, record, record_id="r", client=5, reading=READING, now=NOW, is_chosen=is_chosen, seal=mirrored
    )


@pytest.mark.parametrize("is_chosen", [False, True])
def test_a_document_holds_what_the_seal_returned_and_read_returns_it(is_chosen: bool) -> None:
    update, values, contents = created(Safe(secret=MARK, keys={"a": [1]}), is_chosen=is_chosen)
    assert MARK.encode() not in update
    found = read(SAFE, Document.load(None, [update], client=6).contents)
    assert found == read(SAFE, contents) == {name: values[name] for name in found}
    assert found["secret"] == b"secret" + encode_value(MARK)[::-1]
    assert found["keys"] == b"keys" + encode_value({"a": [1]})[::-1]
    assert found["always"] == b"always" + encode_value("default")[::-1]
    assert found["number"] is None


def test_an_edit_seals_and_none_is_none() -> None:
    update, _, contents = created(Safe(secret="one"))
    document = Document.load(None, [update], client=6)
    made = operations(SAFE, contents, {"secret": "two", "number": None}, seal=mirrored)
    document.edit(made, reading=READING + 1)
    found = read(SAFE, document.contents)
    assert (found["secret"], found["number"]) == (b"secret" + encode_value("two")[::-1], None)
    assert operations(SAFE, contents, {"title": "x"}) == operations(
        SAFE, contents, {"title": "x"}, seal=mirrored
    )


def test_the_values_that_lost_are_sealed_too() -> None:
    registers = {
        "secret@5": encode_edit(READING, encode_value(b"lost")),
        "secret@6": encode_edit(READING + 1, encode_value(b"counts")),
        "secret@7": encode_edit(READING - 1, encode_value(None)),
    }
    assert conflicts(SAFE, Contents(registers, {}, {}, {}, {}), "secret") == [b"lost", None]


@given(st.binary(max_size=60) | st.binary(max_size=60).map(encode_value))
def test_whatever_a_document_holds_for_a_sealed_field_reads_as_bytes_or_none(entry: bytes) -> None:
    found = sealed_bytes(entry)
    assert found is None or type(found) is bytes
    assert read(SAFE, Contents({"secret": entry}, {}, {}, {}, {}))["secret"] == found
    assert sealed_bytes(encode_value(entry)) == entry


def test_json_without_a_schema_shows_an_opaque_string() -> None:
    assert Contents({"secret": encode_value(b"\xff\xfe")}, {}, {}, {}, {}).value() == {"secret": "__4"}


REFUSED: list[tuple[str, Any]] = [
    ("secret", 5),
    ("secret", {MARK: MARK}),
    ("secret", MARK + "\ud800"),
    ("short", MARK),
    ("number", MARK),
    ("number", 1 << 70),
    ("number", 10**5_000),
    ("keys", {MARK: {1, 2}}),
    ("keys", {MARK: float("nan")}),
    ("keys", {MARK: object()}),
    ("keys", {MARK: (MARK, 1)}),
    ("keys", {MARK: MARK + "\udfff"}),
    ("inner", {"code": MARK}),
    ("inner", {"code": "a", MARK: 1}),
    ("inner", {"code": "a", "notes": {MARK: 5}}),
    ("few", {MARK: 6}),
    ("few", {MARK: 1, "b": 1, "c": 1, "d": 1, "e": 10**5_000}),
    ("always", None),
    ("secret", SealedValue("why", MARK.encode())),
    ("keys", SealedValue("why", MARK.encode())),
    ("keys", {MARK: SealedValue("why", MARK.encode())}),
    ("inner", SealedValue("why", MARK.encode())),
]


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=map(str, range(len(REFUSED))))
def test_what_does_not_fit_is_refused_by_name_and_not_shown(name: str, value: Any) -> None:
    record = Safe()
    setattr(record, name, value)
    empty = Contents({}, {}, {}, {}, {})
    for write in (lambda: created(record), lambda: operations(SAFE, empty, {name: value}, seal=mirrored)):
        with pytest.raises(ValidationError, match=rf"^Safe\.{name}") as caught:
            write()
        assert MARK not in str(caught.value)
        assert MARK not in repr(vars(caught.value))


def test_a_record_does_not_show_its_secrets() -> None:
    record = Safe(title="t", secret=MARK, keys={MARK: MARK})
    assert MARK not in repr(record)
    assert MARK not in f"{[record]}"
    assert MARK not in pretty_repr(record)
    assert "title='t', secret=<sealed>" in repr(record)
    assert "number=None" in repr(record)
    record.secret = SealedValue("no key", MARK.encode())  # type: ignore[assignment]
    assert "secret=<SealedValue: no key>" in repr(record)
    assert repr(Record(id="r")).startswith("Record(id='r', created_at=")


class Leaky(Item):
    text: Sealed[str] = ""


class Deep(Item):
    inner: list[Leaky] = []


@pytest.mark.parametrize(
    "annotation",
    [
        sealed[str] | None,
        set[sealed[str]],
        list[sealed[str]],
        list[Leaky],
        list[Deep],
        Annotated[list[Leaky], Meta(max_length=3)],
        dict[str, sealed[str]],
    ],
)
def test_a_seal_around_less_than_a_field_is_an_error_and_not_plain_text(annotation: Any) -> None:
    with pytest.raises(SchemaError, match=r"only a whole field is sealed: declare it as Sealed\[...\]"):
        field_type(annotation, where="Note.secret")


def test_what_a_sealed_type_is() -> None:
    kind = field_type(sealed[dict[str, str] | None], where="x")
    assert (kind.kind, kind.optional, kind.affinity) == (Kind.SEALED, True, "BLOB")
    assert not field_type(sealed[str], where="x").optional
    assert field_type(sealed[Any], where="x").optional
    assert field_type(sealed[str | None], where="x").describe() == "a value of the type str | None"
