"""Search on the server: many small spaces and a large one, beside a bare pgvector query of the same vectors.

``FULL=1`` makes 1,000 spaces of 1,000 vectors and one of 200,000; without it there are 200 and one of 20,000.
Vectors lie in clusters, as those of a person's memories do. Recall at 10 is of exact search with the float32 vectors.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt
import uvloop

from client_sdk.embedding.vectors import normalised, quantised
from loadtests.bench.report import percentile, report
from server import vectors
from server.database import Connection, Database
from server.embedded import EmbeddedPostgres
from server.search import Condition, Mode, Question, indexes, search
from server.settings import load_settings
from server.vectors import Vector

__all__ = ["bench_server_search"]

Floats: TypeAlias = npt.NDArray[np.float32]

DIMENSIONS: Final = 384
_QUESTIONS: Final = 200
_MODES: Final[tuple[Mode, ...]] = ("meaning", "hybrid", "text")
_TOPICS: Final = 400
_BATCH: Final = 500
_TURNS: Final = 50
_BARE: Final = f"""
SELECT record_id FROM vectors WHERE space_id = $1 AND model = 'm' AND dimensions <= 1000
ORDER BY (vector::halfvec({DIMENSIONS})) <=> (SELECT $2::text::halfvec({DIMENSIONS})) LIMIT 10
"""


def bench_server_search(folder: Path) -> None:
    """Print the figures, in an event loop as the server's own."""
    is_full = bool(os.environ.get("FULL"))
    spaces, large = (1_000, 200_000) if is_full else (200, 20_000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_bench(folder, spaces, large))


class _Data:
    """Vectors around topics, texts of words as rare as in a language, from a seed."""

    def __init__(self) -> None:
        self.chance = np.random.default_rng(7)
        self.topics = self.vectors_near(np.zeros((_TOPICS, DIMENSIONS), np.float32))

    def vectors_near(self, centres: Floats) -> Floats:
        noise = normalised(self.chance.standard_normal(centres.shape).astype(np.float32))
        return normalised(centres + noise)

    def vectors(self, count: int) -> Floats:
        return self.vectors_near(self.topics[self.chance.integers(0, _TOPICS, count)])

    def text(self, words: int) -> str:
        return " ".join(f"w{number}x" for number in self.chance.zipf(1.3, words) % 20_000)


async def _bench(folder: Path, spaces: int, large: int) -> None:
    data = _Data()
    async with EmbeddedPostgres(folder / "postgres") as postgres:
        settings = load_settings(database_url=postgres.url)
        database = await Database.connect(postgres.url, settings)
        await database.migrate()
        small = [uuid4() for _ in range(spaces)]
        began = time.perf_counter()
        held = {space: await _fill(database, space, data, 1_000) for space in small}
        seconds = time.perf_counter() - began
        report("vectors and texts taken in", spaces * 1_000 / seconds, "vectors/s")
        await _settled(database)
        await _size(database, f"{spaces:,} spaces of 1,000", spaces * 1_000, "vectors_by_model")
        for mode in _MODES:
            await _ask(database, data, f"{spaces:,} spaces of 1,000: {mode}", held, mode, ms_max=10)
        await _ask(
            database, data, f"{spaces:,} spaces of 1,000: hybrid, filtered", held, "hybrid", is_filtered=True
        )
        talks = [uuid4() for _ in range(spaces // 10)]
        said = {space: await _fill(database, space, data, 1_000, turns=_TURNS) for space in talks}
        await _settled(database)
        name = f"{len(talks):,} spaces of 1,000 turns in conversations of {_TURNS}"
        await _ask(database, data, f"{name}: hybrid", said, "hybrid")
        await _large(database, data, large)
        await database.close()


async def _large(database: Database, data: _Data, count: int) -> None:
    space = uuid4()
    held = {space: await _fill(database, space, data, count)}
    await _settled(database)
    name = f"one space of {count:,}"
    for mode in _MODES[:2]:
        await _ask(database, data, f"{name}, compared whole: {mode}", held, mode)
    began = time.perf_counter()
    await indexes.tend(database.listener, min(count, 20_000))
    report(f"{name}: its indexes made", time.perf_counter() - began, "s")
    await _settled(database)
    async with database.connection() as connection:
        made = await indexes.needed(connection, min(count, 20_000))  # type: ignore[arg-type]
    for index in made:
        await _size(database, f"{name}, {'vectors' if index.model else 'words'}", count, index.name)
    for mode in _MODES:
        await _ask(database, data, f"{name}: {mode}", held, mode, ms_max=50)
    await _ask(database, data, f"{name}: hybrid, filtered", held, "hybrid", is_filtered=True)


async def _fill(database: Database, space: UUID, data: _Data, count: int, turns: int = 0) -> Floats:
    """Store texts with a vector each, as a device and the folding process do; return the vectors.

    One text a record, or (``turns``) so many.
    """
    made = data.vectors(count)
    stored = quantised(made)
    places = [(f"r{n // turns}", n % turns) if turns else (f"r{n}", -1) for n in range(count)]
    records = list(dict.fromkeys(record for record, _ in places))

    async def fold(connection: Connection) -> None:
        await connection.execute(
            "INSERT INTO spaces (space_id, account_id, generation) VALUES ($1, $1, $1)", space
        )
        await connection.execute(
            "INSERT INTO materializations (space_id, records) VALUES ($1, $2)", space, len(records)
        )
        await connection.copy_records_to_table(
            "documents",
            records=[
                (space, "memories", record, n, bytes(300), b"", bytes(16), f'{{"persona": "p{n % 20}"}}')
                for n, record in enumerate(records, 1)
            ],
            columns=[
                "space_id",
                "collection",
                "record_id",
                "position",
                "snapshot",
                "clocks",
                "digest",
                "value",
            ],
        )
        await connection.copy_records_to_table(
            "texts",
            records=[(space, "memories", *place, data.text(20)) for place in places],
            columns=["space_id", "collection", "record_id", "part", "body"],
        )

    await database.transaction(fold)
    for start in range(0, count, _BATCH):
        batch = [
            Vector("memories", *places[n], "m", bytes(16), stored[n])
            for n in range(start, min(count, start + _BATCH))
        ]
        await database.transaction(lambda connection, batch=batch: vectors.put(connection, space, batch))  # type: ignore[misc]
    return made


async def _settled(database: Database) -> None:
    """What autovacuum does after a while."""
    async with database.connection() as connection:
        await connection.execute("VACUUM ANALYZE", timeout=600)


async def _size(database: Database, name: str, count: int, index: str) -> None:
    size = await database.pool.fetchval("SELECT pg_relation_size($1::text::regclass)", index)
    report(f"{name}: index", size / 2**20, "MiB", bytes_a_vector=size / count)


async def _ask(
    database: Database,
    data: _Data,
    name: str,
    held: dict[UUID, Floats],
    mode: Mode,
    *,
    ms_max: float | None = None,
    is_filtered: bool = False,
) -> None:
    """Ask questions of spaces in turn, each beside the bare query; print times and recall of the ten nearest."""
    spaces = list(held)
    times: list[float] = []
    bare_times: list[float] = []
    found, bare_found = 0, 0
    conditions = [Condition("persona", values=["p3"])] if is_filtered else []
    async with database.connection() as connection:
        for n in range(_QUESTIONS):
            space = spaces[n * 7 % len(spaces)]
            (asked,) = data.vectors(1)
            vector = asked.tolist()
            nearest = {f"r{place}" for place in np.argsort(-(held[space] @ asked))[:10]}
            question = Question(text=data.text(5), vector=vector, model="m", conditions=conditions, limit=10)

            def lend() -> AbstractAsyncContextManager[Connection]:
                return nullcontext(connection)

            async def ours(space: UUID = space, question: Question = question) -> set[str]:
                return {hit.record_id for hit in (await search(lend, space, question, mode=mode)).hits}

            async def bare(space: UUID = space, vector: str = str(vector)) -> set[str]:
                return {row["record_id"] for row in await connection.fetch(_BARE, space, vector)}

            # whoever comes second finds the space's pages in memory: in turn
            for way, spent in ((ours, times), (bare, bare_times))[:: 1 if n % 2 else -1]:
                began = time.perf_counter()
                records = await way()
                spent.append(time.perf_counter() - began)
                if way is ours:
                    found += len(nearest & records)
                else:
                    bare_found += len(nearest & records)
    more: dict[str, Any] = {}
    if mode == "meaning":
        more = {"recall_at_10": found / _QUESTIONS / 10, "bare_recall_at_10": bare_found / _QUESTIONS / 10}
    if ms_max is not None:
        more |= {"target": f"p50 <= {ms_max} ms", "is_reached": percentile(times, 50) * 1e3 <= ms_max}
    report(
        name,
        percentile(times, 50) * 1e3,
        "ms (p50)",
        raw=percentile(bare_times, 50) * 1e3,
        ratio=percentile(bare_times, 50) / percentile(times, 50),
        p99=percentile(times, 99) * 1e3,
        bare_p99=percentile(bare_times, 99) * 1e3,
        **more,
    )
