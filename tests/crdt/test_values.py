"""Values become bytes, keys and paths, and come back; what cannot is named, and foreign bytes raise nothing else."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.limits import KEY_BYTES_MAX, VALUE_DEPTH_MAX
from crdt.values import (
    BadValue,
    check_plain,
    convert,
    decode_value,
    element_to_key,
    encode_edit,
    encode_reading,
    encode_value,
    flatten,
    key_to_element,
    leaf_path,
    path_parts,
    reading_of,
    shown,
    split_edit,
    to_utc,
    unflatten,
)
from tests.crdt.declarations import JUNK, NAIVE, Color, json_values, maps, texts

__all__: list[str] = []

readings = st.integers(0, 2**64 - 1)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts


@given(json_values)
def test_a_value_comes_back_from_its_bytes(value: Any) -> None:
    """Numbers keep their types."""
    again = decode_value(encode_value(value))
    assert again == value
    assert type(again) is type(value)
    check_plain("", value)


@given(st.binary(max_size=40))
def test_foreign_bytes_are_one_value_or_bad(data: bytes) -> None:
    try:
        value = decode_value(data)
    except BadValue:
        return
    with contextlib.suppress(BadValue):
        check_plain("", value, is_time_plain=True)
        assert encode_value(value)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\x01\x02", b"\x91", b"\xa1\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff", b"\xd6\xff\x00", b"\x91" * 100_000, b"\xc7\x0c\xff" + b"\xff" * 12,
    ],
    ids=lambda data: data[:8].hex(),
)  # fmt: skip
def test_bytes_that_are_no_value_are_bad(data: bytes) -> None:
    with pytest.raises(BadValue):
        decode_value(data)


@given(readings, json_values)
def test_an_edit_holds_its_reading_and_its_value(reading: int, value: Any) -> None:
    data = encode_value(value)
    assert split_edit(encode_edit(reading, data)) == (reading, data)
    assert split_edit(encode_edit(reading, None)) == (reading, None)
    assert decode_value(encode_edit(reading, data)) == [reading, value]
    assert reading_of(encode_reading(reading)) == decode_value(encode_reading(reading)) == reading


@given(st.binary(max_size=20))
def test_bytes_that_are_no_entry_are_none(data: bytes) -> None:
    edit = split_edit(data)
    if edit is not None:
        assert encode_edit(*edit) == data
    assert reading_of(data) == 0 or encode_reading(reading_of(data)) == data


@given(scalars | st.floats(allow_nan=False, allow_infinity=False), scalars)
def test_a_set_element_comes_back_from_its_key_and_different_ones_have_different_keys(
    one: Any, other: Any
) -> None:
    key = element_to_key(one)
    assert key_to_element(key) == one
    key.encode()
    if (type(one), one) != (type(other), other):
        assert element_to_key(other) != key


@given(st.text(max_size=20))
def test_a_foreign_key_is_an_element_or_bad(key: str) -> None:
    try:
        key_to_element(key)
    except BadValue:
        return


@given(maps)
def test_a_map_comes_back_from_its_leaves(value: dict[str, Any]) -> None:
    leaves = list(flatten("field", value))
    assert unflatten(leaves) == value
    for path, leaf in leaves:
        assert "@" not in path
        assert not isinstance(leaf, dict) or not leaf
        assert leaf_path("field", path_parts(path)[1:]) == path
        assert path_parts(path)[0] == "field"


def test_of_a_leaf_and_a_map_at_one_path_the_later_stays() -> None:
    assert unflatten([("f/a", 1), ("f/a/b", 2)]) == {"a": {"b": 2}}
    assert unflatten([("f/a/b", 2), ("f/a", 1)]) == {"a": 1}


def test_what_has_no_leaves_has_no_paths_but_an_inner_empty_map_is_a_leaf() -> None:
    assert list(flatten("f", {})) == []
    assert list(flatten("f", {"a": {}})) == [("f/a", {})]
    assert list(flatten("f", {"~/@": {"": 1}})) == [("f/~0~1~2/", 1)]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def test_nesting_ends_at_the_limit_for_maps_and_for_values() -> None:
    assert unflatten(flatten("f", nested(VALUE_DEPTH_MAX))) == nested(VALUE_DEPTH_MAX)
    check_plain("", nested(VALUE_DEPTH_MAX))
    for refused in (
        lambda: list(flatten("f", nested(VALUE_DEPTH_MAX + 1))),
        lambda: check_plain("", nested(VALUE_DEPTH_MAX + 1)),
        lambda: list(flatten("f", {"a": [nested(VALUE_DEPTH_MAX)]})),
    ):
        with pytest.raises(BadValue, match="nested too deeply; expected at most 32 levels"):
            refused()


def test_a_path_leaves_room_for_a_client_id() -> None:
    longest = "k" * (KEY_BYTES_MAX - 20 - len("f/"))
    assert len(next(flatten("f", {longest: 1}))[0]) == KEY_BYTES_MAX - 20
    with pytest.raises(BadValue, match="expected at most 4,076 bytes"):
        list(flatten("f", {longest + "k": 1}))


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: type(junk).__name__)
def test_whatever_it_is_it_has_bytes_or_is_bad_and_it_can_be_shown(junk: Any) -> None:
    assert len(shown(junk)) < 200
    for attempt in (
        lambda: encode_value(junk),
        lambda: element_to_key(junk),
        lambda: check_plain("f", junk),
        lambda: list(flatten("f", junk)),
        lambda: list(flatten("f", {"a": junk})),
        lambda: convert(junk, Any),
    ):
        error = failure(attempt)
        assert error is None or len(str(error).encode()) < 5_400  # a path may take its 4,096


def failure(attempt: Callable[[], Any]) -> BadValue | None:
    try:
        attempt()
    except BadValue as error:
        return error
    return None


def test_times_become_utc_if_utc_has_them() -> None:
    east = dt.timezone(dt.timedelta(hours=14))
    time = dt.datetime(2026, 1, 1, tzinfo=east)
    assert to_utc(time) == time
    assert to_utc(time).tzinfo is dt.UTC
    with pytest.raises(BadValue, match="in the years 1 to 9999 in UTC"):
        to_utc(dt.datetime(1, 1, 1, tzinfo=east))


def test_a_map_holds_what_json_holds() -> None:
    for value, problem in [
        (NAIVE, "got a time; expected its text"),
        (Color.RED, "got Color"),
        ({1}, "got set"),
        ((1,), "got tuple"),
        (float("nan"), "got nan; expected a finite number"),
        (2**63, "got int 9223372036854775808; expected an integer of at most 64 bits"),
        ({1: 1}, "got the key int 1; expected keys that are strings"),
    ]:
        with pytest.raises(BadValue, match=problem):
            check_plain("f", value)
    check_plain("f", {"at": [NAIVE]}, is_time_plain=True)
