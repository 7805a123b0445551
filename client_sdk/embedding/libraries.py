"""Models that other libraries run. Each library is imported when its class is made, and is nobody's dependency here.

Both may download a model when they are made: that is their way, and why neither is the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from client_sdk.embedding.batching import ThreadedEmbedder
from client_sdk.embedding.embedder import Model, Vectors
from client_sdk.embedding.errors import ModelMissing

__all__ = ["FastEmbed", "SentenceTransformers"]


class FastEmbed(ThreadedEmbedder):
    """A text model of fastembed (`TextEmbedding`). ``options`` go to it: ``cache_dir``, ``specific_model_path``.

    Making it loads the model. Raises `ModelMissing` where fastembed is not installed.
    """

    def __init__(
        self, name: str, *, version: str = "", prefixes: tuple[str, str] = ("", ""), **options: Any
    ) -> None:
        super().__init__()
        try:
            from fastembed import TextEmbedding
        except ImportError:
            raise ModelMissing("the package fastembed", "pip install fastembed") from None
        self._library = TextEmbedding(name, threads=1, **options)
        dimensions = len(next(iter(self._library.embed(["dimensions"]))))
        self._model = Model(name, version, dimensions, "fastembed", *prefixes)

    @property
    def model(self) -> Model:
        """Which model it is; how it pools and where it cuts is fastembed's to say."""
        return self._model

    def _run(self, texts: Sequence[str]) -> Vectors:
        return np.asarray(list(self._library.embed(list(texts), batch_size=len(texts))), np.float32)


class SentenceTransformers(ThreadedEmbedder):
    """A model of sentence-transformers. ``options`` go to it: ``device``, ``cache_folder``, ``backend``.

    Making it loads the model. ``prefixes``, those of queries and passages, are the model's prompts where not given.
    Raises `ModelMissing` where sentence-transformers is not installed.
    """

    def __init__(
        self, name: str, *, version: str = "", prefixes: tuple[str, str] | None = None, **options: Any
    ) -> None:
        super().__init__()
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise ModelMissing(
                "the package sentence-transformers", "pip install sentence-transformers"
            ) from None
        self._library = SentenceTransformer(name, **options)
        prompts = dict(self._library.prompts or {})
        found = (prompts.get("query") or "", prompts.get("document") or prompts.get("passage") or "")
        dimensions = int(self._library.get_sentence_embedding_dimension())
        self._model = Model(
            *(name, version, dimensions, "sentence-transformers"),
            *(found if prefixes is None else prefixes),
            tokens_max=self._library.get_max_seq_length(),
        )

    @property
    def model(self) -> Model:
        """Which model it is."""
        return self._model

    def _run(self, texts: Sequence[str]) -> Vectors:
        # The prefixes are in the texts; an empty prompt keeps the library from adding its own.
        found = self._library.encode(
            list(texts), prompt="", batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(found, np.float32)
