"""What a client tells of itself: what happens to its records, what it does and costs, and when room runs short.

The part of `client_sdk.client.Client` that only looks: nothing here changes a record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from client_sdk.events import Event, Events, Feed, Kind, Missed
from client_sdk.metrics import Gauges, Metrics
from client_sdk.rows import Table
from client_sdk.storage import Limits, StorageAlert, StorageWatch
from client_sdk.sync.status import Status
from client_sdk.watch import CallbackSubscription, Watches
from client_sdk.writer import Writer
from crdt.schema import Record, schema_of

__all__ = ["Observing"]


class Observing:
    """The verbs of a client that tell what goes on. Who inherits says how it stands (`status`)."""

    def __init__(self, writer: Writer, tables: Mapping[str, Table]) -> None:
        self._writer = writer
        self._watches = Watches(writer.database.read, tables)
        self._feed = Feed(tables)
        self._gauges = Gauges(tables)
        writer.listeners.append(self._feed.committed)
        writer.database.observe = self._gauges.observe

    @property
    def status(self) -> Status:
        """How this device stands with the server."""
        raise NotImplementedError

    def events(
        self,
        collections: Iterable[str | type[Record]] | None = None,
        kinds: Iterable[Kind] | None = None,
    ) -> Events:
        """Return, to be iterated with ``async for``, what happens from now on: each commit's events in order.

        All of it, or what concerns some collections (their names or record classes; "synced" concerns all) and is of
        some kinds. Who is slower than ten thousand changed records gets a `Missed`. Raises `QueryError` for an unknown
        collection or kind.
        """
        names = None if collections is None else [_name_of(collection) for collection in collections]
        return self._feed.stream(names, kinds)

    def on_events(
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
            sizes_age_max=sizes_age_max,
        )

    def watch_storage(
        self,
        callback: Callable[[StorageAlert], Any],
        *,
        every: float = 60.0,
        file_bytes: int | None = None,
        wal_bytes: int | None = None,
        free_bytes: int | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> CallbackSubscription:
        """Call back when the file or its log (WAL) grows past a limit, or the disk has less room than one, and
        once when that is over. Looks now and ``every`` so many seconds (``pause``: a seam for tests).

        Ends with the client, or when what is returned is closed. Raises ``ValueError`` where no limit is named.
        """
        path, limits = self._writer.database.path, Limits(file_bytes, wal_bytes, free_bytes)
        watch = StorageWatch(path, limits, callback, every=every, pause=pause)
        return self._feed.spawn(watch.run())


def _name_of(collection: str | type[Record]) -> str:
    return collection if isinstance(collection, str) else schema_of(collection).collection
