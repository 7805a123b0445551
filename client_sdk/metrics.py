"""What a device does and costs: its reads and writes, live queries, kept results, sync, and what takes up room.

Calls and failures are counted from the opening on; percentiles are of the last five minutes (`client_sdk.histogram`).
Counting a call costs about a microsecond, an insert some 300. A snapshot is taken when it is asked for, on a reader
beside the writer. What takes up room is worked out (`client_sdk.sizes` says how), which costs more, so it is kept for a
while.

Calls are measured where they are made, so waiting for the writer, or for a reader that is free, is part of them. What
happens inside of a transaction's block is one "transaction", and the time of its block is the application's too. What
live queries read again is not a read of the application's: `Metrics.live` counts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, get_args

import msgspec

from client_sdk.cache import CacheCounts
from client_sdk.database import Connection, Database
from client_sdk.histogram import SlidingHistogram
from client_sdk.sizes import CollectionSize, Sizes, file_sizes, measure_sizes
from client_sdk.sync.status import State, Status, SyncCounts
from client_sdk.watch import LiveCounts
from client_sdk.writer import Call

__all__ = [
    "CacheMetrics",
    "CollectionMetrics",
    "Gauges",
    "LiveMetrics",
    "Metrics",
    "Operations",
    "StorageMetrics",
    "SyncMetrics",
    "Tracing",
]

_WINDOW_S: Final = (
    300.0  # of the percentiles: long enough for a hundred calls, short enough to show what is slow now
)


class Operations(msgspec.Struct, frozen=True, rename="camel"):
    """How many calls there were since the opening, how many raised (cancelled ones did not), and how long all took.

    Percentiles and the longest are those of the last four to five minutes, in milliseconds, to within 2 %.
    """

    count: int
    errors: int
    total_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class LiveMetrics(msgspec.Struct, frozen=True, rename="camel"):
    """How many live queries are open, and how often one was patched, read again, and told to somebody."""

    open: int
    patched: int
    read: int
    told: int


class CacheMetrics(msgspec.Struct, frozen=True, rename="camel"):
    """How often a kept result was there, was not, and was thrown away by a commit; how many are kept, in how many
    bytes of JSON; and the share of hits, from 0 to 1.
    """

    hits: int
    misses: int
    dropped: int
    results: int
    bytes: int
    hit_rate: float


class SyncMetrics(msgspec.Struct, frozen=True, rename="camel"):
    """As `client_sdk.Status`; ``cursor`` is the file's, known offline too. And since the opening: pushes that were
    acknowledged with the updates in them, those that the server refused, pages that were read with what was in them,
    and when the device last was in step with the server.
    """

    state: State
    pending: int
    cursor: int
    head: int
    verified: bool | None
    pushes: int
    pushed: int
    refused: int
    pulls: int
    pulled: int
    last_synced: dt.datetime | None


class CollectionMetrics(msgspec.Struct, frozen=True, rename="camel"):
    """Records that are not deleted, and bytes: rows with their lists, indexes, updates with their administration."""

    records: int
    data_bytes: int
    index_bytes: int
    log_bytes: int


class StorageMetrics(msgspec.Struct, frozen=True, rename="camel"):
    """Bytes: of the file and its log (WAL), of pages in it that wait to be used again, of pages of no collection; and
    of room on the disk.
    """

    file_bytes: int
    wal_bytes: int
    free_bytes: int
    other_bytes: int
    disk_free_bytes: int


class Metrics(msgspec.Struct, frozen=True, rename="camel"):
    """One look at everything; `msgspec.json.encode` makes JSON of it. ``remote`` is what sync wrote: pages that were
    read, and acknowledgements. ``memory_bytes`` are the whole process's, None where the system does not say.
    """

    seconds_open: float
    reads: Operations
    writes: Operations
    transactions: Operations
    remote: Operations
    live: LiveMetrics
    cache: CacheMetrics
    sync: SyncMetrics
    collections: dict[str, CollectionMetrics]
    storage: StorageMetrics
    memory_bytes: int | None
    memory_peak_bytes: int | None


class Tracing(Protocol):
    """Who makes a span of each call, and hears how the sync stands: `client_sdk.telemetry.opentelemetry`, say."""

    def span(self, call: Call, collection: str) -> contextlib.AbstractContextManager[Any]:
        """Return what surrounds a call."""

    def status_changed(self, status: Status) -> None:
        """Hear of a new status."""


class Gauges:
    """What was counted since the opening. ``clock`` gives seconds, ``now_ms`` the wall time. Belongs to the loop."""

    def __init__(
        self,
        collections: Collection[str],
        *,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.tracing: Tracing | None = None
        self._collections = sorted(collections)
        self._clock = clock
        self._now_ms = now_ms
        self._opened = clock()
        self._calls: dict[Call, _Calls] = {call: _Calls(clock) for call in get_args(Call)}
        self._last_synced: dt.datetime | None = None
        self._sizes: tuple[float, Sizes] | None = None

    def observe(self, call: Call, collection: str) -> contextlib.AbstractContextManager[Any]:
        """Return what surrounds a call and counts it (`client_sdk.writer.Observe`)."""
        timed = _Timed(self._calls[call])
        return timed if self.tracing is None else _both(self.tracing.span(call, collection), timed)

    def status_changed(self, status: Status) -> None:
        """Remember when the device was in step."""
        if status.state == "synced":
            self._last_synced = dt.datetime.fromtimestamp(self._now_ms() / 1_000, tz=dt.UTC)
        if self.tracing is not None:
            self.tracing.status_changed(status)

    async def sizes(self, database: Database, *, age_max: float) -> Sizes:
        """Return what takes up room, worked out again if it is older than ``age_max`` seconds."""
        now = self._clock()
        if self._sizes is None or now - self._sizes[0] >= age_max:
            self._sizes = (
                now,
                await database.read(lambda connection: measure_sizes(connection, self._collections)),
            )
        return self._sizes[1]

    async def snapshot(
        self,
        database: Database,
        *,
        status: Status,
        live: LiveCounts,
        cache: CacheCounts,
        sync: SyncCounts,
        sizes_age_max: float,
    ) -> Metrics:
        """Look at everything. What takes up room may be as old as ``sizes_age_max`` seconds."""

        def work(connection: Connection) -> tuple[int, dict[str, int]]:
            (cursor,) = connection.execute("SELECT cursor FROM pjais_state").fetchone()
            return cursor, {
                name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
                for name in self._collections
            }

        cursor, records = await database.read(work)
        held = await self.sizes(database, age_max=sizes_age_max)
        files = await asyncio.to_thread(file_sizes, database.path)
        memory, peak = _memory()
        return Metrics(
            seconds_open=self._clock() - self._opened,
            reads=self._calls["read"].operations(),
            writes=self._calls["write"].operations(),
            transactions=self._calls["transaction"].operations(),
            remote=self._calls["remote"].operations(),
            live=LiveMetrics(live.open, live.patched, live.read, live.told),
            cache=CacheMetrics(
                cache.hits, cache.misses, cache.dropped, cache.results, cache.bytes, cache.hit_rate
            ),
            sync=SyncMetrics(
                status.state,
                status.pending,
                cursor,
                max(status.head, cursor),
                status.verified,
                sync.pushes,
                sync.pushed,
                sync.refused,
                sync.pulls,
                sync.pulled,
                self._last_synced,
            ),
            collections={name: _collection(count, held.collections[name]) for name, count in records.items()},
            storage=StorageMetrics(
                files.file_bytes, files.wal_bytes, held.free_bytes, held.other_bytes, files.disk_free_bytes
            ),
            memory_bytes=memory,
            memory_peak_bytes=peak,
        )


class _Calls:
    """The calls of one kind."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._count = self._errors = 0
        self._total_s = 0.0
        self._recent = SlidingHistogram(_WINDOW_S)

    def add(self, seconds: float, now: float, *, failed: bool) -> None:
        """Count one."""
        self._count += 1
        self._errors += failed
        self._total_s += seconds
        self._recent.add(seconds, now)

    def operations(self) -> Operations:
        """Return them as figures."""
        recent = self._recent.recent(self.clock())
        p50, p95, p99 = (1_000 * recent.quantile(share) for share in (0.5, 0.95, 0.99))
        return Operations(
            self._count, self._errors, 1_000 * self._total_s, p50, p95, p99, 1_000 * recent.largest
        )


class _Timed:
    """Surrounds one call. Not `contextlib.contextmanager`, which would cost as much as all the rest."""

    __slots__ = ("_began", "_calls")

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    def __enter__(self) -> None:
        self._began = self._calls.clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        now = self._calls.clock()
        failed = kind is not None and not issubclass(kind, asyncio.CancelledError)
        self._calls.add(now - self._began, now, failed=failed)


@contextlib.contextmanager
def _both(
    outer: contextlib.AbstractContextManager[Any], inner: contextlib.AbstractContextManager[Any]
) -> Iterator[None]:
    with outer, inner:
        yield


def _collection(records: int, size: CollectionSize) -> CollectionMetrics:
    return CollectionMetrics(records, size.data_bytes, size.index_bytes, size.log_bytes)


def _memory() -> tuple[int | None, int | None]:
    """Return the bytes of memory that this process holds, and held at most."""
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1_024)
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None, peak
    now = pages * resource.getpagesize()
    return now, max(now, peak)
