"""Records of every shape: random declarations of fields, and random values that fit them, over all of Unicode."""

from __future__ import annotations

import datetime as dt
import enum
import sys
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from hypothesis import strategies as st
from msgspec import Meta

from crdt.fields import Counter, Item, Text
from crdt.schema import Record
from tests.crdt.histories import ALPHABET

__all__ = [
    "JUNK",
    "Color",
    "Declared",
    "Line",
    "Rank",
    "declarations",
    "json_values",
    "maps",
    "new_record",
    "texts",
]


class Color(enum.Enum):
    RED = "red"
    DEEP_BLUE = "deep blue"


class Rank(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Place(msgspec.Struct):
    name: str = ""
    point: tuple[float, float] = (0.0, 0.0)


class Line(Item):
    """An item that holds one attribute of each sort that a row has a column for."""

    role: str
    said_at: dt.datetime | None = None
    tokens: int = 0
    weight: float = 0.0
    is_final: bool = False
    color: Color = Color.RED
    labels: list[str] = []
    extra: dict[str, Any] = {}
    place: Place | None = None


texts = st.text(max_size=8) | st.lists(st.sampled_from(ALPHABET), max_size=5).map("".join)
integers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
NAIVE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).replace(tzinfo=None)
# UTC's years 1 to 9999, in several zones
times = st.datetimes(
    NAIVE.replace(year=1, day=2),
    NAIVE.replace(year=9999, month=12, day=30),
    timezones=st.sampled_from(
        [dt.UTC, *(dt.timezone(dt.timedelta(hours=hours)) for hours in (-11, 5.75, 14))]
    ),
)
json_values = st.recursive(
    st.none() | st.booleans() | integers | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
maps = st.dictionaries(texts, json_values, max_size=4)
lines = st.builds(
    Line,
    role=texts,
    said_at=st.none() | times,
    tokens=integers,
    weight=floats,
    is_final=st.booleans(),
    color=st.sampled_from(Color),
    labels=st.lists(texts, max_size=2),
    extra=maps,
    place=st.none() | st.builds(Place, name=texts, point=st.tuples(floats, floats)),
)


class Declared(NamedTuple):
    """A field as it may be declared, and the values that fit it."""

    annotation: Any
    values: st.SearchStrategy[Any]
    default: Any = msgspec.NODEFAULT


MENU = [
    Declared(str, texts),
    Declared(Annotated[str, Meta(max_length=3)], st.text(max_size=3), ""),
    Declared(str | None, st.none() | texts, None),
    Declared(int, integers),
    Declared(Annotated[int, Meta(gt=0)], st.integers(1, 2**63 - 1), 5),
    Declared(float, floats, 0.5),
    Declared(float | None, st.none() | floats, None),
    Declared(bool, st.booleans(), False),
    Declared(dt.datetime, times),
    Declared(dt.datetime | None, st.none() | times, None),
    Declared(Color, st.sampled_from(Color), Color.RED),
    Declared(Rank | None, st.none() | st.sampled_from(Rank), None),
    Declared(Literal["a", "é"], st.sampled_from(["a", "é"]), "a"),
    Declared(Literal[1, 2] | None, st.sampled_from([None, 1, 2]), None),
    Declared(Counter, integers, Counter(0)),
    Declared(Text, texts, Text()),
    Declared(set[str], st.sets(texts, max_size=4), set()),
    Declared(set[int], st.sets(integers, max_size=4), set()),
    Declared(set[float], st.sets(floats, max_size=4), set()),
    Declared(set[bool], st.sets(st.booleans()), set()),
    Declared(set[Color], st.sets(st.sampled_from(Color)), set()),
    Declared(set[dt.datetime], st.sets(times, max_size=3), set()),
    Declared(list[str], st.lists(texts, max_size=4), []),
    Declared(list[int], st.lists(integers, max_size=4), []),
    Declared(list[float], st.lists(floats, max_size=4), []),
    Declared(list[dt.datetime], st.lists(times, max_size=3), []),
    Declared(list[Rank], st.lists(st.sampled_from(Rank), max_size=3), []),
    Declared(list[Line], st.lists(lines, max_size=4), []),
    Declared(dict[str, Any], maps, {}),
]
# What fits few fields, and what fits none.
JUNK: list[Any] = [
    None, True, 5, -1, 2**63, -(2**63) - 1, 10**5_000, 1.5, float("nan"), float("inf"), "", "text", "\ud800",
    "x" * 5_000_000, b"bytes", [], [5], ["a"], ["a", 5, None], [[]], (1, 2), {}, {"a": 1}, {5: 1}, {"\ud800": 1},
    {"a": {"b": {1, 2}}}, {"a": (1, 2)}, {"a": b"x"}, {"k" * 5_000: 1}, {"a": float("nan")}, {"a": 2**64},
    {"a": NAIVE}, {"a": Color.RED}, {"a": object()}, set(), {"a"}, {5}, {1.5, "a"}, frozenset({"a"}),
    {"\ud800"}, {"x" * 5_000}, NAIVE, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.date(2026, 1, 1),
    dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14))), Color.RED, Rank.LOW, object(), object, print,
    Line(role="user"), [Line(role="user", tokens=2**63)], [Line(role=5)], [Line(role="\ud800")],  # type: ignore[arg-type]
    [Line(role="user", said_at=NAIVE)], [Line(role="user", extra={"a": object()})],
    [Line(role="user", weight=float("nan"))], [Line(role="user", extra={"a": (1, 2)})], [{"role": "user"}],
    [{"role": 5}], [Line(role="user", extra={1: 2})],  # type: ignore[dict-item]
    [Line(role="user", extra={"a": b"x"})], sys.float_info.max, iter([1]),
]  # fmt: skip


def new_record(fields: dict[str, Declared], *, collection: str = "things") -> type[Record]:
    """Declare a record with these fields, as a class statement would."""
    namespace: dict[str, Any] = {
        "__annotations__": {name: declared.annotation for name, declared in fields.items()},
        "__module__": __name__,
    }
    for name, declared in fields.items():
        if declared.default is not msgspec.NODEFAULT:
            namespace[name] = declared.default
    meta: Any = type(Record)
    made: type[Record] = meta("Thing", (Record,), namespace, collection=collection)
    return made


declarations = st.lists(st.sampled_from(MENU), min_size=1, max_size=6).map(
    lambda chosen: {f"field_{chr(97 + place)}": declared for place, declared in enumerate(chosen)}
)
