"""Who hears of a live query's results: one who waits for the next, one who is called back, one who keeps it
for later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Any, Final, Generic, TypeVar

from client_sdk.conditions import Undecided
from client_sdk.errors import ClosedClient

__all__ = ["NOTHING", "Calling", "Held", "Listener", "Waiting"]

T = TypeVar("T")

NOTHING: Final[Any] = object()
"""Where there is no result."""

log = logging.getLogger(__name__)


class Listener:
    """Somebody who hears of results."""

    def offer(self, result: Any) -> None:
        """Take a result; one that was not looked at yet is forgotten."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Hear that there is no result."""
        raise NotImplementedError

    def close(self) -> None:
        """Hear that nothing more comes."""
        raise NotImplementedError

    def wait(self) -> None:
        """Hear that the result is being read again, and is old until then."""

    def ready(self) -> None:
        """Hear that it has been read."""


class Waiting(Listener, Generic[T]):
    """One who waits for the next result, and gets what is true when it looks."""

    #: Returns the result after the last commit, `NOTHING` while it is being read.
    current: Callable[[], T | Any]

    def __init__(self) -> None:
        self._offered: T | Any = NOTHING
        self._taken: T | Any = NOTHING
        self._error: Exception | None = None
        self._is_closed = False
        self._news = asyncio.Event()

    async def next(self) -> T | Any:
        """Return the next result, `NOTHING` when nothing more comes; raise what went wrong."""
        while True:
            await self._news.wait()
            if self._is_closed:
                return NOTHING
            self._news.clear()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            result = self.current()
            if result is NOTHING:
                result = self._offered
            if self._taken is NOTHING or result != self._taken:
                self._taken = result
                return copy(result)  # what the consumer does to it is its own affair

    def offer(self, result: Any) -> None:
        """Hear of a result."""
        self._offered = result
        self._news.set()

    def fail(self, error: Exception) -> None:
        """Hear that there is none."""
        self._error = error
        self._news.set()

    def close(self) -> None:
        """Hear that nothing more comes."""
        self._is_closed = True
        self._news.set()


class Held(Listener, Generic[T]):
    """One who only wants the result to be there when it is asked for."""

    leave: Callable[[], None]
    current: Callable[[], T]

    def __init__(self, dropped: Callable[[], None]) -> None:
        self._dropped = dropped
        self._error: Exception | None = None
        self._is_read = asyncio.Event()

    async def result(self) -> T:
        """Return the result after the last commit; wait until it has been read. Raises what went wrong."""
        await self._is_read.wait()
        if self._error is not None:
            raise self._error
        return self.current()

    def offer(self, result: Any) -> None:
        """The result is asked for when it is wanted."""

    def wait(self) -> None:
        """Hear that it is old."""
        self._is_read.clear()

    def ready(self) -> None:
        """Hear that it is there."""
        self._is_read.set()

    def fail(self, error: Exception) -> None:
        """Hear that there is none."""
        if isinstance(error, Undecided):
            self._dropped()
        else:
            self._error = error
            self._is_read.set()

    def close(self) -> None:
        """Hear that nothing more comes."""
        self.leave()
        if not self._is_read.is_set():
            self._error = ClosedClient()
            self._is_read.set()


class Calling(Listener):
    """One who is called back; a coroutine function one call at a time."""

    def __init__(
        self, callback: Callable[[Any], Any], spawn: Callable[[Awaitable[None]], asyncio.Task[None]]
    ) -> None:
        self._callback = callback
        self._spawn = spawn
        self._latest: Any = NOTHING
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def offer(self, result: Any) -> None:
        """Hear of a result."""
        if self._is_closed:
            return
        if self._task is not None:
            self._latest = result
            return
        answer = self._call(result)
        if asyncio.iscoroutine(answer):
            self._task = self._spawn(self._follow(answer))

    def _call(self, result: Any) -> Any:
        try:
            return self._callback(result)
        except Exception:
            log.exception("a subscriber's callback failed; it is called again at the next change")

    async def _follow(self, answer: Any) -> None:
        while True:
            try:
                await answer
            except Exception:
                log.exception("a subscriber's callback failed; it is called again at the next change")
            if self._latest is NOTHING or self._is_closed:
                break
            latest, self._latest = self._latest, NOTHING
            answer = self._call(latest)
            if not asyncio.iscoroutine(answer):
                break
        self._task = None

    def fail(self, error: Exception) -> None:
        """Hear that there is none."""
        log.error("a live query could not be read; its subscriber waits for the next change", exc_info=error)

    def close(self) -> None:
        """Hear that nothing more comes."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
