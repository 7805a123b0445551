"""A transaction is all or nothing, sees itself, and is told of once, afterwards."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client_sdk import Client, Collection, ValidationError
from client_sdk.commit import Committed
from client_sdk.errors import TransactionFailed
from tests.client_sdk.device import check_laws, open_device
from tests.client_sdk.records import Note


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as opened:
        yield opened
        await check_laws(opened)


@pytest.fixture
def notes(client: Client) -> Collection[Note]:
    return client.collection(Note)


@pytest.fixture
def told(client: Client) -> list[Committed]:
    heard: list[Committed] = []
    client._writer.listeners.append(heard.append)
    return heard


async def test_a_block_commits_once_and_tells_once(
    client: Client, notes: Collection[Note], told: list[Committed]
) -> None:
    async with client.transaction():
        first = await notes.insert(Note(title="a"))
        await notes.update(first.id, title="b")
        await notes.insert_many([Note(title="c"), Note(title="d")])
        assert not told
    (committed,) = told
    assert [change.kind for change in committed.changes] == ["inserted", "updated", "inserted", "inserted"]
    assert committed.pending == 4


async def test_a_block_sees_its_own_work_and_others_do_not(client: Client, notes: Collection[Note]) -> None:
    async with client.transaction():
        note = await notes.insert(Note(title="a"))
        assert await notes.get(note.id) == note
        assert await notes.where(title="a").count() == 1
        assert (await client.sql("SELECT title FROM notes"))[0]["title"] == "a"
        outside = asyncio.get_running_loop().create_task(notes.count(), context=contextvars.Context())
        assert await outside == 0
    assert await notes.count() == 1


async def test_an_exception_undoes_the_whole_block(
    client: Client, notes: Collection[Note], told: list[Committed]
) -> None:
    kept = await notes.insert(Note(title="kept", views=1))
    digest = await client.digest()
    with pytest.raises(KeyError):
        async with client.transaction():
            await notes.insert(Note(title="a"))
            await notes.increment(kept.id, views=5)
            await notes.delete(kept.id)
            raise KeyError
    assert await notes.all() == [kept]
    assert await client.digest() == digest
    assert len(told) == 1
    assert (await notes.increment(kept.id, views=1)).views == 2


async def test_a_refused_value_inside_a_block_leaves_the_rest_of_it(
    client: Client, notes: Collection[Note]
) -> None:
    async with client.transaction():
        note = await notes.insert(Note(title="a"))
        with pytest.raises(ValidationError):
            await notes.update(note.id, title=5)
        await notes.update(note.id, title="b")
    assert [one.title for one in await notes.all()] == ["b"]


async def test_a_block_whose_statement_failed_cannot_commit(client: Client, notes: Collection[Note]) -> None:
    with pytest.raises(TransactionFailed):
        async with client.transaction():
            await notes.insert(Note(title="a"))
            with pytest.raises(Exception, match="no such table"):
                await client._writer.run(lambda corridor: corridor.connection.execute("DELETE FROM nowhere"))
    assert await notes.count() == 0


async def test_a_cancelled_block_leaves_nothing(client: Client, notes: Collection[Note]) -> None:
    inside, forever = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        async with client.transaction():
            await notes.insert(Note(title="a"))
            inside.set()
            await forever.wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await notes.count() == 0
    await notes.insert(Note(title="after"))


async def test_cancelling_at_any_await_leaves_all_or_nothing(client: Client, notes: Collection[Note]) -> None:
    async def work() -> None:
        async with client.transaction():
            await notes.insert(Note(title="a"))
            await notes.insert(Note(title="b"))

    for turns in range(30):
        before = await notes.count()
        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await notes.count() in {before, before + 2}
        await check_laws(client)


async def test_blocks_wait_for_one_another_and_inner_blocks_join(
    client: Client, notes: Collection[Note]
) -> None:
    note = await notes.insert(Note(title="a"))

    async def work() -> None:
        async with client.transaction(), client.transaction():
            found = await notes.get(note.id)
            assert found is not None
            await asyncio.sleep(0)
            await notes.update(note.id, importance=found.importance + 1)

    await asyncio.gather(*(work() for _ in range(10)))
    found = await notes.get(note.id)
    assert found is not None
    assert found.importance == 60


async def test_many_tasks_write_at_once(client: Client, notes: Collection[Note]) -> None:
    note = await notes.insert(Note(title="a"))
    await asyncio.gather(*(notes.increment(note.id, views=1) for _ in range(50)))
    found = await notes.get(note.id)
    assert found is not None
    assert found.views == 50
