"""Each verb of a collection does what it says, durably, and refuses what does not fit."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client_sdk import Client, Collection, ValidationError
from client_sdk.errors import DuplicateRecord, RecordNotFound
from crdt.errors import CrdtError
from tests.client_sdk.device import check_laws, open_device
from tests.client_sdk.records import Line, Mood, Note


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as opened:
        yield opened
        await check_laws(opened)


@pytest.fixture
def notes(client: Client) -> Collection[Note]:
    return client.collection(Note)


FULL: dict[str, Any] = {
    "title": "Grüße 😀",
    "body": "a\x00b é",
    "tags": {"x", 'y"z', "é@1"},
    "views": 7,
    "pinned": True,
    "rating": 0.5,
    "due": dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC),
    "mood": Mood.BAD,
    "importance": 3,
    "settings": {"theme": "dark", "nested": {"a@b": [1, {"c": None}], "": {}}, "f": 1.0},
    "lines": [Line(id="1", content="hi", at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), metadata={"k": [1]})],
    "scores": [3, 1, 2],
}


async def test_insert_returns_the_record_as_get_reads_it(notes: Collection[Note]) -> None:
    note = await notes.insert(Note(**FULL))
    assert note.id
    assert note.created_at == note.updated_at
    assert {name: getattr(note, name) for name in FULL} == FULL
    assert await notes.get(note.id) == note


async def test_a_record_is_the_same_after_the_file_is_opened_again(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        note = await client.collection(Note).insert(Note(**FULL))
        await client.collection(Note).update(note.id, title="later")
    async with open_device(tmp_path / "a.db", seed=2) as client:
        found = await client.collection(Note).get(note.id)
        assert found is not None
        assert found.title == "later"
        assert found.settings == FULL["settings"]
        await client.collection(Note).update(note.id, title="later still")
        await check_laws(client)


async def test_insert_many_writes_all_or_none(notes: Collection[Note]) -> None:
    with pytest.raises(ValidationError, match=r"Note\.importance: got int 101; expected int <= 100"):
        await notes.insert_many([Note(title="a"), Note(title="b", importance=101)])
    assert await notes.count() == 0
    made = await notes.insert_many(Note(title=str(n)) for n in range(1_000))
    assert [note.title for note in await notes.all()] == [note.title for note in made]


async def test_a_chosen_id_is_taken_once(notes: Collection[Note]) -> None:
    await notes.insert(Note(id="mine", title="a"))
    with pytest.raises(DuplicateRecord):
        await notes.insert(Note(id="mine", title="b"))
    with pytest.raises(DuplicateRecord):
        await notes.insert_many([Note(id="other", title="b"), Note(id="other", title="c")])
    await notes.delete("mine")
    with pytest.raises(DuplicateRecord):
        await notes.insert(Note(id="mine", title="c"))
    for bad in ("x" * 201, "a\x00", "\ud800"):
        with pytest.raises(ValidationError, match=r"Note\.id"):
            await notes.insert(Note(id=bad, title="d"))


async def test_update_changes_only_what_differs(notes: Collection[Note], client: Client) -> None:
    note = await notes.insert(Note(**FULL))
    changed = await notes.update(
        note.id,
        title="new",
        body="a\x00b ee",
        tags={"x", "n"},
        settings={"theme": "light", "nested": {"": 1}},
        scores=[3, 9, 2],
        mood=Mood.GOOD,
        due=None,
    )
    assert (changed.title, changed.body, changed.tags) == ("new", "a\x00b ee", {"x", "n"})
    assert changed.settings == {"theme": "light", "nested": {"": 1}}
    assert (changed.scores, changed.mood, changed.due) == ([3, 9, 2], Mood.GOOD, None)
    assert changed.updated_at > note.updated_at
    assert changed.created_at == note.created_at
    pending = client.status.pending
    assert await notes.update(note.id, tags={"x", "n"}) == changed
    assert client.status.pending == pending


async def test_a_maps_leaf_is_set_by_its_path(notes: Collection[Note]) -> None:
    note = await notes.insert(Note(title="a", settings={"a": {"b": 1, "c": 2}}))
    changed = await notes.update(note.id, **{"settings.a.b": 5, "settings.d": {"e": 1}})
    assert changed.settings == {"a": {"b": 5, "c": 2}, "d": {"e": 1}}
    changed = await notes.update(note.id, **{"settings.a": "leaf"})
    assert changed.settings == {"a": "leaf", "d": {"e": 1}}


async def test_counters_sets_lists_and_texts_have_verbs_of_their_own(notes: Collection[Note]) -> None:
    note = await notes.insert(Note(title="a", views=5, body="héllo😀"))
    assert (await notes.increment(note.id, views=3)).views == 8
    assert (await notes.increment(note.id, views=-10)).views == -2
    assert (await notes.add(note.id, tags={"a", "b"})).tags == {"a", "b"}
    assert (await notes.remove(note.id, tags={"a", "z"})).tags == {"b"}
    await notes.append(note.id, lines=[Line(id="1"), Line(id="2")], scores=[1])
    await notes.append(note.id, lines=[Line(id="3")])
    assert (await notes.remove_items(note.id, "lines", 1)).lines == [Line(id="1"), Line(id="3")]
    assert (await notes.edit_text(note.id, "body", delete=(5, 1), insert=(1, "😀é"))).body == "h😀ééllo"
    found = await notes.get(note.id)
    assert found is not None
    assert found.scores == [1]


async def test_delete_and_restore_keep_everything(notes: Collection[Note]) -> None:
    note = await notes.insert(Note(**FULL))
    await notes.delete(note.id)
    assert await notes.get(note.id) is None
    with pytest.raises(RecordNotFound):
        await notes.update(note.id, title="x")
    with pytest.raises(RecordNotFound):
        await notes.delete(note.id)
    restored = await notes.restore(note.id)
    assert {name: getattr(restored, name) for name in FULL} == FULL
    assert await notes.restore(note.id) == restored
    with pytest.raises(RecordNotFound):
        await notes.restore("nobody")


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("update", {"title": 5}, "Note.title: got int; expected str"),
    ("update", {"nothing": 5}, "Note.nothing: there is no such field; expected one of created_at"),
    ("update", {"views": 5}, "Note.views: a counter is not set; expected increment"),
    ("update", {"due": dt.datetime(2026, 1, 1)}, "Note.due: got datetime"),  # noqa: DTZ001
    ("update", {"settings": {"a": float("nan")}}, "Note.settings.a: got nan; expected a finite number"),
    (
        "update",
        {"settings": {"a": {1: 2}}},
        "Note.settings.a: got the key int 1; expected keys that are strings",
    ),
    ("update", {"title": "\ud800"}, "Note.title: text with a lone surrogate"),
    ("update", {"importance": -1}, "Note.importance: got int -1; expected int >= 0"),
    ("update", {"title.x": 1}, "Note.title.x: title is a register; expected a map before the dot"),
    ("update", {"lines": [5]}, "Note.lines[0]"),
    ("increment", {"views": 1.5}, "Note.views: got 1.5"),
    ("increment", {"views": 1 << 63}, "Note.views: got 9223372036854775808"),
    ("increment", {"title": 1}, "Note.title: it is a register; expected a counter field for increment()"),
    ("add", {"tags": [5]}, "Note.tags"),
    ("append", {"lines": [Line(id=5)]}, "Note.lines"),  # type: ignore[arg-type]
    ("append", {"scores": ["x"]}, "Note.scores"),
]


@pytest.mark.parametrize(("verb", "values", "message"), BAD)
async def test_what_does_not_fit_is_refused_by_name_and_changes_nothing(
    notes: Collection[Note], client: Client, verb: str, values: dict[str, Any], message: str
) -> None:
    note = await notes.insert(Note(title="a"))
    pending = client.status.pending
    with pytest.raises(ValidationError) as caught:
        await getattr(notes, verb)(note.id, **values)
    assert message in str(caught.value)
    assert await notes.get(note.id) == note
    assert client.status.pending == pending


async def test_places_outside_of_a_text_or_list_are_refused(notes: Collection[Note]) -> None:
    note = await notes.insert(Note(title="a", body="abc", scores=[1]))
    for delete, insert in (((2, 2), None), (None, (4, "x")), ((-1, 1), None), ((0, 3), (1, "x"))):
        with pytest.raises(ValidationError, match=r"Note\.body"):
            await notes.edit_text(note.id, "body", delete=delete, insert=insert)
    with pytest.raises(ValidationError, match=r"Note\.scores"):
        await notes.remove_items(note.id, "scores", 0, 2)
    assert await notes.get(note.id) == note


async def test_an_edit_that_would_make_a_text_too_long_is_refused(notes: Collection[Note]) -> None:
    note = await notes.insert(Note(title="a", summary="x" * 95))
    with pytest.raises(
        ValidationError, match=r"Note\.summary: got str '123456x.* expected str of length <= 100"
    ):
        await notes.edit_text(note.id, "summary", insert=(0, "123456"))
    with pytest.raises(ValidationError, match=r"Note\.summary: got int; expected text to insert"):
        await notes.edit_text(note.id, "summary", insert=(0, 5))  # type: ignore[arg-type]
    assert (await notes.edit_text(note.id, "summary", insert=(0, "12345"))).summary == "12345" + "x" * 95


NUMBERS = itertools.count()
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=8) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
async def test_any_value_in_any_field_is_stored_as_it_is_or_refused(
    tmp_path: Path, data: st.DataObject
) -> None:
    async with open_device(tmp_path / f"{next(NUMBERS)}.db") as client:
        notes = client.collection(Note)
        note = await notes.insert(Note(title="a"))
        for _ in range(data.draw(st.integers(1, 6))):
            name = data.draw(st.sampled_from([field.name for field in notes.schema.fields]))
            value: Any = data.draw(
                values if name != "tags" else values | st.sets(st.text(max_size=5), max_size=3)
            )
            before = await notes.get(note.id)
            try:
                after = await notes.update(note.id, **{name: value})
            except CrdtError:
                assert await notes.get(note.id) == before
            else:
                assert getattr(after, name) == (set(value) if name == "tags" else value) or name == "mood"
                assert await notes.get(note.id) == after
        await check_laws(client)
