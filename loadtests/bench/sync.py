"""Two devices and a server, durable at all three: bulk, and one edit."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import client_sdk
from client_sdk.client import Client
from loadtests.bench.data import Memory, memories
from loadtests.bench.report import percentile, report

__all__ = ["bench_sync"]


async def bench_sync(folder: Path, *, records: int, edits: int) -> None:
    """Print the figures of two devices and a server process of their own."""
    async with _server(folder / "server") as url, _devices(folder, url) as (first, second):
        await _propagation(first, second, edits)
        await _bulk(first, second, records)
        fresh = await client_sdk.open(folder / "fresh.db", records=[Memory], key=bytes(32))
        await fresh.join(url, await first.invite())
        began = time.perf_counter()
        await fresh.connect()
        await fresh.synced(timeout=120)
        seconds = time.perf_counter() - began
        count = await fresh.collection(Memory).count()
        report("bootstrap of a fresh device, verified", count / seconds, "records/s", records=count)
        await fresh.close()


@contextlib.asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[str]:
    program = Path(sys.executable).with_name("pjais-server")
    command = [str(program), "serve", "--port", "0", "--data", str(folder)]
    process = await asyncio.to_thread(
        subprocess.Popen, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        yield line.removeprefix("listening on ").strip()
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)


@contextlib.asynccontextmanager
async def _devices(folder: Path, url: str) -> AsyncIterator[tuple[Client, Client]]:
    first = await client_sdk.open(folder / "first.db", records=[Memory], key=bytes(32))
    second = await client_sdk.open(folder / "second.db", records=[Memory], key=bytes(32))
    try:
        await first.register(url)
        await second.join(url, await first.invite())
        for device in (first, second):
            await device.connect()
            await device.synced(timeout=60)
        yield first, second
    finally:
        await first.close()
        await second.close()


async def _propagation(first: Client, second: Client, edits: int) -> None:
    """From the call on one device to the callback on another, through the server."""
    memory = await first.collection(Memory).insert(memories(1)[0])
    seen: asyncio.Queue[int] = asyncio.Queue()
    watched = second.collection(Memory).where(id=memory.id)
    subscription = watched.subscribe(lambda found: seen.put_nowait(found[0].importance) if found else None)
    await asyncio.wait_for(seen.get(), 30)
    times: list[float] = []
    local: list[float] = []
    for n in range(edits):
        value = n % 100 if n % 100 != memory.importance else 100
        began = time.perf_counter()
        await first.collection(Memory).update(memory.id, importance=value)
        local.append(time.perf_counter() - began)
        while await asyncio.wait_for(seen.get(), 30) != value:
            pass
        times.append(time.perf_counter() - began)
        memory.importance = value
    subscription.close()
    p50, p99 = statistics.median(times) * 1e3, percentile(times, 99) * 1e3
    report(
        "one edit A to B",
        p50,
        "ms (p50)",
        p99=p99,
        local_commit=statistics.median(local) * 1e3,
        target="p50 <= 5 ms, p99 <= 25 ms",
        is_reached=p50 <= 5 and p99 <= 25,
    )


async def _bulk(first: Client, second: Client, records: int) -> None:
    """From the first byte on one device until the last row is durable on the other."""
    before = await second.collection(Memory).count()
    made = memories(records, seed=5)
    began = time.perf_counter()
    await first.collection(Memory).insert_many(made)
    local = time.perf_counter() - began
    await second.synced(timeout=300)
    while await second.collection(Memory).count() < before + records:
        async for status in second.statuses():
            if status.cursor >= status.head and status.state == "synced":
                break
        await asyncio.sleep(0.002)
    total = time.perf_counter() - began
    await first.synced(timeout=300)
    report(
        "A to server to B, bulk, durable at all three",
        records / total,
        "records/s",
        local_insert=records / local,
        verified_after_s=time.perf_counter() - began,
        target=">= 10,000 records/s",
        is_reached=records / total >= 10_000,
        records=records,
    )
