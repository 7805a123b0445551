"""Vectors of a space: taken in once, given out as they came, in the order of commits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.limits import VECTORS_MODELS_MAX
from crdt.vectors import BadVector, packed_vector, unpacked_vector
from server import vectors
from server.database import Connection, Database
from server.errors import ModelMismatch, TooLarge
from server.vectors import Model, Vector
from tests.postgres import run
from tests.server.people import Device, enrolled, eventually

__all__: list[str] = []


def vector(record: str, *steps: int, part: int = -1, model: str = "small", hash: bytes = b"h") -> Vector:
    scale = sum(step * step for step in steps) ** -0.5
    return Vector("notes", record, part, model, hash, packed_vector(scale, list(steps)))


async def put(database: Database, device: Device, *sent: Vector) -> int:
    placed = await database.transaction(lambda connection: vectors.put(connection, device.space, sent))
    return placed.head


async def read(database: Database, device: Device, position: int = 0, *, limit: int = 500) -> list[Vector]:
    async with database.connection() as connection:
        part = await vectors.after(connection, device.space, position, limit=limit)
    return [one.vector for one in part.vectors]


async def test_vectors_come_back_as_they_came_in_order_to_the_devices_of_their_space_alone(
    database: Database,
) -> None:
    device, other = await enrolled(database), await enrolled(database)
    sent = [vector("a", 1, 2, -3), vector("b", 127, -128, 0), vector("a", 5, 5, 5, part=0)]
    assert await put(database, device, *sent) == 3
    assert await read(database, device) == sent
    assert await read(database, device, 2) == sent[2:]
    assert await read(database, other) == []


async def test_the_same_vectors_again_change_nothing_and_a_changed_one_moves_to_the_end(
    database: Database,
) -> None:
    device = await enrolled(database)
    sent = [vector("a", 1, 2), vector("b", 3, 4)]
    assert await put(database, device, *sent) == 2
    assert await put(database, device, *sent) == 2
    changed = vector("a", 2, 1, hash=b"of another text")
    assert await put(database, device, changed, sent[1]) == 3
    assert await read(database, device, 2) == [changed]
    assert await read(database, device) == [sent[1], changed]
    async with database.connection() as connection:
        assert await vectors.models(connection, device.space) == [Model("small", 2, 2)]


async def test_of_several_vectors_of_one_part_in_a_request_the_last_counts(database: Database) -> None:
    device = await enrolled(database)
    await put(database, device, vector("a", 1, 2), vector("a", 2, 1))
    assert await read(database, device) == [vector("a", 2, 1)]


async def test_pages_follow_one_another_without_a_gap_and_by_model(database: Database) -> None:
    device = await enrolled(database)
    sent = [vector(f"r{n}", n + 1, 1, model="small" if n % 2 else "other") for n in range(7)]
    await put(database, device, *sent)
    async with database.connection() as connection:
        first = await vectors.after(connection, device.space, 0, limit=4)
        second = await vectors.after(connection, device.space, first.through, limit=4)
        assert not first.is_last
        assert second.is_last
        assert [one.vector for one in (*first.vectors, *second.vectors)] == sent
        ours = await vectors.after(connection, device.space, 0, model="small")
        assert {one.vector.model for one in ours.vectors} == {"small"}
        nothing = await vectors.after(connection, device.space, second.through)
        assert nothing == vectors.VectorsSlice([], second.through, is_last=True)


async def test_another_size_of_the_same_model_is_refused_whole_and_told_what_there_is(
    database: Database,
) -> None:
    device = await enrolled(database)
    await put(database, device, vector("a", 1, 2, 3))
    with pytest.raises(ModelMismatch, match=r"'small' with 2 dimensions .* 'small' with 3 dimensions"):
        await put(database, device, vector("b", 1, 2, 3), vector("c", 1, 2))
    with pytest.raises(ModelMismatch):
        await put(database, device, vector("b", 1, 2, model="new"), vector("c", 1, 2, 3, model="new"))
    assert len(await read(database, device)) == 1


async def test_a_space_has_a_bounded_number_of_models_and_one_can_be_forgotten(database: Database) -> None:
    device, other = await enrolled(database), await enrolled(database)
    for n in range(VECTORS_MODELS_MAX):
        await put(database, device, vector("a", 1, n, model=f"model {n}"))
    await put(database, other, vector("a", 1, 0, model="model 0"))
    with pytest.raises(TooLarge, match="VECTORS_MODELS_MAX"):
        await put(database, device, vector("a", 1, 2, model="one more"))
    await database.transaction(lambda connection: vectors.forget(connection, device.space, "model 0"))
    await put(database, device, vector("a", 1, 2, 3, model="one more"))
    assert len(await read(database, device)) == VECTORS_MODELS_MAX
    assert len(await read(database, other)) == 1


async def test_a_reader_never_passes_a_commit_that_is_still_to_come(database: Database) -> None:
    """A slow writer holds the space's positions: a fast one behind it waits, so nothing appears below a cursor."""
    device = await enrolled(database)
    async with database.connection() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await vectors.put(slow, device.space, [vector("slow", 1, 2)])
        fast = asyncio.create_task(put(database, device, vector("fast", 1, 2)))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

        async def is_waiting() -> bool:
            return bool(await database.pool.fetchval(waiting))

        await eventually(is_waiting)
        assert await read(database, device) == []
        await transaction.commit()
    assert await fast == 2
    assert [one.record_id for one in await read(database, device)] == ["slow", "fast"]


@given(sent=st.lists(st.binary(min_size=12, max_size=12), max_size=8))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_pass_the_check_come_back_from_postgres_as_they_were(
    database_url: str, sent: Sequence[bytes]
) -> None:
    async def there_and_back() -> None:
        connection: Connection = await asyncpg.connect(database_url)  # type: ignore[assignment]
        try:
            space = await connection.fetchval("SELECT gen_random_uuid()")
            taken = [Vector("n", str(n), -1, "m", b"h", data) for n, data in enumerate(sent) if is_one(data)]
            async with connection.transaction():
                await vectors.put(connection, space, taken)
            found = await vectors.after(connection, space, 0)
            assert [one.vector for one in found.vectors] == taken
        finally:
            await connection.close()

    run(there_and_back())


def is_one(data: bytes) -> bool:
    try:
        unpacked_vector(data)
    except BadVector:
        return False
    return True
