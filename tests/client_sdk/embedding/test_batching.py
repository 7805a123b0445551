"""Texts reach a model cleaned, cut and sorted; their vectors come back in order, checked."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.embedding import HashingEmbedder, Kind, Model, VectorInvalid, Vectors
from client_sdk.embedding.batching import CHARACTERS_A_TOKEN_MAX, BatchingEmbedder, ThreadedEmbedder


class Lengths(BatchingEmbedder):
    """The vector of a text is its length and one; each batch is kept."""

    def __init__(self, *, tokens_max: int | None = None) -> None:
        self.batches: list[list[str]] = []
        self.model_ = Model("lengths", "1", 2, "none", "q: ", "p: ", tokens_max)

    @property
    def model(self) -> Model:
        return self.model_

    async def _vectors_of(self, texts: Sequence[str], kind: Kind) -> Vectors:
        self.batches.append(list(texts))
        return np.asarray([[len(text), 1] for text in texts], np.float32)


@given(st.lists(st.text(max_size=300), max_size=60))
def test_rows_come_in_the_order_of_the_texts_and_batches_stay_in_bounds(texts: list[str]) -> None:
    embedder = Lengths()
    vectors = asyncio.run(embedder.embed(texts))
    for text, row in zip(texts, vectors, strict=True):
        if text.strip():
            assert row[0] / row[1] == pytest.approx(len(text.strip()) + len("p: "), rel=1e-5)
        else:
            assert not row.any()
    assert sum(map(len, embedder.batches)) == sum(bool(text.strip()) for text in texts)
    for batch in embedder.batches:
        assert len(batch) <= embedder.texts_a_batch
        assert len(batch) * (max(map(len, batch)) - len("p: ")) <= embedder.characters_a_batch


async def test_a_prefix_stands_before_each_text_of_its_kind() -> None:
    embedder = Lengths()
    await embedder.embed(["what"], kind="query")
    await embedder.embed(["this"], kind="passage")
    assert embedder.batches == [["q: what"], ["p: this"]]


async def test_a_long_text_is_cut_before_the_model_sees_it() -> None:
    embedder = Lengths(tokens_max=10)
    await embedder.embed(["x" * 1_000_000])
    assert len(embedder.batches[0][0]) == len("p: ") + 10 * CHARACTERS_A_TOKEN_MAX


async def test_half_a_surrogate_pair_is_a_question_mark() -> None:
    embedder = Lengths()
    await embedder.embed(["a\ud83dz"])
    assert embedder.batches == [["p: a?z"]]


@pytest.mark.parametrize("wrong", [[[np.nan, 1.0]], [[1.0, 2.0, 3.0]], [[1.0, 2.0], [1.0, 2.0]]])
async def test_what_is_no_vector_of_the_model_is_refused(wrong: list[list[float]]) -> None:
    class Wrong(Lengths):
        async def _vectors_of(self, texts: Sequence[str], kind: Kind) -> Vectors:
            return np.asarray(wrong, np.float32)

    with pytest.raises(VectorInvalid):
        await Wrong().embed(["a"])


async def test_a_query_does_not_wait_for_passages() -> None:
    class Held(ThreadedEmbedder):
        """Passages wait for a gate that only the query opens."""

        gate = threading.Event()
        model = HashingEmbedder(dimensions=2).model

        def _run(self, texts: Sequence[str]) -> Vectors:
            if texts[0] == "passage":
                assert self.gate.wait(timeout=30)
            return np.ones((len(texts), 2), np.float32)

    embedder = Held()
    passages = asyncio.create_task(embedder.embed(["passage"]))
    await embedder.embed(["query"], kind="query")
    assert not passages.done()
    embedder.gate.set()
    await passages
    await embedder.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
async def test_passages_are_embedded_at_a_lower_priority_than_anything_else() -> None:
    class Seen(ThreadedEmbedder):
        model = HashingEmbedder(dimensions=2).model

        def _run(self, texts: Sequence[str]) -> Vectors:
            seen[texts[0]] = os.getpriority(os.PRIO_PROCESS, 0)  # of this thread
            return np.ones((len(texts), 2), np.float32)

    seen: dict[str, int] = {}
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    embedder = Seen()
    await embedder.embed(["query"], kind="query")
    await embedder.embed(["passage"])
    await embedder.close()
    assert seen == {"query": usual, "passage": min(usual + 10, 19)}
    assert os.getpriority(os.PRIO_PROCESS, 0) == usual


async def test_the_event_loop_goes_on_while_a_model_computes() -> None:
    class Blocking(ThreadedEmbedder):
        gate = threading.Event()
        model = HashingEmbedder(dimensions=2).model

        def _run(self, texts: Sequence[str]) -> Vectors:
            assert self.gate.wait(timeout=30)
            return np.ones((len(texts), 2), np.float32)

    embedder = Blocking()
    asyncio.get_running_loop().call_soon(embedder.gate.set)  # never called, if embed held the loop
    assert (await embedder.embed(["a"])).shape == (1, 2)
    await embedder.close()


async def test_hashing_gives_the_same_text_the_same_vector_and_another_version_another() -> None:
    first = await HashingEmbedder().embed(["the red bike", "the red bike", "a blue car"])
    again = await HashingEmbedder().embed(["the red bike"], kind="query")
    other = await HashingEmbedder(version="2").embed(["the red bike"])
    assert (first[0] == again[0]).all()
    assert first[0] @ first[1] == pytest.approx(1)
    assert first[0] @ first[2] < 0.5
    assert (first[0] != other[0]).any()
