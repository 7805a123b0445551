"""A Hub, and two that share a space, for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client_sdk.hub import Hub
from crdt import wire

__all__ = ["Pair", "hub", "pair"]


class Pair:
    """Two Hubs and the log between them: offline until they `meet`, equal afterwards."""

    def __init__(self, laptop: Hub, phone: Hub) -> None:
        self.laptop = laptop
        self.phone = phone
        self._log: list[tuple[Hub, wire.Entry]] = []

    async def meet(self) -> None:
        """Exchange what each did since they met last, the laptop's first, and check that they are equal."""
        for hub in (self.laptop, self.phone):
            replica = hub.client._replica
            batch = await replica.pending(None, edits_max=10_000, bytes_max=1 << 24)
            if batch is None:
                continue
            for edit in batch.edits:
                position = len(self._log) + 1
                entry = wire.Entry(position, edit.collection, edit.record, batch.client, edit.update)
                self._log.append((hub, entry))
            await replica.acknowledge(batch.incarnation, batch.first + len(batch.edits) - 1, [])
        for hub in (self.laptop, self.phone):
            _, cursor = await hub.client._replica.cursor()
            news = [entry for source, entry in self._log[cursor:] if source is not hub]
            page = wire.Page("s", cursor, len(self._log), len(self._log), news)
            await hub.client._replica.apply_page(page)
        assert await self.laptop.client.digest() == await self.phone.client.digest()


@pytest.fixture
async def hub(path: Path, key: bytes) -> AsyncIterator[Hub]:
    """Yield an open Hub with nothing in it."""
    async with Hub.open(path, key=key) as hub:
        yield hub


@pytest.fixture
async def pair(tmp_path: Path, key: bytes) -> AsyncIterator[Pair]:
    """Yield two Hubs with nothing in them."""
    async with Hub.open(tmp_path / "laptop.db", key=key) as laptop:
        async with Hub.open(tmp_path / "phone.db", key=key) as phone:
            yield Pair(laptop, phone)
