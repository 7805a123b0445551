"""Metrics count what an application did with its client, and what of it failed, and are JSON."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from client_sdk import Client, Metrics, Status
from client_sdk.errors import ClosedClient, DuplicateRecord, QueryError
from client_sdk.metrics import Gauges
from crdt.wire import Page, Refusal
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
        assert 0 < calls.p50_ms <= calls.p95_ms <= calls.p99_ms <= calls.max_ms <= calls.total_ms + 1e-9


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


async def test_what_live_queries_read_is_not_the_applications(client: Client) -> None:
    tags = client.collection(Tag)
    await tags.insert_many([Tag(name=name) for name in "abc"])
    watch = tags.where("name", "contains", "a").order_by("name").limit(1).watch()
    await anext(watch)
    for _ in range(70):  # the advisor looks closely at some
        await tags.where(name="a").all()
    await client.advisor.report()
    metrics = await client.metrics()
    assert metrics.reads.count == 70
    assert metrics.live.read == 1
    await watch.aclose()


async def test_kept_results_are_counted(client: Client) -> None:
    tags = client.collection(Tag)
    await tags.insert(Tag(name="a"))
    for _ in range(3):
        await tags.where(name="a").cached(60).all()
    cache = (await client.metrics()).cache
    assert (cache.hits, cache.misses, cache.results) == (2, 1, 1)
    assert cache.bytes > 10
    assert cache.hit_rate == pytest.approx(2 / 3)


async def test_what_sync_writes_is_remote_and_counted_by_its_frames(client: Client) -> None:
    await client.collection(Tag).insert_many([Tag(name="a"), Tag(name="b"), Tag(name="c")])
    replica = client._replica
    await replica.acknowledge(replica.incarnation, 2, [Refusal(2, "too_large", "")])
    await replica.acknowledge(replica.incarnation, 2, [])  # again
    await replica.apply_page(Page("space", 0, 2, 2, []))  # this device's own work going by
    metrics = await client.metrics()
    assert (metrics.writes.count, metrics.remote.count) == (1, 2)
    sync = metrics.sync
    assert (sync.pushes, sync.pushed, sync.refused, sync.pulls, sync.pending) == (1, 2, 1, 0, 1)


async def test_percentiles_are_of_the_last_minutes_and_counts_of_all_time() -> None:
    now = 1_000.0
    gauges = Gauges([], now_ms=lambda: 0, clock=lambda: now)
    calls = gauges._calls["read"]
    with gauges.observe("read", ""):
        now += 2.0
    assert calls.operations().p50_ms == pytest.approx(2_000, rel=0.02)
    now += 290
    with gauges.observe("read", ""):
        now += 0.010
    operations = calls.operations()
    assert operations.count == 2
    assert operations.total_ms == pytest.approx(2_010)
    assert operations.max_ms <= 2_000
    now += 100
    operations = calls.operations()
    assert operations.count == 2
    assert operations.max_ms == pytest.approx(10)


def test_the_last_time_in_step_is_that_of_the_status() -> None:
    gauges = Gauges([], now_ms=lambda: 1_500)
    gauges.status_changed(Status("syncing"))
    assert gauges._last_synced is None
    gauges.status_changed(Status("synced"))
    gauges.status_changed(Status("offline"))
    assert gauges._last_synced == dt.datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=dt.UTC)


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
