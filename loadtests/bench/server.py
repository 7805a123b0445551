"""The server's gate alone: updates acknowledged a second, beside plain COPY of the same rows on the same Postgres."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import statistics
import time
from pathlib import Path
from uuid import UUID, uuid4

import uvloop

from crdt.ids import client_id, incarnation
from crdt.records import create
from crdt.schema import schema_of
from crdt.wire import Edit, Push
from loadtests.bench.data import Memory, memories
from loadtests.bench.report import percentile, report
from server import devices, spaces
from server.admit import Admit
from server.database import Connection, Database
from server.embedded import EmbeddedPostgres
from server.log import LogRow, append
from server.settings import load_settings

__all__ = ["bench_server"]


def bench_server(folder: Path, *, updates: int) -> None:
    """Print the figures of the gate, in an event loop as the server's own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_bench(folder, updates))


async def _bench(folder: Path, updates: int) -> None:
    async with EmbeddedPostgres(folder / "postgres") as postgres:
        settings = load_settings(database_url=postgres.url)
        database = await Database.connect(postgres.url, settings)
        await database.migrate()
        admit = Admit(database, lambda _space, _head: None, settings)
        running = asyncio.create_task(admit.run())
        space, device = uuid4(), uuid4()
        await database.transaction(lambda connection: _enrol(connection, space, device))
        client, opening = client_id(os.urandom(7)), incarnation(os.urandom(8))

        def push(first: int, edits: list[Edit]) -> Push:
            return Push(str(space), opening, client, first, edits)

        first = await _alone(admit, space, device, push, client)
        for size in (100, 500, 2_000):
            edits = _edits(updates, client, str(size))
            parts = [edits[start : start + size] for start in range(0, updates, size)]
            began = time.perf_counter()
            acknowledged = []
            for part in parts:
                acknowledged.append(await admit.submit(device, space, push(first, part)))
                first += len(part)
            await asyncio.gather(*acknowledged)
            seconds = time.perf_counter() - began
            raw = await _copy(database, edits)
            report(
                f"gate, pushes of {size}",
                updates / seconds,
                "updates/s acknowledged",
                raw=updates / raw,
                ratio=raw / seconds,
                target=">= 15,000 updates/s",
                is_reached=updates / seconds >= 15_000,
            )
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await database.close()


async def _alone(admit: Admit, space: UUID, device: UUID, push: object, client: int) -> int:
    """One update at a time; return the next number."""
    times: list[float] = []
    edits = _edits(300, client, "alone")
    for n, edit in enumerate(edits, 1):
        began = time.perf_counter()
        await (await admit.submit(device, space, push(n, [edit])))  # type: ignore[operator]
        times.append(time.perf_counter() - began)
    report("gate, one update", statistics.median(times) * 1e3, "ms (p50)", p99=percentile(times, 99) * 1e3)
    return len(edits) + 1


async def _copy(database: Database, edits: list[Edit]) -> float:
    """Return the seconds that COPY and its commit take for the same rows in another space."""
    space, device = uuid4(), uuid4()
    rows = [
        LogRow(space, n, edit.collection, edit.record, device, 1, n, 1, 0, 10, edit.update)
        for n, edit in enumerate(edits, 1)
    ]
    began = time.perf_counter()
    await database.transaction(lambda connection: append(connection, rows))
    return time.perf_counter() - began


async def _enrol(connection: Connection, space: UUID, device: UUID) -> None:
    account = uuid4()
    await spaces.add_account(connection, account, space=space, generation=uuid4())
    await devices.enrol(connection, device, account=account, public_key=bytes(32), name="bench")
    await spaces.add_member(connection, space, device)


def _edits(count: int, client: int, prefix: str) -> list[Edit]:
    schema, now = schema_of(Memory), dt.datetime.now(dt.UTC)
    made = []
    for n, memory in enumerate(memories(count)):
        record = f"{prefix}-{n}"
        update, _, _ = create(
            schema, memory, record_id=record, client=client, reading=1 << 60, now=now, is_chosen=False
        )
        made.append(Edit("memories", record, update))
    return made
