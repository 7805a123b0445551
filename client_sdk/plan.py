"""What a query wants, worked out: a value that gives its SQL, and the same tests and order in Python.

Plans of the same question are equal, so those who watch the same thing share its upkeep (`client_sdk.live`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from client_sdk.conditions import Condition, Row, Sorting, Test, sort_key
from client_sdk.rows import Table

__all__ = ["After", "Plan"]


class After(msgspec.Struct, frozen=True):
    """The record behind which a page begins: its values in the order's columns, as SQL holds them, and its id."""

    values: tuple[Any, ...]
    record: str


class Plan(msgspec.Struct, frozen=True):
    """A table's rows that fit, in an order, and which window of them. A document's number breaks every tie."""

    table: Table
    conditions: tuple[Condition, ...] = ()
    order: tuple[Sorting, ...] = ()
    limit: int | None = None
    offset: int = 0
    after: After | None = None
    include: frozenset[str] = frozenset()  # of the lists declared lazy, those that come with the records

    @property
    def shape(self) -> tuple[Any, ...]:
        """What stays the same whatever the values are."""
        conditions = tuple(condition.shape for condition in self.conditions)
        return self.table.name, conditions, self.order, self.limit is None, self.after is None

    # -- In SQL

    def sql(
        self, select: str, *, limit: int | None = None, offset: int | None = None, first: str = ""
    ) -> tuple[str, list[Any]]:
        """Return ``select`` with everything behind it; ``limit`` and ``offset`` replace the plan's own window.

        ``first`` is a condition without parameters to put before all others.
        """
        parts = [select]
        where, parameters = self.where()
        if where or first:
            parts.append("WHERE " + " AND ".join(filter(None, (first, where))))
        parts.append("ORDER BY " + ", ".join((*(one.sql for one in self.order), self._doc)))
        if limit is None and offset is None:
            limit, offset = self.limit, self.offset
        if limit is not None or offset:
            parts.append("LIMIT ? OFFSET ?")
            parameters += [-1 if limit is None else limit, offset or 0]
        return " ".join(parts), parameters

    def where(self) -> tuple[str, list[Any]]:
        """Return what stands after WHERE ("" if every row fits) and its parameters."""
        made = [condition.sql() for condition in self.conditions]
        if self.after is not None:
            made.append(self._behind(self.after))
        return " AND ".join(sql for sql, _ in made), [one for _, parameters in made for one in parameters]

    @property
    def _doc(self) -> str:
        return f'"{self.table.name}".doc'

    def _behind(self, after: After) -> tuple[str, tuple[Any, ...]]:
        """The rows that come after one in the order: greater in the first column, or equal there and greater in the
        next, and so on, as indexes can follow.
        """
        alternatives: list[str] = []
        parameters: list[Any] = []
        equal: list[str] = []
        held: list[Any] = []
        for sorting, value in zip(self.order, after.values, strict=True):
            column = sorting.column.sql
            greater = _greater(column, value, descending=sorting.descending)
            if greater is not None:
                alternatives.append(" AND ".join([*equal, greater[0]]))
                parameters += [*held, *greater[1]]
            equal.append(f"{column} IS ?")
            held.append(value)
        doc = (
            f'(SELECT coalesce((SELECT doc FROM "{self.table.name}" WHERE id = ?),'
            " (SELECT doc FROM pjais_documents WHERE NOT has_row AND collection = ? AND record = ?)))"
        )
        alternatives.append(" AND ".join([*equal, f"{self._doc} > {doc}"]))
        parameters += [*held, after.record, self.table.name, after.record]
        bound = ""
        if self.order and (least := _reaches(self.order[0], after.values[0])) is not None:
            bound = f"{least} AND "  # says nothing new, and lets an index begin there
            parameters.insert(0, after.values[0])
        return f"({bound}({' OR '.join(f'({one})' for one in alternatives)}))", tuple(parameters)

    # -- In Python

    def test(self) -> Test:
        """Return what says whether a row fits. It raises `Undecided` where only SQLite can say."""
        tests = tuple(condition.test for condition in self.conditions)
        if len(tests) == 1:
            return tests[0]
        return lambda row: all(test(row) for test in tests)

    def key(self) -> Callable[[Row], tuple[Any, ...]]:
        """Return what gives a row's place among others, as the plan's ORDER BY does. It raises `Undecided`."""
        return sort_key(self.order)

    def records(self, connection: Any, rows: Sequence[Row]) -> list[Any]:
        """Return the records of rows of the table's ``select``."""
        return self.table.records(connection, rows, self.include)


def _greater(column: str, value: Any, *, descending: bool) -> tuple[str, tuple[Any, ...]] | None:
    """Return what is true of the values that come after one; None if nothing can."""
    if value is None:  # NULL is the first of all, or turned round the last
        return None if descending else (f"{column} IS NOT NULL", ())
    if descending:
        return f"({column} < ? OR {column} IS NULL)", (value,)
    return f"{column} > ?", (value,)


def _reaches(sorting: Sorting, value: Any) -> str | None:
    if value is None or sorting.descending:  # NULL comes last then, and no bound holds it
        return None
    return f"{sorting.column.sql} >= ?"
