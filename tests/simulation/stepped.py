"""The server's rooms with handles: a gate that commits, and a connection that breaks, when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

from crdt import wire
from server.admit import Admit, Admitted
from server.admit.memory import Writers
from server.database import Connection, Database
from server.materialize.fold import Outcome, Work, fold_record
from server.materialize.folding import Folding
from server.settings import Settings
from tests.simulation.world import Broken

__all__ = ["TROUBLES", "FoldingHere", "SteppedGate", "Trouble", "UnreliablePostgres"]

T = TypeVar("T")

Trouble = Literal["", "lost before the commit", "committed, connection lost", "committed, not answered"]
TROUBLES: Final[tuple[Trouble, ...]] = (
    "lost before the commit",
    "committed, connection lost",
    "committed, not answered",
)

_CLOCKS_KEPT: Final = 12  # so few that the gate often has to ask the log where a writer left off


class UnreliablePostgres(Database):
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
        if trouble == "committed, connection lost":
            raise ConnectionResetError("simulated: nobody knows whether it was committed")
        return result


class SteppedGate(Admit):
    """The gate, which commits when it is told to."""

    def __init__(
        self, database: UnreliablePostgres, announce: Callable[[UUID, int], None], settings: Settings
    ) -> None:
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
            await asyncio.wait(
                [asyncio.ensure_future(_settled(waiting)), lane], return_when=asyncio.FIRST_COMPLETED
            )
            if lane.done():
                lane.result()
            lane.cancel()
            await asyncio.gather(lane, return_exceptions=True)
        return len(waiting)


async def _settled(futures: Iterable[asyncio.Future[Any]]) -> None:
    await asyncio.wait(list(futures))


class FoldingHere(Folding):
    """Folds in this process: what comes here is honest."""

    def __init__(self) -> None:
        super().__init__(memory_bytes_max=0)

    async def fold(self, works: Sequence[Work]) -> tuple[list[Outcome], set[int]]:
        outcomes = [fold_record(work) for work in works]
        for work, outcome in zip(works, outcomes, strict=True):
            if outcome.doubt is not None or outcome.refused:
                raise Broken(
                    "no honest update is refused", f"folding {work.collection} {work.record}: {outcome}"
                )
        return outcomes, set()
