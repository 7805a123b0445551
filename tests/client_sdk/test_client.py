"""The door opens once at a time, closes wholly, and says what is missing before it can sync."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import client_sdk
from client_sdk import Record
from client_sdk.errors import ClosedClient, FileInUse, NotRegistered, QueryError, WrongKey
from crdt.errors import SchemaError
from tests.client_sdk.device import KEY, check_laws, open_device
from tests.client_sdk.records import Note


async def test_it_opens_once_at_a_time_and_again_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    client = await open_device(path)
    with pytest.raises(FileInUse):
        await open_device(path)
    await client.close()
    await client.close()
    with pytest.raises(ClosedClient):
        await client.collection(Note).insert(Note(title="late"))
    async with open_device(path) as again:
        assert await again.collection(Note).count() == 0


async def test_another_key_is_named_as_such(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        await client.collection(Note).insert(Note(title="a"))
    with pytest.raises(WrongKey):
        await client_sdk.open(tmp_path / "a.db", records=[Note], key=bytes(32))


async def test_sync_needs_a_space_and_says_how_to_get_one(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        assert not client.is_registered
        for verb in (client.connect, client.invite, client.synced):
            with pytest.raises(NotRegistered, match="register"):
                await verb()
        await client.disconnect()


async def test_status_counts_what_is_pending_also_offline(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        note = await client.collection(Note).insert(Note(title="a"))
        await client.collection(Note).update(note.id, title="b")
        assert (client.status.state, client.status.pending) == ("offline", 2)
        assert [status.pending async for status in client.statuses()] == [2]
    async with open_device(tmp_path / "a.db", seed=2) as client:
        assert client.status.pending == 2


async def test_each_opening_writes_under_a_client_id_of_its_own(tmp_path: Path) -> None:
    seen = set()
    for seed in range(5):
        async with open_device(tmp_path / "a.db", seed=seed) as client:
            seen.add((client._replica.client, client._replica.incarnation))
    assert len({client for client, _ in seen}) == len({incarnation for _, incarnation in seen}) == 5


async def test_equal_records_have_equal_digests_on_different_devices(tmp_path: Path) -> None:
    digests = []
    for name in "ab":
        async with open_device(tmp_path / f"{name}.db", seed=7) as client:
            await client.collection(Note).insert(Note(id="1", title="same"))
            digests.append(await client.digest())
    assert digests[0] == digests[1]
    assert digests[0][1] == 1


async def test_wrong_declarations_are_refused_at_the_door(tmp_path: Path) -> None:
    class Plain(Record):
        name: str

    with pytest.raises(SchemaError, match="Plain is not a record"):
        await client_sdk.open(tmp_path / "a.db", records=[Plain], key=KEY)
    async with open_device(tmp_path / "b.db") as client:
        with pytest.raises(QueryError, match="Plain was not opened"):
            client.collection(Plain)


async def test_long_work_leaves_the_event_loop_its_turns(tmp_path: Path) -> None:
    """While twenty thousand records are written, another task goes on."""
    async with open_device(tmp_path / "a.db") as client:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        await client.collection(Note).insert_many(Note(title=str(n)) for n in range(20_000))
        task.cancel()
        assert turns > 100


async def test_an_insert_that_is_cancelled_is_whole(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        notes = client.collection(Note)
        for turns in range(8):
            task = asyncio.create_task(notes.insert_many(Note(title=str(n)) for n in range(50)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await notes.count() % 50 == 0
            await check_laws(client)
