"""What every embedder here shares: texts cleaned, cut, sorted by length and taken in batches; vectors checked.

`BatchingEmbedder` leaves one question open: a batch of texts, all of about one length, as vectors. `ThreadedEmbedder`
answers it on threads of its own, one for passages and one for queries, so that a question asked while ten thousand
records are embedded in the background does not wait for their batch. On Linux the thread for passages has a low
priority: whoever writes or searches goes first.
"""

from __future__ import annotations

import abc
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from client_sdk.embedding.embedder import Kind, Model, Vectors
from client_sdk.embedding.vectors import checked, normalised

__all__ = ["BatchingEmbedder", "ThreadedEmbedder"]

CHARACTERS_A_TOKEN_MAX: Final = 16
"""Characters read of a text for each token that the model reads. English has 4 to 5 a token, the longest words of
German 12: what a longer text loses is beyond the model's reach, and a text of 1 MB costs no more than a page."""
CHARACTERS_MAX: Final = 65_536
"""Characters read where the model's reach is not known (an endpoint): 8,000 tokens of 8 characters."""

_STEPS_BACK: Final = 10
"""Of niceness: a tenth of the share of whoever else wants the core, and all of it when nobody does."""


class BatchingEmbedder(abc.ABC):
    """An `Embedder` but for one method."""

    texts_a_batch: int = 16
    characters_a_batch: int = 2_048
    """Padded: about 500 tokens, 100 ms of MiniLM."""

    @property
    @abc.abstractmethod
    def model(self) -> Model:
        """Which model it is."""

    @abc.abstractmethod
    async def _vectors_of(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Return the vectors of a batch, of any length, prefixes being in the texts."""

    async def close(self) -> None:  # noqa: B027 - nothing to let go of, where nothing was taken
        """Let go of what was loaded."""

    async def embed(self, texts: Sequence[str], *, kind: Kind = "passage") -> Vectors:
        """Return one row a text. See `client_sdk.embedding.embedder.Embedder`."""
        model = self.model
        prefix = model.prefix(kind)
        length_max = CHARACTERS_MAX if model.tokens_max is None else model.tokens_max * CHARACTERS_A_TOKEN_MAX
        cleaned = [_cleaned(text, length_max) for text in texts]
        vectors = np.zeros((len(texts), model.dimensions), np.float32)
        for batch in self._batches([len(text) for text in cleaned]):
            found = await self._vectors_of([prefix + cleaned[place] for place in batch], kind)
            vectors[batch] = normalised(checked(found, count=len(batch), dimensions=model.dimensions))
        return vectors

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield places of texts that say something, the shortest first; a batch is as wide as its last text."""
        batch: list[int] = []
        for place in sorted(
            (place for place, length in enumerate(lengths) if length), key=lengths.__getitem__
        ):
            width = (len(batch) + 1) * lengths[place]
            if batch and (len(batch) == self.texts_a_batch or width > self.characters_a_batch):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch


class ThreadedEmbedder(BatchingEmbedder):
    """One that computes here. A subclass has `_run`, which both threads may call at once."""

    def __init__(self) -> None:
        self._threads: dict[Kind, ThreadPoolExecutor] = {}

    @abc.abstractmethod
    def _run(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of a batch; on one of the threads."""

    async def close(self) -> None:
        """Wait for the batches under way, and end the threads."""
        threads, self._threads = self._threads, {}
        for thread in threads.values():
            await asyncio.to_thread(thread.shutdown)

    async def _vectors_of(self, texts: Sequence[str], kind: Kind) -> Vectors:
        if kind not in self._threads:
            self._threads[kind] = ThreadPoolExecutor(
                1,
                thread_name_prefix=f"embed-{kind}",
                initializer=_step_back if kind == "passage" else None,
            )
        return await asyncio.get_running_loop().run_in_executor(self._threads[kind], self._run, texts)


def _step_back() -> None:
    """Lower this thread's priority, and nobody else's: Linux has a niceness a thread, other systems one a process."""
    if sys.platform == "linux":
        os.nice(_STEPS_BACK)


def _cleaned(text: str, length_max: int) -> str:
    """Cut a text, and put a question mark where half a surrogate pair stands, which no tokenizer takes."""
    return text.lstrip()[:length_max].rstrip().encode("utf-8", "replace").decode()
