"""Transformers in the ONNX format, run by onnxruntime and tokenizers alone: no torch, no download.

`OnnxEmbedder` is told everything; `OnnxFolder` reads it from a folder in the layout of sentence-transformers:

==========================================  =====================================================
file                                        what is read
==========================================  =====================================================
``onnx/model.onnx`` or ``model.onnx``       the weights (with ``…_data`` beside, if it is split)
``tokenizer.json``                          the tokenizer
``modules.json``                            which steps follow the transformer: pooling, normalising
``1_Pooling/config.json``                   mean, cls, max, lasttoken, weightedmean, mean_sqrt_len
``sentence_bert_config.json``               ``max_seq_length``
``config_sentence_transformers.json``       ``prompts``: ``query``, and ``document`` or ``passage``
``config.json``                             ``hidden_size``, ``max_position_embeddings``
==========================================  =====================================================

One thread and no arena: with its defaults onnxruntime takes every core from the application and keeps what the
largest batch took (572 MB at peak against 260). Of these MiniLM's weights are 180, unfolded to float32 when they are
loaded: left in int8 they take 60, and a question 63 ms instead of 5.
"""

from __future__ import annotations

import abc
import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from client_sdk.embedding.batching import ThreadedEmbedder
from client_sdk.embedding.embedder import Model, Vectors
from client_sdk.embedding.errors import ModelDamaged, ModelMissing, ModelUnsuitable

__all__ = ["OnnxEmbedder", "OnnxFolder", "pooled"]

Mask = npt.NDArray[np.int64]

_TOKENS_MAX: Final = 512  # tokens read of a text where a folder does not say: what BERT's positions allow
_TOKENS_AT_ONCE: Final = (
    512  # padded: four texts of 256 tokens took 180 MB more than two, and no less time a text
)
_POOLINGS: Final = ("mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len")
_OF_TRANSFORMER: Final = ("Transformer", "Pooling", "Normalize")


class OnnxEmbedder(ThreadedEmbedder):
    """A transformer whose first output of three axes holds a vector a token. Loaded at the first text."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model
        self._loading = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def model(self) -> Model:
        """Which model it is."""
        return self._model

    async def close(self) -> None:
        """End the threads and let the weights go."""
        await super().close()
        self._loaded = None

    @abc.abstractmethod
    def _files(self) -> tuple[Path, Path]:
        """Return the weights and the tokenizer, looked at before they are loaded."""

    def _run(self, texts: Sequence[str]) -> Vectors:
        with self._loading:
            if self._loaded is None:
                self._loaded = _Loaded(*self._files(), tokens_max=self._model.tokens_max or _TOKENS_MAX)
            loaded = self._loaded
        rows = loaded.tokens_of(texts)
        at_once = max(1, _TOKENS_AT_ONCE // max(map(len, rows)))
        parts = []
        for start in range(0, len(rows), at_once):
            hidden, mask = loaded.hidden(rows[start : start + at_once])
            parts.append(pooled(hidden, mask, self._model.pooling))
        return np.concatenate(parts)


class _Loaded:
    """A session and its tokenizer. Both may be used by several threads."""

    def __init__(self, weights: Path, tokenizer: Path, *, tokens_max: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.log_severity_level = (
            3  # errors: warnings go to the standard error of an application that has its own
        )
        try:
            self._session = onnxruntime.InferenceSession(
                str(weights), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelDamaged(str(weights), _first_line(error), "put the whole file there again") from error
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:
            raise ModelDamaged(
                str(tokenizer), _first_line(error), "put the whole file there again"
            ) from error
        padding = self._tokenizer.padding
        self._pad = int(padding["pad_id"]) if padding else 0
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(tokens_max)
        self._inputs = {one.name for one in self._session.get_inputs()}
        self._output = next(
            (one.name for one in self._session.get_outputs() if len(one.shape) == 3),  # noqa: PLR2004
            None,
        )
        if self._output is None or not self._inputs <= {"input_ids", "attention_mask", "token_type_ids"}:
            raise ModelUnsuitable(
                f"{weights} takes {sorted(self._inputs)} and gives no vector a token: export the bare transformer"
            )

    def tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token numbers, cut where the model's reach ends."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def hidden(self, rows: Sequence[Sequence[int]]) -> tuple[Vectors, Mask]:
        """Return a vector a token and the mask: (texts, tokens of the longest, dimensions), without the last."""
        width = max(map(len, rows))
        tokens = np.full((len(rows), width), self._pad, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = row
            mask[place, : len(row)] = 1
        all_inputs = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        inputs = {name: all_inputs[name] for name in self._inputs}
        hidden: Vectors = self._session.run([self._output], inputs)[0]
        return hidden, mask


def pooled(hidden: Vectors, mask: Mask, pooling: str) -> Vectors:
    """Return one vector a text, from one a token, as sentence-transformers' ``Pooling`` does.

    ``hidden`` has the shape (texts, tokens, dimensions), the result (texts, dimensions).
    """
    weights = mask[:, :, None].astype(np.float32)
    match pooling:
        case "cls":
            vectors: Vectors = hidden[:, 0]
        case "lasttoken":
            vectors = hidden[np.arange(len(hidden)), mask.sum(axis=1) - 1]
        case "max":
            vectors = np.where(weights > 0, hidden, -np.inf).max(axis=1)
        case "mean_sqrt_len":
            vectors = (hidden * weights).sum(axis=1) / np.sqrt(weights.sum(axis=1))
        case "weightedmean":
            weights = weights * np.arange(1, hidden.shape[1] + 1, dtype=np.float32)[None, :, None]
            vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        case _:
            vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
    return vectors


class OnnxFolder(OnnxEmbedder):
    """A sentence-transformers folder. Its settings and the hash of its weights are read when this is made.

    ``weights`` names another file of the folder (``onnx/model_quantized.onnx``), ``prefixes`` are those of queries and
    passages where the folder does not say. Raises `ModelMissing`, `ModelDamaged` or `ModelUnsuitable`.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        name: str | None = None,
        weights: str | None = None,
        prefixes: tuple[str, str] | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._weights = self._weights_file(weights)
        self._tokenizer = self._folder / "tokenizer.json"
        if not self._tokenizer.is_file():
            raise ModelMissing(str(self._tokenizer), "a fast tokenizer is needed; export it with the model")
        config = self._settings("config.json")
        prompts = self._settings("config_sentence_transformers.json").get("prompts") or {}
        query, passage = prefixes or (
            prompts.get("query", ""),
            prompts.get("document") or prompts.get("passage") or "",
        )
        positions = config.get("max_position_embeddings") or _TOKENS_MAX
        super().__init__(
            Model(
                name=name or self._folder.name,
                version=self._version(),
                dimensions=self._number(config, "hidden_size"),
                pooling=self._pooling(),
                query_prefix=query,
                passage_prefix=passage,
                tokens_max=min(
                    self._settings("sentence_bert_config.json").get("max_seq_length") or positions, positions
                ),
            )
        )

    def _files(self) -> tuple[Path, Path]:
        return self._weights, self._tokenizer

    def _weights_file(self, named: str | None) -> Path:
        names = [named] if named else ["onnx/model.onnx", "model.onnx"]
        for path in (self._folder / name for name in names):
            if path.is_file():
                return path
        raise ModelMissing(str(self._folder / names[0]), "export the model to ONNX there, or name its file")

    def _version(self) -> str:
        """Return the start of the sha256 of the weights, those in a file beside them included."""
        whole = hashlib.sha256()
        for path in (self._weights, self._weights.with_name(self._weights.name + "_data")):
            if path.is_file():
                with path.open("rb") as file:
                    whole.update(hashlib.file_digest(file, "sha256").digest())
        whole.update(self._tokenizer.read_bytes())
        return whole.hexdigest()[:16]

    def _pooling(self) -> str:
        modules = self._settings("modules.json", default=[])
        kinds = [str(one.get("type", "")).rpartition(".")[2] for one in modules]
        if strange := [kind for kind in kinds if kind not in _OF_TRANSFORMER]:
            raise ModelUnsuitable(
                f"{self._folder} has a step {strange[0]!r}: use SentenceTransformers for it"
            )
        path = next(
            (one["path"] for one, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), "1_Pooling"
        )
        config = self._settings(f"{path}/config.json")
        modes = [config["pooling_mode"]] if isinstance(config.get("pooling_mode"), str) else []
        modes += [
            name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
            for name, is_on in config.items()
            if name.startswith("pooling_mode_") and is_on is True
        ]
        modes = ["mean_sqrt_len" if mode == "mean_sqrt_len_tokens" else mode for mode in modes or ["mean"]]
        if len(modes) != 1 or modes[0] not in _POOLINGS:
            raise ModelUnsuitable(
                f"{self._folder} pools by {modes}, and one of {list(_POOLINGS)} is known here"
            )
        return str(modes[0])

    def _settings(self, name: str, *, default: Any = None) -> Any:
        path = self._folder / name
        try:
            found = msgspec.json.decode(path.read_bytes())
        except FileNotFoundError:
            return {} if default is None else default
        except (OSError, msgspec.DecodeError) as error:
            raise ModelDamaged(str(path), _first_line(error), "put the whole file there again") from error
        if not isinstance(found, dict if default is None else list):
            raise ModelDamaged(str(path), "it holds something else", "put the whole file there again")
        return found

    def _number(self, config: Mapping[str, Any], name: str) -> int:
        if not isinstance(config.get(name), int):
            raise ModelMissing(
                f"{name!r} in {self._folder / 'config.json'}", "copy the model's config.json there"
            )
        return int(config[name])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
