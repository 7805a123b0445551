"""The log: positions in order, pages bounded, nothing of one space in another's."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt import wire
from server.database import Connection, Database
from server.log import LogRow, append, read_after
from tests.postgres import run

__all__: list[str] = []


def row(
    space: UUID, position: int, *, size: int = 10, device: UUID | None = None, incarnation: int = 1
) -> LogRow:
    return LogRow(
        space,
        position,
        "notes",
        f"r{position}",
        device or UUID(int=7),
        incarnation,
        position,
        77,
        0,
        1,
        bytes(size),
    )


async def test_what_was_appended_is_read_in_order_and_of_this_space_only(database: Database) -> None:
    space, other = uuid4(), uuid4()
    async with database.connection() as connection:
        await append(connection, [row(space, position) for position in (1, 2, 3)] + [row(other, 1)])
        await append(connection, [])
        part = await read_after(connection, space, 1, head=3)
    assert part.through == 3
    assert part.entries == [
        wire.Entry(position, "notes", f"r{position}", 77, bytes(10)) for position in (2, 3)
    ]


async def test_one_position_is_given_once(database: Database) -> None:
    space = uuid4()
    async with database.connection() as connection:
        await append(connection, [row(space, 1)])
        with pytest.raises(asyncpg.UniqueViolationError):
            await append(connection, [row(space, 1)])


async def test_entries_of_one_incarnation_are_left_out_and_their_positions_covered(
    database: Database,
) -> None:
    space, device = uuid4(), uuid4()
    rows = [row(space, n, device=device, incarnation=1 + n % 2) for n in range(1, 8)]
    async with database.connection() as connection:
        await append(connection, rows)
        part = await read_after(connection, space, 0, head=7, but_for=(device, 1))
    assert [entry.position for entry in part.entries] == [1, 3, 5, 7]
    assert part.through == 7


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=30),
    entries_max=st.integers(1, 10),
    bytes_target=st.integers(1, 100),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_cover_the_log_without_gaps_whatever_the_bounds(
    database_url: str, sizes: list[int], entries_max: int, bytes_target: int
) -> None:
    async def follow() -> list[int]:
        connection: Connection = await asyncpg.connect(database_url)  # type: ignore[assignment]
        space, positions, after = uuid4(), [], 0
        try:
            await append(connection, [row(space, n, size=size) for n, size in enumerate(sizes, 1)])
            while after < len(sizes):
                part = await read_after(
                    connection,
                    space,
                    after,
                    head=len(sizes),
                    entries_max=entries_max,
                    bytes_target=bytes_target,
                )
                assert part.entries or part.through == len(sizes)
                assert len(part.entries) <= entries_max
                assert sum(len(entry.update) for entry in part.entries[:-1]) < bytes_target
                assert part.through > after
                positions += [entry.position for entry in part.entries]
                after = part.through
        finally:
            await connection.close()
        return positions

    assert run(follow()) == list(range(1, len(sizes) + 1))
