"""The seam: what search asks of whatever turns text into vectors.

Two vectors may be compared when their models' `Model.id` are equal, and only then: the id hashes everything that
changes a vector. So a device can take another's vectors instead of computing them again, and a changed model is
noticed by its id alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Embedder", "Kind", "Model", "Vectors"]

Kind: TypeAlias = Literal["query", "passage"]
"""Models that were trained with prefixes embed a question otherwise than what may answer it."""

Vectors: TypeAlias = "npt.NDArray[np.float32]"
"""Shape (texts, dimensions); each row of length 1, or of zeros for a text that says nothing."""


_LABEL_NAME_CHARACTERS = 40  # of 4 bytes at the most: `crdt.limits.VECTOR_MODEL_BYTES_MAX` holds them


@dataclass(frozen=True)
class Model:
    """Which model made a vector. Frozen: a changed one is another model."""

    name: str
    version: str  # of the weights: best the start of their sha256
    dimensions: int
    pooling: str = "mean"  # how the tokens' vectors become one; whatever an endpoint does: "endpoint"
    query_prefix: str = ""
    passage_prefix: str = ""
    tokens_max: int | None = None  # a text is cut there

    @functools.cached_property
    def id(self) -> str:
        """16 hexadecimal digits, equal exactly where everything above is."""
        told = json.dumps(asdict(self), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @functools.cached_property
    def label(self) -> str:
        """What other devices and the server call it: its id, behind a name that a person can read."""
        return f"{self.name[:_LABEL_NAME_CHARACTERS]} {self.id}"

    def prefix(self, kind: Kind) -> str:
        """Return what is put before each text."""
        return self.query_prefix if kind == "query" else self.passage_prefix


class Embedder(Protocol):
    """Texts in, vectors out. Never on the event loop's thread, never for longer than a batch at a time."""

    @property
    def model(self) -> Model:
        """Which model it is. Known before the first text, whether or not its files are there."""
        ...

    async def embed(self, texts: Sequence[str], *, kind: Kind = "passage") -> Vectors:
        """Return a float32 array of shape (len(texts), model.dimensions), in the order of the texts.

        Rows have length 1; a text of nothing but white space has a row of zeros, which is near to nothing. A text
        longer than the model reads is cut. Raises `client_sdk.embedding.errors.EmbeddingProblem`.
        """
        ...

    async def close(self) -> None:
        """Let threads, connections and the model's memory go. It can be used again, and loads again then."""
        ...
