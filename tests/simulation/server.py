"""The server, driven step by step: the real admit, session, notices and folding on a real Postgres.

What `server.routes.live` does with tasks and `server.app` with loops is done here by events: a frame arrives, a group
commit runs, a session is asked for its news, some of the log is folded. Two server processes share the database, each
with a gate and notices of its own; a device meets one or the other. Between them goes only what would go through
Postgres: notices, which may be late or lost.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from server import devices, spaces
from server.database import Database
from server.materialize.batch import fold_anew, fold_spaces
from server.notify import HEADS, MATERIALIZED, Notify
from server.session import Meeting
from server.settings import Settings
from tests.simulation.seat import Seat
from tests.simulation.stepped import TROUBLES, FoldingHere, SteppedGate, Trouble, UnreliablePostgres
from tests.simulation.world import World

__all__ = ["Process", "Server"]

PROCESSES: Final = 2
_TABLES: Final = (
    "tokens, challenges, devices, accounts, spaces, members, invitations, invitation_spaces, writers, log, refusals, "
    "materializations, documents, quarantine, texts, vectors, vector_heads, vectors_gone, models"
)
_COMPARE_MS: Final = 3_000
_LOST: Final[Trouble] = (
    "lost before the commit"  # as frequent as the two others: what is sent behind may overtake it
)


class Process:
    """One server process."""

    def __init__(self, server: Server, number: int, database: UnreliablePostgres, settings: Settings) -> None:
        self.server = server
        self.number = number
        self.database = database
        self.notify = Notify(database.listener)
        self.gate = SteppedGate(database, self._announce, settings)
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
        self.database.trouble = trouble
        pushes = await self.gate.commit()
        self.database.trouble = ""
        seats = sorted(self.seats, key=lambda seat: seat.link.name)
        for seat in seats:
            await seat.settle()
        server.world.note(
            f"server {self.number} committed {pushes} pushes, head {await server.head()} {trouble}".rstrip()
        )
        if trouble == "committed, not answered" and pushes:
            server.world.fault(trouble)
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
        self._folding = FoldingHere()
        self.processes = [self._started(number) for number in range(PROCESSES)]

    def _uuid(self) -> UUID:
        return UUID(bytes=self.chance.randbytes(16), version=4)

    def _started(self, number: int) -> Process:
        plain = self.database
        database = UnreliablePostgres(plain._url, self.settings, plain.pool, "simulation")
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
        device = self._uuid()
        async with self.database.connection() as connection:
            await devices.enrol(
                connection, device, account=self.account, public_key=device.bytes * 2, name=name
            )
            await spaces.add_member(connection, self.space, device)
        return device, await self.token(device)

    async def token(self, device: UUID) -> str:
        """Return a new token for a device."""
        now = self.now() - timedelta(days=1)
        async with self.database.connection() as connection:
            return (await devices.token_issued(connection, device, now=now, lifetime_s=10**8)).text

    async def forget_tokens(self, device: UUID) -> None:
        """Let every token of a device have expired."""
        async with self.database.connection() as connection:
            await connection.execute("DELETE FROM tokens WHERE device_id = $1", device)

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

    def draw_trouble(self) -> Trouble:
        """Say what goes wrong with the commit that is about to run."""
        if not self.is_faulty or self.chance.random() > 0.2:
            return ""
        return self.chance.choice((_LOST, *TROUBLES))

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
                    process.notify._wake(HEADS, space, head)

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
                process.notify._wake(MATERIALIZED, self.space, position)

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
