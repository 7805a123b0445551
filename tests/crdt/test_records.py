"""Records become documents and come back as they were; what does not fit says so before anything is written."""

from __future__ import annotations

import copy
import datetime as dt
import re
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from crdt.changes import (
    AddElements,
    DeleteText,
    InsertItems,
    InsertText,
    RemoveElements,
    RemoveItems,
    SetRegister,
)
from crdt.contents import Contents
from crdt.document import Document
from crdt.errors import DocumentUnreadable, NotAvailable, ValidationError
from crdt.fields import Counter, Item, Kind, Sealed, Text
from crdt.limits import UPDATE_ITEMS_MAX, VALUE_DEPTH_MAX
from crdt.records import conflicts, create, encode_items, operations, read, set_elements, touched_fields
from crdt.schema import NEVER, Record, Schema, schema_of
from crdt.updates import check_update, read_creation
from crdt.values import encode_edit, encode_value
from tests.crdt.declarations import JUNK, MENU, NAIVE, Declared, Line, declarations, json_values, new_record
from tests.crdt.fleet import NOW

__all__: list[str] = []

READING = 1_790_000_000_000 << 16
CLIENT = 77


class Remark(Item):
    author: str
    text: Annotated[str, Meta(max_length=5)] = ""


class Note(Record, collection="notes"):
    title: Annotated[str, Meta(max_length=20)]
    body: Text = Text()
    tags: set[str] = set()
    views: Counter = Counter(0)
    due_at: dt.datetime | None = None
    remarks: list[Remark] = []
    settings: dict[str, Any] = {}
    secret: Sealed[str | None] = None


NOTE = schema_of(Note)


def created(
    schema: Schema, record: Record, *, is_chosen: bool = False
) -> tuple[bytes, dict[str, Any], Contents]:
    return create(schema, record, record_id="r", client=CLIENT, reading=READING, now=NOW, is_chosen=is_chosen)


def document_of(update: bytes) -> Document:
    creation = read_creation(update, client=CLIENT)
    assert creation is not None
    return Document.from_creation(update, creation, client=CLIENT + 1)


@given(st.data(), declarations, st.booleans())
def test_a_record_comes_back_from_its_document_as_it_was(
    data: st.DataObject, fields: dict[str, Declared], is_chosen: bool
) -> None:
    """Over all types of fields and all of Unicode, by the fast lane and by pycrdt."""
    cls = new_record(fields)
    schema = schema_of(cls)
    given_values = {name: data.draw(declared.values, label=name) for name, declared in fields.items()}
    update, values, contents = created(schema, cls(**given_values), is_chosen=is_chosen)
    expected = {"created_at": NOW, "updated_at": NOW, **given_values}
    assert values == {"id": "r", **expected}
    assert read(schema, contents) == expected
    assert read(schema, document_of(update).contents) == expected
    by_pycrdt = Document(client=CLIENT + 1)
    by_pycrdt.apply(update, client=CLIENT)
    assert read(schema, by_pycrdt.contents) == expected
    assert by_pycrdt.contents.digest("things", "r") == contents.digest("things", "r")
    check_update(update, client=CLIENT, index=None)
    for name, value in read(schema, contents).items():
        if isinstance(value, dt.datetime):
            assert value.tzinfo is dt.UTC, name


@given(st.data(), declarations, st.booleans())
def test_operations_turn_what_is_there_into_the_new_values(
    data: st.DataObject, fields: dict[str, Declared], is_chosen: bool
) -> None:
    fields = {name: declared for name, declared in fields.items() if declared.annotation is not Counter}
    cls = new_record(fields)
    schema = schema_of(cls)
    old = {name: data.draw(declared.values, label=name) for name, declared in fields.items()}
    document = document_of(created(schema, cls(**old), is_chosen=is_chosen)[0])
    expected = {"created_at": NOW, "updated_at": NOW, **old}
    for step in range(2):
        changes = {
            name: data.draw(declared.values, label=name)
            for name, declared in fields.items()
            if data.draw(st.booleans())
        }
        update, _ = document.edit(
            [*operations(schema, document.contents, changes), SetRegister("updatedAt", encode_value(NOW))],
            reading=READING + 1 + step,
        )
        expected |= changes
        assert read(schema, document.contents) == expected
        assert len(update) < 100 or changes


leaf_names = st.lists(st.sampled_from(["a", "b", "c~/@", "é"]), min_size=1, max_size=3).map(".".join)
leaf_values: st.SearchStrategy[Any] = (
    st.none() | st.integers(0, 9) | st.just({}) | st.dictionaries(st.sampled_from("ab"), st.integers(0, 9))
)


@given(st.lists(st.tuples(leaf_names, leaf_values), max_size=8))
def test_setting_a_dotted_leaf_is_setting_it_in_a_dict(steps: list[tuple[str, Any]]) -> None:
    expected: dict[str, Any] = {}
    document = document_of(created(NOTE, Note(title="x"))[0])
    for number, (name, value) in enumerate(steps):
        made = operations(NOTE, document.contents, {f"settings.{name}": value})
        document.edit([*made, SetRegister("updatedAt", encode_value(NOW))], reading=READING + 1 + number)
        node = expected
        *branches, leaf = name.split(".")
        for branch in branches:
            if not isinstance(node.get(branch), dict):
                node[branch] = {}
            node = node[branch]
        node[leaf] = copy.deepcopy(value)
        assert read(NOTE, document.contents)["settings"] == expected


def test_an_edit_changes_only_what_differs() -> None:
    note = Note(
        title="a",
        body=Text("one 😀 three"),
        tags={"a", "b"},
        remarks=[Remark(author="x"), Remark(author="y"), Remark(author="z")],
        settings={"theme": "dark", "size": 3},
    )
    contents = created(NOTE, note)[2]
    assert operations(NOTE, contents, {"body": "one 😅 three"}) == [
        DeleteText("body", 4, 1),
        InsertText("body", 4, "😅"),
    ]
    assert operations(NOTE, contents, {"tags": {"b", "c"}}) == [
        AddElements("tags", ('"c"',)),
        RemoveElements("tags", ('"a"',)),
    ]
    assert operations(NOTE, contents, {"settings": {"theme": "dark", "size": 4}}) == [
        SetRegister("settings/size", b"\x04")
    ]
    remarks = [note.remarks[0], note.remarks[2], Remark(author="new")]
    assert operations(NOTE, contents, {"remarks": remarks}) == [
        RemoveItems("remarks", 1, 2),
        InsertItems("remarks", 1, encode_items(NOTE, NOTE.field("remarks"), remarks[1:])),
    ]
    assert operations(NOTE, contents, {"body": note.body, "tags": note.tags, "settings": note.settings}) == []


def test_times_that_were_not_given_are_those_of_the_writing() -> None:
    earlier = dt.datetime(2020, 5, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    values = created(NOTE, Note(title="x", created_at=earlier))[1]
    assert values["created_at"] == earlier
    assert values["created_at"].tzinfo is dt.UTC
    assert values["updated_at"] == NOW
    same_as_never = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
    assert same_as_never is not NEVER
    assert created(NOTE, Note(title="x", created_at=same_as_never))[1]["created_at"] == NOW


@pytest.mark.parametrize("declared", MENU, ids=lambda declared: str(declared.annotation)[:40])
def test_whatever_is_given_is_taken_and_comes_back_or_is_a_typed_error(declared: Declared) -> None:
    """No value of any type makes anything else escape, by creation, by update or by append."""
    cls = new_record({"field": Declared(declared.annotation, declared.values)})
    schema = schema_of(cls)
    field = schema.field("field")
    for junk in JUNK:
        for write in (
            lambda junk=junk: created(schema, cls(field=junk)),  # type: ignore[call-arg]
            lambda junk=junk: operations(schema, Contents({}, {}, {}, {}, {}), {"field": junk}),
            lambda junk=junk: operations(schema, Contents({}, {}, {}, {}, {}), {"field.a.b": junk}),
            lambda junk=junk: encode_items(schema, field, junk) if field.name in schema.items else None,
            lambda junk=junk: set_elements(schema, field, junk) if field.kind.value == "set" else None,
        ):
            made, error = outcome(write)
            if error is not None:
                assert error.record == "Thing"
                assert error.field == "*" or re.match(r"field\b", error.field)
                assert error.problem
                assert error.expected
                assert len(str(error).encode()) < 600
            elif isinstance(made, tuple) and made and isinstance(made[-1], Contents):
                assert read(schema, made[2]) == {name: made[1][name] for name in schema.by_name}


def outcome(write: Callable[[], Any]) -> tuple[Any, ValidationError | None]:
    try:
        return write(), None
    except ValidationError as error:
        return None, error


@pytest.mark.parametrize(
    ("values", "field", "problem", "expected"),
    [
        ({"title": 5}, "title", "got int", "str"),
        ({"title": "x" * 21}, "title", "got str 'xxx", "str of length <= 20"),
        ({"title": "\ud800"}, "title", "a lone surrogate", "valid Unicode"),
        ({"tags": {"a", 5}}, "tags[", "got int", "str"),
        ({"tags": {"x" * 5_000}}, "tags", "an element of 5,002 bytes", "at most 4,076 bytes"),
        ({"views": 1.5}, "views", "got float", "int"),
        ({"views": 2**63}, "views", "got int 9223372036854775808", "int <= 9223372036854775807"),
        ({"due_at": NAIVE}, "due_at", "got datetime", "with a timezone"),
        ({"remarks": [Remark(author="a"), Remark(author=5)]}, "remarks[1].author", "got int", "str"),  # type: ignore[arg-type]
        ({"remarks": [Remark(author="a", text="too long")]}, "remarks[0].text", "too long", "length <= 5"),
        ({"remarks": [{"text": "a"}]}, "remarks[0]", "missing required field", "Remark"),
        ({"settings": {"a": {"b": {1}}}}, "settings.a.b", "got set", "text, a number"),
        ({"settings": {"a/b": float("inf")}}, "settings.a/b", "got inf", "a finite number"),
        ({"settings": {"a": [{"b": object()}]}}, "settings.a.0.b", "got object", "text, a number"),
        ({"settings": {"a": {5: 1}}}, "settings.a", "got the key int 5", "keys that are strings"),
        ({"settings": {"k" * 5_000: 1}}, "settings.kkkk", "its path has 5,009 bytes", "at most 4,076 bytes"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_named_with_what_would(
    values: dict[str, Any], field: str, problem: str, expected: str
) -> None:
    record = Note(**{"title": "x", **values})
    with pytest.raises(ValidationError) as by_creation:
        created(NOTE, record)
    contents = created(NOTE, Note(title="x"))[2]
    with pytest.raises(ValidationError) as by_update:
        operations(NOTE, contents, values)
    for error in (by_creation.value, by_update.value) if "views" not in values else (by_creation.value,):
        assert error.record == "Note"
        assert error.field.startswith(field)
        assert problem in error.problem
        assert expected in error.expected
        assert str(error) == f"Note.{error.field}: {error.problem}; expected {error.expected}"


def test_deep_and_endless_values_are_refused() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    endless: dict[str, Any] = {}
    endless["again"] = endless
    nested: dict[str, Any] = {}
    for _ in range(VALUE_DEPTH_MAX + 1):
        nested = {"a": nested}
    for value in (deep, endless, nested):
        with pytest.raises(ValidationError, match=r"deep|levels"):
            created(NOTE, Note(title="x", settings={"a": value}))


def test_wrong_uses_of_fields_are_typed() -> None:
    contents = created(NOTE, Note(title="x"))[2]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"nothing": 1}, "there is no such field; expected one of created_at, updated_at, title"),
        ({"id": "y"}, "there is no such field"),
        ({"views": 3}, r"a counter is not set; expected increment"),
        ({"title.a": 3}, "title is a register; expected a map before the dot"),
        ({"settings": {}, "settings.a": 1}, "set as a whole too; expected one of the two"),
        ({"settings." + "a." * VALUE_DEPTH_MAX: 1}, "nested too deeply"),
        ({"settings.\ud800": 1}, "lone surrogate"),
    ]
    for changes, match in wrong:
        with pytest.raises(ValidationError, match=match):
            operations(NOTE, contents, changes)
    for name, match in [
        ("nothing", "no such field"),
        ("settings", "its leaves|of its leaves"),
        ("title.a", "a map before"),
    ]:
        with pytest.raises(ValidationError, match=match):
            conflicts(NOTE, contents, name)
    for elements in ("ab", b"ab", 5, None, {"a": 1}, [["a"]], [5]):
        with pytest.raises(ValidationError):
            set_elements(NOTE, NOTE.field("tags"), elements)  # type: ignore[arg-type]
    with pytest.raises(NotAvailable, match=r"Note\.secret"):
        created(NOTE, Note(title="x", secret="s"))
    with pytest.raises(NotAvailable, match=r"Note\.secret"):
        operations(NOTE, contents, {"secret": "s"})
    with pytest.raises(ValidationError, match="expected a Note"):
        created(NOTE, Record())


def test_the_size_of_a_set_is_not_asked_of_what_is_added_to_it() -> None:
    few = new_record(
        {"tags": Declared(Annotated[set[Annotated[str, Meta(max_length=2)]], Meta(min_length=2)], st.none())}
    )
    schema = schema_of(few)
    assert set_elements(schema, schema.field("tags"), {"a"}) == ('"a"',)
    with pytest.raises(ValidationError, match="length <= 2"):
        set_elements(schema, schema.field("tags"), {"abc"})
    with pytest.raises(ValidationError, match="length >= 2"):
        created(schema, few(tags={"a"}))  # type: ignore[call-arg]


def test_one_time_in_two_zones_is_one_element() -> None:
    """Two devices that add it, each in its own zone, add the same."""
    schema = schema_of(new_record({"times": Declared(set[dt.datetime], st.none(), set())}))
    east = NOW.astimezone(dt.timezone(dt.timedelta(hours=2)))
    keys = {set_elements(schema, schema.field("times"), [time]) for time in (NOW, east)}
    assert len(keys) == 1


def test_a_record_too_large_for_one_update_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match=r"Note\.\*: .*UPDATE_BYTES_MAX"):
        created(NOTE, Note(title="x", body=Text("x" * 5_000_000)))
    many = [str(number) for number in range(UPDATE_ITEMS_MAX + 1)]
    numbers = new_record(
        {"ns": Declared(list[str], st.none(), []), "ms": Declared(set[str], st.none(), set())}
    )
    for values in ({"ns": many}, {"ms": set(many)}):
        with pytest.raises(ValidationError, match=r"Thing\.\*: .*UPDATE_ITEMS_MAX"):
            created(schema_of(numbers), numbers(**values))


def unreadable(contents: Contents, schema: Schema = NOTE) -> DocumentUnreadable:
    with pytest.raises(DocumentUnreadable) as caught:
        read(schema, contents)
    return caught.value


@pytest.mark.parametrize(
    ("registers", "field"),
    [
        ({}, "title"),
        ({"title": encode_value(5)}, "title"),
        ({"title": b"\xc1"}, "title"),
        ({"title@5": b"junk"}, "title"),
        ({"dueAt": encode_value(2**63)}, "due_at"),
        ({"dueAt": encode_value("2026-01-01T00:00:00")}, "due_at"),
        ({"settings/a": b"\xd4\x05\x00"}, "settings"),
        ({"settings/a": encode_value({5: 1})}, "settings"),
        ({"settings/a": encode_value(float("nan"))}, "settings"),
        ({"settings/a": encode_value(2**64 - 1)}, "settings"),
        ({"settings/a": b"\x91" * 100_000 + b"\x01"}, "settings"),
    ],
)  # fmt: skip
def test_a_document_that_the_schema_cannot_read_says_which_field(
    registers: dict[str, bytes], field: str
) -> None:
    """Whatever foreign bytes stand in it: rows could not hold them."""
    title = {} if field == "title" else {"title": encode_value("x")}
    contents = Contents({"@": b"", **title, **registers}, {}, {}, {}, {})
    error = unreadable(contents)
    assert (error.record, error.field) == ("Note", field)
    contents.value()
    contents.digest("notes", "r")


wires = st.sampled_from([*NOTE.by_wire, "settings/a", "settings/a/b", "settings"])
foreign = st.binary(max_size=6) | st.builds(
    encode_value, json_values | st.floats() | st.integers(0, 2**64 - 1) | st.just(NOW)
)
edited = st.builds(encode_edit, st.integers(0, 9), st.none() | foreign)


@given(
    st.builds(
        Contents,
        st.dictionaries(wires, foreign) | st.dictionaries(wires.map("{}@5".format), edited),
        st.dictionaries(wires, st.lists(st.text(max_size=3) | st.sampled_from(['"a"', '"é"@5', "5"]))),
        st.dictionaries(wires, st.dictionaries(st.sampled_from(["", "5"]), foreign)),
        st.dictionaries(wires, st.lists(foreign, max_size=2)),
        st.dictionaries(wires, st.text(max_size=3)),
    )
)
def test_a_foreign_document_is_read_within_the_types_or_is_unreadable(contents: Contents) -> None:
    for field in NOTE.fields:
        try:
            value = read(NOTE, contents, [field])[field.name]
        except DocumentUnreadable:
            continue
        if field.kind is Kind.SET:
            assert all(type(element) is str for element in value)
        elif field.kind is Kind.SEALED:
            assert value is None or type(value) is bytes
        elif value is not None:
            assert NOTE.validate_value(field.name, value) == value or field.kind is Kind.COUNTER
    for name in ("title", "due_at", "settings.a", "settings.a.b"):
        conflicts(NOTE, contents, name)
    operations_by_anyone = {
        "settings": {"a": {"b": 1}},
        "tags": {"a"},
        "body": "x",
        "remarks": [Remark(author="x")],
    }
    operations(NOTE, contents, operations_by_anyone)


def test_items_and_elements_that_rows_cannot_hold_are_unreadable() -> None:
    title = {"title": encode_value("x")}
    items: list[Any] = [5, {}, {"author": 5}, {"author": "a", "text": "too long"}, []]
    for item in items:
        assert unreadable(Contents(title, {}, {}, {"remarks": [encode_value(item)]}, {})).field == "remarks"
    for key in ("5", "[]", '"a', "a", "", '"\\ud800"'):
        assert unreadable(Contents(title, {"tags": [key]}, {}, {}, {})).field == "tags"
    schema = schema_of(new_record({"lines": Declared(list[Line], st.none(), [])}))
    times = {"createdAt": encode_value(NOW), "updatedAt": encode_value(NOW)}
    for bad in (
        {"tokens": 2**63},
        {"saidAt": "2026-01-01T00:00:00"},
        {"weight": float("inf")},
        {"extra": {1: 1}},
    ):
        contents = Contents(times, {}, {}, {"lines": [encode_value({"role": "x", **bad})]}, {})
        assert unreadable(contents, schema).field == "lines"


def test_a_conflict_that_this_schema_cannot_read_is_left_out() -> None:
    registers = {
        "title@5": encode_edit(READING + 3, encode_value("counts")),
        "title@6": encode_edit(READING + 2, encode_value(5)),
        "title@7": encode_edit(READING + 1, encode_value("lost")),
        "title@8": encode_edit(READING, None),
    }
    assert conflicts(NOTE, Contents(registers, {}, {}, {}, {}), "title") == ["lost"]


def test_touched_roots_and_keys_name_their_fields() -> None:
    touched = {
        "reg": {"title@5", "settings/a", "@", "$deleted@5", "unknown@6"},
        "set:tags": {'"a"@5'},
        "list:remarks": set(),
        "text:unknown": set(),
    }
    fields, tombstone = touched_fields(NOTE, touched)
    assert {field.name for field in fields} == {"title", "settings", "tags", "remarks"}
    assert tombstone
    assert touched_fields(NOTE, {"reg": {"title"}}) == ({NOTE.field("title")}, False)


# -- A newer device's fields, in the hands of an older one


class NewRemark(Item):
    author: str
    text: str = ""
    mood: str = ""


class NewNote(Record, collection="notes"):
    title: str
    body: Text = Text()
    tags: set[str] = set()
    views: Counter = Counter(0)
    remarks: list[NewRemark] = []
    settings: dict[str, Any] = {}
    color: str = ""
    places: set[int] = set()
    likes: Counter = Counter(0)
    drafts: list[int] = []
    sketch: Text = Text()
    options: dict[str, Any] = {}


NEW = schema_of(NewNote)


def test_an_older_schema_loses_nothing_that_a_newer_one_wrote() -> None:
    new = NewNote(
        title="x",
        remarks=[NewRemark(author="a", mood="glad"), NewRemark(author="b", mood="sad")],
        settings={"a": 1},
        color="red",
        places={1, 2},
        likes=Counter(3),
        drafts=[1, 2],
        sketch=Text("sketch"),
        options={"o": {"p": 1}},
    )
    document = document_of(created(NEW, new)[0])
    before = read(NEW, document.contents)
    seen = read(NOTE, document.contents)
    remarks = [*seen["remarks"], Remark(author="c")]
    changes = {"title": "y", "body": "b", "tags": {"t"}, "remarks": remarks, "settings": {"a": 2}}
    made = operations(NOTE, document.contents, changes)
    document.edit([*made, SetRegister("updatedAt", encode_value(NOW))], reading=READING + 1)
    reloaded = Document.load(document.snapshot(), [], client=CLIENT + 2)
    expected = before | {
        "title": "y",
        "body": "b",
        "tags": {"t"},
        "settings": {"a": 2},
        "remarks": [*before["remarks"], NewRemark(author="c")],
    }
    assert read(NEW, document.contents) == expected
    assert read(NEW, reloaded.contents) == expected
    assert reloaded.contents.digest("notes", "r") == document.contents.digest("notes", "r")
    shown = reloaded.contents.value()
    assert (shown["color"], shown["likes"], shown["options"]) == ("red", 3, {"o": {"p": 1}})
