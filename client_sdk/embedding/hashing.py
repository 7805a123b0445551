"""An embedder that knows nothing: for tests of what is stored, sent and counted, where the meaning does not matter.

Each word is hashed to a place and a sign (Weinberger et al., ICML 2009), so texts with words in common are near one
another, the same text has the same vector on every machine, and a thousand texts take milliseconds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from client_sdk.embedding.batching import BatchingEmbedder
from client_sdk.embedding.embedder import Kind, Model, Vectors

__all__ = ["HashingEmbedder"]


class HashingEmbedder(BatchingEmbedder):
    """Deterministic and quick. ``version`` makes it another model with other vectors, to try a change of model."""

    def __init__(self, *, dimensions: int = 384, version: str = "1") -> None:
        self._model = Model("hashing", version, dimensions, "sum")

    @property
    def model(self) -> Model:
        """Which model it is."""
        return self._model

    async def _vectors_of(self, texts: Sequence[str], kind: Kind) -> Vectors:
        vectors = np.zeros((len(texts), self._model.dimensions), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+|[^\w\s]", text.lower()):
                hashed = hashlib.blake2b(f"{self._model.version} {word}".encode(), digest_size=8).digest()
                number = int.from_bytes(hashed, "little")
                row[(number >> 1) % len(row)] += 1 if number & 1 else -1
        return vectors
