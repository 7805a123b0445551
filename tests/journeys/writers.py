"""A device in this process that writes until it is told to end, whatever dies around it, and notes what is
acknowledged.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import client_sdk
from client_sdk import Client
from tests.client_sdk.device import KEY
from tests.client_sdk.records import Note, Tag
from tests.journeys.afterwards import Acknowledged
from tests.journeys.live import eventually
from tests.journeys.work import SHARED, Work, perform

__all__ = ["Writer", "writer_on"]

_RECOVER_S_MAX: Final = 60.0


class Writer:
    """``work`` is what its records must hold, ``met`` the tokens that it left in the shared record."""

    def __init__(self, client: Client, name: str, seed: int) -> None:
        self.client = client
        self.work = Work(name)
        self.met: set[str] = set()
        self.writes = 0
        self.acknowledged = Acknowledged(client)
        self._chance = random.Random(f"{seed} {name}")
        self._task: asyncio.Task[None] | None = None
        self._is_ending = False

    async def begin(self, *, pause_s: float) -> None:
        """Write in the background; the shared record must be here."""
        shared = await self.client.collection(Note).where(title=SHARED).first()
        assert shared is not None
        self._task = asyncio.create_task(self._write({SHARED: shared.id}, pause_s))

    async def end(self) -> None:
        """Let the write that has begun return, and write no more."""
        self._is_ending = True
        if self._task is not None:
            await self._task

    async def progress(self) -> None:
        """Wait until an update is acknowledged that was not when this was asked."""
        before = self.acknowledged.count
        await eventually(
            lambda: self.acknowledged.count > before,
            within_s=_RECOVER_S_MAX,
            what=lambda: f"{self.work.writer} got nothing acknowledged: {self.client.status}",
        )

    async def _write(self, ids: dict[str, str], pause_s: float) -> None:
        while not self._is_ending:
            operation = self.work.choose(self._chance)
            await perform(self.client, operation, ids)
            self.work.apply(operation)
            self.work.learn(ids)
            self.met |= {token for token in [operation.get("token")] if token}
            self.writes += 1
            await asyncio.sleep(self._chance.random() * pause_s)


@asynccontextmanager
async def writer_on(path: Path, name: str, seed: int) -> AsyncIterator[Writer]:
    """Open a file for a writer."""
    async with client_sdk.open(path, records=[Note, Tag], key=KEY) as client:
        writer = Writer(client, name, seed)
        try:
            yield writer
        finally:
            await writer.end()
