"""One device: insert, bulk insert, append, query, open."""

from __future__ import annotations

import asyncio
import gc
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import client_sdk
from client_sdk import Config
from client_sdk.client import Client
from loadtests.bench.data import Memory, Talk, memories, message
from loadtests.bench.raw import Recorder, open_raw, replay
from loadtests.bench.report import percentile, report

__all__ = ["bench_device", "scratch"]

KEY = bytes(range(32))


async def bench_device(folder: Path, *, records: int) -> None:
    """Print the figures of one device, with ``records`` memories where many are needed."""
    for synchronous in ("FULL", "NORMAL"):
        await _insert(folder, synchronous, count=400)
    await _bulk(folder, count=20_000)
    await _append(folder)
    path = folder / "many.db"
    async with client_sdk.open(path, records=[Memory, Talk], key=KEY) as client:
        made = memories(records)
        for start in range(0, records, 10_000):
            await client.collection(Memory).insert_many(made[start : start + 10_000])
        await _query(client, path, records)
    await _open(path, records)


async def _insert(folder: Path, synchronous: str, *, count: int) -> None:
    """One durable insert at a time, beside the same statements without the SDK, turn by turn in one run."""
    path, copy, recorder = folder / f"insert-{synchronous}.db", folder / f"raw-{synchronous}.db", Recorder()
    config = Config(synchronous=synchronous)  # type: ignore[arg-type]
    async with client_sdk.open(
        path, records=[Memory], key=KEY, config=config, connect=recorder.connect
    ) as client:
        await client.collection(Memory).insert_many(memories(2_000, seed=2))
    shutil.copyfile(path, copy)
    raw_connection = open_raw(copy, KEY, synchronous=synchronous)
    ours: list[float] = []
    raw: list[float] = []
    async with client_sdk.open(
        path, records=[Memory], key=KEY, config=config, connect=recorder.connect
    ) as client:
        collection = client.collection(Memory)
        made = memories(count, seed=3)
        recorder.is_on = True
        for start in range(0, count, 20):
            recorder.statements.clear()
            for memory in made[start : start + 20]:
                began = time.perf_counter()
                await collection.insert(memory)
                ours.append(time.perf_counter() - began)
            raw += replay(raw_connection, recorder.statements)
    raw_connection.close()
    ratio = statistics.median(raw) / statistics.median(ours)
    report(
        f"insert, synchronous={synchronous}",
        statistics.median(ours) * 1e6,
        "us (p50)",
        raw=statistics.median(raw) * 1e6,
        ratio=ratio,
        target="ratio >= 0.6",
        is_reached=ratio >= 0.6,
        per_second=1 / statistics.mean(ours),
        p99=percentile(ours, 99) * 1e6,
    )


async def _bulk(folder: Path, *, count: int) -> None:
    path, copy, recorder = folder / "bulk.db", folder / "bulk-raw.db", Recorder()
    async with client_sdk.open(path, records=[Memory], key=KEY):
        pass
    shutil.copyfile(path, copy)
    made = memories(count, seed=4)
    async with client_sdk.open(path, records=[Memory], key=KEY, connect=recorder.connect) as client:
        recorder.is_on = True
        gc.collect()
        began = time.perf_counter()
        await client.collection(Memory).insert_many(made)
        ours = time.perf_counter() - began
        recorder.is_on = False
    connection = open_raw(copy, KEY, synchronous="FULL")
    (raw,) = replay(connection, recorder.statements)
    connection.close()
    report(
        "bulk insert",
        count / ours,
        "records/s",
        raw=count / raw,
        ratio=raw / ours,
        target=">= 10,000 records/s and ratio >= 0.4",
        is_reached=count / ours >= 10_000 and raw / ours >= 0.4,
    )


async def _append(folder: Path) -> None:
    medians: dict[int, float] = {}
    async with client_sdk.open(folder / "append.db", records=[Talk], key=KEY) as client:
        talks = client.collection(Talk)
        for length in (10, 10_000):
            talk = await talks.insert(Talk(name=str(length), messages=[message(n) for n in range(length)]))
            times = []
            for n in range(200):
                began = time.perf_counter()
                await talks.append(talk.id, messages=[message(length + n)])
                times.append(time.perf_counter() - began)
            medians[length] = statistics.median(times[20:])
    ratio = medians[10_000] / medians[10]
    report(
        "append at 10,000 messages",
        medians[10_000] * 1e6,
        "us (p50)",
        at_10=medians[10] * 1e6,
        times_that_at_10=ratio,
        target="<= 1.5 times that at 10",
        is_reached=ratio <= 1.5,
    )


async def _query(client: Client, path: Path, records: int) -> None:
    """Filtered, sorted, limited; beside the same SQL with the plainest decoding."""
    query = client.collection(Memory).where(persona_id="persona-7").where("importance", ">=", 20)
    query = query.order_by("importance", "desc").order_by("last_accessed", "desc").limit(50)
    plan = query.plan
    sql, parameters = plan.sql(plan.table.select)  # the raw limit runs the same SQL
    connection = open_raw(path, KEY, synchronous="FULL")
    ours: list[float] = []
    raw: list[float] = []
    for _ in range(60):
        began = time.perf_counter()
        found = await query.all()
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        rows = connection.execute(sql, parameters).fetchall()
        plan.table.records(connection, rows)
        raw.append(time.perf_counter() - began)
        assert len(found) == len(rows) == 50
    connection.close()
    times = statistics.median(ours) / statistics.median(raw)
    report(
        f"query at {records:,} records",
        statistics.median(ours) * 1e3,
        "ms (p50)",
        raw=statistics.median(raw) * 1e3,
        times_raw=times,
        target="<= 1.5 times raw SQL and decoding",
        is_reached=times <= 1.5,
    )


_OPEN = """
import asyncio, sys, time
began = time.perf_counter()
import client_sdk
from loadtests.bench.data import Memory, Talk
imported = time.perf_counter()
async def main():
    opening = time.perf_counter()
    async with client_sdk.open(sys.argv[1], records=[Memory, Talk], key=bytes(range(32))) as client:
        found = await client.collection(Memory).order_by("importance", "desc").limit(50).all()
        assert len(found) == 50
        print(imported - began, time.perf_counter() - opening)
asyncio.run(main())
"""


async def _open(path: Path, records: int) -> None:
    imports: list[float] = []
    opens: list[float] = []
    for _ in range(7):
        command = [sys.executable, "-c", _OPEN, str(path)]
        done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
        imported, opened = map(float, done.stdout.split())
        imports.append(imported)
        opens.append(opened)
    opened, imported = statistics.median(opens) * 1e3, statistics.median(imports) * 1e3
    report(
        f"open to first result at {records:,} records",
        opened,
        "ms (p50)",
        target="<= 60 ms after import",
        is_reached=opened <= 60,
    )
    report("import client_sdk", imported, "ms (p50)", target="<= 200 ms", is_reached=imported <= 200)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a folder on a real disk, where an fsync costs what it costs."""
    return tempfile.TemporaryDirectory(prefix="pjais-bench-", dir=Path.cwd())
