"""An item is written if it comes back as it was, and read if a row can hold it."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given

from crdt.errors import SchemaError
from crdt.fields import Item, field_type
from crdt.items import ItemCodec
from crdt.values import BadValue, encode_value
from tests.crdt.declarations import NAIVE, Color, Line, Place, lines

__all__: list[str] = []


def codec_of(annotation: Any) -> ItemCodec:
    return ItemCodec(field_type(list[annotation], where="T.f"), where="T.f")


LINES = codec_of(Line)


class Loose(Item, eq=False):
    """Compared by identity; that it comes back cannot be asked."""

    value: Any = None


@given(lines)
def test_an_item_comes_back_as_it_was(line: Line) -> None:
    assert LINES.decode(LINES.encode(line)) == line


def test_an_item_may_be_given_as_its_map() -> None:
    assert LINES.convert([{"role": "x", "isFinal": True, "place": {"name": "y"}}]) == [
        Line(role="x", is_final=True, place=Place(name="y"))
    ]


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"extra": {"a": (1, 2)}}, r"/extra: got dict .*, which would come back as dict"),
        ({"extra": {"a": uuid.UUID(int=5)}}, "would come back as"),
        ({"extra": {"a": {1}}}, "would come back as"),
        ({"extra": {1: 2}}, "expected `str`|Expected `str`"),
        ({"extra": {"a": object()}}, "got object"),
        ({"extra": {"a": NAIVE.replace(tzinfo=dt.UTC)}}, "would come back as"),
        ({"extra": {"a": b"x"}}, "would come back as"),
        ({"extra": {"a": float("nan")}}, "a finite number"),
        ({"extra": {"a": "\ud800"}}, "lone surrogate"),
        ({"extra": {"a": 2**63}}, "64 bits"),
        ({"tokens": 2**63}, "64 bits"),
        ({"tokens": 2**64}, "64 bits"),
        ({"weight": float("inf")}, "a finite number"),
        ({"said_at": NAIVE}, "a time with a zone"),
        ({"role": 5}, "Expected `str`"),
        ({"color": "green"}, "Invalid enum value"),
        ({"labels": [5]}, "Expected `str`"),
        ({"place": Place(point=(float("nan"), 0.0))}, "would come back as|a finite number"),
    ],
)  # fmt: skip
def test_an_item_that_would_come_back_as_something_else_is_refused(
    changed: dict[str, Any], match: str
) -> None:
    with pytest.raises((BadValue, msgspec.ValidationError), match=match):
        LINES.encode(Line(**{"role": "x", **changed}))


@pytest.mark.parametrize(
    "foreign",
    [
        {"tokens": 2**63}, {"saidAt": "2026-01-01T00:00:00"}, {"weight": float("inf")}, {"extra": {1: 1}}, {"role": 5},
        {"role": None}, {"extra": {"a": b"x"}}, {"extra": {"a": NAIVE.replace(tzinfo=dt.UTC)}},
        {"extra": {"a": msgspec.msgpack.Ext(5, b"x")}},
        {"place": {"point": [1]}}, {"extra": {"a": {b"b": 1}}},
    ],
    ids=lambda foreign: re.sub(r" at 0x\w+", "", str(foreign)),
)  # fmt: skip
def test_a_foreign_item_that_a_row_could_not_hold_is_not_read(foreign: dict[str, Any]) -> None:
    with pytest.raises((BadValue, msgspec.MsgspecError)):
        LINES.decode(msgspec.msgpack.encode({"role": "x", **foreign}))


def test_a_foreign_item_keeps_what_is_not_known_out_of_the_way() -> None:
    data = encode_value({"role": "x", "mood": "glad", "extra": {"deep": [{"a": None}]}})
    assert LINES.decode(data) == Line(role="x", extra={"deep": [{"a": None}]})


def test_scalars_are_items_too() -> None:
    colors = codec_of(Color)
    assert [
        colors.decode(colors.encode(color)) for color in colors.convert(["red", Color.DEEP_BLUE])
    ] == list(Color)
    with pytest.raises(msgspec.ValidationError):
        colors.decode(encode_value("green"))


def test_an_item_without_equality_is_taken_as_it_is() -> None:
    loose = codec_of(Loose)
    assert loose.decode(loose.encode(Loose(value=[1]))).value == [1]
    with pytest.raises(BadValue, match="finite"):
        loose.encode(Loose(value=float("nan")))


def test_an_item_of_an_unknown_type_is_a_wrong_declaration() -> None:
    odd = msgspec.defstruct("Odd", [("value", complex)])
    with pytest.raises(SchemaError, match=r"T\.f: its items cannot be written"):
        codec_of(odd)
