"""Two devices and a server, each a process of its own, durable at all three: bulk, and one edit.

The second device is this file run as a program: it reads orders from its standard input and answers with times of
the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
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

__all__ = ["bench_sync", "running_server"]

# One transaction of a bulk import: large enough to share its fsync, small enough that the server begins early.
_CHUNK = 1_000


async def bench_sync(folder: Path, *, records: int, edits: int) -> None:
    """Print the figures of two devices and a server."""
    async with running_server(folder / "server") as url:
        first = await client_sdk.open(folder / "first.db", records=[Memory], key=bytes(32))
        await first.register(url)
        await first.connect()
        memory = await first.collection(Memory).insert(memories(1)[0])
        await first.synced(timeout=60)
        async with _second(folder / "second.db", url, await first.invite()) as second:
            await _propagation(first, second, memory, edits)
        async with _second(folder / "fresh.db", url, await first.invite()) as fresh:
            await _bulk(first, fresh, records)
        async with _second(folder / "late.db", url, await first.invite(), is_timed=True) as late:
            seconds = float((await late.ask("ready"))[1])
            count = await first.collection(Memory).count()
            report("bootstrap of a fresh device, verified", count / seconds, "records/s", records=count)
        await first.close()


class _Process:
    """A second device in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def order(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    async def ask(self, word: str) -> list[str]:
        """Wait for the answer that begins with a word."""
        assert self._process.stdout is not None
        while line := (await asyncio.wait_for(self._process.stdout.readline(), 300)).decode().split():
            if line[0] == word:
                return line
        raise RuntimeError("the second device has ended")


@contextlib.asynccontextmanager
async def running_server(folder: Path) -> AsyncIterator[str]:
    """A server on a Postgres of its own, in a process of its own; yields its address."""
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
async def _second(path: Path, url: str, code: str, *, is_timed: bool = False) -> AsyncIterator[_Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtests.bench.sync", path, url, code,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    second = _Process(process)
    try:
        if not is_timed:
            await second.ask("ready")
        yield second
    finally:
        await second.order("end")
        await asyncio.wait_for(process.wait(), 60)


async def _propagation(first: Client, second: _Process, memory: Memory, edits: int) -> None:
    """From the call on one device to the callback on another, through the server."""
    await second.order(f"watch {memory.id}")
    await second.ask("seen")
    times: list[float] = []
    local: list[float] = []
    importance = memory.importance
    for n in range(edits):
        importance = n % 100 if n % 100 != importance else 100
        began = time.perf_counter()
        await first.collection(Memory).update(memory.id, importance=importance)
        local.append(time.perf_counter() - began)
        while (answer := await second.ask("seen"))[1] != str(importance):
            pass
        times.append(float(answer[2]) - began)
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


async def _bulk(first: Client, second: _Process, records: int) -> None:
    """From the first insert on one device until the last row is durable on the other."""
    await second.order(f"count {await first.collection(Memory).count() + records}")
    made = memories(records, seed=5)
    began = time.perf_counter()
    for start in range(0, records, _CHUNK):
        await first.collection(Memory).insert_many(made[start : start + _CHUNK])
    local = time.perf_counter() - began
    total = float((await second.ask("counted"))[1]) - began
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


async def _be_second(path: str, url: str, code: str) -> None:
    """Be the second device: join, become equal, then do as told."""
    async with client_sdk.open(path, records=[Memory], key=os.urandom(32)) as client:
        await client.join(url, code)
        began = time.perf_counter()
        await client.synced(timeout=120)
        print("ready", time.perf_counter() - began, flush=True)
        collection = client.collection(Memory)
        while (order := (await asyncio.to_thread(sys.stdin.readline)).split())[0] != "end":
            if order[0] == "watch":
                collection.where(id=order[1]).subscribe(
                    lambda found: print("seen", found[0].importance, time.perf_counter(), flush=True)
                )
                continue
            async for rows in client.watch_sql("SELECT count(*) FROM memories"):
                if rows[0][0] >= int(order[1]):
                    print("counted", time.perf_counter(), flush=True)
                    break


if __name__ == "__main__":
    asyncio.run(_be_second(*sys.argv[1:]))
