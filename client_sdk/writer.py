"""One change after another: single verbs and whole transactions through `client_sdk.commit`, and who hears of
them afterwards.

A single verb is one hop to the database thread. ``client.transaction()`` is one hop too: a function that
holds the writer and carries out the verbs sent to it until the block ends, so that verbs and queries inside
it see each other's work, nobody else's comes between, and a block that fails or is cancelled leaves nothing.
Who hears (watchers, the runner) is called on the event loop, in the order of the commits, after the
transaction is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar

from client_sdk.commit import Committed, Corridor
from client_sdk.database import Connection, Database
from client_sdk.errors import ClientError, ClosedClient, TransactionFailed
from client_sdk.notices import Heard
from crdt.errors import CrdtError

__all__ = ["Call", "Observe", "Transaction", "Writer"]

T = TypeVar("T")

Call: TypeAlias = Literal["read", "write", "transaction", "remote"]
"""What was called: a read, a verb, a block of verbs (its time is its caller's too), or what sync writes."""

Observe: TypeAlias = Callable[[Call, str], contextlib.AbstractContextManager[Any]]
"""Returns what surrounds a call, to measure or trace it. Beside the call: the collection that is read, or ""."""

_current: contextvars.ContextVar[Transaction | None] = contextvars.ContextVar(
    "pjais_transaction", default=None
)


class Writer:
    """The one who writes. ``listeners`` are called with each `Committed`, ``told`` is the newest they heard of, and
    ``observe`` surrounds each call.
    """

    def __init__(self, database: Database, corridor: Corridor) -> None:
        self.database = database
        self.corridor = corridor
        self.listeners: list[Callable[[Committed], None]] = []
        self.told = corridor.state.commits
        self.observe: Observe = lambda _call, _collection: contextlib.nullcontext()

    async def run(self, work: Callable[[Corridor], T], *, brief: bool = False, is_remote: bool = False) -> T:
        """Carry out some verbs of the corridor in one transaction (or in the block's, inside one), and tell
        the listeners.

        ``brief`` says that it touches a few rows. Raises what ``work`` raises; nothing was changed then.
        """
        transaction = _current.get()
        if transaction is not None and transaction.writer is self and not is_remote:
            return await transaction.run(work)
        corridor = self.corridor

        def carry_out(_: Connection) -> tuple[T, Committed]:
            corridor.begin()
            result = work(corridor)
            return result, corridor.finish()

        def after(outcome: tuple[T, Committed]) -> None:
            outcome[1].is_remote = is_remote
            self.tell(outcome[1])

        with self.observe("remote" if is_remote else "write", ""):
            result, _ = await self.database.write(carry_out, brief=brief, after=after, undo=corridor.undo)
        return result

    async def read(self, work: Callable[[Connection], T], *, brief: bool = False, collection: str = "") -> T:
        """Read in one consistent view: the last commit's, or inside a block, the block's own."""
        transaction = _current.get()
        if transaction is not None and self.is_in_transaction:
            return await transaction.run(lambda corridor: work(corridor.connection))
        with self.observe("read", collection):
            return await self.database.read(work, brief=brief)

    @property
    def is_in_transaction(self) -> bool:
        """Whether the caller is inside ``client.transaction()``."""
        transaction = _current.get()
        return transaction is not None and transaction.writer is self

    def tell(self, committed: Committed) -> None:
        """Call the listeners, first with what other instances committed before."""
        if committed.missed is not None:
            self.hear(committed.missed)
        for listener in self.listeners:
            listener(committed)
        self.told = max(self.told, committed.commits)

    def hear(self, heard: Heard) -> None:
        """Tell the listeners of what other instances committed, unless they know."""
        if heard.through <= self.told:
            return
        told = heard.notices
        if told is None:
            everything = frozenset(self.corridor.tables)
            committed = Committed(pending=heard.pending, whole=everything, is_call=True)
        else:
            committed = Committed(
                changes=[change for notice in told for change in notice.changes or ()],
                pending=heard.pending,
                whole=frozenset(name for one in told if one.changes is None for name in one.collections),
                is_call=any(notice.is_call for notice in told),
            )
        committed.is_foreign, committed.commits = True, heard.through
        self.tell(committed)


class Transaction:
    """``async with client.transaction():`` - several writes, one commit, one notice to watchers.

    Blocks inside blocks join the outermost. An exception undoes the whole block.
    """

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._orders: queue.SimpleQueue[
            tuple[Callable[[Corridor], Any], asyncio.Future[Any]] | bool | None
        ] = queue.SimpleQueue()
        self._held: asyncio.Task[Committed | None] | None = None
        self._token: contextvars.Token[Transaction | None] | None = None
        self._broken: BaseException | None = None

    async def __aenter__(self) -> Self:
        """Take the writer."""
        outer = _current.get()
        if outer is not None and outer.writer is self.writer:
            return self
        loop = asyncio.get_running_loop()
        started: asyncio.Future[None] = loop.create_future()
        self._held = asyncio.create_task(self._hold(loop, started))
        try:
            waited: set[asyncio.Future[Any]] = {started, self._held}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._orders.put(False)
            raise
        if not started.done():
            await self._held
            raise ClosedClient
        self._token = _current.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, or undo everything if the block failed."""
        if self._token is None or self._held is None:
            return
        _current.reset(self._token)
        self._orders.put(None if error is None else False)
        committed = await _through_cancellation(self._held)
        if committed is None and error is None:
            raise TransactionFailed from self._broken

    async def run(self, work: Callable[[Corridor], T]) -> T:
        """Carry out one verb inside the block."""
        if self._held is None or self._held.done():
            raise TransactionFailed
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._orders.put((work, future))
        return await future

    async def _hold(self, loop: asyncio.AbstractEventLoop, started: asyncio.Future[None]) -> Committed | None:
        corridor = self.writer.corridor

        def serve(_: Connection) -> Committed:
            loop.call_soon_threadsafe(_resolve, started, None, None)
            corridor.begin()
            while (order := self._orders.get()) is not None:
                if isinstance(order, bool):
                    raise _Undone
                work, future = order
                try:
                    result = work(corridor)
                except BaseException as error:  # noqa: BLE001 - it belongs to the caller of the verb
                    # A typed refusal comes before anything is written; after any other error the block cannot be whole.
                    if not isinstance(error, CrdtError | ClientError):
                        self._broken = error
                    loop.call_soon_threadsafe(_resolve, future, None, error)
                else:
                    loop.call_soon_threadsafe(_resolve, future, result, None)
            if self._broken is not None:
                raise _Undone
            return corridor.finish()

        try:
            with self.writer.observe("transaction", ""):
                return await self.writer.database.write(
                    serve, after=self.writer.tell, undo=corridor.undo, waits=True
                )
        except _Undone:
            return None


class _Undone(Exception):
    """Leaves the database's transaction without committing it."""


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


async def _through_cancellation(task: asyncio.Task[T]) -> T:
    """Wait for a task to end even while being cancelled; report the cancellation then."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:  # noqa: BLE001 - reported below, from the task
            break
    if cancelled is not None:
        raise cancelled
    return task.result()
