"""Who hears that a space has news: a space and a number, never contents.

`Notify.announce` is called after a commit. It wakes this process's listeners at once, and tells the other
processes by ``NOTIFY``: from one connection, after the commit (inside it, NOTIFY serialises all commits:
1,163 commits/s became 428), and coalesced: while one statement runs, later heads of a space replace earlier
ones. One more connection listens.

A lost notice costs delay, never data: whoever is woken reads the log after its own cursor, and every few seconds the
heads of the spaces that are listened for are compared with the table. Both connections come back by themselves, with
backoff; what happened meanwhile is found by the comparison that follows.

Three channels: ``pjais_heads`` (a log grew), ``pjais_vectors`` (vectors did) and ``pjais_materialized`` (documents and
digest stand at a position). A payload is ``space number``, several of them separated by commas. `tell` is for those who
hold a connection of their own, as `server.materialize` does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol
from uuid import UUID

import asyncpg
import stamina
import structlog

from server.errors import CannotServe

__all__ = ["HEADS", "MATERIALIZED", "VECTORS", "Connect", "Listener", "Notify", "read_notices", "tell"]

HEADS: Final = "pjais_heads"
VECTORS: Final = "pjais_vectors"
MATERIALIZED: Final = "pjais_materialized"

#: A payload ends at 8,000 bytes (Postgres' NOTIFY_PAYLOAD_MAX_LENGTH); one notice takes at most 57.
_NOTICES_IN_PAYLOAD_MAX: Final = 128
#: Between two comparisons of heads: what a lost notice costs at most.
_COMPARE_INTERVAL_S: Final = 3.0
#: A connection that does not answer within this is taken for dead and replaced.
_ANSWER_TIMEOUT_S: Final = 10.0
_BACKOFF_S_MAX: Final = 5.0

_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that Postgres ended while nobody used it
    CannotServe,
)

_log = structlog.get_logger(__name__)

Connect = Callable[[], Awaitable["asyncpg.Connection[Any]"]]
"""Opens a connection that belongs to the caller alone."""


class Listener(Protocol):
    """Whoever wants to know. All are called on the event loop, must not block and may come more than once."""

    def on_head(self, space: UUID, head: int) -> None:
        """The log of the space has grown to ``head``."""

    def on_vectors(self, space: UUID, head: int) -> None:
        """The newest vector of the space is at ``head``."""

    def on_materialized(self, space: UUID, position: int) -> None:
        """Documents and digest of the space stand at ``position``."""


async def tell(connection: asyncpg.Connection[Any], channel: str, numbers: Mapping[UUID, int]) -> None:
    """Send notices on a connection that is not inside a transaction."""
    notices = [f"{space} {number}" for space, number in numbers.items()]
    for start in range(0, len(notices), _NOTICES_IN_PAYLOAD_MAX):
        payload = ",".join(notices[start : start + _NOTICES_IN_PAYLOAD_MAX])
        await connection.execute("SELECT pg_notify($1, $2)", channel, payload)


def read_notices(payload: str) -> Iterator[tuple[UUID, int]]:
    """Read a payload; what is not a notice is skipped, since anyone with access to the database may send one."""
    for notice in payload.split(","):
        space, _, number = notice.partition(" ")
        with contextlib.suppress(ValueError):
            yield UUID(space), int(number)


class Notify:
    """The notices of one process. `run` keeps its two connections until it is cancelled."""

    def __init__(self, connect: Connect, *, compare_interval_s: float = _COMPARE_INTERVAL_S) -> None:
        self._connect = connect
        self._compare_interval_s = compare_interval_s
        self._listeners_by_space: dict[UUID, set[Listener]] = {}
        # Not yet told to other processes.
        self._untold: dict[str, dict[UUID, int]] = {HEADS: {}, VECTORS: {}}
        self._work = asyncio.Event()
        self._must_compare = False
        #: Set while the listening connection stands. A process whose connection is down still has the comparison.
        self.listening = asyncio.Event()

    def watch(self, space: UUID, listener: Listener) -> None:
        """Call the listener about this space from now on."""
        self._listeners_by_space.setdefault(space, set()).add(listener)

    def unwatch(self, space: UUID, listener: Listener) -> None:
        """Do not call it any more; unknown pairs are fine."""
        listeners = self._listeners_by_space.get(space)
        if listeners is not None:
            listeners.discard(listener)
            if not listeners:
                del self._listeners_by_space[space]

    def announce(self, space: UUID, head: int) -> None:
        """The log of the space stands at ``head``, durably. Wakes this process now and the others soon."""
        self._wake(HEADS, space, head)
        self._tell_later(HEADS, space, head)

    def announce_vectors(self, space: UUID, head: int) -> None:
        """The newest vector of the space is at ``head``, durably. Wakes as `announce` does."""
        self._wake(VECTORS, space, head)
        self._tell_later(VECTORS, space, head)

    async def run(self) -> None:
        """Tell and listen until cancelled; a lost connection is replaced."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep(self._tell_and_compare), name="notify: tell")
            tasks.create_task(self._keep(self._listen), name="notify: listen")

    def _wake(self, channel: str, space: UUID, number: int) -> None:
        for listener in tuple(self._listeners_by_space.get(space, ())):
            if channel == HEADS:
                listener.on_head(space, number)
            elif channel == VECTORS:
                listener.on_vectors(space, number)
            else:
                listener.on_materialized(space, number)

    def _tell_later(self, channel: str, space: UUID, number: int) -> None:
        untold = self._untold[channel]
        untold[space] = max(number, untold.get(space, 0))
        self._work.set()

    async def _keep(self, use: Callable[[asyncpg.Connection[Any]], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            connection: asyncpg.Connection[Any] | None = None
            began = loop.time()
            try:
                async for attempt in stamina.retry_context(
                    on=_LOST,
                    attempts=None,
                    timeout=None,
                    wait_initial=0.05,
                    wait_max=_BACKOFF_S_MAX,
                    wait_jitter=0.5,
                ):
                    with attempt:
                        connection = await self._connect()
                assert connection is not None
                began = loop.time()
                await use(connection)
            except _LOST as lost:
                # A database that accepts and then fails at once must not be asked in a tight loop.
                failures = failures + 1 if loop.time() - began < _BACKOFF_S_MAX else 0
                _log.warning("a connection for notices was lost", problem=str(lost), in_a_row=failures)
                await asyncio.sleep(min(0.05 * 2 ** min(failures, 10), _BACKOFF_S_MAX))
            finally:
                if connection is not None:
                    connection.terminate()

    async def _listen(self, connection: asyncpg.Connection[Any]) -> None:
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        for channel in (HEADS, VECTORS, MATERIALIZED):
            await connection.add_listener(channel, self._on_notice)
        self._must_compare = True  # what was announced while nobody listened
        self._work.set()
        self.listening.set()
        try:
            while not ended.is_set():
                try:
                    await asyncio.wait_for(ended.wait(), self._compare_interval_s)
                except TimeoutError:  # a connection that a firewall forgot looks alive until it is asked
                    await connection.execute("SELECT 1", timeout=_ANSWER_TIMEOUT_S)
        finally:
            self.listening.clear()
        raise ConnectionResetError("Postgres ended the listening connection")

    def _on_notice(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        for space, number in read_notices(str(payload)):
            self._wake(channel, space, number)

    async def _tell_and_compare(self, connection: asyncpg.Connection[Any]) -> None:
        loop = asyncio.get_running_loop()
        next_comparison = loop.time()
        while True:
            if self._must_compare or loop.time() >= next_comparison:
                self._must_compare = False
                await self._compare(connection, tuple(self._listeners_by_space))
                next_comparison = loop.time() + self._compare_interval_s
            if any(self._untold.values()):
                for channel in [name for name, numbers in self._untold.items() if numbers]:
                    await self._tell_due(connection, channel)
                continue
            self._work.clear()
            if self._must_compare:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_comparison):
                    await self._work.wait()

    async def _tell_due(self, connection: asyncpg.Connection[Any], channel: str) -> None:
        told, self._untold[channel] = self._untold[channel], {}
        try:
            await tell(connection, channel, told)
        except BaseException:
            for space, number in told.items():  # the next connection tells it
                self._tell_later(channel, space, number)
            raise

    async def _compare(self, connection: asyncpg.Connection[Any], spaces: Iterable[UUID]) -> None:
        rows = await connection.fetch(
            "SELECT space_id, spaces.head, coalesce(position, 0) AS materialized, "
            "coalesce(vector_heads.head, 0) AS vectors FROM spaces LEFT JOIN materializations USING (space_id) "
            "LEFT JOIN vector_heads USING (space_id) WHERE space_id = ANY($1::uuid[])",
            list(spaces),
            timeout=_ANSWER_TIMEOUT_S,
        )
        for row in rows:
            self._wake(HEADS, row["space_id"], row["head"])
            self._wake(VECTORS, row["space_id"], row["vectors"])
            self._wake(MATERIALIZED, row["space_id"], row["materialized"])
