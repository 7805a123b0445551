"""Vectors made small lose almost nothing, and what is no vector is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from client_sdk.embedding.embedder import Vectors
from client_sdk.embedding.errors import VectorInvalid
from client_sdk.embedding.vectors import checked, dequantised, dot, normalised, quantised, unpacked

COMPONENTS = st.floats(min_value=-(2.0**100), max_value=2.0**100, width=32)
ROWS = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=COMPONENTS)


def random_vectors(count: int, dimensions: int = 384, seed: int = 7) -> Vectors:
    return normalised(np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32))


def test_a_vector_of_384_dimensions_takes_388_bytes() -> None:
    assert [len(one) for one in quantised(random_vectors(3))] == [388] * 3


@given(ROWS)
def test_each_component_comes_back_within_half_a_step(
    rows: Vectors,
) -> None:
    back = dequantised(quantised(rows), dimensions=rows.shape[1])
    steps = np.abs(rows).max(axis=1, keepdims=True) / 127
    assert (np.abs(back - rows) <= steps * 0.5001 + 1e-37).all()


@given(ROWS)
def test_a_row_is_normalised_or_of_zeros(rows: Vectors) -> None:
    lengths = np.linalg.norm(normalised(rows), axis=1)
    assert np.logical_or(np.abs(lengths - 1) < 1e-5, ~rows.any(axis=1)).all()


def test_the_ten_nearest_stay_the_ten_nearest() -> None:
    """Recall at 10 against exact float32 search, on the hardest data: random directions, all about as far."""
    vectors, queries = random_vectors(5_000), random_vectors(50, seed=8)
    scales, components = unpacked(quantised(vectors), dimensions=384)
    found = 0
    for query in queries:
        exact = set(np.argsort(-(vectors @ query))[:10])
        found += len(exact & set(np.argsort(-dot(scales, components, query))[:10]))
    assert found / 500 >= 0.95


@pytest.mark.parametrize("rows_at_once", [1, 7, 100, 4_096])
def test_the_cosine_is_the_same_however_many_rows_are_widened_at_once(rows_at_once: int) -> None:
    vectors, query = random_vectors(100), random_vectors(1, seed=9)[0]
    found = dot(*unpacked(quantised(vectors), dimensions=384), query, rows_at_once=rows_at_once)
    assert np.abs(found - vectors @ query).max() < 0.005


def test_no_vectors_are_no_vectors() -> None:
    scales, components = unpacked([], dimensions=384)
    assert dot(scales, components, random_vectors(1)[0]).shape == (0,)
    assert quantised(np.zeros((0, 384), np.float32)) == []


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(wrong: float) -> None:
    vectors = random_vectors(2)
    vectors[1, 5] = wrong
    with pytest.raises(VectorInvalid, match="NaN or infinite"):
        quantised(vectors)
    with pytest.raises(VectorInvalid, match="NaN or infinite"):
        dot(*unpacked(quantised(random_vectors(2)), dimensions=384), vectors[1])


def test_a_wrong_length_is_refused_where_it_stands() -> None:
    stored = quantised(random_vectors(2))
    with pytest.raises(VectorInvalid, match="number 1 has 387 bytes, and 388 were due"):
        unpacked([stored[0], stored[1][:-1]], dimensions=384)
    with pytest.raises(VectorInvalid, match=r"shape is \(1, 3\), and 1 of 384"):
        checked([[1, 2, 3]], count=1, dimensions=384)
    with pytest.raises(VectorInvalid, match="one length"):
        checked([[1, 2], [3]], count=2, dimensions=2)
    with pytest.raises(VectorInvalid, match="rows of components"):
        quantised(random_vectors(1)[0])


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
def test_a_scale_that_no_vector_has_is_refused(scale: float) -> None:
    stored = np.float32(scale).tobytes() + bytes(384)
    with pytest.raises(VectorInvalid, match="a scale is"):
        unpacked([stored], dimensions=384)
