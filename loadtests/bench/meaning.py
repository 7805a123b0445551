"""Search by meaning on one device: how long it takes, what embedding costs, and whether a write feels it.

The vectors that are searched are those of words hashed (`HashingEmbedder`), since what they mean does not change how
long it takes to compare them: a model would take an hour for 100,000 texts of this length. The rate of embedding is the
default model's, and so is the time of a question, which comes on top of a search that is asked for the first time.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import numpy as np

import client_sdk
from client_sdk import Collection
from client_sdk.embedding import HashingEmbedder, MiniLm
from client_sdk.embedding.vectors import dot, quantised, unpacked
from client_sdk.hits import Mode
from client_sdk.meaning.background import GATHER_S
from loadtests.bench.data import SearchableMemory, searchable_memories
from loadtests.bench.report import percentile, report

__all__ = ["bench_meaning"]

KEY = bytes(range(32))
SEARCHES = 200
SHORT_TEXTS = 400
QUESTIONS = 100
INSERT_TURNS = 4
INSERTS_A_TURN = 75
TEXTS_A_TURN = 100


async def bench_meaning(folder: Path, *, records: int) -> None:
    """Print the figures with 1,000 memories and with ``records``."""
    for count in sorted({1_000, records}):
        await _search(folder / f"{count}.db", count)
    _raw(records)
    await _embed(folder / "embed.db")
    await _insert(folder)


async def _search(path: Path, records: int) -> None:
    embedder = HashingEmbedder()
    async with client_sdk.open(path, records=[SearchableMemory], key=KEY, embedder=embedder) as client:
        memories = client.collection(SearchableMemory)
        for start in range(0, records, 10_000):
            await memories.insert_many(searchable_memories(min(10_000, records - start), seed=start))
        began = time.perf_counter()
        await client.embedded(timeout=3_600)
        report(
            f"vectors kept right, {records:,} memories", records / (time.perf_counter() - began), "texts/s"
        )
        began = time.perf_counter()
        await memories.search("green", limit=10)
        first_ms = (time.perf_counter() - began) * 1e3
        chance = random.Random(3)
        some = [chance.choice(await memories.limit(1_000).all()).summary.split() for _ in range(SEARCHES)]
        texts = [" ".join(chance.sample(words, 3)) for words in some]
        targets = (50.0, 120.0) if records > 1_000 else (5.0, 12.0)
        await _ask(memories, texts, "hybrid", records, targets, first_ms=first_ms)
        await _ask(memories, texts, "meaning", records, targets)
        targets = (20.0, 60.0) if records > 1_000 else (5.0, 12.0)
        await _ask(memories, texts, "hybrid", records, targets, persona_id="persona-7")


async def _ask(
    memories: Collection[SearchableMemory],
    texts: list[str],
    mode: Mode,
    records: int,
    targets: tuple[float, float],
    first_ms: float | None = None,
    persona_id: str | None = None,
) -> None:
    asked = memories.where() if persona_id is None else memories.where(persona_id=persona_id)
    seconds = []
    for text in texts:
        began = time.perf_counter()
        await asked.search(text, limit=10, mode=mode)
        seconds.append(time.perf_counter() - began)
    p50, p99 = (percentile(seconds, percent) * 1e3 for percent in (50, 99))
    report(
        f"search {mode}{', of one persona' if persona_id else ''}, {records:,} memories",
        p50,
        "ms (p50)",
        p99=p99,
        **({} if first_ms is None else {"first_with_loading_ms": first_ms}),
        target=f"p50 <= {targets[0]:g} ms, p99 <= {targets[1]:g} ms",
        is_reached=p50 <= targets[0] and p99 <= targets[1],
    )


def _raw(count: int) -> None:
    """Compare as many vectors with a question, and nothing else."""
    made = np.random.default_rng(1).standard_normal((count, 384), np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    scales, components = unpacked(quantised(made), dimensions=384)
    seconds = []
    for query in made[:100]:
        began = time.perf_counter()
        dot(scales, components, query)
        seconds.append(time.perf_counter() - began)
    p50 = percentile(seconds, 50) * 1e3
    report(f"compare {count:,} vectors of 384", p50, "ms (p50)", target="<= 10 ms", is_reached=p50 <= 10)


async def _embed(path: Path) -> None:
    embedder = MiniLm()
    async with client_sdk.open(path, records=[SearchableMemory], key=KEY, embedder=embedder) as client:
        memories = client.collection(SearchableMemory)
        await memories.insert(_short(0))
        await client.embedded(timeout=60)  # loaded
        await memories.insert_many(_short(number) for number in range(1, SHORT_TEXTS + 1))
        began = time.perf_counter()
        await client.embedded(timeout=600)
        rate = SHORT_TEXTS / (time.perf_counter() - began)
    seconds = []
    for number in range(QUESTIONS):
        began = time.perf_counter()
        await embedder.embed([f"where did we buy {number} apples?"], kind="query")
        seconds.append(time.perf_counter() - began)
    await embedder.close()
    p50, p99 = (percentile(seconds, percent) * 1e3 for percent in (50, 99))
    report("embed a question", p50, "ms (p50)", p99=p99)
    report("embed short texts", rate, "texts/s", target=">= 100 texts/s", is_reached=rate >= 100)


async def _insert(folder: Path) -> None:
    """The same inserts with nothing embedded, and with the model at work all the time, in turns."""
    embedder = MiniLm()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    async with (
        client_sdk.open(folder / "off.db", records=[SearchableMemory], key=KEY, embedder="off") as without,
        client_sdk.open(
            folder / "on.db", records=[SearchableMemory], key=KEY, embedder=embedder
        ) as embedding,
    ):
        for _ in range(INSERT_TURNS):
            for client in (without, embedding):
                memories = client.collection(SearchableMemory)
                if client is embedding:
                    await memories.insert_many(searchable_memories(TEXTS_A_TURN, seed=9))
                    await asyncio.sleep(2 * GATHER_S)  # so it has begun
                for number in range(INSERTS_A_TURN):
                    began = time.perf_counter()
                    await memories.insert(_short(number))
                    seconds[client is embedding].append(time.perf_counter() - began)
            assert (await embedding.embedding_progress()).waiting, "embedding ended before the inserts did"
            await embedding.embedded(timeout=600)
    await embedder.close()
    p50, p99 = ({on: percentile(seconds[on], percent) * 1e3 for on in seconds} for percent in (50, 99))
    report(
        "insert while embedding",
        p50[True],
        "ms (p50)",
        raw=p50[False],
        ratio=p50[False] / p50[True],
        p99=p99[True],
        p99_raw=p99[False],
        target="unchanged: within a tenth",
        is_reached=p50[True] <= 1.1 * p50[False],
    )


def _short(number: int) -> SearchableMemory:
    name = f"Walked by the river with Anna and bought {number % 90 + 10} apples"
    return SearchableMemory(persona_id="persona-1", name=name)
