"""The server's gate: what devices push becomes durable here, in the order of the space, or is refused with a reason.

Log first: a push is appended to the log and acknowledged; documents are folded later, elsewhere (`server.materialize`).
One commit serves all spaces and sessions that wait in this process, and takes whatever came while the commit before it
ran: nobody waits for company, and the busier it is, the more share a flush. In the order of a push:

* `decide.check` walks its updates as soon as it arrives, in slices, while Postgres is busy with others;
* `commit.GroupCommit` decides with what the log knows, and writes;
* after the commit: acknowledgements, then notices. Never before it.

What goes wrong stays small. A bad update is refused alone. A push that no check foresaw and Postgres will not take is
found by committing its batch one by one. When the connection is lost, nobody knows whether the commit happened: every
push of it fails with an error that says *try again*, and the repeat is recognised by its numbers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from crdt.wire import Ack, Push
from server.admit.commit import Admitted, GroupCommit
from server.admit.decide import CheckedPush, check
from server.admit.memory import Writers
from server.database import Connection, Database
from server.errors import CannotAdmit, CannotServe, DatabaseUnavailable, ServerError, SpaceBusy
from server.settings import Settings

__all__ = ["Admit", "Admitted", "Announce"]

Announce = Callable[[UUID, int], None]
"""Told (space, head) after each commit."""

#: Pushes waiting for a commit, in bytes of updates. Past it, sessions stop reading their sockets.
_WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
#: How long the second lane waits for spaces that another process holds; its others wait as long.
_LOCK_WAIT_MS: Final = 1_000
#: After this the device is told to come again later.
_HELD_S_MAX: Final = 10.0

#: Postgres, or the way to it, is in trouble, not the push: SQLSTATE classes 08, 53, 57 and 58.
_TROUBLE: Final = (
    CannotServe,
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
)

_log = structlog.get_logger(__name__)


class _Waiting:
    """A checked push in the queue, and who waits for it."""

    __slots__ = ("checked", "done", "since")

    def __init__(self, checked: CheckedPush, done: asyncio.Future[Admitted], since: float) -> None:
        self.checked = checked
        self.done = done
        self.since = since

    def succeed(self, admitted: Admitted) -> None:
        if not self.done.done():
            self.done.set_result(admitted)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # its session may be gone: then nobody asks, and that is no bug


class _Lane:
    """Pushes in the order of their arrival, and a signal that there are some."""

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.arrived = asyncio.Event()

    def add(self, waiting: _Waiting) -> None:
        self.waiting.append(waiting)
        self.arrived.set()

    def put_back(self, batch: Iterable[_Waiting]) -> None:
        self.waiting.extendleft(reversed(tuple(batch)))
        self.arrived.set()


class Admit:
    """The gate of one process. `run` commits until it is cancelled; `push` and `submit` are for sessions.

    Two lanes: the first never waits for a lock. A space that another process holds moves to the second with all its
    pushes, so their order stays, and comes back when nothing of it waits.
    """

    def __init__(self, database: Database, announce: Announce, settings: Settings) -> None:
        self._database = database
        self._announce = announce
        self._rows_max = settings.group_commit_rows_max
        self._bytes_max = settings.group_commit_bytes_max
        self._delay_s = settings.group_commit_delay_ms / 1_000
        self._writers = Writers()
        self._first = _Lane()
        self._second = _Lane()
        self._held_spaces: set[UUID] = set()
        self._waiting_bytes = 0
        self._room = asyncio.Condition()
        self._is_open = True

    async def push(self, device: UUID, push: Push) -> Ack:
        """Make a push durable and return its acknowledgement. Raises as `submit`, and what the future raises."""
        return (await (await self.submit(device, UUID(push.space), push))).ack

    async def submit(self, device: UUID, space: UUID, push: Push) -> asyncio.Future[Admitted]:
        """Check a push and put it into the queue; the future is done after its commit.

        Pushes of one device must be submitted one after the other; their futures may be awaited together.

        Raises:
            TooLarge, MalformedMessage: no device of ours sends such a push.
            DatabaseUnavailable: the server is stopping.

        The future raises:
            NotInSpace: the device is no member of the space, or revoked.
            ClientIdTaken: another incarnation writes under this client id.
            OutOfOrder: numbers are missing before ``first``.
            SpaceBusy, DatabaseUnavailable: try again; it may or may not have become durable.
            CannotAdmit: it could not be stored.
        """
        checked: CheckedPush | None = None
        for checked in check(device, space, push):
            if checked is None:
                await asyncio.sleep(0)
        assert checked is not None
        async with self._room:
            await self._room.wait_for(lambda: self._waiting_bytes < _WAITING_BYTES_MAX or not self._is_open)
        if not self._is_open:
            raise _stopping()
        loop = asyncio.get_running_loop()
        waiting = _Waiting(checked, loop.create_future(), loop.time())
        (self._second if space in self._held_spaces else self._first).add(waiting)
        self._waiting_bytes += checked.size
        return waiting.done

    async def run(self) -> None:
        """Commit what waits, again and again, until cancelled; then everything that still waits fails retryably."""
        try:
            async with asyncio.TaskGroup() as lanes:
                lanes.create_task(self._run_first())
                lanes.create_task(self._run_second())
        finally:
            self._is_open = False
            for lane in (self._first, self._second):
                while lane.waiting:
                    lane.waiting.popleft().fail(_stopping())
            async with self._room:
                self._room.notify_all()

    async def _run_first(self) -> None:
        while True:
            await self._first.arrived.wait()
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            async with self._batch(self._first) as batch:
                held = await self._settle(batch, wait_ms=None)
                if not held:
                    continue
                self._held_spaces.update(waiting.checked.space for waiting in held)
                overtaken = [w for w in self._first.waiting if w.checked.space in self._held_spaces]
                for waiting in overtaken:
                    self._first.waiting.remove(waiting)
                for waiting in [*held, *overtaken]:
                    self._second.add(waiting)

    async def _run_second(self) -> None:
        while True:
            await self._second.arrived.wait()
            async with self._batch(self._second) as batch:
                held = await self._settle(batch, wait_ms=_LOCK_WAIT_MS)
                if held:  # one of the spaces is the culprit: the others go now
                    by_space: dict[UUID, list[_Waiting]] = {}
                    for waiting in held:
                        by_space.setdefault(waiting.checked.space, []).append(waiting)
                    held = [w for part in by_space.values() for w in await self._settle(part, wait_ms=None)]
                too_long = asyncio.get_running_loop().time() - _HELD_S_MAX
                for waiting in held:
                    if waiting.since < too_long:
                        waiting.fail(SpaceBusy())
                self._second.put_back(waiting for waiting in held if not waiting.done.done())
            self._held_spaces = {waiting.checked.space for waiting in self._second.waiting}

    @asynccontextmanager
    async def _batch(self, lane: _Lane) -> AsyncIterator[list[_Waiting]]:
        """Take what waits, within bounds, in the order of arrival; whatever happens, none of it is forgotten."""
        batch: list[_Waiting] = []
        rows = size = 0
        while lane.waiting:
            checked = lane.waiting[0].checked
            rows += len(checked.push.edits)
            size += checked.size
            if batch and (rows > self._rows_max or size > self._bytes_max):
                break
            batch.append(lane.waiting.popleft())
        if not lane.waiting:
            lane.arrived.clear()
        try:
            yield batch
        except BaseException:
            for waiting in batch:
                waiting.fail(_stopping())
            raise
        finally:
            self._waiting_bytes -= sum(waiting.checked.size for waiting in batch if waiting.done.done())
            async with self._room:
                self._room.notify_all()

    async def _settle(self, batch: list[_Waiting], *, wait_ms: int | None) -> list[_Waiting]:
        """Commit a batch and tell each push what became of it. Returns those whose space another process holds."""
        try:
            commit = await self._commit(batch, wait_ms)
        except asyncpg.LockNotAvailableError:
            return batch
        except _TROUBLE as trouble:
            _log.warning(
                "group commit failed, devices will push again", pushes=len(batch), problem=str(trouble)
            )
            error = trouble if isinstance(trouble, ServerError) else _unknown(trouble)
            for waiting in batch:
                waiting.fail(error)
            return []
        except Exception:  # noqa: BLE001 - whatever it is, it must not stop the others
            if len(batch) == 1:
                _log.exception("a push could not be stored", space=str(batch[0].checked.space))
                batch[0].fail(CannotAdmit())
                return []
            _log.warning("a group commit failed; its pushes are committed one by one", exc_info=True)
            return [held for waiting in batch for held in await self._settle([waiting], wait_ms=wait_ms)]
        commit.learn()
        held = []
        for waiting, outcome in zip(batch, commit.outcomes, strict=True):
            if outcome is None:
                held.append(waiting)
            elif isinstance(outcome, Admitted):
                waiting.succeed(outcome)
            else:
                waiting.fail(outcome)
        for space, head in commit.heads.items():
            self._announce(space, head)
        return held

    async def _commit(self, batch: list[_Waiting], wait_ms: int | None) -> GroupCommit:
        async def work(connection: Connection) -> GroupCommit:
            commit = GroupCommit([waiting.checked for waiting in batch], self._writers)
            await commit.write(connection, wait_ms=wait_ms)
            return commit

        return await self._database.transaction(work)


def _unknown(trouble: BaseException) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        address="the database",
        problem=str(trouble) or type(trouble).__name__,
        action="see Postgres's own log",
    )


def _stopping() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        address="the database", problem="this server is stopping", action="connect again"
    )
