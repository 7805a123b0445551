"""What a query asks of a row, in two forms that always agree: SQL for SQLite, and a test in Python for a changed row.

A row is what SQL holds (`client_sdk.rows`): the document's number, the id, then a value for each column. The
tests follow SQLite's rules (https://sqlite.org/datatype3.html#comparisons): a comparison with NULL is not
true, numbers come before text, text before blobs, and text compares by code points, which is the order of its
UTF-8 bytes. Where a test would have to imitate SQLite in a corner, it raises `Undecided` instead, and the
query is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

__all__ = [
    "AnyOf",
    "Column",
    "Comparison",
    "Condition",
    "Operator",
    "Row",
    "Sorting",
    "Test",
    "Undecided",
    "sort_key",
]

Row: TypeAlias = Sequence[Any]
Test: TypeAlias = Callable[[Row], bool]
Operator: TypeAlias = Literal[
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "in",
    "has element",
    "has key",
    "has text",
    "startswith",
    "is null",
    "is not null",
]

_json = msgspec.json.Decoder()


class Undecided(Exception):
    """Only SQLite can say."""


class Column(msgspec.Struct, frozen=True):
    """Where a value stands: a column of the table, or a leaf of the JSON in one. ``place`` counts within a row."""

    name: str
    place: int
    leaf: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """The expression, with the column's name quoted."""
        if not self.leaf:
            return self.name
        path = "".join(f'."{part}"' for part in self.leaf).replace("'", "''")
        return f"json_extract({self.name}, '${path}')"

    def value(self, row: Row) -> Any:
        """Return the value in a row. Raises `Undecided` for a leaf that is no scalar."""
        held = row[self.place]
        if not self.leaf or held is None:
            return held
        found = _json.decode(held)
        for part in self.leaf:
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, dict | list):
            raise Undecided
        return int(found) if isinstance(found, bool) else found


class Comparison(msgspec.Struct, frozen=True):
    """One column beside one value (``in``: several), which is as SQL holds it, and never NULL."""

    column: Column
    operator: Operator
    value: Any = None

    def sql(self) -> tuple[str, tuple[Any, ...]]:
        """Return the expression and its parameters."""
        column, value = self.column.sql, self.value
        match self.operator:
            case "in":
                return f"{column} IN ({', '.join('?' * len(value))})", tuple(value)
            case "has element":
                return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE value = ?)", (value,)
            case "has key":
                return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE key = ?)", (value,)
            case "has text":
                return f"instr({column}, ?) > 0", (value,)
            case "startswith":
                return f"substr({column}, 1, ?) = ?", (len(value), value)
            case "is null":
                return f"{column} IS NULL", ()
            case "is not null":
                return f"{column} IS NOT NULL", ()
            case "!=":
                return f"{column} IS NOT ?", (value,)
        return f"{column} {self.operator} ?", (value,)

    @property
    def test(self) -> Test:
        """The same in Python."""
        return _test(self)

    @property
    def shape(self) -> tuple[Any, ...]:
        """The question without its values."""
        return self.column, self.operator

    @property
    def equals(self) -> tuple[Column, tuple[Any, ...]] | None:
        """The column and the values of which a row must have one, where that is what it asks."""
        match self.operator:
            case "=":
                return self.column, (self.value,)
            case "in":
                return self.column, self.value
        return None


class AnyOf(msgspec.Struct, frozen=True):
    """True where at least one of its parts is."""

    parts: tuple[Comparison, ...]

    def sql(self) -> tuple[str, tuple[Any, ...]]:
        """Return the expression and its parameters."""
        made = [part.sql() for part in self.parts]
        text = " OR ".join(f"({sql})" for sql, _ in made)
        return f"({text})", tuple(parameter for _, parameters in made for parameter in parameters)

    @property
    def test(self) -> Test:
        """The same in Python."""
        tests = [part.test for part in self.parts]
        return lambda row: any(test(row) for test in tests)

    @property
    def shape(self) -> tuple[Any, ...]:
        """The question without its values."""
        return tuple(part.shape for part in self.parts)

    @property
    def equals(self) -> tuple[Column, tuple[Any, ...]] | None:
        """As `Comparison.equals`, where all parts ask for values of one column."""
        found = [part.equals for part in self.parts]
        columns = {None if one is None else one[0] for one in found}
        if len(columns) != 1 or None in columns:
            return None
        return found[0][0], tuple(value for one in found if one for value in one[1])  # type: ignore[index]


Condition: TypeAlias = Comparison | AnyOf


class Sorting(msgspec.Struct, frozen=True):
    """One column to sort by. NULL comes before everything, as in SQLite; ``descending`` turns it all round."""

    column: Column
    descending: bool = False

    @property
    def sql(self) -> str:
        """The term of ORDER BY."""
        return f"{self.column.sql} {'DESC' if self.descending else 'ASC'}"


class _Descending:
    """A key that sorts the other way round."""

    __slots__ = ("key",)

    def __init__(self, key: tuple[int, Any]) -> None:
        self.key = key

    def __lt__(self, other: _Descending) -> bool:
        return other.key < self.key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and other.key == self.key

    __hash__ = None  # type: ignore[assignment]


def sort_key(order: Iterable[Sorting]) -> Callable[[Row], tuple[Any, ...]]:
    """Return what sorts rows as SQLite does by ``order``, and by the documents' numbers where that leaves
    them equal.
    """
    parts = [(sorting.column, sorting.descending) for sorting in order]

    def key(row: Row) -> tuple[Any, ...]:
        made: list[Any] = []
        for column, descending in parts:
            value = _ranked(column.value(row))
            made.append(_Descending(value) if descending else value)
        made.append(row[0])
        return tuple(made)

    return key


def _ranked(value: Any) -> tuple[int, Any]:
    """Return a value with the rank of its storage class."""
    if value is None:
        return 0, 0
    if isinstance(value, str):
        return 2, value
    if isinstance(value, bytes):
        return 3, value
    return 1, value


_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def _test(comparison: Comparison) -> Test:
    value_of, value, operator = comparison.column.value, comparison.value, comparison.operator
    if operator in ("has text", "startswith") and "\0" in value:
        return _never_decided  # SQLite's text functions end at a NUL
    match operator:
        case "=":
            ranked = _ranked(value)
            return lambda row: (held := value_of(row)) is not None and _ranked(held) == ranked
        case "!=":
            ranked = _ranked(value)
            return lambda row: _ranked(value_of(row)) != ranked
        case "in":
            all_ranked = {_ranked(one) for one in value}
            return lambda row: (held := value_of(row)) is not None and _ranked(held) in all_ranked
        case "is null":
            return lambda row: value_of(row) is None
        case "is not null":
            return lambda row: value_of(row) is not None
        case "has element":
            ranked = _ranked(value)
            return lambda row: any(_ranked(one) == ranked for one in _json.decode(value_of(row) or "[]"))
        case "has key":
            return lambda row: value in _json.decode(value_of(row) or "{}")
        case "has text":
            return lambda row: (held := value_of(row)) is not None and value in _text(held)
        case "startswith":
            return lambda row: (held := value_of(row)) is not None and _text(held).startswith(value)
    compare, ranked = _COMPARE[operator], _ranked(value)
    return lambda row: (held := value_of(row)) is not None and compare(_ranked(held), ranked)


def _text(held: Any) -> str:
    if isinstance(held, str) and "\0" not in held:
        return held
    raise Undecided


def _never_decided(_row: Row) -> bool:
    raise Undecided
