"""A vector's bytes come back as they were, and what is no vector is refused."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client_sdk.embedding.vectors import dequantised, normalised, quantised
from crdt.limits import VECTOR_DIMENSIONS_MAX
from crdt.vectors import BadVector, packed_vector, unpacked_vector

__all__: list[str] = []


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=400).filter(any))
def test_what_a_device_makes_is_a_vector_and_comes_back_as_the_same_bytes(vector: list[float]) -> None:
    unit = normalised(np.array([vector], np.float32))
    (data,) = quantised(unit)
    scale, components = unpacked_vector(data)
    assert packed_vector(scale, components) == data
    assert np.allclose(
        np.array(components, np.float32) * np.float32(scale), dequantised([data], dimensions=len(vector))[0]
    )


@given(
    dimensions=st.integers(1, VECTOR_DIMENSIONS_MAX),
    shape=st.sampled_from(["normal", "heavy", "one large"]),
    steps=st.integers(0, 127),
    nudge=st.floats(-1e-3, 1e-3),
    seed=st.integers(0, 1 << 32),
)
@example(
    dimensions=VECTOR_DIMENSIONS_MAX, shape="one large", steps=1, nudge=1e-3, seed=0
)  # the longest: 1.131
@example(
    dimensions=VECTOR_DIMENSIONS_MAX, shape="one large", steps=2, nudge=-1e-3, seed=0
)  # the shortest: 0.884
def test_rounding_never_takes_a_vector_of_length_1_for_none(
    dimensions: int, shape: str, steps: int, nudge: float, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    if shape == "one large":  # and the others just beside the middle of two steps
        vector = np.full(dimensions, steps + 0.5 + nudge)
        vector[0] = 127
    else:
        vector = (
            chance.standard_normal(dimensions) if shape == "normal" else chance.standard_cauchy(dimensions)
        )
    (data,) = quantised(normalised(vector[None].astype(np.float32)))
    scale, components = unpacked_vector(data)
    assert 0.88 < scale * math.hypot(*components) < 1.14


@given(st.binary(max_size=600))
def test_any_bytes_are_a_vector_of_about_length_1_or_refused(data: bytes) -> None:
    try:
        scale, components = unpacked_vector(data)
    except BadVector:
        return
    assert 0.8 < scale * math.hypot(*components) < 1.2
    assert packed_vector(scale, components) == data


@pytest.mark.parametrize(
    ("scale", "components"),
    [
        (math.nan, b"\x01"),
        (math.inf, b"\x01"),
        (-0.1, b"\x01"),
        (0.0, b"\x7f"),
        (0.1, b"\x00\x00"),
        (0.1, b""),
        (0.1, b"\x7f"),
        (1e-30, b"\x7f"),
        (1e-45, b"\x7f" * 384),
        (1e-4, b"\x01" * (VECTOR_DIMENSIONS_MAX + 1)),
    ],
)
def test_what_would_win_or_break_every_comparison_is_refused(scale: float, components: bytes) -> None:
    with pytest.raises(BadVector):
        unpacked_vector(struct.pack("<f", scale) + components)
    with pytest.raises(BadVector):
        unpacked_vector(b"")
