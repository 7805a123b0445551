"""Conditions on the fields of a record, as SQL on its JSON. Values and paths go as parameters, never as text.

``field`` is a path into the JSON (camelCase, dotted into maps). A record without the field meets no condition but
``{"is": null}``. Times stand in the JSON as RFC 3339 in UTC and compare as texts do: by code point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from crdt.limits import KEY_BYTES_MAX, VALUE_DEPTH_MAX
from server.errors import MalformedMessage

__all__ = ["Bind", "Bound", "Condition", "condition_sql"]

#: Takes a value and returns what stands for it in the statement: ``$7``.
Bind: TypeAlias = Callable[[Any], str]
Bound: TypeAlias = float | int | str


_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of a field: it is one of ``values``; or holds ``has`` among its elements; or lies in a range."""

    field: str
    values: Sequence[Any] | None = None
    has: Any = msgspec.UNSET
    at_least: Bound | None = None
    above: Bound | None = None
    at_most: Bound | None = None
    below: Bound | None = None


def condition_sql(condition: Condition, bind: Bind) -> str:
    """Return SQL over ``documents.value``.

    Raises:
        MalformedMessage: the condition asks for nothing, or for what no field can be.
    """
    path = condition.field.split(".")
    if len(condition.field.encode(errors="replace")) > KEY_BYTES_MAX or len(path) > VALUE_DEPTH_MAX:
        raise MalformedMessage("a condition's field is a path such as mood or mood.joy")
    value = f"documents.value #> {bind([_text(name) for name in path])}::text[]"
    found = []
    if condition.values is not None:
        found.append(_one_of(value, condition.values, bind))
    if condition.has is not msgspec.UNSET:
        found.append(f"({value} @> {bind(_json([condition.has]))}::jsonb)")
    for bound, sign in (
        (condition.at_least, ">="),
        (condition.above, ">"),
        (condition.at_most, "<="),
        (condition.below, "<"),
    ):
        if isinstance(bound, str):
            text = f"({value} #>> '{{}}') COLLATE \"C\""
            found.append(f"(jsonb_typeof({value}) = 'string' AND {text} {sign} {bind(_text(bound))}::text)")
        elif isinstance(bound, (int, float)):
            found.append(f"(jsonb_typeof({value}) = 'number' AND {value} {sign} {bind(_json(bound))}::jsonb)")
    if not found:
        raise MalformedMessage(
            f"a condition on {condition.field[:100]} says is, in, has, atLeast, above, atMost or below"
        )
    return " AND ".join(found)


def _one_of(value: str, values: Sequence[Any], bind: Bind) -> str:
    among = f"{value} = ANY({bind([_json(one) for one in values])}::jsonb[])"
    return f"({among} OR {value} IS NULL)" if None in values else f"({among})"


def _json(value: Any) -> str:
    try:
        return _text(_encode(value).decode().replace("\\u0000", "\N{REPLACEMENT CHARACTER}"))
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError, ValueError):
        raise MalformedMessage("a condition's value is JSON of valid Unicode") from None


def _text(value: str) -> str:
    """NUL is replaced as in the JSON of records; a half of a surrogate pair is in none."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
