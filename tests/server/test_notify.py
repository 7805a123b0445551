"""Notices: only ever a wake-up. What is lost costs delay, and the comparison finds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import notify as notify_module
from server.database import Database
from server.notify import HEADS, MATERIALIZED, Notify, read_notices, tell
from tests.server.people import enrolled, eventually

__all__: list[str] = []


class Ears:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.heads: list[int] = []
        self.vectors: list[int] = []
        self.materialized: list[int] = []

    def on_head(self, space: UUID, head: int) -> None:
        self.heads.append(head)

    def on_vectors(self, space: UUID, head: int) -> None:
        self.vectors.append(head)

    def on_materialized(self, space: UUID, position: int) -> None:
        self.materialized.append(position)


@asynccontextmanager
async def running(database: Database, *, compare_interval_s: float = 60.0) -> AsyncIterator[Notify]:
    notify = Notify(database.listener, compare_interval_s=compare_interval_s)
    task = asyncio.create_task(notify.run())
    try:
        await asyncio.wait_for(notify.listening.wait(), 10)
        yield notify
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def end_connections(database: Database, kind: str) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE $1 AND pid <> pg_backend_pid() AND datname = current_database()",
            kind,
        )


async def test_an_announcement_wakes_this_process_at_once(database: Database) -> None:
    notify, ears, space = Notify(database.listener), Ears(), uuid4()
    notify.watch(space, ears)
    notify.announce(space, 7)
    assert ears.heads == [7]
    notify.unwatch(space, ears)
    notify.announce(space, 8)
    assert ears.heads == [7]


async def test_an_announcement_reaches_other_processes(database: Database) -> None:
    ears, space = Ears(), uuid4()
    async with running(database) as here, running(database) as there:
        there.watch(space, ears)
        here.announce(space, 7)
        await eventually(lambda: ears.heads == [7])
        here.announce(uuid4(), 8)
        here.announce(space, 9)
        await eventually(lambda: ears.heads[-1] == 9)
        assert 8 not in ears.heads


async def test_positions_of_the_folding_process_are_heard(database: Database) -> None:
    ears, space = Ears(), uuid4()
    async with running(database) as there:
        there.watch(space, ears)
        async with database.connection() as connection:
            await tell(connection, MATERIALIZED, {space: 5})  # type: ignore[arg-type]
        await eventually(lambda: ears.materialized == [5])


async def test_announcements_are_coalesced_while_one_is_being_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[UUID, int]] = []
    may_go_on = asyncio.Event()

    async def slowly(connection: asyncpg.Connection[Any], channel: str, numbers: dict[UUID, int]) -> None:
        told.append(dict(numbers))
        await may_go_on.wait()
        await tell(connection, channel, numbers)

    monkeypatch.setattr(notify_module, "tell", slowly)
    spaces = [uuid4(), uuid4()]
    async with running(database) as notify:
        notify.announce(spaces[0], 1)
        await eventually(lambda: len(told) == 1)
        for head in range(2, 200):
            notify.announce(spaces[head % 2], head)
        may_go_on.set()
        await eventually(lambda: len(told) == 2)
    assert told == [{spaces[0]: 1}, {spaces[0]: 198, spaces[1]: 199}]


async def test_many_spaces_are_told_in_payloads_that_postgres_takes(database: Database) -> None:
    ears, numbers = Ears(), {uuid4(): (1 << 62) + n for n in range(1_000)}
    async with running(database) as there:
        for space in numbers:
            there.watch(space, ears)
        async with database.connection() as connection:
            await tell(connection, HEADS, numbers)  # type: ignore[arg-type]
        await eventually(lambda: len(ears.heads) >= 1_000)
    assert set(ears.heads) == set(numbers.values())


async def test_a_lost_notice_is_found_by_comparing_heads(database: Database) -> None:
    device, ears = await enrolled(database), Ears()
    async with running(database, compare_interval_s=0.05) as notify:
        notify.watch(device.space, ears)
        async with database.connection() as connection:
            await connection.execute("UPDATE spaces SET head = 9")
            await connection.execute(
                "INSERT INTO materializations (space_id, position) VALUES ($1, 4)", device.space
            )
        await eventually(lambda: 9 in ears.heads and 4 in ears.materialized)


async def test_both_connections_come_back_and_find_what_happened_meanwhile(database: Database) -> None:
    device, ears = await enrolled(database), Ears()
    async with running(database) as here, running(database) as there:
        there.watch(device.space, ears)
        for head in (1, 2, 3):
            await end_connections(database, "%listener")
            async with database.connection() as connection:
                await connection.execute("UPDATE spaces SET head = $1", head)
            await eventually(lambda head=head: head in ears.heads)  # type: ignore[misc]
        await eventually(there.listening.is_set)
        here.announce(device.space, 77)
        await eventually(lambda: 77 in ears.heads)


@given(st.text())
def test_a_payload_of_a_stranger_is_no_error(payload: str) -> None:
    assert list(read_notices(payload)) == [] or all(
        isinstance(number, int) for _, number in read_notices(payload)
    )
