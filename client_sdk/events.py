"""What happened, as it happens: records inserted, updated and deleted, by a commit each, and the device in step.

A live query says what is true; an event says what changed, for a log, a badge or a cache that an application keeps by
itself. The events of one commit come together and in the order of the commits, and name each record once, by what the
commit as a whole did to it: a record that a block inserts and then changes is "inserted".

Events wait for who is slow, up to a bound. Past it whole commits are left out, and `Missed` says, at their place,
how many events these were: then read again what you need. Nothing is kept across a restart.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import weakref
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, Final, Literal, Self, TypeAlias, get_args

import msgspec

from client_sdk.commit import Committed
from client_sdk.errors import QueryError
from client_sdk.sync.status import Status
from client_sdk.watch import CallbackSubscription

__all__ = ["WAITING_RECORDS_MAX", "Event", "Events", "Feed", "Kind", "Missed"]

WAITING_RECORDS_MAX: Final = 10_000
"""Records named by the events that wait for one consumer: about a megabyte of ids."""

Kind: TypeAlias = Literal["inserted", "updated", "deleted", "synced"]

_KINDS: Final = frozenset(get_args(Kind))

log = logging.getLogger(__name__)


class Event(msgspec.Struct, frozen=True):
    """What a commit did to the records of one collection; ``is_remote``: it came from another device. ``commit`` grows
    from one commit to the next; the events of one have the same. (What another instance on this file committed
    meanwhile is told as one commit.)

    Where ``kind`` is "synced" there is no collection, record or commit: both sides are in step and proved equal, and
    were not before.
    """

    kind: Kind
    collection: str = ""
    records: tuple[str, ...] = ()
    is_remote: bool = False
    commit: int = 0


class Missed(msgspec.Struct, frozen=True):
    """``count`` events that would stand here are left out: too many waited; or another instance on this file, opened
    with ``multi_instance``, did not tell what it changed, and then there were that many at least.
    """

    count: int


class Events:
    """The events that one consumer asked for: ``async for``, from the call of `Client.events` on.

    Ends when the client is closed, after those that wait. An object that nobody holds any more costs nothing.
    """

    def __init__(self, collections: Collection[str] | None, kinds: Collection[Kind] | None) -> None:
        self._collections = collections
        self._kinds = kinds
        self._waiting: deque[Event | Missed] = deque()
        self._records = 0  # named by those that wait
        self._missed = 0  # after them
        self._is_closed = False
        self._news = asyncio.Event()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Event | Missed:
        """Return the next event, once there is one."""
        while not self._waiting and not self._missed:
            if self._is_closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        if not self._waiting:
            missed, self._missed = self._missed, 0
            return Missed(missed)
        event = self._waiting.popleft()
        self._records -= _weight(event)
        return event

    def offer(self, events: Iterable[Event], untold: Iterable[str] = ()) -> None:
        """Take in the events of one commit, or none of them where too many wait. In ``untold`` collections there were
        others that are not known.
        """
        if untold and not self._is_closed and self._kinds != {"synced"}:
            self._missed += sum(self._collections is None or name in self._collections for name in untold)
            self._news.set()
        wanted = [event for event in events if self._wants(event)]
        weight = sum(map(_weight, wanted))
        if not wanted or self._is_closed:
            return
        if self._waiting and self._records + weight > WAITING_RECORDS_MAX:
            self._missed += len(wanted)
            return
        if self._missed:
            self._waiting.append(Missed(self._missed))
            self._records += 1
            self._missed = 0
        self._waiting.extend(wanted)
        self._records += weight
        self._news.set()

    def _wants(self, event: Event) -> bool:
        is_named = (
            self._collections is None or event.kind == "synced" or event.collection in self._collections
        )
        return is_named and (self._kinds is None or event.kind in self._kinds)

    def close(self) -> None:
        """Take in no more; what waits can still be read."""
        self._is_closed = True
        self._news.set()

    async def aclose(self) -> None:
        """Close, for `contextlib.aclosing`."""
        self.close()


class Feed:
    """Where events come from, and everyone who hears of them. Its methods belong to the event loop."""

    def __init__(self, collections: Iterable[str]) -> None:
        self._known = frozenset(collections)
        self._streams: weakref.WeakSet[Events] = weakref.WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        self._was_synced = False
        self._context = contextvars.copy_context()  # outside of any transaction

    def stream(self, collections: Iterable[str] | None = None, kinds: Iterable[Kind] | None = None) -> Events:
        """Return the events from now on: all, or those of some collections and kinds ("synced" is of no collection).

        Raises:
            QueryError: there is no such collection or kind.
        """
        events = Events(
            _known(collections, self._known, "collection"), _known(kinds, _KINDS, "kind of event")
        )
        self._streams.add(events)
        return events

    def subscribe(self, callback: Callable[[Event | Missed], Any], events: Events) -> CallbackSubscription:
        """Call back with each event, one call at a time; ``callback`` may be a coroutine function.

        An exception of it is logged, and the next event told all the same.
        """
        return self.spawn(_follow(events, callback))

    def spawn(self, work: Coroutine[Any, Any, None]) -> CallbackSubscription:
        """Run what calls somebody back, in the background, until the client closes or what is returned is closed."""
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def close() -> None:
            task.cancel()

        return CallbackSubscription(close)

    def committed(self, committed: Committed) -> None:
        """Tell what a commit did."""
        if self._streams and (committed.changes or committed.whole):
            self._tell(_events_of(committed), committed.whole)

    def status_changed(self, status: Status) -> None:
        """Tell that the device has come into step."""
        is_synced = status.state == "synced" and status.verified is True
        if is_synced and not self._was_synced:
            self._tell([Event("synced")])
        self._was_synced = is_synced

    def _tell(self, events: Sequence[Event], untold: Collection[str] = ()) -> None:
        for stream in list(self._streams):
            stream.offer(events, untold)

    async def close(self) -> None:
        """End every stream and callback."""
        for stream in list(self._streams):
            stream.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow(events: Events, callback: Callable[[Event | Missed], Any]) -> None:
    async for event in events:
        try:
            answer = callback(event)
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            log.exception("a callback for events failed; it is told of the next one")


def _events_of(committed: Committed) -> list[Event]:
    """Return what a commit did as a whole: each record once, those of one collection and kind together."""
    # Whether each record had a row before the commit, and has one after it.
    before: dict[tuple[str, str], bool] = {}
    after: dict[tuple[str, str], bool] = {}
    for change in committed.changes:
        key = (change.collection, change.record)
        before.setdefault(key, change.kind != "inserted")
        after[key] = change.kind != "deleted"
    told: dict[tuple[str, Kind], list[str]] = {}
    for key, was_there in before.items():
        match was_there, after[key]:
            case False, True:
                kind: Kind = "inserted"
            case True, True:
                kind = "updated"
            case True, False:
                kind = "deleted"
            case _:  # it came and went
                continue
        told.setdefault((key[0], kind), []).append(key[1])
    return [
        Event(kind, collection, tuple(records), committed.is_remote, committed.commits)
        for (collection, kind), records in told.items()
    ]


def _weight(event: Event | Missed) -> int:
    return max(1, len(event.records)) if isinstance(event, Event) else 1


def _known(names: Iterable[Any] | None, known: Collection[str], what: str) -> frozenset[Any] | None:
    if names is None:
        return None
    asked = frozenset(names)
    for name in asked - frozenset(known):
        raise QueryError(f"there is no {what} {name!r}; there are {', '.join(sorted(known))}")
    return asked
