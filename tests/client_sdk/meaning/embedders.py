"""Embedders that tests hold in their hands, over one that hashes words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from client_sdk.embedding import HashingEmbedder
from client_sdk.embedding.embedder import Kind, Vectors
from client_sdk.embedding.errors import ModelMissing

__all__ = ["Broken", "Counted", "Gated"]


class Counted(HashingEmbedder):
    """Remembers which passages it embedded."""

    def __init__(self, version: str = "1") -> None:
        super().__init__(version=version)
        self.texts: list[str] = []

    async def embed(self, texts: Sequence[str], *, kind: Kind = "passage") -> Vectors:
        if kind == "passage":
            self.texts += texts
        return await super().embed(texts, kind=kind)


class Gated(Counted):
    """Embeds so many batches of passages, and waits at the next one until it is let."""

    def __init__(self, version: str = "1", *, batches: int = 0) -> None:
        super().__init__(version)
        self.batches = batches
        self.is_let = asyncio.Event()
        self.is_waiting = asyncio.Event()

    async def embed(self, texts: Sequence[str], *, kind: Kind = "passage") -> Vectors:
        if kind == "passage":
            if not self.batches:
                self.is_waiting.set()
                await self.is_let.wait()
            self.batches = max(0, self.batches - 1)
        return await super().embed(texts, kind=kind)


class Broken(HashingEmbedder):
    """Has lost its model, and says so."""

    async def embed(self, texts: Sequence[str], *, kind: Kind = "passage") -> Vectors:
        raise ModelMissing("the model", "put it back")
