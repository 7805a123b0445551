"""A vector's bytes come back as they were, and what is no vector is refused."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
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


@given(st.binary(max_size=600))
def test_any_bytes_are_a_vector_of_length_1_at_most_or_refused(data: bytes) -> None:
    try:
        scale, components = unpacked_vector(data)
    except BadVector:
        return
    assert 0 < scale * math.hypot(*components) < 1.2
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
        (1e-4, b"\x01" * (VECTOR_DIMENSIONS_MAX + 1)),
    ],
)
def test_what_would_win_or_break_every_comparison_is_refused(scale: float, components: bytes) -> None:
    with pytest.raises(BadVector):
        unpacked_vector(struct.pack("<f", scale) + components)
    with pytest.raises(BadVector):
        unpacked_vector(b"")
