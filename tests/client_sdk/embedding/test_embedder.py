"""A model's id stands for everything that changes its vectors."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from client_sdk.embedding import Model

MODEL = Model("a", "1", 384, "mean", "query: ", "passage: ", 256)


def test_equal_models_have_one_id() -> None:
    assert MODEL.id == dataclasses.replace(MODEL).id
    assert len(MODEL.id) == 16


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("name", "b"),
        ("version", "2"),
        ("dimensions", 385),
        ("pooling", "cls"),
        ("query_prefix", ""),
        ("passage_prefix", ""),
        ("tokens_max", 128),
    ],
)
def test_any_difference_is_another_id(field: str, other: object) -> None:
    assert dataclasses.replace(MODEL, **{field: other}).id != MODEL.id  # type: ignore[arg-type]


def test_the_id_never_changes_for_the_same_model() -> None:
    """Files and servers keep it: a change here would embed everything anew."""
    assert MODEL.id == "c100b7c202a1e49a"


def test_the_package_is_imported_without_numpy_or_a_model_library() -> None:
    heavy = "{'numpy', 'onnxruntime', 'tokenizers'}"
    code = f"import sys, client_sdk, client_sdk.embedding; print({heavy} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import client_sdk.embedding

    with pytest.raises(AttributeError, match="Nothing"):
        client_sdk.embedding.Nothing  # noqa: B018 - asking is the test
