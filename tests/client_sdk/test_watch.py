"""A watcher is told what is true now, once for each commit that changes it, and never holds up others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client_sdk import Client, Collection
from client_sdk.errors import QueryError
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Line, Note, Tag


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as opened:
        yield opened


@pytest.fixture
def notes(client: Client) -> Collection[Note]:
    return client.collection(Note)


async def test_the_first_result_comes_at_once_and_the_next_after_a_change(notes: Collection[Note]) -> None:
    watch = notes.where(pinned=True).order_by("title").watch()
    assert await anext(watch) == []
    note = await notes.insert(Note(title="a", pinned=True))
    assert await anext(watch) == [note]
    changed = await notes.update(note.id, title="b")
    assert await anext(watch) == [changed]
    await notes.delete(note.id)
    assert await anext(watch) == []
    await watch.aclose()


async def test_a_change_that_does_not_touch_the_result_is_not_told(
    client: Client, notes: Collection[Note]
) -> None:
    heard: list[int] = []
    done = asyncio.Event()

    def callback(found: list[Note]) -> None:
        heard.append(len(found))
        if len(found) == 1:
            done.set()

    subscription = notes.where(pinned=True).subscribe(callback)
    await notes.insert(Note(title="not pinned"))
    await client.collection(Tag).insert(Tag(name="another collection"))
    await notes.insert(Note(title="pinned", pinned=True))
    await asyncio.wait_for(done.wait(), 10)
    assert heard in ([0, 1], [1])
    subscription.close()


async def test_a_transaction_is_one_notice(client: Client, notes: Collection[Note]) -> None:
    watch = notes.where(pinned=True).watch()
    assert await anext(watch) == []
    async with client.transaction():
        for title in "abc":
            await notes.insert(Note(title=title, pinned=True))
    assert len(await anext(watch)) == 3
    await watch.aclose()


async def test_a_slow_consumer_gets_the_latest(notes: Collection[Note]) -> None:
    watch = notes.watch()
    assert await anext(watch) == []
    for title in "abcde":
        await notes.insert(Note(title=title))
    told = [[note.title for note in await anext(watch)]]
    if told[-1] != list("abcde"):  # the last write was made on the thread, and its news is on the way
        told.append([note.title for note in await anext(watch)])
    assert told[-1] == list("abcde")
    await watch.aclose()


async def test_an_error_in_one_callback_does_not_stop_it_or_others(
    notes: Collection[Note], caplog: pytest.LogCaptureFixture
) -> None:
    good: list[int] = []
    bad: list[int] = []

    async def fails(found: list[Note]) -> None:
        bad.append(len(found))
        raise RuntimeError("a bug of the application")

    first, second = notes.subscribe(fails), notes.subscribe(lambda found: good.append(len(found)))
    async with asyncio.timeout(10):
        while not good or not bad:  # noqa: ASYNC110 - lists ring no bell
            await asyncio.sleep(0)
        await notes.insert(Note(title="a"))
        while {good[-1], bad[-1]} != {1}:  # noqa: ASYNC110 - again after the failure, and the other too
            await asyncio.sleep(0)
    assert "callback failed" in caplog.text
    first.close()
    second.close()


async def test_watch_sql_follows_the_tables_that_it_reads(client: Client, notes: Collection[Note]) -> None:
    note = await notes.insert(Note(title="a"))
    watch = client.watch_sql(
        "SELECT n.title, (SELECT count(*) FROM notes__lines l WHERE l.doc = n.doc) AS lines FROM notes n", ()
    )
    assert await anext(watch) == [("a", 0)]
    await notes.append(note.id, lines=[Line(id="1")])
    assert await anext(watch) == [("a", 1)]
    await watch.aclose()
    with pytest.raises(QueryError):
        await anext(client.watch_sql("DELETE FROM notes"))


async def test_closing_the_client_ends_its_watchers(tmp_path: Path) -> None:
    async with open_device(tmp_path / "b.db") as client:
        watch = client.collection(Note).watch()
        assert await anext(watch) == []
        waiting = asyncio.create_task(anext(watch, None))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(waiting, 10) is None
    assert client._watches.counts.open == 0
