"""Which spaces have news, and when each gets its turn.

Heads come by notice (`server.notify`), and every few seconds all spaces are looked at for what no notice
told. Spaces wait in line: a turn takes some from the front, and those that have more afterwards go to the
end, so a large import in one space delays another by one turn.

While an import is running (heads that jump), a turn waits until it pauses, half a second at the most: acknowledging and
delivering come first on a machine with few cores, and what is folded later is folded at once. What a person types is
folded as it comes.

A space in trouble is made small instead of being stopped: after a turn in which the worker died of one of its
records, or in which Postgres would not take what came of it, its next turn is one update, the one after that
two, and so on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from typing import Any, Final, cast
from uuid import UUID

import asyncpg
import structlog

from server.database import Connection, Database
from server.errors import CannotServe
from server.materialize import tables
from server.materialize.batch import ROWS_MAX, Turn, fold_spaces, set_aside
from server.materialize.folding import Folding, WorkerFailed
from server.materialize.sweep import sweep
from server.notify import HEADS, MATERIALIZED, read_notices, tell

__all__ = ["Follower"]

#: Spaces in one turn: each costs one query, about 0.3 ms.
_SPACES_MAX: Final = 64
#: Updates in one notice that make an import of it, and how long a turn waits for the next (seconds), and for all.
_IMPORT_UPDATES_MIN: Final = 100
_PAUSE_S: Final = 0.1
_PAUSES_S_MAX: Final = 0.5
_HEADS_REMEMBERED_MAX: Final = 10_000
#: Before each turn: what was just acknowledged is delivered first, and what comes meanwhile shares the turn. One edit
#: reached the other device after 5.7 ms instead of 7.2 (two cores).
_LINGER_S: Final = 0.03
#: Between two looks at all spaces: what a lost notice costs at most.
_LOOK_INTERVAL_S: Final = 3.0
_LOOK_SPACES_MAX: Final = 10_000
_ANSWER_TIMEOUT_S: Final = 10.0
_BACKOFF_S_MIN: Final = 0.05
_BACKOFF_S_MAX: Final = 5.0
#: Trouble after so long without any begins with a short wait again.
_WELL_S: Final = 30.0

#: Postgres, the way to it or the worker is in trouble, not what is folded: SQLSTATE classes 08, 40, 53, 55, 57 and 58.
_TROUBLE: Final = (
    CannotServe,
    WorkerFailed,
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that Postgres ended while nobody used it
    asyncpg.PostgresConnectionError,
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
)
#: Postgres does not take these very values: SQLSTATE classes 22, 23 and 54.
_NOT_TAKEN: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)

_log = structlog.get_logger(__name__)


class Follower:
    """Follows every space's log. `run` goes on until it is cancelled, through lost connections too."""

    def __init__(
        self, database: Database, folding: Folding, *, look_interval_s: float = _LOOK_INTERVAL_S
    ) -> None:
        self._database = database
        self._folding = folding
        self._look_interval_s = look_interval_s
        self._line: dict[UUID, None] = {}  # spaces that wait for their turn, in order
        self._rows_max: dict[UUID, int] = {}  # of spaces that were in trouble lately
        self._news = asyncio.Event()
        self._folded = asyncio.Event()  # something, since the last sweep
        self._head_by_space: dict[UUID, int] = {}  # as the notices told
        self._imported_at = self._import_began_at = float("-inf")  # the last import's first and newest jump

    async def run(self) -> None:
        """Fold whatever comes, until cancelled; whatever was not committed then is folded again another time."""
        loop = asyncio.get_running_loop()
        wait_s = _BACKOFF_S_MIN
        sweeping = asyncio.create_task(self._sweep_on())
        try:
            while True:
                began = loop.time()
                try:
                    await self._follow()
                except _TROUBLE as trouble:
                    is_well = loop.time() - began > _WELL_S
                    wait_s = _BACKOFF_S_MIN if is_well else min(wait_s * 2, _BACKOFF_S_MAX)
                    _log.warning("materialization waits", problem=str(trouble) or type(trouble).__name__)
                    await asyncio.sleep(wait_s)
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)

    async def catch_up(self) -> None:
        """Fold until no space has more than is folded; spaces that other processes fold are left to them."""
        await self._look()
        while self._line:
            await self._next_turn()
        await sweep(self._database)

    async def _sweep_on(self) -> None:
        """Sweep after what is folded, and at every look, beside the folding."""
        while True:
            self._folded.clear()
            try:
                await sweep(self._database)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is still listed, and folding goes on
                _log.warning("vectors of what is gone stay", problem=str(error) or type(error).__name__)
                await asyncio.sleep(_BACKOFF_S_MAX)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_interval_s):
                    await self._folded.wait()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        listener = await self._database.listener()
        try:
            listener.add_termination_listener(lambda _: self._news.set())
            await listener.add_listener(HEADS, self._on_notice)
            look_at = loop.time()  # at once: what came while nobody listened
            while not listener.is_closed():
                if loop.time() >= look_at:
                    # A line that a firewall forgot looks alive until it is asked.
                    await listener.execute("SELECT 1", timeout=_ANSWER_TIMEOUT_S)
                    await self._look()
                    look_at = loop.time() + self._look_interval_s
                if self._line:
                    await asyncio.sleep(_LINGER_S)
                    if (pause_s := self._import_pause_s()) > 0:
                        await asyncio.sleep(pause_s)
                        continue
                    await self._next_turn()
                    continue
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(look_at):
                        await self._news.wait()
        finally:
            listener.terminate()
        raise ConnectionResetError("Postgres ended the listening connection")

    def _on_notice(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if len(self._head_by_space) > _HEADS_REMEMBERED_MAX:
            self._head_by_space.clear()
        for space, head in read_notices(str(payload)):
            self._line.setdefault(space)
            if head - self._head_by_space.get(space, head) >= _IMPORT_UPDATES_MIN:
                now = asyncio.get_running_loop().time()
                if now > self._imported_at + _PAUSE_S:
                    self._import_began_at = now
                self._imported_at = now
            self._head_by_space[space] = head
        self._news.set()

    def _import_pause_s(self) -> float:
        """Return how long to let a running import pass, 0 if there is none or it was waited for long enough."""
        now = asyncio.get_running_loop().time()
        return min(self._imported_at + _PAUSE_S, self._import_began_at + _PAUSES_S_MAX) - now

    async def _look(self) -> None:
        async with self._database.connection() as connection:
            for space in await tables.lagging(connection, at_most=_LOOK_SPACES_MAX):
                self._line.setdefault(space)

    async def _next_turn(self) -> None:
        spaces = list(itertools.islice(self._line, _SPACES_MAX))
        for space in spaces:
            del self._line[space]
        await self._turn(spaces)  # if it fails, the look that comes next finds them again

    async def _turn(self, spaces: Sequence[UUID]) -> None:
        try:
            async with self._database.connection() as connection:
                turn = await fold_spaces(connection, self._folding, spaces, rows_max=self._rows_max)
                await _tell(connection, turn)
            self._folded.set()
        except _NOT_TAKEN as error:
            await self._narrow_down(spaces, error)
        else:
            self._learn(spaces, turn)

    async def _narrow_down(self, spaces: Sequence[UUID], error: asyncpg.PostgresError) -> None:
        """Find the update of which Postgres does not take what it comes to, and put it aside."""
        _log.warning("Postgres does not take what was folded", spaces=len(spaces), problem=str(error))
        if len(spaces) > 1:
            for space in spaces:
                await self._turn([space])
            return
        (space,) = spaces
        if self._rows_max.get(space, ROWS_MAX) > 1:
            self._rows_max[space] = 1
            self._line.setdefault(space)
            return
        async with self._database.connection() as connection:
            turn = await set_aside(connection, space, f"not_taken: {error}"[:300])
            await _tell(connection, turn)
        self._learn([], turn)

    def _learn(self, spaces: Sequence[UUID], turn: Turn) -> None:
        for space in spaces:
            if space in turn.troubled:
                self._rows_max[space] = 1
            elif space in self._rows_max:
                self._rows_max[space] *= 2
                if self._rows_max[space] >= ROWS_MAX:
                    del self._rows_max[space]
        self._line = dict.fromkeys(turn.unread) | self._line | dict.fromkeys(turn.behind)


async def _tell(connection: Connection, turn: Turn) -> None:
    if turn.positions:
        await tell(cast("asyncpg.Connection[Any]", connection), MATERIALIZED, turn.positions)
