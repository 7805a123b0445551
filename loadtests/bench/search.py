"""Search by text on one device: how long it takes, and what its index costs to write and to keep."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Sequence
from pathlib import Path

import client_sdk
from client_sdk import Collection
from client_sdk.database import Connection
from client_sdk.rows import Table
from client_sdk.typed import Typed
from crdt.schema import schema_of
from loadtests.bench.data import Memory, SearchableMemory, searchable_memories, vocabulary
from loadtests.bench.raw import open_raw
from loadtests.bench.report import percentile, report

__all__ = ["bench_search"]

KEY = bytes(range(32))
SEARCHES = 200
BULK = 20_000


async def bench_search(folder: Path, *, records: int) -> None:
    """Print the figures of search with ``records`` memories whose words are as often as those of a language."""
    await _bulk(folder)
    path = folder / "search.db"
    async with client_sdk.open(path, records=[SearchableMemory], key=KEY, embedder="off") as client:
        memories = client.collection(SearchableMemory)
        for start in range(0, records, 10_000):
            count = min(10_000, records - start)
            await memories.insert_many(searchable_memories(count, seed=start))
        texts = await _texts(memories)
        for name, asked in texts.items():
            await _search(memories, path, name, asked, records)
        await _search(memories, path, "the commonest words", vocabulary()[:20], records)
        await _of_one_persona(memories, texts["one word"])
    _share(path, records)
    _check(path, records)


async def _texts(memories: Collection[SearchableMemory]) -> dict[str, list[str]]:
    """Return what is typed: words out of a record, so that there is something to find."""
    chance = random.Random(3)
    some = [chance.choice(await memories.limit(2_000).all()).summary.split() for _ in range(SEARCHES)]
    return {
        "two words": [" ".join(chance.sample(words, 2)) for words in some],
        "one word": [chance.choice(words) for words in some],
        "a phrase": [f'"{words[3]} {words[4]}"' for words in some],
        "a word half typed": [f"{words[0]} {words[1][: max(3, len(words[1]) // 2)]}" for words in some],
    }


async def _search(
    memories: Collection[SearchableMemory], path: Path, name: str, texts: Sequence[str], records: int
) -> None:
    connection = open_raw(path, KEY, synchronous="FULL")
    sql = (
        "SELECT rowid, rank FROM pjais_text_memories WHERE pjais_text_memories MATCH ? ORDER BY rank LIMIT 50"
    )
    ours: list[float] = []
    raw: list[float] = []
    found = 0
    for text in texts:
        began = time.perf_counter()
        found += len(await memories.search(text))
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        connection.execute(sql, (Typed.of(text).all,)).fetchall()
        raw.append(time.perf_counter() - began)
    connection.close()
    p50 = percentile(ours, 50) * 1e3
    report(
        f"search by text, {name}, {records:,} memories",
        p50,
        "ms (p50)",
        raw=percentile(raw, 50) * 1e3,
        p99=percentile(ours, 99) * 1e3,
        raw_p99=percentile(raw, 99) * 1e3,
        hits=found / len(texts),
        target="p50 <= 20 ms",
        is_reached=p50 <= 20,
    )


async def _of_one_persona(memories: Collection[SearchableMemory], texts: Sequence[str]) -> None:
    times = []
    for text in texts:
        began = time.perf_counter()
        await memories.search(text, persona_id="persona-7")
        times.append(time.perf_counter() - began)
    p50 = percentile(times, 50) * 1e3
    report(
        "search by text, one word, one persona of 100",
        p50,
        "ms (p50)",
        p99=percentile(times, 99) * 1e3,
        target="p50 <= 20 ms",
        is_reached=p50 <= 20,
    )


async def _bulk(folder: Path) -> None:
    """The same memories with and without the index, turn by turn."""
    made = searchable_memories(BULK, seed=4)
    plain = [Memory(**{name: getattr(one, name) for name in Memory.__struct_fields__}) for one in made]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2):
        for is_indexed in (False, True):
            record = SearchableMemory if is_indexed else Memory
            path = folder / f"bulk-{turn}-{is_indexed}.db"
            async with client_sdk.open(path, records=[record], key=KEY, embedder="off") as client:
                gc.collect()
                began = time.perf_counter()
                await client.collection(record).insert_many(made if is_indexed else plain)
                seconds[is_indexed].append(time.perf_counter() - began)
    without, indexed = BULK / min(seconds[False]), BULK / min(seconds[True])
    report(
        "bulk insert, searchable",
        indexed,
        "records/s",
        without_index=without,
        ratio=indexed / without,
        target=">= 10,000 records/s",
        is_reached=indexed >= 10_000,
    )


def _share(path: Path, records: int) -> None:
    """What the text index, and all declared indexes with it, have of the file: the pages that dropping them frees."""
    connection = open_raw(path, KEY, synchronous="FULL")
    connection.execute("BEGIN IMMEDIATE")
    total = connection.execute("PRAGMA page_count").fetchall()[0][0] - _free(connection)
    indexes = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    before = _free(connection)
    connection.execute("DROP TABLE pjais_text_memories")
    text = _free(connection) - before
    for (name,) in indexes:
        connection.execute(f'DROP INDEX "{name}"')
    both = _free(connection) - before
    connection.execute("ROLLBACK")
    connection.close()
    report(
        "indexes in the file",
        100 * both / total,
        "% of its bytes, with the text index",
        text_index=100 * text / total,
        text_index_bytes_a_record=text * 4096 / records,
        file_bytes_a_record=total * 4096 / records,
        target="< 20 %",
        is_reached=both / total < 0.2,
    )


def _check(path: Path, records: int) -> None:
    """What the look at the index costs when a file is opened."""
    connection = open_raw(path, KEY, synchronous="FULL")
    table = Table(schema_of(SearchableMemory))
    began = time.perf_counter()
    assert table.is_indexed(connection)
    report(f"look over the text index, {records:,} memories", (time.perf_counter() - began) * 1e3, "ms")
    connection.close()


def _free(connection: Connection) -> int:
    ((pages,),) = connection.execute("PRAGMA freelist_count").fetchall()
    return int(pages)
