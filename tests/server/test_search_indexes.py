"""A large space gets indexes of its own, they are used, and they go with it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import asyncpg
import numpy as np
import pytest

from client_sdk.embedding.vectors import normalised, quantised
from server import vectors
from server.database import Connection, Database
from server.search import Condition, Question, search
from server.search.indexes import Index, needed, tend
from server.search.statement import search_statement
from server.vectors import Vector
from tests.server.people import Device, enrolled

__all__: list[str] = []

DIMENSIONS = 16
LARGE = 1_000


async def filled(
    database: Database, device: Device, count: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Give a space records with a vector, a text and a number each; return the vectors."""
    made = normalised(np.random.default_rng(3).standard_normal((count, DIMENSIONS)).astype(np.float32))

    async def work(connection: Connection) -> None:
        await connection.execute(
            "INSERT INTO documents (space_id, collection, record_id, position, snapshot, clocks, digest, value) "
            "SELECT $1, 'notes', 'r' || n, n, '', '', decode(repeat('00', 16), 'hex'), jsonb_build_object('n', n) "
            "FROM generate_series(0, $2 - 1) AS n",
            device.space,
            count,
        )
        await connection.execute(
            "INSERT INTO texts (space_id, collection, record_id, part, body) "
            "SELECT $1, 'notes', 'r' || n, -1, 'word' || n FROM generate_series(0, $2 - 1) AS n",
            device.space,
            count,
        )
        sent = [Vector("notes", f"r{n}", -1, "it's", b"h", data) for n, data in enumerate(quantised(made))]
        await vectors.put(connection, device.space, sent)

    await database.transaction(work)
    async with database.connection() as connection:
        await connection.execute("ANALYZE")
    return made


async def present(database: Database) -> set[str]:
    rows = await database.pool.fetch("SELECT relname FROM pg_class WHERE relname LIKE 'large\\_%'")
    return {row[0] for row in rows}


async def plan_of(database: Database, device: Device, vector: Sequence[float]) -> str:
    sql, parameters = search_statement(
        device.space,
        Question(vector=vector, model="it's", text="word7"),
        mode="hybrid",
        texts=LARGE,
        is_small=False,
    )
    async with database.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        # the planner would rather compare a space as small as one in a test: what may be used is asked here
        await connection.execute("SET LOCAL enable_seqscan = off")
        await connection.execute("SET LOCAL enable_sort = off")
        return "\n".join(row[0] for row in await connection.fetch("EXPLAIN " + sql, *parameters))


async def test_a_space_gets_its_indexes_when_it_is_large_and_loses_them_when_it_is_not(
    database: Database,
) -> None:
    large, small = await enrolled(database), await enrolled(database)
    await filled(database, large, LARGE)
    await filled(database, small, LARGE // 10)
    await tend(database.listener, LARGE + 1)
    assert await present(database) == set()
    await tend(database.listener, LARGE)
    await tend(database.listener, LARGE)
    mine = {Index(large.space, "it's", DIMENSIONS).name, Index(large.space).name}
    assert await present(database) == mine
    await tend(database.listener, LARGE + 1)  # it shrank a little
    assert await present(database) == mine
    await database.transaction(lambda connection: vectors.forget(connection, large.space, "it's"))
    await tend(database.listener, LARGE)
    assert await present(database) == set()


async def test_searches_of_a_large_space_go_through_its_index_and_find_what_exact_search_finds(
    database: Database,
) -> None:
    device, other = await enrolled(database), await enrolled(database)
    made = await filled(database, device, 3_000)
    await filled(database, other, LARGE)
    await tend(database.listener, LARGE)
    index = Index(device.space, "it's", DIMENSIONS)
    assert f"Index Scan using {index.name}" in await plan_of(database, device, [1.0] * DIMENSIONS)
    found = 0
    async with database.connection() as connection:
        await connection.execute("SET enable_sort = off")  # see `plan_of`
        for asked in made[:20]:
            question = Question(vector=asked.tolist(), model="it's")
            answer = await search(lambda: nullcontext(connection), device.space, question, mode="meaning")
            nearest = {f"r{n}" for n in np.argsort(-(made @ asked))[:10]}
            found += len(nearest & {hit.record_id for hit in answer.hits})
        # few meet the condition: the index is gone through until enough do
        few = Question(vector=made[0].tolist(), model="it's", conditions=[Condition("n", below=60)])
        answer = await search(lambda: nullcontext(connection), device.space, few, mode="meaning")
        assert {hit.record_id for hit in answer.hits} <= {f"r{n}" for n in range(60)}
        assert len(answer.hits) == 10
        await connection.execute("RESET enable_sort")
    assert found / 200 >= 0.98


async def test_a_build_that_broke_off_is_done_again(database: Database) -> None:
    device = await enrolled(database)
    await filled(database, device, LARGE)
    name = Index(device.space).name
    async with database.connection() as connection:
        await connection.execute(f"CREATE INDEX {name} ON texts USING gin (words)")
        await connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::text::regclass", name
        )
    await tend(database.listener, LARGE)
    is_valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = $1::text::regclass"
    assert await database.pool.fetchval(is_valid, name)


async def test_one_process_tends_at_a_time(database: Database, database_url: str) -> None:
    device = await enrolled(database)
    await filled(database, device, LARGE)
    other = await asyncpg.connect(database_url)
    try:
        await other.execute("SELECT pg_advisory_lock($1)", int.from_bytes(b"pjais-ix", "big"))
        await tend(database.listener, LARGE)
        assert await present(database) == set()
    finally:
        await other.close()
    await tend(database.listener, LARGE)
    assert len(await present(database)) == 2


@pytest.mark.parametrize("model", ["", "a", "a'; DROP TABLE vectors; --"])
async def test_each_index_has_a_name_of_its_own(database: Database, model: str) -> None:
    first, second = await enrolled(database), await enrolled(database)
    names = {Index(space, model, size).name for space in (first.space, second.space) for size in (0, 3)}
    assert len(names) == (4 if model else 2)
    assert all(len(name) < 64 for name in names)
    async with database.connection() as connection:
        assert await needed(connection, 1) == []  # type: ignore[arg-type]
