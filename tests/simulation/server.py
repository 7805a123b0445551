"""The server, driven step by step: the real admit, session, notices and folding on a real Postgres.

What `server.routes.live` does with tasks and `server.app` with loops is done here by events: a frame arrives, a group
commit runs, a session is asked for its news, some of the log is folded. Two server processes share the database, each with
a gate and notices of its own; a device meets one or the other. Between them goes only what would go through Postgres:
notices, which may be late or lost.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from uuid import UUID

import asyncpg

from crdt import wire
from crdt.limits import PUSHES_IN_FLIGHT
from server import devices, spaces
from server.admit import Admit, Admitted
from server.admit.memory import Writers
from server.database import Connection, Database
from server.materialize.batch import fold_anew, fold_spaces
from server.materialize.fold import Outcome, Work, fold_record
from server.materialize.folding import Folding
from server.notify import Notify
from server.session import Meeting, Session
from server.settings import Settings
from tests.simulation.world import Broken, World

if TYPE_CHECKING:
    from tests.simulation.network import Link

__all__ = ["Seat", "Server"]

T = TypeVar("T")

PROCESSES: Final = 2
_TABLES: Final = (
    "tokens, challenges, devices, accounts, spaces, members, invitations, invitation_spaces, writers, log, refusals, "
    "materializations, documents, quarantine"
)
_CLOCKS_KEPT: Final = 12  # so few that the gate often has to ask the log where a writer left off
_COMPARE_MS: Final = 3_000

Trouble = Literal["", "lost before the commit", "committed, connection lost"]


class _Quiet(BaseException):
    """A session has nothing to say."""


class _Bell(asyncio.Event):
    """A session's signal that there is news: tells the world, and never makes anybody wait."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def set(self) -> None:
        super().set()
        self._ring()

    async def wait(self) -> Literal[True]:
        if not self.is_set():
            raise _Quiet
        return True


class _Session(Session):
    """A session with a place of its own in a set: those that listen are told in the same order in every run."""

    def __init__(self, meeting: Meeting, number: int) -> None:
        super().__init__(meeting)
        self._number = number

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Postgres(Database):
    """The database as one process sees it: its connection may break around the next commit."""

    trouble: Trouble = ""

    async def transaction(self, work: Callable[[Connection], Awaitable[T]], *, retries: int = 0) -> T:
        trouble, self.trouble = self.trouble, ""

        async def cut_short(connection: Connection) -> T:
            await work(connection)
            raise ConnectionResetError("simulated: lost before the commit")

        if trouble == "lost before the commit":
            return await super().transaction(cut_short, retries=0)
        result = await super().transaction(work, retries=retries)
        if trouble:
            raise ConnectionResetError("simulated: nobody knows whether it was committed")
        return result


class _Gate(Admit):
    """The gate, which commits when it is told to."""

    def __init__(self, database: _Postgres, announce: Callable[[UUID, int], None], settings: Settings) -> None:
        super().__init__(database, announce, settings)
        self._writers = Writers(clocks_max=_CLOCKS_KEPT)
        self.submitted = asyncio.Event()

    async def submit(self, device: UUID, space: UUID, push: wire.Push) -> asyncio.Future[Admitted]:
        future = await super().submit(device, space, push)
        self.submitted.set()
        return future

    async def commit(self) -> int:
        """Commit what waits, and return how many pushes that were."""
        waiting = [one.done for one in self._first.waiting]
        if waiting:
            lane = asyncio.create_task(self._run_first())
            await asyncio.wait([asyncio.ensure_future(_settled(waiting)), lane], return_when=asyncio.FIRST_COMPLETED)
            if lane.done():
                lane.result()
            lane.cancel()
            await asyncio.gather(lane, return_exceptions=True)
        return len(waiting)


async def _settled(futures: Iterable[asyncio.Future[Any]]) -> None:
    await asyncio.wait(list(futures))


class _InProcess(Folding):
    """Folds in this process: what comes here is honest."""

    def __init__(self) -> None:
        super().__init__(memory_bytes_max=0)

    async def fold(self, works: Sequence[Work]) -> tuple[list[Outcome], set[int]]:
        outcomes = [fold_record(work) for work in works]
        for work, outcome in zip(works, outcomes, strict=True):
            if outcome.doubt is not None or outcome.refused:
                raise Broken("no honest update is refused", f"folding {work.collection} {work.record}: {outcome}")
        return outcomes, set()


class Seat:
    """A session and its end of the socket: what `server.routes.live.Socket` is, in events."""

    link: Link

    def __init__(self, process: Process) -> None:
        self.process = process
        self.is_gone = False
        self.session = _Session(process.meeting, next(process.server.numbers))
        self.session._news = _Bell(self._ring)
        self._answers: deque[asyncio.Task[list[bytes]]] = deque()
        self._unread: deque[bytes] = deque()
        self._is_rung = False

    def _ring(self) -> None:
        if not self._is_rung and not self.is_gone:
            self._is_rung = True
            self.process.soon(f"{self.link.name} news", self._say)

    async def arrive(self, frame: bytes) -> None:
        """A frame of the device is there."""
        if self.is_gone:
            return
        self._unread.append(frame)
        await self._read()

    async def _read(self) -> None:
        while self._unread and len(self._answers) < PUSHES_IN_FLIGHT and not self.is_gone:
            gate = self.process.gate
            gate.submitted.clear()
            task = asyncio.create_task(self.session.receive(self._unread.popleft()))
            queued = asyncio.create_task(gate.submitted.wait())
            await asyncio.wait([task, queued], return_when=asyncio.FIRST_COMPLETED)
            queued.cancel()
            self._answers.append(task)
            if not task.done():
                self.process.commit_soon()
            await self.answer()

    async def answer(self) -> None:
        """Send the answers that are there, in the order of the frames."""
        while self._answers and self._answers[0].done():
            for frame in self._answers.popleft().result():
                self._send(frame)
            await self._read()

    async def settle(self) -> None:
        """Let what a commit has answered come to its end."""
        if self._answers:
            await asyncio.wait(list(self._answers))

    async def _say(self) -> None:
        self._is_rung = False
        if self.is_gone:
            return
        try:
            frames = await self.session.next_frames()
        except _Quiet:
            return
        for frame in frames:
            self._send(frame)

    def _send(self, frame: bytes) -> None:
        if self.is_gone:
            return
        self.link.down(frame)
        if frame == self.session.failure:
            message = wire.decode_from_server(frame)
            assert isinstance(message, wire.Failure)
            self.process.server.world.note(f"{self.link.name} Failure {message.code}")
            self.link.cut_by_server(message.code)
            self._forget()

    async def end(self, reason: str) -> None:
        """The socket is closed: the session writes down how far it was read."""
        if not self.is_gone:
            self._forget()
            await self.session.close()

    def die(self) -> None:
        """The process is gone: nothing is written down."""
        if not self.is_gone:
            self.link.cut_by_server("the server died")
            self._forget()

    def _forget(self) -> None:
        self.is_gone = True
        self.process.seats.discard(self)
        self.process.left += [task for task in self._answers if not task.done()]
        for task in self._answers:
            task.cancel()
        self._answers.clear()


class Process:
    """One server process."""

    def __init__(self, server: Server, number: int, database: _Postgres, settings: Settings) -> None:
        self.server = server
        self.number = number
        self.database = database
        self.notify = Notify(database.listener)
        self.gate = _Gate(database, self._announce, settings)
        self.seats: set[Seat] = set()
        self.left: list[asyncio.Task[list[bytes]]] = []
        self.is_up = True
        self._is_committing = False
        self.meeting = Meeting(
            database, self.gate, self.notify, now=server.now, monotonic=lambda: server.world.now_ms / 1_000
        )

    def soon(self, label: str, action: Callable[[], Awaitable[object]]) -> None:
        """Let something happen within some milliseconds, if this process lives so long."""

        async def happen() -> None:
            if self.is_up:
                await action()

        self.server.world.after(self.server.chance.randint(0, 40), label, happen)

    def commit_soon(self) -> None:
        """Let a group commit run, if none is due."""
        if not self._is_committing:
            self._is_committing = True
            self.soon(f"server {self.number} commits", self._commit)

    async def _commit(self) -> None:
        self._is_committing = False
        server = self.server
        trouble = server.draw_trouble()
        self.database.trouble = trouble if trouble != "unanswered" else ""
        pushes = await self.gate.commit()
        self.database.trouble = ""
        seats = sorted(self.seats, key=lambda seat: seat.link.name)
        for seat in seats:
            await seat.settle()
        server.world.note(f"server {self.number} committed {pushes} pushes, head {await server.head()} {trouble}".rstrip())
        if trouble == "unanswered" and pushes:
            server.world.fault("committed and did not answer")
            self.die()
            return
        if trouble and pushes:
            server.world.fault(trouble)
        for seat in seats:
            await seat.answer()

    def _announce(self, space: UUID, head: int) -> None:
        self.notify.announce(space, head)
        self.server.tell_others(self, space, head)

    def die(self) -> None:
        """End without a word; `Server` starts another in its place."""
        self.is_up = False
        for seat in sorted(self.seats, key=lambda seat: seat.link.name):
            seat.die()
        self.server.restart(self)


class Server:
    """The processes and their database. ``is_faulty`` lets commits and notices go wrong."""

    def __init__(self, world: World, database: Database, settings: Settings) -> None:
        self.world = world
        self.chance = world.chance("server")
        self.settings = settings
        self.database = database
        self.is_faulty = True
        self.numbers = itertools.count(1)  # of the sessions
        self.account, self.space, self.generation = (self._uuid() for _ in range(3))
        self._folding = _InProcess()
        self.processes = [self._started(number) for number in range(PROCESSES)]

    def _uuid(self) -> UUID:
        return UUID(bytes=self.chance.randbytes(16), version=4)

    def _started(self, number: int) -> Process:
        plain = self.database
        database = _Postgres(plain._url, self.settings, plain.pool, "simulation")
        return Process(self, number, database, self.settings)

    def now(self) -> datetime:
        """The server's clock: the true time."""
        return datetime.fromtimestamp(self.world.now_ms / 1_000, UTC)

    async def begin(self) -> None:
        """Empty the database, and make the space."""
        async with self.database.connection() as connection:
            for table in _TABLES.split(", "):
                await connection.execute(f"DELETE FROM {table}")
            await spaces.add_account(connection, self.account, space=self.space, generation=self.generation)
        self.world.every(_COMPARE_MS, "server compares heads", self._compare)

    async def enrol(self, name: str) -> tuple[UUID, str]:
        """Add a device; return its id and a token."""
        device, now = self._uuid(), self.now() - timedelta(days=1)
        async with self.database.connection() as connection:
            await devices.enrol(connection, device, account=self.account, public_key=device.bytes * 2, name=name)
            await spaces.add_member(connection, self.space, device)
            token = await devices.token_issued(connection, device, now=now, lifetime_s=10**8)
        return device, token.text

    def seat(self) -> Seat | None:
        """Return a new seat at one of the processes that run, or None."""
        running = [process for process in self.processes if process.is_up]
        if not running:
            return None
        process = self.chance.choice(running)
        seat = Seat(process)
        process.seats.add(seat)
        return seat

    # -- What goes wrong

    def draw_trouble(self) -> str:
        """Say what goes wrong with the commit that is about to run."""
        if not self.is_faulty or self.chance.random() > 0.08:
            return ""
        return self.chance.choice(("lost before the commit", "committed, connection lost", "unanswered"))

    def kill(self) -> None:
        """Let one process die."""
        running = [process for process in self.processes if process.is_up]
        if running:
            self.world.fault("server restarted")
            self.chance.choice(running).die()

    def restart(self, process: Process) -> None:
        """Start another process in the place of one that died."""

        async def start() -> None:
            await asyncio.gather(*process.left, return_exceptions=True)
            self.processes[process.number] = self._started(process.number)

        self.world.after(self.chance.randint(50, 3_000), f"server {process.number} starts", start)

    def tell_others(self, sender: Process, space: UUID, head: int) -> None:
        """Carry a notice to the other processes: late, or not at all."""
        for process in self.processes:
            if process is sender:
                continue
            if self.is_faulty and self.chance.random() < 0.15:
                self.world.faults["notice lost"] += 1
                continue

            async def hear(process: Process = process) -> None:
                if process.is_up:
                    process.notify._wake_head(space, head)

            self.world.after(self.chance.randint(0, 200), "notice", hear)

    async def _compare(self) -> None:
        async with self.database.pool.acquire() as connection:
            for process in self.processes:
                if process.is_up:
                    watched = tuple(process.notify._listeners_by_space)
                    await process.notify._compare(_plain(connection), watched)

    # -- What goes on beside

    async def fold(self, rows_max: int) -> None:
        """Fold some of the log."""
        async with self.database.connection() as connection:
            turn = await fold_spaces(connection, self._folding, [self.space], rows_max={self.space: rows_max})
        self._tell_materialized(turn.positions.get(self.space))

    async def fold_anew(self) -> None:
        """Forget the documents, and fold all of the log again."""
        self.world.fault("folded anew")
        async with self.database.connection() as connection:
            position = await fold_anew(connection, self._folding, self.space)
        self._tell_materialized(position)

    def _tell_materialized(self, position: int | None) -> None:
        if position is None:
            return
        self.world.note(f"folded up to {position}")
        for process in self.processes:
            if self.is_faulty and self.chance.random() < 0.15:
                self.world.faults["notice lost"] += 1
            elif process.is_up:
                process.notify._wake_materialized(self.space, position)

    async def end(self) -> None:
        """End every session."""
        for process in self.processes:
            for seat in sorted(process.seats, key=lambda seat: seat.link.name):
                await seat.end("the simulation is over")
            process.is_up = False
            await asyncio.gather(*process.left, return_exceptions=True)

    async def head(self) -> int:
        """Return where the log ends."""
        async with self.database.connection() as connection:
            head: int = await connection.fetchval("SELECT head FROM spaces WHERE space_id = $1", self.space)
        return head

    async def rows(self, query: str) -> list[asyncpg.Record]:
        """Return the rows of a query whose only parameter is the space."""
        async with self.database.connection() as connection:
            return await connection.fetch(query, self.space)


def _plain(connection: Any) -> asyncpg.Connection[Any]:
    plain: asyncpg.Connection[Any] = connection
    return plain
