"""What a device does and costs: its reads and writes, live queries, sync, and what takes up room.

Durations are kept from the opening on, as a histogram (`client_sdk.histogram`): counting one costs about two
microseconds, an insert some 300. A snapshot is taken when it is asked for, on a reader beside the writer. What takes up
room is worked out (`client_sdk.sizes` says how), which costs more, so it is kept for a while.

What happens inside of a transaction's block is one "transaction", and the time of its block is the application's too.
"""

from __future__ import annotations

import contextvars
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import msgspec

from client_sdk.database import Connection, Database, Observed
from client_sdk.histogram import Histogram
from client_sdk.sizes import CollectionSize, Sizes, file_sizes, measure_sizes
from client_sdk.sync.status import State, Status
from client_sdk.watch import LiveCounts

__all__ = [
    "CollectionMetrics",
    "Gauges",
    "LiveMetrics",
    "Metrics",
    "Operations",
    "StorageMetrics",
    "SyncMetrics",
]

#: Set while a snapshot is taken: what it reads is not counted.
_is_measuring: Final = contextvars.ContextVar("pjais_is_measuring", default=False)


class Operations(msgspec.Struct, frozen=True, rename="camel"):
    """How many calls there were since the opening, how many raised (cancelled ones did not), and how long they
    took, waiting for the database's thread included. Percentiles in milliseconds, to within 2 %.
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


class SyncMetrics(msgspec.Struct, frozen=True, rename="camel"):
    """As `client_sdk.Status`; ``cursor`` is the file's, known offline too."""

    state: State
    pending: int
    cursor: int
    head: int
    verified: bool | None


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
    """One look at everything; `msgspec.json.encode` makes JSON of it. ``memory_bytes`` are the whole process's, None
    where the system does not say.
    """

    seconds_open: float
    reads: Operations
    writes: Operations
    transactions: Operations
    live: LiveMetrics
    sync: SyncMetrics
    collections: dict[str, CollectionMetrics]
    storage: StorageMetrics
    memory_bytes: int | None
    memory_peak_bytes: int | None


class Gauges:
    """What was counted since the opening. ``observe`` hears of each call to the database, on the event loop."""

    def __init__(self, collections: Collection[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._collections = sorted(collections)
        self._clock = clock
        self._opened = clock()
        self._durations: dict[Observed, Histogram] = {
            "read": Histogram(),
            "write": Histogram(),
            "transaction": Histogram(),
        }
        self._errors: dict[Observed, int] = dict.fromkeys(self._durations, 0)
        self._sizes: tuple[float, Sizes] | None = None

    def observe(self, what: Observed, seconds: float, failed: bool) -> None:
        """Count one call."""
        if not _is_measuring.get():
            self._durations[what].add(seconds)
            self._errors[what] += failed

    async def snapshot(
        self, database: Database, *, status: Status, live: LiveCounts, sizes_age_max: float
    ) -> Metrics:
        """Look at everything. What takes up room may be as old as ``sizes_age_max`` seconds."""
        now = self._clock()
        kept = self._sizes
        sizes = kept[1] if kept is not None and now - kept[0] <= sizes_age_max else None

        def work(connection: Connection) -> tuple[int, dict[str, int], Sizes]:
            (cursor,) = connection.execute("SELECT cursor FROM pjais_state").fetchone()
            records = {
                name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
                for name in self._collections
            }
            return cursor, records, sizes or measure_sizes(connection, self._collections)

        token = _is_measuring.set(True)
        try:
            cursor, records, held = await database.read(work)
        finally:
            _is_measuring.reset(token)
        if sizes is None:
            self._sizes = (now, held)
        files = file_sizes(database.path)
        memory, peak = _memory()
        return Metrics(
            seconds_open=now - self._opened,
            reads=self._operations("read"),
            writes=self._operations("write"),
            transactions=self._operations("transaction"),
            live=LiveMetrics(live.open, live.patched, live.read, live.told),
            sync=SyncMetrics(status.state, status.pending, cursor, max(status.head, cursor), status.verified),
            collections={name: _collection(count, held.collections[name]) for name, count in records.items()},
            storage=StorageMetrics(
                files.file_bytes, files.wal_bytes, held.free_bytes, held.other_bytes, files.disk_free_bytes
            ),
            memory_bytes=memory,
            memory_peak_bytes=peak,
        )

    def _operations(self, what: Observed) -> Operations:
        durations = self._durations[what]
        p50, p95, p99 = (1_000 * durations.quantile(share) for share in (0.5, 0.95, 0.99))
        return Operations(
            durations.count,
            self._errors[what],
            1_000 * durations.total,
            p50,
            p95,
            p99,
            1_000 * durations.largest,
        )


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
