"""Folded documents, read: slice by slice nothing is missed, whatever moves on meanwhile."""

from __future__ import annotations

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server import rows
from server.database import Connection, Database
from server.errors import DocumentsBehind
from tests.postgres import run
from tests.server.people import Device, enrolled, materialized

__all__: list[str] = []


async def grow(database: Database, device: Device, head: int) -> None:
    async with database.connection() as connection:
        await connection.execute("UPDATE spaces SET head = $2 WHERE space_id = $1", device.space, head)


async def test_a_space_that_was_never_folded_stands_at_nothing(database: Database) -> None:
    device = await enrolled(database)
    await grow(database, device, 3)
    async with database.connection() as connection:
        assert await rows.standing(connection, device.space) == rows.Standing(3, 0, bytes(16), 0)
        assert await rows.documents_after(connection, device.space, 0) == rows.DocumentsSlice(
            [], 0, is_last=True
        )
        assert await rows.document_of(connection, device.space, "notes", "r") is None
        assert await rows.json_page(connection, device.space, collection="notes", after="", limit=9) == []


async def test_documents_are_counted_only_as_far_as_it_matters(database: Database) -> None:
    device = await enrolled(database)
    await grow(database, device, 20)
    await materialized(database, device, {f"r{n}": (n, b"x") for n in range(1, 21)})
    async with database.connection() as connection:
        assert await rows.count_after(connection, device.space, 15, at_most=100) == 5
        assert await rows.count_after(connection, device.space, 0, at_most=7) == 7


async def test_documents_before_the_cursor_mean_that_they_are_folded_anew(database: Database) -> None:
    device = await enrolled(database)
    async with database.connection() as connection:
        with pytest.raises(DocumentsBehind):
            await rows.documents_after(connection, device.space, 5)


@given(
    positions=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    moves=st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=10),
    entries_max=st.integers(1, 4),
    bytes_target=st.integers(1, 60),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_reads_to_the_last_slice_has_every_document_as_it_stands(
    database_url: str,
    positions: list[int],
    moves: list[tuple[int, bool]],
    entries_max: int,
    bytes_target: int,
) -> None:
    """Between two slices documents get updates, and so other positions."""

    async def follow() -> None:
        connection: Connection = await asyncpg.connect(database_url)  # type: ignore[assignment]
        try:
            await _follow(connection)
        finally:
            await connection.close()

    async def _follow(connection: Connection) -> None:
        space = await connection.fetchval(
            "INSERT INTO spaces (space_id, account_id, generation, head) "
            "VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 12) RETURNING space_id"
        )
        stands = {
            f"r{n}": (position, b"x" * (n % 5 * 10)) for n, position in enumerate(dict.fromkeys(positions))
        }
        head = 12

        async def fold(records: dict[str, tuple[int, bytes]]) -> None:
            async with connection.transaction():
                await connection.executemany(
                    "INSERT INTO documents (space_id, collection, record_id, position, snapshot, clocks, digest) "
                    "VALUES ($1, 'notes', $2, $3, $4, '', decode(repeat('00', 16), 'hex')) "
                    "ON CONFLICT (space_id, collection, record_id) DO UPDATE SET position = $3, snapshot = $4",
                    [(space, record, *stand) for record, stand in records.items()],
                )
                await connection.execute(
                    "INSERT INTO materializations (space_id, position) VALUES ($1, $2) "
                    "ON CONFLICT (space_id) DO UPDATE SET position = $2",
                    space,
                    head,
                )

        await fold(stands)
        held: dict[str, tuple[int, bytes]] = {}
        cursor, is_last, left = 0, False, list(moves)
        while not is_last:
            part = await rows.documents_after(
                connection, space, cursor, entries_max=entries_max, bytes_target=bytes_target
            )
            assert len(part.states) <= entries_max
            assert sum(len(state.snapshot) for state in part.states[:-1]) < bytes_target
            held |= {state.record: (state.position, state.snapshot) for state in part.states}
            cursor, is_last = part.through, part.is_last
            if left and not is_last:
                number, _ = left.pop()
                head += 1
                record = f"r{number % len(stands)}"
                stands[record] = (head, stands[record][1] + b"y")
                await fold({record: stands[record]})
        assert held == stands
        assert cursor == head

    run(follow())
