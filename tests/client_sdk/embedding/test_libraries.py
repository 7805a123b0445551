"""The libraries are asked as their documentation says, and their lack has a remedy.

Neither is installed where tests run (torch alone is 2 GB), so a class of the same calls stands in their place.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from client_sdk.embedding import FastEmbed, ModelMissing, SentenceTransformers, Vectors


class TextEmbedding:
    def __init__(self, model_name: str, *, threads: int, **options: Any) -> None:
        assert threads == 1
        self.options = options

    def embed(self, documents: Sequence[str], batch_size: int = 256) -> Iterator[Vectors]:
        return (np.asarray([len(text), 1, 0], np.float32) for text in documents)


class SentenceTransformer:
    def __init__(self, model_name: str, **options: Any) -> None:
        self.prompts = {"query": "query: ", "document": "passage: "}

    def get_sentence_embedding_dimension(self) -> int:
        return 3

    def get_max_seq_length(self) -> int:
        return 512

    def encode(self, sentences: list[str], *, prompt: str, **options: Any) -> Vectors:
        assert prompt == ""
        return np.asarray([[len(text), 1, 0] for text in sentences], np.float32)


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, one in (("fastembed", TextEmbedding), ("sentence_transformers", SentenceTransformer)):
        module = ModuleType(name)
        setattr(module, one.__name__, one)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("libraries")
async def test_fastembed_gives_vectors_of_its_own_size() -> None:
    embedder = FastEmbed("a-model", prefixes=("query: ", ""), cache_dir="somewhere")
    assert embedder.model.dimensions == 3
    vectors = await embedder.embed(["bike"], kind="query")
    assert vectors[0, 0] / vectors[0, 1] == pytest.approx(len("query: bike"))
    await embedder.close()


@pytest.mark.usefixtures("libraries")
async def test_sentence_transformers_gives_its_prompts_as_prefixes() -> None:
    embedder = SentenceTransformers("a-model")
    assert (embedder.model.query_prefix, embedder.model.passage_prefix) == ("query: ", "passage: ")
    assert embedder.model.tokens_max == 512
    vectors = await embedder.embed(["bike"])
    assert vectors[0, 0] / vectors[0, 1] == pytest.approx(len("passage: bike"))
    assert SentenceTransformers("a-model", prefixes=("", "")).model.id != embedder.model.id
    await embedder.close()


@pytest.mark.parametrize("kind", [FastEmbed, SentenceTransformers])
def test_without_the_library_the_error_says_what_to_install(
    kind: type[FastEmbed | SentenceTransformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastembed", None)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModelMissing, match="pip install"):
        kind("a-model")
