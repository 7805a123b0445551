"""Meaning as numbers: texts become vectors, and texts that mean the same have vectors that point the same way.

`Embedder` (`client_sdk.embedding.embedder`) is the seam: a `Model` that says which vectors can be compared, and
`embed`. `MiniLm` is what a device uses when nothing else was chosen; it needs no network and no setting. A product
brings its own through the other ones here, or through any class with those verbs:

======================  ==================================================  ==============================
class                   runs                                                needs
======================  ==================================================  ==============================
`MiniLm`                all-MiniLM-L6-v2 in int8, English                   nothing more
`OnnxFolder`            a sentence-transformers folder with an ONNX file    nothing more
`FastEmbed`             a model of fastembed                                fastembed
`SentenceTransformers`  a model of sentence-transformers, with torch        sentence-transformers
`HttpEmbedder`          any endpoint that speaks OpenAI's ``/embeddings``   an address, perhaps a key
`HashingEmbedder`       nothing: words hashed, for tests of what travels    nothing more
======================  ==================================================  ==============================

**Many languages.** MiniLM knows English; other languages get vectors that find little more than words in common.
For them take

- ``OnnxFolder(path, prefixes=("query: ", "passage: "))`` on a copy of ``intfloat/multilingual-e5-small`` (384
  dimensions, 94 languages; without these prefixes it finds worse), or the same with `SentenceTransformers`; or
- ``FastEmbed("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2")`` (384 dimensions, 50 languages).

Nothing here is imported, and no model loaded, before it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client_sdk.embedding.embedder import Embedder, Kind, Model, Vectors
    from client_sdk.embedding.errors import (
        EmbedderFailed,
        EmbeddingProblem,
        ModelDamaged,
        ModelMissing,
        ModelUnsuitable,
        VectorInvalid,
    )
    from client_sdk.embedding.hashing import HashingEmbedder
    from client_sdk.embedding.http import HttpEmbedder
    from client_sdk.embedding.libraries import FastEmbed, SentenceTransformers
    from client_sdk.embedding.minilm import MiniLm
    from client_sdk.embedding.onnx import OnnxFolder

__all__ = [
    "Embedder",
    "EmbedderFailed",
    "EmbeddingProblem",
    "FastEmbed",
    "HashingEmbedder",
    "HttpEmbedder",
    "Kind",
    "MiniLm",
    "Model",
    "ModelDamaged",
    "ModelMissing",
    "ModelUnsuitable",
    "OnnxFolder",
    "SentenceTransformers",
    "VectorInvalid",
    "Vectors",
]

_MODULES = {
    **dict.fromkeys(("Embedder", "Kind", "Model", "Vectors"), "embedder"),
    **dict.fromkeys(("FastEmbed", "SentenceTransformers"), "libraries"),
    "HashingEmbedder": "hashing",
    "HttpEmbedder": "http",
    "MiniLm": "minilm",
    "OnnxFolder": "onnx",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
