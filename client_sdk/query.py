"""Queries: a value that says what is wanted; nothing runs until ``all``, ``first``, ``count`` or ``watch``.

::

    notes.where(pinned=True).where("created_at", ">=", t).order_by("created_at", "desc").limit(50)

Each step returns a new query. A wrong field, operator or type is a `QueryError` before any SQL runs.
Conditions are joined by AND; ``or_`` takes alternatives. A field may be a map's leaf (``"settings.theme"``).
Values become parameters, never SQL text.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

import msgspec

from client_sdk.database import Connection
from client_sdk.errors import QueryError
from client_sdk.rows import Table, to_sql
from crdt.fields import Kind
from crdt.schema import Record

__all__ = ["Condition", "Query", "Source", "Subscription"]

R = TypeVar("R", bound=Record)
T = TypeVar("T")

_COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")
_OPERATORS = (*_COMPARISONS, "in", "contains", "startswith", "is_null")
_ORDERED = {Kind.REGISTER, Kind.COUNTER, Kind.TEXT}


class Subscription(Protocol):
    """A callback that is called until it is closed."""

    def close(self) -> None:
        """Call no more."""


class Source(Protocol):
    """What a query runs on: reads, and reads that stay true."""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on a consistent view."""

    def watch(self, tables: frozenset[str], work: Callable[[Connection], T]) -> AsyncIterator[T]:
        """Yield what ``work`` returns, now and each time that a commit to those tables changes it."""

    def subscribe(
        self, tables: frozenset[str], work: Callable[[Connection], T], callback: Callable[[T], Any]
    ) -> Subscription:
        """Call back with what ``work`` returns, now and each time that it changes."""


class Condition(msgspec.Struct, frozen=True):
    """A piece of SQL that is true or false of a row, and its parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()


class Query(Generic[R]):
    """What is wanted of a collection. Iterating over it is an error: call one of its verbs."""

    __slots__ = ("_conditions", "_include", "_limit", "_offset", "_order", "_source", "_table")

    def __init__(
        self,
        source: Source,
        table: Table,
        *,
        conditions: tuple[Condition, ...] = (),
        order: tuple[str, ...] = (),
        limit: int | None = None,
        offset: int = 0,
        include: frozenset[str] = frozenset(),
    ) -> None:
        self._source = source
        self._table = table
        self._conditions = conditions
        self._order = order
        self._limit = limit
        self._offset = offset
        self._include = include

    # -- Saying what is wanted

    def where(self, *condition: Any, **equal: Any) -> Query[R]:
        """Keep the records that fit: ``where(pinned=True)`` or ``where("created_at", ">=", t)``.

        Operators: ``= != < <= > >=``, ``in`` (a collection of values), ``contains`` (an element of a set, a
        part of a text, a key of a map), ``startswith``, ``is_null`` (True or False).

        Raises:
            QueryError: no such field or operator, or a value of the wrong type.
        """
        added = [self._compile(name, "=", value) for name, value in equal.items()]
        if condition:
            added.append(self._condition(condition))
        return self._with(conditions=(*self._conditions, *added))

    def or_(self, *alternatives: tuple[Any, ...] | dict[str, Any]) -> Query[R]:
        """Keep the records that fit at least one alternative: ``or_(("kind", "=", "a"), {"pinned": True})``.
        Raises `QueryError`.
        """
        made = []
        for alternative in alternatives:
            if isinstance(alternative, dict):
                made += [self._compile(name, "=", value) for name, value in alternative.items()]
            else:
                made.append(self._condition(alternative))
        if not made:
            raise QueryError('or_() needs at least one alternative, such as or_(("kind", "=", "a"))')
        joined = " OR ".join(f"({one.sql})" for one in made)
        parameters = tuple(parameter for one in made for parameter in one.parameters)
        return self._with(conditions=(*self._conditions, Condition(f"({joined})", parameters)))

    def order_by(self, field: str, direction: Literal["asc", "desc"] = "asc") -> Query[R]:
        """Sort by a field; a second call sorts what the first leaves equal. Records without a value come
        first. Raises `QueryError`.
        """
        if direction not in ("asc", "desc"):
            raise QueryError(f'order_by takes "asc" or "desc", not {direction!r}')
        column, kind, _ = self._column(field)
        if kind not in {*_ORDERED, Kind.MAP} or (kind is Kind.MAP and "." not in field):
            raise QueryError(f"{self._name}.{field}: a {kind.value} has no order to sort by")
        return self._with(order=(*self._order, f"{column} {direction.upper()}"))

    def limit(self, count: int) -> Query[R]:
        """Take at most ``count`` records. Raises `QueryError`."""
        return self._with(limit=self._natural("limit", count))

    def offset(self, count: int) -> Query[R]:
        """Leave out the first ``count`` records. Raises `QueryError`."""
        return self._with(offset=self._natural("offset", count))

    def include(self, *lists: str) -> Query[R]:
        """Load these lists too, which are declared lazy: ``include("messages")``. Raises `QueryError`."""
        return self._with(include=self._include | self._table.included(lists))

    # -- Asking

    async def all(self) -> list[R]:
        """Return the records."""
        return await self._source.read(self._all)

    async def first(self) -> R | None:
        """Return the first record, or None."""
        one = self._with(limit=1 if self._limit is None else min(1, self._limit))
        found = await one.all()
        return found[0] if found else None

    async def count(self) -> int:
        """Return how many records fit (within limit and offset)."""
        return await self._source.read(self._count)

    def watch(self) -> AsyncIterator[list[R]]:
        """Yield the records, now and each time that they change. A slow consumer gets the latest, not a queue."""
        return self._source.watch(frozenset({self._name}), self._all)

    def subscribe(self, callback: Callable[[list[R]], Any]) -> Subscription:
        """Call back with the records, now and each time that they change, until the subscription is closed."""
        return self._source.subscribe(frozenset({self._name}), self._all, callback)

    def __repr__(self) -> str:
        """Show the SQL."""
        return f"<Query {self._sql(self._table.select)[0]}>"

    # -- Running

    @property
    def _name(self) -> str:
        return self._table.name

    def _all(self, connection: Connection) -> list[R]:
        sql, parameters = self._sql(self._table.select)
        rows = connection.execute(sql, parameters).fetchall()
        return self._table.records(connection, rows, self._include)  # type: ignore[return-value]

    def _count(self, connection: Connection) -> int:
        inner, parameters = self._sql(f'SELECT 1 FROM "{self._name}"')
        return int(connection.execute(f"SELECT count(*) FROM ({inner})", parameters).fetchone()[0])

    def _sql(self, select: str) -> tuple[str, list[Any]]:
        parts, parameters = [select], [value for one in self._conditions for value in one.parameters]
        if self._conditions:
            parts.append("WHERE " + " AND ".join(one.sql for one in self._conditions))
        # The document's number breaks ties, so that pages by offset neither skip nor repeat.
        parts.append("ORDER BY " + ", ".join((*self._order, f'"{self._name}".doc')))
        if self._limit is not None or self._offset:
            parts.append("LIMIT ? OFFSET ?")
            parameters += [-1 if self._limit is None else self._limit, self._offset]
        return " ".join(parts), parameters

    # -- Compiling

    def _condition(self, condition: Sequence[Any]) -> Condition:
        match condition:
            case (field, "is_null"):
                return self._compile(field, "is_null", True)
            case (field, operator, value):
                return self._compile(field, operator, value)
        raise QueryError(f"a condition is (field, operator, value), not {condition!r:.200}")

    def _compile(self, field: str, operator: str, value: Any) -> Condition:
        column, kind, check = self._column(field)
        where = f"{self._name}.{field}"
        if operator not in _OPERATORS:
            raise QueryError(f"{where}: there is no operator {operator!r}; there are {', '.join(_OPERATORS)}")
        if operator == "is_null":
            return Condition(f"{column} IS {'' if value else 'NOT '}NULL")
        if operator == "in":
            if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
                raise QueryError(f"{where}: in takes a collection of values, not {value!r:.60}")
            values = [to_sql(check(where, one)) for one in value]
            return Condition(f"{column} IN ({', '.join('?' * len(values))})", tuple(values))
        if operator == "contains":
            return self._contains(where, column, kind, value)
        if operator == "startswith":
            if kind not in {Kind.REGISTER, Kind.TEXT, Kind.MAP} or not isinstance(value, str):
                raise QueryError(f"{where}: startswith compares text with text, not with {value!r:.60}")
            return Condition(f"substr({column}, 1, ?) = ?", (len(value), value))
        if operator in ("=", "!=") and value is None:
            return Condition(f"{column} IS {'NOT ' if operator == '!=' else ''}NULL")
        if operator not in ("=", "!=") and kind in {Kind.SET, Kind.LIST, Kind.SEALED}:
            raise QueryError(f"{where}: a {kind.value} has no order to compare by")
        sign = "IS NOT" if operator == "!=" else operator
        return Condition(f"{column} {sign} ?", (to_sql(check(where, value)),))

    def _contains(self, where: str, column: str, kind: Kind, value: Any) -> Condition:
        if kind is Kind.SET:
            element = value.value if isinstance(value, enum.Enum) else value
            return Condition(f"EXISTS (SELECT 1 FROM json_each({column}) WHERE value = ?)", (element,))
        if not isinstance(value, str):
            raise QueryError(
                f"{where}: contains looks for text, or for an element of a set, not for {value!r:.60}"
            )
        if kind is Kind.MAP and "." not in where.split(".", 1)[1]:
            return Condition(f"EXISTS (SELECT 1 FROM json_each({column}) WHERE key = ?)", (value,))
        return Condition(f"instr({column}, ?) > 0", (value,))

    def _column(self, field: str) -> tuple[str, Kind, Callable[[str, Any], Any]]:
        if field == "id":
            return f'"{self._name}".id', Kind.REGISTER, _checker(str)
        top, _, below = field.partition(".")
        declared = self._table.schema.by_name.get(top)
        if declared is None or declared.kind is Kind.LIST:
            known = ", ".join(["id", *self._table.by_name])
            raise QueryError(f"{self._name} has no field {field!r} to ask by; there are {known}")
        column = f'"{self._name}"."{top}"'
        if not below:
            plain = declared.type.scalar if declared.kind is Kind.REGISTER else declared.type.value
            return column, declared.kind, _checker(plain)
        if declared.kind is not Kind.MAP:
            raise QueryError(f"{self._name}.{top} is a {declared.kind.value}: only a map has leaves")
        if '"' in below:
            raise QueryError(f"{self._name}.{field}: a leaf's name has no quotation mark")
        path = "".join(f'."{part}"' for part in below.split(".")).replace("'", "''")
        return f"json_extract({column}, '${path}')", Kind.MAP, lambda _, value: value

    def _natural(self, what: str, count: int) -> int:
        if type(count) is not int or count < 0:
            raise QueryError(f"{what} takes a whole number from 0 on, not {count!r:.60}")
        return count

    def _with(self, **parts: Any) -> Query[R]:
        held = {
            "conditions": self._conditions,
            "order": self._order,
            "limit": self._limit,
            "offset": self._offset,
            "include": self._include,
        }
        return Query(self._source, self._table, **(held | parts))


_TIME = Annotated[dt.datetime, msgspec.Meta(tz=True)]


def _checker(plain: Any) -> Callable[[str, Any], Any]:
    """Return what checks a value's type; a field's other constraints do not bind what is asked for."""
    kind = _TIME if plain is dt.datetime else plain

    def check(where: str, value: Any) -> Any:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise QueryError(f"{where}: {error}") from None

    return check
