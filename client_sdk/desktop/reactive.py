"""A live query as a ReactiveX observable, through ``reactivex`` (the extra ``rx``).

::

    titles = notes.where(pinned=True).observable().pipe(operators.map(lambda found: [note.title for note in found]))
    subscription = titles.subscribe(print)
    subscription.dispose()

Subscribing begins to watch and disposing ends it: a cold observable, in the terms of
https://reactivex.io/documentation/. Everything is called on the event loop that subscribed. An error of the
query is ``on_error``; when the client closes, it completes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Protocol, TypeVar

from client_sdk.differences import Difference
from client_sdk.extras import ExtraMissing
from crdt.schema import Record

try:
    import reactivex
    from reactivex import Observable
    from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
    from reactivex.disposable import Disposable
except ImportError as error:
    raise ExtraMissing("rx", "reactivex") from error

__all__ = ["Observable", "Watchable", "observable", "observable_changes"]

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Watchable(Protocol[R]):
    """What is observed: a query, which stands above and offers `Query.observable`."""

    def watch(self) -> AsyncGenerator[list[R], None]:
        """Yield the records, now and each time that they change."""

    def watch_changes(self) -> AsyncGenerator[list[Difference[R]], None]:
        """Yield what changed each time; from nothing for the first."""


def observable(query: Watchable[R]) -> Observable[list[R]]:
    """Return the query's records, now and each time that they change, for each who subscribes."""
    return _observable(query.watch)


def observable_changes(query: Watchable[R]) -> Observable[list[Difference[R]]]:
    """Return what changed each time, as `client_sdk.query.Query.watch_changes`."""
    return _observable(query.watch_changes)


def _observable(watch: Callable[[], AsyncGenerator[T, None]]) -> Observable[T]:
    def subscribe(observer: ObserverBase[T], _scheduler: SchedulerBase | None = None) -> DisposableBase:
        task = asyncio.get_running_loop().create_task(_follow(watch, observer))
        return Disposable(lambda: _end(task))

    return reactivex.create(subscribe)


async def _follow(watch: Callable[[], AsyncGenerator[T, None]], observer: ObserverBase[T]) -> None:
    try:
        async with contextlib.aclosing(watch()) as results:
            async for result in results:
                observer.on_next(result)
    except Exception as error:  # noqa: BLE001 - it is the observer's
        observer.on_error(error)
    else:
        observer.on_completed()


def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
