"""Identities come from the random bytes that are handed in, and lie within what everyone can hold."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from crdt.ids import CLIENT_ID_BITS, client_id, incarnation, record_id

__all__: list[str] = []

times = st.integers(0, 2**48 - 1)


@given(times, st.binary(min_size=10, max_size=20))
def test_a_record_id_is_a_uuid_of_version_7_that_holds_its_time(now_ms: int, random: bytes) -> None:
    made = uuid.UUID(record_id(now_ms, random))
    assert str(made) == record_id(now_ms, random)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == now_ms


@given(times, times, st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_record_ids_sort_by_time(first: int, second: int, some: bytes, other: bytes) -> None:
    if first != second:
        assert (record_id(first, some) < record_id(second, other)) == (first < second)


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_different_random_bytes_make_different_ids_but_for_the_six_bits_of_version_and_variant(
    some: bytes, other: bytes
) -> None:
    def kept(random: bytes) -> bytes:
        return bytes([random[0] & 0x0F, random[1], random[2] & 0x3F]) + random[3:]

    assert (record_id(0, some) == record_id(0, other)) == (kept(some) == kept(other))


@given(st.binary(min_size=8, max_size=8))
def test_client_ids_and_incarnations_are_positive_and_fit(random: bytes) -> None:
    assert 1 <= client_id(random) < 2**CLIENT_ID_BITS
    assert 1 <= incarnation(random) < 2**63


def test_the_ends_of_the_range_are_taken_too() -> None:
    assert client_id(bytes(7)) == 1
    assert client_id((2**CLIENT_ID_BITS - 2).to_bytes(7, "big")) == 2**CLIENT_ID_BITS - 1
    assert incarnation(bytes(8)) == 1
    assert incarnation((2**63 - 2).to_bytes(8, "big")) == 2**63 - 1
