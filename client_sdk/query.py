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
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Literal, TypeVar, cast

import msgspec

from client_sdk.conditions import AnyOf, Column, Comparison, Condition, Sorting
from client_sdk.database import Connection
from client_sdk.differences import Difference, differences
from client_sdk.errors import QueryError
from client_sdk.hits import MARKS, Mode, Scope
from client_sdk.plan import After, Plan
from client_sdk.rows import Table, to_sql
from client_sdk.search import Search
from client_sdk.source import Source, Subscription
from client_sdk.views import Groups, Total, View, Window
from crdt.fields import Kind
from crdt.schema import Record

if TYPE_CHECKING:
    from client_sdk.desktop.reactive import Observable

__all__ = ["Query", "Source", "Subscription"]

R = TypeVar("R", bound=Record)
T = TypeVar("T")

#: How long a result is kept, unless the query says otherwise.
SECONDS: Final = 300.0

_COMPARISONS = ("=", "!=", "<", "<=", ">", ">=")
_OPERATORS = (*_COMPARISONS, "in", "contains", "startswith", "is_null")
_ORDERED = {Kind.REGISTER, Kind.COUNTER, Kind.TEXT}


class Query(Generic[R]):
    """What is wanted of a collection. Iterating over it is an error: call one of its verbs."""

    __slots__ = ("_seconds", "_source", "plan")

    def __init__(self, source: Source, plan: Plan, *, seconds: float | None = None) -> None:
        self._source = source
        self._seconds = seconds
        self.plan = plan

    # -- Saying what is wanted

    def where(self, *condition: Any, **equal: Any) -> Query[R]:
        """Keep the records that fit: ``where(pinned=True)`` or ``where("created_at", ">=", t)``.

        Operators: ``= != < <= > >=``, ``in`` (a collection of values), ``contains`` (an element of a set, a
        part of a text, a key of a map), ``startswith``, ``is_null`` (True or False).

        Raises:
            QueryError: no such field or operator, or a value of the wrong type.
        """
        added: list[Condition] = [self._compile(name, "=", value) for name, value in equal.items()]
        if condition:
            added.append(self._condition(condition))
        return self._with(conditions=(*self.plan.conditions, *added))

    def or_(self, *alternatives: tuple[Any, ...] | dict[str, Any]) -> Query[R]:
        """Keep the records that fit at least one alternative: ``or_(("kind", "=", "a"), {"pinned": True})``.
        Raises `QueryError`.
        """
        made: list[Comparison] = []
        for alternative in alternatives:
            if isinstance(alternative, dict):
                made += [self._compile(name, "=", value) for name, value in alternative.items()]
            else:
                made.append(self._condition(alternative))
        if not made:
            raise QueryError('or_() needs at least one alternative, such as or_(("kind", "=", "a"))')
        return self._with(conditions=(*self.plan.conditions, AnyOf(tuple(made))))

    def order_by(self, field: str, direction: Literal["asc", "desc"] = "asc") -> Query[R]:
        """Sort by a field; a second call sorts what the first leaves equal. Records without a value come
        first. Raises `QueryError`.
        """
        if direction not in ("asc", "desc"):
            raise QueryError(f'order_by takes "asc" or "desc", not {direction!r}')
        if self.plan.after is not None:
            raise QueryError("order_by() comes before after(): it says what is behind what")
        column, kind, _ = self._column(field)
        if kind not in {*_ORDERED, Kind.MAP} or (kind is Kind.MAP and "." not in field):
            raise QueryError(f"{self._name}.{field}: a {kind.value} has no order to sort by")
        return self._with(order=(*self.plan.order, Sorting(column, direction == "desc")))

    def limit(self, count: int) -> Query[R]:
        """Take at most ``count`` records. Raises `QueryError`."""
        return self._with(limit=self._natural("limit", count))

    def offset(self, count: int) -> Query[R]:
        """Leave out the first ``count`` records. Raises `QueryError`."""
        return self._with(offset=self._natural("offset", count))

    def include(self, *lists: str) -> Query[R]:
        """Load these lists too, which are declared lazy: ``include("messages")``. Raises `QueryError`."""
        return self._with(include=self.plan.include | self._table.included(lists))

    def after(self, record: R) -> Query[R]:
        """Begin behind a record, in the query's order: ``limit(50)``, and then ``after(page[-1])`` for the next page.

        Costs what the page costs, however far in. The record may have been changed or deleted meanwhile: its place is
        the one that it has in the page. Raises `QueryError`.
        """
        if not isinstance(record, self._table.schema.record):
            raise QueryError(f"after() takes a record of {self._name}, not {record!r:.60}")
        values = tuple(_value_of(record, one.column, self._table) for one in self.plan.order)
        return self._with(after=After(values, record.id))

    def cached(self, seconds: float = SECONDS) -> Query[R]:
        """Keep the result for ``seconds`` (5 minutes), true through every commit, so that asking again reads nothing.

        Results share their unchanged records: copy one before changing it. Raises `QueryError`.
        """
        if not isinstance(seconds, int | float) or not seconds > 0:
            raise QueryError(f"cached takes a number of seconds above 0, not {seconds!r:.60}")
        return Query(self._source, self.plan, seconds=seconds)

    # -- Asking

    async def all(self) -> list[R]:
        """Return the records."""
        return await self._ask(Window(self.plan), self._all)

    async def first(self) -> R | None:
        """Return the first record, or None."""
        found = await self._first.all()
        return found[0] if found else None

    async def count(self) -> int:
        """Return how many records fit (within limit and offset)."""
        return await self._ask(Total(self.plan), self._count)

    async def exists(self) -> bool:
        """Return whether any record fits."""
        first = self._first
        sql, parameters = first.plan.sql(f'SELECT 1 FROM "{self._name}"')
        if self._seconds is not None:
            return await first.count() > 0
        return await self._source.ask(
            first.plan, lambda connection: connection.execute(sql, parameters).fetchone() is not None
        )

    async def group_count(self, field: str) -> dict[Any, int]:
        """Return how many records fit for each value of a field (None: without one). Limit and offset do not count.

        Raises:
            QueryError: no such field, or one that holds no single value (a set, a list, a map).
        """
        groups = self._groups(field)
        return await self._ask(groups, lambda connection: groups.decoded(groups.work(connection)))

    def search(
        self,
        text: str,
        *,
        limit: int = 50,
        mode: Mode = "hybrid",
        scope: Scope = "device",
        marks: tuple[str, str] = MARKS,
    ) -> Search[R]:
        """Search the records that fit, best first; see `client_sdk.search`. Await it, or ``watch`` it.

        Raises:
            QueryError: nothing of the record is searchable, or the query has an order or a window: a search has its
                own; or more hits of the space are asked for than a server gives.
            MeaningOff: the mode is "meaning", and the client was opened with ``embedder="off"``.
        """
        return Search(self._source, self.plan, text, limit=limit, mode=mode, scope=scope, marks=marks)

    def watch(self) -> AsyncGenerator[list[R], None]:
        """Yield the records, now and each time that they change. A slow consumer gets the latest, not a queue.

        Results share their unchanged records: copy one before changing it.
        """
        return self._source.watch(Window(self.plan))

    def subscribe(self, callback: Callable[[list[R]], Any]) -> Subscription:
        """Call back with the records, now and each time that they change, until the subscription is closed."""
        return self._source.subscribe(Window(self.plan), callback)

    def watch_changes(self) -> AsyncGenerator[list[Difference[R]], None]:
        """Yield what changed in the result each time, as `Added`, `Removed`, `Moved` and `Changed` with their places.

        The first are the records that are there now. Done to a list in their order, they make the new result.
        """
        return differences(self.watch())

    def observable(self) -> Observable[list[R]]:
        """Return the records, now and each time that they change, as a `reactivex.Observable`; see
        `client_sdk.desktop.reactive`. Raises `ExtraMissing` without the extra ``rx``.
        """
        from client_sdk.desktop.reactive import observable

        return observable(self)

    def watch_count(self) -> AsyncGenerator[int, None]:
        """Yield how many records fit, now and each time that it changes."""
        return self._source.watch(Total(self.plan))

    def watch_group_count(self, field: str) -> AsyncGenerator[dict[Any, int], None]:
        """Yield how many records fit for each value of a field, now and each time that it changes. As `group_count`."""
        return self._source.watch(self._groups(field))

    def __repr__(self) -> str:
        """Show the SQL."""
        return f"<Query {self.plan.sql(self._table.select)[0]}>"

    # -- Running

    @property
    def _table(self) -> Table:
        return self.plan.table

    @property
    def _name(self) -> str:
        return self._table.name

    @property
    def _first(self) -> Query[R]:
        return self._with(limit=1 if self.plan.limit is None else min(1, self.plan.limit))

    def _all(self, connection: Connection) -> list[R]:
        sql, parameters = self.plan.sql(self._table.select)
        return self.plan.records(connection, connection.execute(sql, parameters).fetchall())

    def _count(self, connection: Connection) -> int:
        inner, parameters = self.plan.sql(f'SELECT 1 FROM "{self._name}"')
        return int(connection.execute(f"SELECT count(*) FROM ({inner})", parameters).fetchone()[0])

    def _groups(self, field: str) -> Groups:
        column, kind, _ = self._column(field)
        if kind not in _ORDERED and not column.leaf:
            raise QueryError(f"{self._name}.{field}: records are not counted by a {kind.value}")
        decode = None if column.leaf or field == "id" else self._table.by_name[field].decode
        return Groups(self.plan, column, decode)

    # -- Compiling

    def _condition(self, condition: Sequence[Any]) -> Comparison:
        match condition:
            case (field, "is_null"):
                return self._compile(field, "is_null", True)
            case (field, operator, value):
                return self._compile(field, operator, value)
        raise QueryError(f"a condition is (field, operator, value), not {condition!r:.200}")

    def _compile(self, field: str, operator: str, value: Any) -> Comparison:
        column, kind, check = self._column(field)
        where = f"{self._name}.{field}"
        if operator not in _OPERATORS:
            raise QueryError(f"{where}: there is no operator {operator!r}; there are {', '.join(_OPERATORS)}")
        if operator == "is_null":
            return Comparison(column, "is null" if value else "is not null")
        if kind is Kind.SEALED:
            raise QueryError(
                f'{where} is sealed, and a query cannot look inside: only "is_null" asks about it'
            )
        if operator == "in":
            if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
                raise QueryError(f"{where}: in takes a collection of values, not {value!r:.60}")
            return Comparison(column, "in", tuple(to_sql(check(where, one)) for one in value))
        if operator == "contains":
            return self._contains(where, column, kind, value)
        if operator == "startswith":
            if kind not in {Kind.REGISTER, Kind.TEXT, Kind.MAP} or not isinstance(value, str):
                raise QueryError(f"{where}: startswith compares text with text, not with {value!r:.60}")
            return Comparison(column, "startswith", value)
        if operator in ("=", "!=") and value is None:
            return Comparison(column, "is not null" if operator == "!=" else "is null")
        if operator not in ("=", "!=") and kind in {Kind.SET, Kind.LIST}:
            raise QueryError(f"{where}: a {kind.value} has no order to compare by")
        return Comparison(column, cast("Any", operator), to_sql(check(where, value)))

    def _contains(self, where: str, column: Column, kind: Kind, value: Any) -> Comparison:
        if kind is Kind.SET:
            return Comparison(column, "has element", value.value if isinstance(value, enum.Enum) else value)
        if not isinstance(value, str):
            raise QueryError(
                f"{where}: contains looks for text, or for an element of a set, not for {value!r:.60}"
            )
        return Comparison(column, "has key" if kind is Kind.MAP and not column.leaf else "has text", value)

    def _column(self, field: str) -> tuple[Column, Kind, Callable[[str, Any], Any]]:
        if field == "id":
            return Column(f'"{self._name}".id', 1), Kind.REGISTER, _checker(str)
        top, _, below = field.partition(".")
        declared = self._table.schema.by_name.get(top)
        if declared is None or declared.kind is Kind.LIST:
            known = ", ".join(["id", *self._table.by_name])
            raise QueryError(f"{self._name} has no field {field!r} to ask by; there are {known}")
        name, place = f'"{self._name}"."{top}"', self._table.place(top)
        if not below:
            plain = declared.type.scalar if declared.kind is Kind.REGISTER else declared.type.value
            return Column(name, place), declared.kind, _checker(plain)
        if declared.kind is not Kind.MAP:
            raise QueryError(f"{self._name}.{top} is a {declared.kind.value}: only a map has leaves")
        if '"' in below:
            raise QueryError(f"{self._name}.{field}: a leaf's name has no quotation mark")
        return Column(name, place, tuple(below.split("."))), Kind.MAP, lambda _, value: value

    def _natural(self, what: str, count: int) -> int:
        if type(count) is not int or count < 0:
            raise QueryError(f"{what} takes a whole number from 0 on, not {count!r:.60}")
        return count

    async def _ask(self, view: View[T], work: Callable[[Connection], T]) -> T:
        if self._seconds is not None:
            return await self._source.cached(view, self._seconds)
        return await self._source.ask(self.plan, work)

    def _with(self, **parts: Any) -> Query[R]:
        return Query(self._source, msgspec.structs.replace(self.plan, **parts), seconds=self._seconds)


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


def _value_of(record: Record, column: Column, table: Table) -> Any:
    """Return what SQL holds of a record's value in a column."""
    if column.place == 1:
        return record.id
    held = table.columns[column.place - 2]
    value = getattr(record, held.name)
    encoded = value if held.encode is None or value is None else held.encode(value)
    return column.value((*[None] * column.place, encoded))
