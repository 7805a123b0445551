"""One connection and its thread: a function goes in, is run whole, and its result comes back in one hop.

`Lane` is an `aiosqlite.Connection`, whose thread takes functions from a queue in order. What it adds:

- **Cancelled is not half done.** A task that is cancelled while it waits leaves its function running. The wait goes on
  until the function has ended, and only then is the cancellation reported.
- **The thread is a daemon**: a database that nobody closed does not keep the process alive.
- **A closed event loop is no error** of the thread: the result has nobody to go to.

Here alone are names of aiosqlite used that it does not document (its queue, its thread and how that ends): they are
those of 0.22, and every test of the database fails if they change. `Job` is what the queue holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import aiosqlite
from aiosqlite.core import _STOP_RUNNING_SENTINEL

from client_sdk.database.connection import Connection

__all__ = ["Job", "Lane"]

T = TypeVar("T")

_STOP_AGAIN_S: Final = 0.005  # seconds between attempts to stop a function whose waiter is gone


class Job(Generic[T]):
    """A function on its way to a lane's thread and back. Made, waited for and delivered on the event loop's thread."""

    __slots__ = ("_after", "_error", "_loop", "_result", "_waiter", "function", "is_done", "lane", "released")

    def __init__(
        self, function: Callable[[Connection], T], *, after: Callable[[T], None] | None = None
    ) -> None:
        self.function = function
        self.lane: Lane | None = None  # None: it waits for a lane
        self.released: Callable[[Lane], None] | None = None  # told when the lane is free again
        self.is_done = False
        self._after = after
        self._error: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._result: T
        self._waiter: asyncio.Future[None] = self._loop.create_future()

    def run(self) -> None:
        """Run the function; on the lane's thread."""
        assert self.lane is not None
        function = self.function
        del self.function  # and with it what it has enclosed
        try:
            self._result = function(self.lane.raw)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits
            self._error = error
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop was closed without closing the database
            self._error = None

    def _deliver(self) -> None:
        lane, self.lane = self.lane, None
        assert lane is not None
        lane.jobs -= 1
        self.is_done = True
        if self._error is None and self._after is not None:
            try:
                self._after(self._result)
            except BaseException as error:  # noqa: BLE001 - the waiter's, as above
                self._error = error
        if self.released is not None:
            self.released(lane)
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Give up a job that no lane has taken."""
        self._error = error
        self.is_done = True
        self._wake()

    async def wait(self, *, stop: Callable[[], bool] | None = None) -> T:
        """Return the function's result or raise its error, when it has ended.

        If the waiting task is cancelled, that is raised once the function has ended. ``stop`` is called to hasten it,
        again and again, as a statement that has not begun cannot be interrupted; it returns whether it kept the
        function from beginning.
        """
        try:
            await self._waiter
        except asyncio.CancelledError as cancellation:
            while not self.is_done:
                if stop is not None and stop():
                    raise
                self._waiter = self._loop.create_future()
                again = self._loop.call_later(_STOP_AGAIN_S, self._wake) if stop is not None else None
                with contextlib.suppress(
                    asyncio.CancelledError
                ):  # a second one: the first is reported all the same
                    await self._waiter
                if again is not None:
                    again.cancel()
            error, self._error = self._error, None
            raise cancellation from error
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame: a cycle that would keep the arguments alive
        result = self._result
        del self._result  # the thread holds its last job until the next comes
        return result

    def _wake(self) -> None:
        if not self._waiter.done():
            self._waiter.set_result(None)


class Lane(aiosqlite.Connection):
    """A connection and its thread. ``jobs`` counts those handed in and not yet delivered."""

    def __init__(self, connector: Callable[[], Any], *, name: str) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._thread.daemon = True
        self._thread.name = name
        self.jobs = 0

    @property
    def raw(self) -> Connection:
        """The connection itself. Only for whoever runs on the thread, or knows that it is idle (``jobs`` is 0)."""
        return self._connection  # type: ignore[return-value]  # aiosqlite takes it for sqlite3's, whose shape it has

    async def open(self) -> None:
        """Start the thread and connect on it. Raises what the connector raises, and then the thread is gone."""
        self._thread.start()
        job = Job(self._establish)
        self.submit(job)
        await job.wait()

    def _establish(self, _: Connection) -> None:
        try:
            self._connection = self._connector()
        except BaseException:
            self._end()
            raise

    def submit(self, job: Job[Any]) -> None:
        """Put ``job`` in the thread's queue."""
        job.lane = self
        self.jobs += 1
        self._tx.put_nowait((None, job.run))

    async def finish(self) -> None:
        """Close the connection after everything that was handed in, and end the thread."""
        if self._connection is None:
            return
        job = Job(_close)
        self.submit(job)
        self._end()
        try:
            await job.wait()
        finally:
            self._connection = None

    def _end(self) -> None:
        self._running = False
        self._tx.put_nowait((None, lambda: _STOP_RUNNING_SENTINEL))


def _close(connection: Connection) -> None:
    connection.close()
