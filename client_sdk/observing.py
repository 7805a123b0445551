"""What a client tells of itself: what happens (`client_sdk.events`), what it does and costs (`client_sdk.metrics`), and
when room runs short (`client_sdk.storage`).
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from client_sdk.cache import ResultCache
from client_sdk.events import Event, Events, Feed, Kind, Missed
from client_sdk.metrics import Gauges, Metrics, Tracing
from client_sdk.rows import Table
from client_sdk.storage import StorageAlert, StorageWatch, check_thresholds
from client_sdk.sync.status import Status, SyncCounts
from client_sdk.watch import CallbackSubscription, Watches
from client_sdk.writer import Writer
from crdt.schema import Record, schema_of

__all__ = ["Observing"]


class Observing(abc.ABC):
    """The side of `client_sdk.Client` that others look at."""

    def __init__(
        self, writer: Writer, tables: Mapping[str, Table], wire: SyncCounts, *, now_ms: Callable[[], int]
    ) -> None:
        self._writer = writer
        self._wire = wire
        self._watches = Watches(writer.database.read, tables)
        self._cache = ResultCache(
            self._watches, bytes_max=writer.database.config.result_cache_bytes, now=time.monotonic
        )
        self._feed = Feed(tables)
        self._told = Status()
        self._gauges = Gauges(tables, now_ms=now_ms)
        writer.listeners.append(self._feed.committed)
        writer.observe = self._gauges.observe

    @property
    @abc.abstractmethod
    def status(self) -> Status:
        """How this device stands with the server."""

    def events(
        self,
        collections: Iterable[str | type[Record]] | None = None,
        kinds: Iterable[Kind] | None = None,
    ) -> Events:
        """Return, to be iterated with ``async for``, what happens from now on: each commit's events together, in order.

        All of it, or what concerns some collections (their names or record classes; "synced" concerns all) and is of
        some kinds. Who is slower than ten thousand changed records gets a `Missed`. Raises `QueryError` for an unknown
        collection or kind.
        """
        names = None if collections is None else [_name_of(collection) for collection in collections]
        return self._feed.stream(names, kinds)

    def subscribe_events(
        self,
        callback: Callable[[Event | Missed], Any],
        collections: Iterable[str | type[Record]] | None = None,
        kinds: Iterable[Kind] | None = None,
    ) -> CallbackSubscription:
        """Call back with each of `events`, until what is returned is closed; may be a coroutine function.

        What it raises is logged, and stops neither it nor others.
        """
        return self._feed.subscribe(callback, self.events(collections, kinds))

    async def metrics(self, *, sizes_age_max: float = 60.0) -> Metrics:
        """Return what this device has done since it was opened, what it costs, and how much there is.

        What takes up room is worked out again when it is older than ``sizes_age_max`` seconds (0: now), which
        counts all rows, beside reads and writes. Raises `ClosedClient`.
        """
        return await self._gauges.snapshot(
            self._writer.database,
            status=self.status,
            live=self._watches.counts,
            cache=self._cache.counts,
            sync=self._wire,
            sizes_age_max=sizes_age_max,
        )

    def trace(self, tracing: Tracing | None) -> None:
        """Have each call, and how the sync stands, told to ``tracing`` from now on; None: to nobody any more.

        `client_sdk.telemetry.opentelemetry.trace` does it with spans.
        """
        self._gauges.tracing = tracing

    def watch_storage(
        self,
        callback: Callable[[StorageAlert], Any],
        *,
        every: float = 60.0,
        thresholds: Mapping[str, int],
    ) -> CallbackSubscription:
        """Call back when more bytes are taken than a threshold says, and once when that is over; also a coroutine
        function.

        Thresholds are "file_bytes", "wal_bytes" (the file's log), "collection.NAME.bytes", and "disk_free_bytes", the
        room on the disk, which is told of when there is less. Looks now and ``every`` so many seconds. Ends with the
        client, or when what is returned is closed. Raises ``ValueError`` for a threshold that cannot be meant.
        """
        check_thresholds(thresholds, self._watches.tables)
        database = self._writer.database
        lookout = StorageWatch(
            database.path,
            thresholds,
            callback,
            every=every,
            sizes=lambda: self._gauges.sizes(database, age_max=every / 2),
        )
        return self._feed.spawn(lookout.run())

    def _status_changed(self, status: Status) -> None:
        if status == self._told:
            return
        self._told = status
        self._feed.status_changed(status)
        self._gauges.status_changed(status)

    async def _stop_telling(self) -> None:
        await self._feed.close()


def _name_of(collection: str | type[Record]) -> str:
    return collection if isinstance(collection, str) else schema_of(collection).collection
