"""Reads that stay true: a watcher runs its query now, and again after a commit that touched a table it reads.

A watcher that is still busy with one result when several commits pass sees them as one: it gets the latest, and no
queue grows. A result equal to the one before is not told again. What a watcher reads is always the state after some
whole commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from client_sdk.commit import Committed
from client_sdk.database import Connection

__all__ = ["CallbackSubscription", "Watches"]

T = TypeVar("T")
Read = Callable[[Callable[[Connection], T]], Awaitable[T]]

log = logging.getLogger("client_sdk.watch")


class Watches:
    """Everyone who watches, by table."""

    def __init__(self, read: Callable[[Callable[[Connection], Any]], Awaitable[Any]]) -> None:
        self._read = read
        self._wakes: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    @property
    def open_count(self) -> int:
        """How many watchers there are."""
        return len({id(wake) for wakes in self._wakes.values() for wake in wakes})

    def committed(self, committed: Committed) -> None:
        """Wake those whose tables a transaction changed."""
        for collection in committed.collections:
            for wake in self._wakes.get(collection, ()):
                wake.set()

    async def watch(self, tables: frozenset[str], work: Callable[[Connection], T]) -> AsyncGenerator[T, None]:
        """Yield what ``work`` returns now, and each time that it changes. Ends when the client closes."""
        wake = asyncio.Event()
        for table in tables:
            self._wakes[table].add(wake)
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            result: T = await self._read(work)
            yield result
            while not self._closed.is_set():
                waiting = asyncio.ensure_future(wake.wait())
                try:
                    await asyncio.wait({waiting, closing}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiting.cancel()
                if self._closed.is_set():
                    return
                wake.clear()
                fresh = await self._read(work)
                if fresh != result:
                    result = fresh
                    yield result
        finally:
            closing.cancel()
            for table in tables:
                self._wakes[table].discard(wake)

    def subscribe(
        self, tables: frozenset[str], work: Callable[[Connection], T], callback: Callable[[T], Any]
    ) -> CallbackSubscription:
        """Call back with what ``work`` returns, now and each time that it changes; may be a coroutine function."""
        task = asyncio.get_running_loop().create_task(self._call(tables, work, callback))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return CallbackSubscription(task)

    async def close(self) -> None:
        """End every watcher."""
        self._closed.set()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _call(
        self, tables: frozenset[str], work: Callable[[Connection], T], callback: Callable[[T], Any]
    ) -> None:
        results = self.watch(tables, work)
        try:
            async for result in results:
                try:
                    answer = callback(result)
                    if asyncio.iscoroutine(answer):
                        await answer
                except Exception:
                    log.exception("a subscriber's callback failed; it is called again at the next change")
        finally:
            await results.aclose()


class CallbackSubscription:
    """A callback that is called until it is closed."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def close(self) -> None:
        """Call no more."""
        self._task.cancel()
