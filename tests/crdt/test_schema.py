"""A class that cannot be a record is refused where it is declared, and says why."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from crdt.errors import SchemaError, ValidationError
from crdt.fields import Counter, Item, Kind, Sealed, Text
from crdt.limits import RECORD_ID_BYTES_MAX
from crdt.schema import NEVER, Record, check_record_id, schema_of, snake_to_camel
from tests.crdt.declarations import Declared, new_record

__all__: list[str] = []

nothing: st.SearchStrategy[Any] = st.nothing()
REQUIRED = msgspec.NODEFAULT


class Fraction(enum.Enum):
    HALF = 0.5


class Strange(Item):
    value: complex = 0j


class Note(
    Record, collection="notes", indexes=["pinned", ("pinned", "created_at"), "id"], searchable=["title"]
):
    title: str
    pinned: bool = False
    tags: set[str] = set()
    due_at: dt.datetime | None = None
    secret: Sealed[str | None] = None


def test_a_schema_tells_what_its_class_declares() -> None:
    schema = schema_of(Note)
    assert schema_of(Note) is schema
    assert (schema.collection, schema.record) == ("notes", Note)
    assert [field.name for field in schema.fields] == [
        "created_at", "updated_at", "title", "pinned", "tags", "due_at", "secret",
    ]  # fmt: skip
    assert list(schema.by_wire) == ["createdAt", "updatedAt", "title", "pinned", "tags", "dueAt", "secret"]
    assert schema.indexes == (("pinned",), ("pinned", "created_at"), ("id",))
    assert schema.searchable == ("title",)
    assert (schema.field("title").required, schema.field("tags").kind) == (True, Kind.SET)
    assert schema.field("tags").make_default() is not schema.field("tags").make_default()
    assert schema.field("title").make_default() is None
    assert repr(schema) == "<Schema notes: Note>"


def test_a_record_takes_keywords_and_is_not_written_yet() -> None:
    note = Note(title="x")
    assert (note.id, note.created_at, note.updated_at) == ("", NEVER, NEVER)
    with pytest.raises(TypeError):
        Note("x")  # type: ignore[call-arg]


def test_a_record_may_extend_another() -> None:
    class Extended(Note, collection="extended"):
        mood: str = ""

    assert [field.name for field in schema_of(Extended).fields][-2:] == ["secret", "mood"]
    assert schema_of(Note).by_name.keys() == schema_of(Extended).by_name.keys() - {"mood"}


@pytest.mark.parametrize(
    ("name", "declared", "match"),
    [
        ("_hidden", Declared(str, nothing, ""), "snake_case"),
        ("camelCase", Declared(str, nothing, ""), "snake_case"),
        ("naïve", Declared(str, nothing, ""), "snake_case"),
        ("x" * 64, Declared(str, nothing, ""), "snake_case"),
        ("doc", Declared(str, nothing, ""), "not 'doc' or 'id'"),
        ("id_", Declared(str, nothing, ""), "not 'doc' or 'id'"),
        ("id", Declared(int, nothing, 0), "every record has it, as str"),
        ("created_at", Declared(str, nothing, ""), "every record has it, as datetime"),
        ("updated_at", Declared(dt.datetime | None, nothing, None), "every record has it, as datetime"),
        ("field", Declared(bytes, nothing, b""), "no field kind has the type"),
        ("field", Declared("Missing", nothing, ""), "declare at module level"),
        ("field", Declared(str, nothing, 5), "default does not fit: Expected `str`, got `int`"),
        ("field", Declared(Annotated[str, Meta(min_length=1)], nothing, ""), "default does not fit"),
        ("field", Declared(Counter, nothing, Counter(2**63)), "default does not fit"),
        ("field", Declared(Annotated[str, Meta(gt=1)], nothing, ""), "Can only set `gt` on a numeric type"),
        ("field", Declared(Fraction, nothing, Fraction.HALF), "Enums must contain either all str or all int"),
        ("field", Declared(set[str], nothing, {"a"}), "non-empty mutable"),
        ("field", Declared(set[str], nothing, frozenset({"a"})), "give a fresh default"),
        ("field", Declared(list[Strange], nothing, []), "its items cannot be written"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused(name: str, declared: Declared, match: str) -> None:
    with pytest.raises(SchemaError, match=match) as caught:
        schema_of(new_record({name: declared}))
    assert str(caught.value).startswith("Thing")


def test_two_names_that_are_one_in_camel_case_are_refused() -> None:
    fields = {"some_name": Declared(str, nothing, ""), "some__name": Declared(str, nothing, "")}
    with pytest.raises(SchemaError, match="the same name in camelCase"):
        schema_of(new_record(fields))


@pytest.mark.parametrize(
    "collection", ["", "Notes", "1notes", "no-tes", "pjais_notes", "sqlite_notes", "n" * 64, "nö", "a b", 5]
)
def test_a_collection_has_a_name_that_a_table_can_have(collection: Any) -> None:
    with pytest.raises(SchemaError, match=r"no collection's name|which is ours"):
        schema_of(new_record({"title": Declared(str, nothing, "")}, collection=collection))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"indexes": ["nothing"]}, "indexes names 'nothing', which is not a field; there are created_at"),
        ({"indexes": [("title", "nothing")]}, "indexes names 'nothing'"),
        ({"indexes": [()]}, "names, each once"),
        ({"indexes": [("title", "title")]}, "names, each once"),
        ({"indexes": ["lines"]}, "a list field cannot be indexed"),
        ({"indexes": ["secret"]}, "a sealed field cannot be indexed"),
        ({"indexes": "title"}, "lists of names"),
        ({"searchable": "title"}, "lists of names"),
        ({"searchable": ["nothing"]}, "searchable names 'nothing'"),
        ({"searchable": ["title", "title"]}, "names, each once"),
        ({"searchable": ["secret"]}, "a sealed field is never searchable"),
    ],
)  # fmt: skip
def test_indexes_and_searchable_name_fields_that_can_be(options: dict[str, Any], match: str) -> None:
    sealed: Any = Sealed
    namespace: dict[str, Any] = {
        "__annotations__": {"title": str, "lines": list[int], "secret": sealed[str | None]},
        "__module__": __name__,
        "title": "",
        "lines": [],
        "secret": None,
    }
    meta: Any = type(Record)
    with pytest.raises(SchemaError, match=match):
        schema_of(meta("Thing", (Record,), namespace, collection="things", **options))


def test_a_class_without_a_collection_is_no_record() -> None:
    class Base(Record):
        title: str = ""

    for cls in (Base, Record, int):
        with pytest.raises(SchemaError, match=r"is not a record: declare it as class"):
            schema_of(cls)  # type: ignore[arg-type]


def test_validation_returns_converted_values_and_changes_nothing() -> None:
    given_tags: Any = ["a", "a"]
    note = Note(title="x", tags=given_tags)
    checked = schema_of(Note).validate(note)
    assert checked.tags == {"a"}
    assert note.tags is given_tags
    assert schema_of(Note).validate_value("due_at", None) is None
    with pytest.raises(ValidationError, match="there is no such field; expected one of created_at"):
        schema_of(Note).validate_value("nothing", 1)
    assert schema_of(Note).validate(Note(title="x", secret="s")).secret == "s"


@pytest.mark.parametrize("record_id", ["a", "é😀", "x" * RECORD_ID_BYTES_MAX, "a/b@c"])
def test_an_id_that_the_application_chose_may_be_any_short_text(record_id: str) -> None:
    check_record_id("Note", record_id)


@pytest.mark.parametrize(
    "record_id", ["", "a\0b", "\ud800", "x" * (RECORD_ID_BYTES_MAX + 1), "é" * 101, 5, None, b"a"]
)
def test_an_id_that_cannot_be_one_is_refused(record_id: Any) -> None:
    with pytest.raises(
        ValidationError, match=r"Note\.id: got .*; expected 1 to 200 bytes of text without NUL"
    ):
        check_record_id("Note", record_id)


@given(st.lists(st.text("abc", min_size=1), min_size=1))
def test_names_are_camel_case_in_documents(parts: list[str]) -> None:
    assert snake_to_camel("_".join(parts)) == parts[0] + "".join(part.capitalize() for part in parts[1:])


def test_text_of_a_field_is_text() -> None:
    assert schema_of(new_record({"body": Declared(Text, nothing, Text())})).field("body").kind is Kind.TEXT
