"""Events say what each commit did, in order, and a slow consumer is told what it missed rather than kept for."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk import Client, Event, Missed, Status
from client_sdk.commit import Committed
from client_sdk.errors import QueryError
from client_sdk.events import WAITING_RECORDS_MAX, Events, Feed
from client_sdk.materialize import Change
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Note, Tag

__all__: list[str] = []


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as opened:
        yield opened


def told_of(kind: Any, collection: str, *records: str) -> tuple[Any, ...]:
    return kind, collection, records


async def what(events: Events) -> tuple[Any, ...]:
    """Return the next event without its commit's number."""
    event = await anext(events)
    assert isinstance(event, Event)
    return event.kind, event.collection, event.records


def change(record: str, kind: Any = "inserted", collection: str = "notes") -> Change:
    return Change(collection, record, kind, 1)


async def test_each_commit_is_told_in_order(client: Client) -> None:
    events = client.events()
    note = await client.collection(Note).insert(Note(title="a"))
    await client.collection(Note).update(note.id, title="b")
    tag = await client.collection(Tag).insert(Tag(name="t"))
    await client.collection(Note).delete(note.id)
    await client.collection(Note).restore(note.id)
    told = [await anext(events) for _ in range(5)]
    assert all(isinstance(event, Event) and not event.is_remote for event in told)
    assert [(event.kind, event.collection, event.records) for event in told if isinstance(event, Event)] == [
        told_of("inserted", "notes", note.id),
        told_of("updated", "notes", note.id),
        told_of("inserted", "tags", tag.id),
        told_of("deleted", "notes", note.id),
        told_of("inserted", "notes", note.id),
    ]
    commits = [event.commit for event in told if isinstance(event, Event)]
    assert commits == sorted(set(commits))


async def test_a_block_is_told_as_a_whole_and_an_undone_one_not_at_all(client: Client) -> None:
    notes, events = client.collection(Note), client.events()
    kept = await notes.insert(Note(title="there before"))
    assert await what(events) == told_of("inserted", "notes", kept.id)
    with pytest.raises(ZeroDivisionError):
        async with client.transaction():
            await notes.insert(Note(title="undone"))
            raise ZeroDivisionError
    async with client.transaction():
        made = await notes.insert(Note(title="new"))
        await notes.update(made.id, title="newer")
        gone = await notes.insert(Note(title="came and went"))
        await notes.delete(gone.id)
        await notes.update(kept.id, title="changed")
    first, second = await anext(events), await anext(events)
    assert isinstance(first, Event)
    assert isinstance(second, Event)
    assert (first.kind, first.records) == ("inserted", (made.id,))
    assert (second.kind, second.records) == ("updated", (kept.id,))
    assert first.commit == second.commit > 0


async def test_events_are_asked_for_by_collection_and_kind(client: Client) -> None:
    by_class, by_name = client.events([Tag]), client.events(["tags"], ["inserted"])
    await client.collection(Note).insert(Note(title="a"))
    tag = await client.collection(Tag).insert(Tag(name="t"))
    assert await what(by_class) == await what(by_name) == told_of("inserted", "tags", tag.id)
    with pytest.raises(QueryError, match="no collection 'songs'; there are notes, tags"):
        client.events(["songs"])
    with pytest.raises(QueryError, match="no kind of event"):
        client.events(kinds=["renamed"])  # type: ignore[list-item]


async def test_who_is_slow_is_told_how_many_it_missed() -> None:
    feed = Feed(["notes"])
    events = feed.stream()
    for _ in range(3):  # a commit may be large, but two such do not wait
        feed.committed(Committed(changes=[change(str(n)) for n in range(WAITING_RECORDS_MAX)]))
    feed.committed(Committed(changes=[change("one more")]))
    first = await anext(events)
    assert isinstance(first, Event)
    assert len(first.records) == WAITING_RECORDS_MAX
    for record in ("after it", "and more"):  # what was read has made room
        feed.committed(Committed(changes=[change(record)]))
    assert [await anext(events) for _ in range(3)] == [
        Missed(3),
        Event("inserted", "notes", ("after it",)),
        Event("inserted", "notes", ("and more",)),
    ]


async def test_what_was_missed_last_is_told_without_another_event() -> None:
    feed = Feed(["notes"])
    events = feed.stream()
    for n in range(WAITING_RECORDS_MAX + 2):
        feed.committed(Committed(changes=[change(str(n))]))
    told = [await anext(events) for _ in range(WAITING_RECORDS_MAX + 1)]
    assert told[-2:] == [Event("inserted", "notes", (str(WAITING_RECORDS_MAX - 1),)), Missed(2)]


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=8),
    st.lists(st.booleans(), max_size=60),
)
async def test_who_applies_the_events_knows_what_is_there(
    commits: list[list[str]], chances: list[bool]
) -> None:
    """Random histories of three records: those that the events leave are those that exist, after each commit."""
    feed, there, known, chance = Feed(["notes"]), set[str](), set[str](), iter(chances)
    events = feed.stream()
    for commit in commits:
        changes = []
        for record in commit:
            if record not in there:
                changes.append(change(record))
                there.add(record)
            elif next(chance, False):
                changes.append(change(record, "updated"))
            else:
                changes.append(change(record, "deleted"))
                there.remove(record)
        feed.committed(Committed(changes=changes))
        feed.committed(Committed(changes=[change("mark", "updated")]))
        while (event := await anext(events)) != Event("updated", "notes", ("mark",)):
            assert isinstance(event, Event)
            assert len(event.records) == len(set(event.records))
            if event.kind == "inserted":
                assert known.isdisjoint(event.records)
                known.update(event.records)
            else:
                assert known.issuperset(event.records)
            if event.kind == "deleted":
                known.difference_update(event.records)
        assert known == there


async def test_what_another_instance_did_not_tell_is_missed() -> None:
    feed = Feed(["notes", "tags"])
    everything, tags, synced = feed.stream(), feed.stream(["tags"]), feed.stream(kinds=["synced"])
    feed.committed(Committed(changes=[change("before")]))
    feed.committed(Committed(whole=frozenset({"notes"}), is_foreign=True))
    feed.committed(Committed(changes=[change("after"), change("t", collection="tags")]))
    await feed.close()
    assert [event async for event in everything] == [
        Event("inserted", "notes", ("before",)),
        Missed(1),
        Event("inserted", "notes", ("after",)),
        Event("inserted", "tags", ("t",)),
    ]
    assert [event async for event in tags] == [Event("inserted", "tags", ("t",))]
    assert [event async for event in synced] == []


async def test_instances_on_one_file_hear_of_one_another(tmp_path: Path) -> None:
    async with (
        open_device(tmp_path / "a.db", multi_instance=True) as first,
        open_device(tmp_path / "a.db", seed=2, multi_instance=True) as second,
    ):
        events = second.events([Tag])
        tag = await first.collection(Tag).insert(Tag(name="a"))
        async with asyncio.timeout(10):
            assert await what(events) == told_of("inserted", "tags", tag.id)
            await first.collection(Tag).insert_many([Tag(name="one of many") for _ in range(1_000)])
            assert await anext(events) == Missed(1)


async def test_synced_is_told_when_it_becomes_true_and_proved() -> None:
    feed = Feed(["notes"])
    events, deaf = feed.stream(["notes"]), feed.stream(kinds=["inserted"])
    for status in (
        Status("syncing"),
        Status("synced"),
        Status("synced", verified=True),
        Status("synced", verified=True, cursor=1),
        Status("offline"),
        Status("synced", verified=True),
    ):
        feed.status_changed(status)
    await feed.close()
    assert [event async for event in events] == [Event("synced")] * 2
    assert [event async for event in deaf] == []


async def test_one_callbacks_error_stops_neither_it_nor_the_others(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []
    done = asyncio.Event()

    def fails(event: Event | Missed) -> None:
        heard.append("fails")
        raise RuntimeError("a bug of the application's")

    async def works(event: Event | Missed) -> None:
        await asyncio.sleep(0)
        heard.append("works")
        if heard.count("works") == 2:
            done.set()

    subscriptions = [client.subscribe_events(fails), client.subscribe_events(works)]
    async with client.transaction():  # a callback is outside of the block that it was made in
        await client.collection(Tag).insert(Tag(name="a"))
    await client.collection(Tag).insert(Tag(name="b"))
    await asyncio.wait_for(done.wait(), 10)
    assert heard.count("fails") == 2
    assert "a bug of the application's" in caplog.text
    for subscription in subscriptions:
        subscription.close()
    events = client.events()
    await client.collection(Tag).insert(Tag(name="c"))
    await anext(events)
    assert len(heard) == 4


async def test_a_callback_may_write(client: Client) -> None:
    tags = client.collection(Tag)

    async def answer(event: Event | Missed) -> None:
        await tags.insert(Tag(name="answer"))

    async with client.transaction():
        client.subscribe_events(answer, [Note])
        events = client.events([Tag])
        await client.collection(Note).insert(Note(title="a"))
    told = await asyncio.wait_for(anext(events), 10)
    assert isinstance(told, Event)
    assert told.kind == "inserted"


async def test_events_end_when_the_client_is_closed(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        events = client.events()
        tag = await client.collection(Tag).insert(Tag(name="a"))
        client.subscribe_events(lambda event: None)
    (event,) = [event async for event in events]
    assert isinstance(event, Event)
    assert (event.kind, event.records) == ("inserted", (tag.id,))


async def test_events_that_nobody_holds_any_more_are_forgotten(client: Client) -> None:
    events = client.events()
    await client.collection(Tag).insert(Tag(name="a"))
    del events
    gc.collect()
    assert not client._feed._streams
