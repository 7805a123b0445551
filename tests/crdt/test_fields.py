"""A Python type says how its field merges, what values it takes, and what SQL type it has."""

from __future__ import annotations

import datetime as dt
import enum
import re
from typing import Annotated, Any, Literal, Optional

import msgspec
import pytest
from msgspec import Meta

from crdt.errors import SchemaError
from crdt.fields import Counter, FieldType, Item, Kind, Sealed, Text, field_type
from tests.crdt.declarations import NAIVE, Color, Line, Rank

__all__: list[str] = []


SEALED: Any = Sealed  # as an annotation it is generic; here it is a value


class Closed(Item, forbid_unknown_fields=True):
    name: str = ""


class Fraction(enum.Enum):
    HALF = 0.5


def kind_of(annotation: Any) -> FieldType:
    return field_type(annotation, where="Note.field")


def _as_name(value: object) -> str:
    """Return an id that is the same in every process: sets and addresses are not."""
    return re.sub(r" at 0x\w+|\{[^{}]*\}", "", str(value))


@pytest.mark.parametrize(
    ("annotation", "kind", "scalar", "optional", "affinity"),
    [
        (str, Kind.REGISTER, str, False, "TEXT"),
        (int | None, Kind.REGISTER, int, True, "INTEGER"),
        (Optional[float], Kind.REGISTER, float, True, "REAL"),  # noqa: UP045 - the older spelling is taken too
        (bool, Kind.REGISTER, bool, False, "INTEGER"),
        (dt.datetime, Kind.REGISTER, dt.datetime, False, "INTEGER"),
        (Color, Kind.REGISTER, Color, False, "TEXT"),
        (Rank | None, Kind.REGISTER, Rank, True, "INTEGER"),
        (Literal["a", "b"], Kind.REGISTER, str, False, "TEXT"),
        (Literal[1, 2] | None, Kind.REGISTER, int, True, "INTEGER"),
        (Annotated[str | None, Meta(max_length=3)], Kind.REGISTER, str, True, "TEXT"),
        (Annotated[str, "a remark"], Kind.REGISTER, str, False, "TEXT"),
        (Counter, Kind.COUNTER, int, False, "INTEGER"),
        (Text, Kind.TEXT, str, False, "TEXT"),
        (set[int], Kind.SET, int, False, "TEXT"),
        (list[float], Kind.LIST, float, False, "REAL"),
        (list[Line], Kind.LIST, Line, False, "TEXT"),
        (dict, Kind.MAP, dict, False, "TEXT"),
        (dict[str, Any], Kind.MAP, dict, False, "TEXT"),
        (SEALED[str | None], Kind.SEALED, object, True, "BLOB"),
    ],
)
def test_a_type_means_a_kind(
    annotation: Any, kind: Kind, scalar: type, optional: bool, affinity: str
) -> None:
    found = kind_of(annotation)
    assert (found.kind, found.scalar, found.optional, found.affinity) == (kind, scalar, optional, affinity)


@pytest.mark.parametrize(
    "annotation",
    [
        bytes, object, Any, dt.date, complex, tuple[int, int], frozenset[str], set, list, type(None), str | int,
        str | int | None,
        set[str | None], set[Any], set[Line], set[set[str]], list[list[int]], list[Any], list[str | None],
        list[dict[str, Any]],
        dict[int, str], dict[str, str], dict[str, Any] | None, set[str] | None, Text | None, Counter | None,
        Literal["a", 1], Literal[True], list[Closed], Annotated[dt.datetime, Meta(tz=False)],
        set[Annotated[dt.datetime, Meta(tz=False)]],
    ],
    ids=str,
)  # fmt: skip
def test_a_type_that_means_none_is_refused_by_name(annotation: Any) -> None:
    with pytest.raises(SchemaError, match=r"^Note\.field: "):
        kind_of(annotation)


@pytest.mark.parametrize(
    ("annotation", "fits", "does_not"),
    [
        (int, [0, 2**63 - 1, -(2**63)], [2**63, -(2**63) - 1, 1.5, True, "1", None]),
        (int | None, [None, 5], [2**63]),
        (Annotated[int, Meta(gt=0, le=5)], [1, 5], [0, 6]),
        (Annotated[int, Meta(ge=0)], [0, 2**63 - 1], [-1, 2**63]),
        (float, [0.5, 1, -1e308], [float("nan"), float("inf"), "1"]),
        (Annotated[float, Meta(lt=1)], [0.5, -1e308], [1, float("-inf"), float("nan")]),
        (dt.datetime, [NAIVE.replace(tzinfo=dt.UTC)], [NAIVE, 5]),
        (set[int], [{1}, [1]], [{2**63}, {"a"}, 1]),
        (set[Annotated[str, Meta(max_length=1)]], [{"a"}], [{"ab"}]),
        (Annotated[set[str], Meta(max_length=1)], [{"a"}], [{"a", "b"}]),
        (list[dt.datetime], [[NAIVE.replace(tzinfo=dt.UTC)]], [[NAIVE]]),
        (list[float], [[0.5]], [[float("nan")]]),
        (Counter, [5], [2**63, 1.5]),
        (Annotated[dict[str, Any], Meta(max_length=1)], [{}, {"a": 1}], [{"a": 1, "b": 2}, {1: 1}]),
    ],
    ids=_as_name,
)
def test_values_are_held_to_the_declaration_and_to_what_both_ends_can_hold(
    annotation: Any, fits: list[Any], does_not: list[Any]
) -> None:
    value = kind_of(annotation).value
    for one in fits:
        assert msgspec.convert(one, value) == (
            set(one) if isinstance(one, list) and "set" in str(value) else one
        )
    for one in does_not:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(one, value)


def test_what_was_written_is_read_without_the_declared_constraints() -> None:
    stored = kind_of(Annotated[int, Meta(gt=0, le=5)]).stored
    assert msgspec.convert(-7, stored) == -7
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(2**63, stored)


def test_a_kind_describes_its_values() -> None:
    assert kind_of(Color | None).describe() == "one of 'red', 'deep blue'"
    assert kind_of(Literal[1, 2]).describe() == "one of 1, 2"
    assert kind_of(set[Rank]).describe() == "one of 1, 2"
    assert kind_of(list[Line]).describe() == "a list of Line"
    assert kind_of(str).describe() == "a str"


def test_markers_are_plain_values() -> None:
    assert Text("a") == "a"
    assert Counter(3) + 1 == 4
    assert msgspec.json.encode(Line(role="x", is_final=True)).startswith(
        b'{"role":"x","saidAt":null,"tokens":0'
    )
