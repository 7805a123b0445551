"""Metrics count what an application did with its client, and what of it failed, and are JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from client_sdk import Client, Metrics
from client_sdk.errors import ClosedClient, DuplicateRecord, QueryError
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Note, Tag

__all__: list[str] = []


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as opened:
        yield opened


async def test_reads_writes_and_blocks_are_counted_with_what_failed(client: Client) -> None:
    tags = client.collection(Tag)
    tag = await tags.insert(Tag(name="a"))
    for _ in range(3):
        await tags.get(tag.id)
    with pytest.raises(DuplicateRecord):
        await tags.insert(tag)
    with pytest.raises(QueryError):
        await client.sql("SELECT nonsense")
    async with client.transaction():
        await tags.insert(Tag(name="b"))
        await tags.insert(Tag(name="c"))
    with pytest.raises(ZeroDivisionError):
        async with client.transaction():
            raise ZeroDivisionError
    metrics = await client.metrics()
    assert (metrics.writes.count, metrics.writes.errors) == (2, 1)
    assert (metrics.reads.count, metrics.reads.errors) == (4, 1)
    assert (metrics.transactions.count, metrics.transactions.errors) == (2, 1)
    for calls in (metrics.reads, metrics.writes, metrics.transactions):
        assert 0 < calls.p50_ms <= calls.p95_ms <= calls.p99_ms <= calls.max_ms <= calls.total_ms


async def test_a_snapshot_does_not_count_itself(client: Client) -> None:
    await client.metrics()
    assert (await client.metrics()).reads.count == 0


async def test_a_cancelled_read_is_no_error(client: Client) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    task = asyncio.create_task(client.sql(endless))
    while len(client._writer.database._idle) == 2:  # noqa: ASYNC110 - it has been handed to a thread
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    reads = (await client.metrics()).reads
    assert (reads.count, reads.errors) == (1, 0)


async def test_live_queries_and_records_are_counted(client: Client) -> None:
    notes = client.collection(Note)
    watch = notes.where(pinned=True).watch()
    await anext(watch)
    _, gone = await notes.insert_many([Note(title="a", pinned=True), Note(title="b")])
    await anext(watch)
    await notes.delete(gone.id)
    metrics = await client.metrics()
    assert metrics.live.open == 1
    assert metrics.live.told >= 2
    assert {name: one.records for name, one in metrics.collections.items()} == {"notes": 1, "tags": 0}
    assert metrics.sync.state == "offline"
    assert metrics.sync.pending == 3
    assert metrics.sync.head == metrics.sync.cursor == 0
    await watch.aclose()
    assert (await client.metrics()).live.open == 0


async def test_files_and_memory_are_those_of_the_system(client: Client, tmp_path: Path) -> None:
    await client.collection(Note).insert_many([Note(title="a", body="word " * 200) for _ in range(50)])
    metrics = await client.metrics()
    assert metrics.storage.file_bytes == (tmp_path / "a.db").stat().st_size
    assert metrics.storage.wal_bytes == (tmp_path / "a.db-wal").stat().st_size
    assert metrics.storage.disk_free_bytes > 0
    assert metrics.memory_bytes is None or metrics.memory_bytes > 10 << 20
    assert metrics.seconds_open > 0


async def test_sizes_are_kept_for_as_long_as_is_asked(client: Client) -> None:
    before = await client.metrics()
    await client.collection(Note).insert_many([Note(title="a", body="word " * 400) for _ in range(50)])
    kept, new = await client.metrics(), await client.metrics(sizes_age_max=0)
    assert kept.collections["notes"].data_bytes == before.collections["notes"].data_bytes
    assert kept.collections["notes"].records == 50
    assert new.collections["notes"].data_bytes > 50 * 2_000


async def test_they_are_json(client: Client) -> None:
    await client.collection(Tag).insert(Tag(name="a"))
    encoded = msgspec.json.encode(await client.metrics())
    decoded: dict[str, Any] = msgspec.json.decode(encoded)
    assert decoded["writes"]["count"] == 1
    assert set(decoded["writes"]) == {"count", "errors", "totalMs", "p50Ms", "p95Ms", "p99Ms", "maxMs"}
    assert msgspec.json.encode(msgspec.json.decode(encoded, type=Metrics)) == encoded


async def test_a_closed_client_has_none(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        pass
    with pytest.raises(ClosedClient):
        await client.metrics()
