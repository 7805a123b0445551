"""Several processes on one file: from a commit in one to the callback in another, the cost of watching, taking turns.

The other process is this file run as a program, as in `loadtests.bench.sync`.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import client_sdk
from client_sdk.client import Client
from loadtests.bench.data import Memory, memories
from loadtests.bench.report import percentile, report

__all__ = ["bench_instances"]

_KEY = bytes(32)
_IDLE_S = 6.0


async def bench_instances(folder: Path, *, commits: int, inserts: int) -> None:
    """Print the figures of two instances on one file."""
    path = folder / "shared.db"
    alone = await _insert_alone(folder / "owned.db", inserts, multi_instance=False)
    shared = await _insert_alone(path, inserts, multi_instance=True)
    report(
        "insert with multi_instance",
        shared * 1e6,
        "us (p50)",
        raw=alone * 1e6,
        ratio=alone / shared,
        target="ratio to an owner's >= 0.7",
        is_reached=alone / shared >= 0.7,
    )
    async with client_sdk.open(path, records=[Memory], key=_KEY, multi_instance=True) as client:
        other = await asyncio.to_thread(_Other, path)
        try:
            await _notice(client, other, commits)
            await _idle(other)
            await _turns(client, other, inserts)
        finally:
            await asyncio.to_thread(other.end)


class _Other:
    """Another instance, in a process of its own."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.bench.instances", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.line()

    def order(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def line(self) -> list[str]:
        assert self._process.stdout is not None
        return self._process.stdout.readline().split()

    def end(self) -> None:
        self._process.communicate()


async def _insert_alone(path: Path, count: int, *, multi_instance: bool) -> float:
    times: list[float] = []
    async with client_sdk.open(path, records=[Memory], key=_KEY, multi_instance=multi_instance) as client:
        for memory in memories(count):
            began = time.perf_counter()
            await client.collection(Memory).insert(memory)
            times.append(time.perf_counter() - began)
    return statistics.median(times)


async def _notice(client: Client, other: _Other, commits: int) -> None:
    """From the return of a commit here to the callback there; commits come at any moment between two looks."""
    collection = client.collection(Memory)
    chance = random.Random(1)
    memory = await collection.insert(memories(1, seed=2)[0])
    other.order(f"watch {memory.id}")
    await asyncio.to_thread(other.line)
    times: list[float] = []
    for number in range(commits):
        await asyncio.sleep(chance.random() * 0.05)
        importance = number % 100 if number % 100 != memory.importance else 100
        await collection.update(memory.id, importance=importance)
        began = time.perf_counter()
        while (answer := await asyncio.to_thread(other.line))[1] != str(importance):
            pass
        times.append(float(answer[2]) - began)
    p50, p99 = statistics.median(times) * 1e3, percentile(times, 99) * 1e3
    report(
        "commit to callback in another process",
        p50,
        "ms (p50)",
        p99=p99,
        target="p50 <= 50 ms, p99 <= 100 ms",
        is_reached=p50 <= 50 and p99 <= 100,
    )


async def _idle(other: _Other) -> None:
    other.order("idle")
    share = float((await asyncio.to_thread(other.line))[0])
    report(
        "idle, watching other instances", share * 100, "% of a core", target="< 1 %", is_reached=share < 0.01
    )


async def _turns(client: Client, other: _Other, inserts: int) -> None:
    """Two processes that insert one record at a time, at once."""
    other.order(f"insert {inserts}")
    began = time.perf_counter()
    times: list[float] = []
    for memory in memories(inserts, seed=3):
        one = time.perf_counter()
        await client.collection(Memory).insert(memory)
        times.append(time.perf_counter() - one)
    await asyncio.to_thread(other.line)
    seconds = time.perf_counter() - began
    report(
        "two processes insert at once",
        2 * inserts / seconds,
        "records/s",
        p50_ms=statistics.median(times) * 1e3,
        p99_ms=percentile(times, 99) * 1e3,
    )


async def _be_other(path: str) -> None:
    async with client_sdk.open(path, records=[Memory], key=_KEY, multi_instance=True) as client:
        print("open", flush=True)
        collection = client.collection(Memory)
        while order := (await asyncio.to_thread(sys.stdin.readline)).split():
            match order:
                case ["watch", record]:
                    collection.where(id=record).subscribe(
                        lambda found: print("seen", found[0].importance, time.perf_counter(), flush=True)
                    )
                case ["idle"]:
                    began, used = time.perf_counter(), time.process_time()
                    await asyncio.sleep(_IDLE_S)
                    print((time.process_time() - used) / (time.perf_counter() - began), flush=True)
                case ["insert", count]:
                    for memory in memories(int(count), seed=4):
                        await collection.insert(memory)
                    print("inserted", flush=True)


if __name__ == "__main__":
    asyncio.run(_be_other(sys.argv[1]))
