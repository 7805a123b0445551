"""Results that are kept true: read once, and then brought up to date by the rows that a commit changed.

A view is read by `View.work` on a connection and filled by `View.load`; `View.patch` takes the changes of
commits after that, and says whether the result is another one now. What it cannot decide from a changed row
alone raises `Undecided`, and the view is read again: a list of items that changed, a window that ran short, a
comparison that only SQLite can make.

A `Window` with a limit holds some rows more than it shows, so that one that leaves is replaced without reading.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, Generic, TypeVar, cast

from client_sdk.conditions import Column, Row, Undecided
from client_sdk.database import Connection
from client_sdk.materialize import Change
from client_sdk.plan import Plan

__all__ = ["Groups", "Rerun", "Total", "View", "Window"]

T = TypeVar("T")

#: Rows that a window holds beyond those that it shows: half as many again, and these at least.
_SPARE_ROWS_MIN: Final = 10
#: A window that begins later is read again when it is touched: it would hold everything before it.
_OFFSET_MAX: Final = 1_000

Key = tuple[Any, ...]


class View(ABC, Generic[T]):
    """A result and how it is kept true. Equal views (`key`) are kept once, for all who watch them."""

    #: The collections whose changes matter.
    tables: frozenset[str]
    #: Whether `work` may hold the event loop for a moment.
    is_brief = True

    @property
    def key(self) -> Hashable:
        """What makes two views the same."""
        return id(self)

    @property
    def equals(self) -> tuple[int, tuple[Any, ...]] | None:
        """A column's place, and the values of which every row that matters has one there; None: there is no such."""
        return None

    @abstractmethod
    def work(self, connection: Connection) -> Any:
        """Read everything, on a reader's thread."""

    @abstractmethod
    def load(self, read: Any) -> None:
        """Take what `work` returned."""

    @abstractmethod
    def patch(self, changes: Iterable[Change]) -> bool:
        """Take changes that were committed after what was read; return whether the result changed.

        Raises:
            Undecided: read again. Until then the view may be half patched.
        """

    @abstractmethod
    def result(self) -> T:
        """Return the result as it is now; the caller may keep it."""


class _Planned(View[T]):
    """A view of what a plan asks for."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tables = frozenset({plan.table.name})
        self._test = plan.test()

    @property
    def key(self) -> Hashable:
        return type(self), self.plan

    @property
    def equals(self) -> tuple[int, tuple[Any, ...]] | None:
        found = [condition.equals for condition in self.plan.conditions]
        plain = [(column.place, values) for column, values in filter(None, found) if not column.leaf]
        return min(plain, key=lambda one: len(one[1]), default=None)

    def _fits(self, row: Row | None) -> bool:
        return row is not None and self._test(row)


class Window(_Planned[list[Any]]):
    """The records that a query returns."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        end = None if plan.limit is None else plan.offset + plan.limit
        self._end = end
        self._size_max = None if end is None else end + max(_SPARE_ROWS_MIN, (plan.limit or 0) // 2)
        self._is_patched = plan.after is None and plan.offset <= _OFFSET_MAX
        self._key = plan.key()
        self._keys: list[Key] = []
        self._records: list[Any] = []
        self._key_by_doc: dict[int, Key] = {}
        self._bound: Key | None = None  # every row that fits, up to this key, is held; None: every one

    def work(self, connection: Connection) -> Any:
        """Read the rows, from the first on, and make their records."""
        plan = self.plan
        if self._is_patched:
            sql, parameters = plan.sql(plan.table.select, limit=self._size_max, offset=0)
        else:
            sql, parameters = plan.sql(plan.table.select)
        rows = connection.execute(sql, parameters).fetchall()
        return rows, plan.records(connection, rows)

    def load(self, read: Any) -> None:
        """Hold them in their order."""
        rows, self._records = read
        self._keys, self._key_by_doc, self._bound = [], {}, None
        if not self._is_patched:
            return
        try:
            self._keys = [self._key(row) for row in rows]
        except Undecided:
            self._is_patched = False  # it shows what SQLite sorted, which here is more than the window
            self._records = self._records[self.plan.offset : self._end]
            return
        self._key_by_doc = {row[0]: key for row, key in zip(rows, self._keys, strict=True)}
        if len(rows) == self._size_max:
            self._bound = self._keys[-1] if rows else ()

    def patch(self, changes: Iterable[Change]) -> bool:
        """Move, add and remove the records that changed."""
        if not self._is_patched:
            raise Undecided
        is_changed = False
        for change in changes:
            is_changed |= self._take(change)
        if self._bound is not None and len(self._keys) < cast("int", self._end):
            raise Undecided  # there may be more behind what is held
        if self._size_max is not None and len(self._keys) > self._size_max:
            for key in self._keys[self._size_max :]:
                del self._key_by_doc[key[-1]]
            del self._keys[self._size_max :], self._records[self._size_max :]
            self._bound = self._keys[-1] if self._keys else ()
        return is_changed

    def result(self) -> list[Any]:
        """Return the records that the window shows."""
        return self._records[self.plan.offset : self._end] if self._is_patched else list(self._records)

    def _take(self, change: Change) -> bool:
        if change.kind != "deleted" and change.after is None:
            raise Undecided
        fits = self._fits(change.after)
        held = self._key_by_doc.pop(change.doc, None)
        if held is None and not fits:
            return False
        old, places = None, []
        if held is not None:
            places.append(place := bisect_left(self._keys, held))
            del self._keys[place]
            old = self._records.pop(place)
        if fits and change.after is not None:
            key = self._key(change.after)
            if self._bound is None or not self._bound < key:  # the keys have no more than "<"
                places.append(place := bisect_left(self._keys, key))
                self._keys.insert(place, key)
                self._records.insert(place, self._record(change, change.after, old))
                self._key_by_doc[change.doc] = key
        return bool(places) and (self._end is None or min(places) < self._end)

    def _record(self, change: Change, row: Row, old: Any) -> Any:
        """Return the record of a changed row; what it holds in lists stands elsewhere."""
        table = self.plan.table
        lists = table.loaded(self.plan.include)
        if not lists:
            return table.record(row, {})
        if old is None or not change.fields or any(name in change.fields for name in lists):
            raise Undecided
        return table.record(row, {name: getattr(old, name) for name in lists})


class Total(_Planned[int]):
    """How many records fit, within limit and offset."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._total = 0

    def work(self, connection: Connection) -> int:
        """Count all that fit."""
        where, parameters = self.plan.where()
        sql = f'SELECT count(*) FROM "{self.plan.table.name}"{f" WHERE {where}" if where else ""}'
        return int(connection.execute(sql, parameters).fetchone()[0])

    def load(self, read: Any) -> None:
        """Hold the number."""
        self._total = read

    def patch(self, changes: Iterable[Change]) -> bool:
        """Count what came and what went."""
        if self.plan.after is not None:
            raise Undecided
        before = self.result()
        for change in changes:
            _require_both(change)
            self._total += self._fits(change.after) - self._fits(change.before)
        return self.result() != before

    def result(self) -> int:
        """Return the number."""
        behind = max(0, self._total - self.plan.offset)
        return behind if self.plan.limit is None else min(behind, self.plan.limit)


class Groups(_Planned[dict[Any, int]]):
    """How many records fit, for each value of a column; limit and offset do not count."""

    def __init__(self, plan: Plan, column: Column, decode: Callable[[Any], Any] | None) -> None:
        super().__init__(plan)
        self._column = column
        self._decode = decode
        self._counts: dict[Any, int] = {}

    @property
    def key(self) -> Hashable:
        """The plan and the column."""
        return type(self), self.plan, self._column

    def work(self, connection: Connection) -> dict[Any, int]:
        """Count all that fit, by value."""
        where, parameters = self.plan.where()
        table, column = self.plan.table.name, self._column.sql
        sql = f'SELECT {column}, count(*) FROM "{table}"{f" WHERE {where}" if where else ""} GROUP BY 1 ORDER BY 1'
        return dict(connection.execute(sql, parameters).fetchall())

    def load(self, read: Any) -> None:
        """Hold the numbers."""
        self._counts = dict(read)

    def patch(self, changes: Iterable[Change]) -> bool:
        """Count what came and what went."""
        if self.plan.after is not None:
            raise Undecided
        before = dict(self._counts)
        for change in changes:
            _require_both(change)
            for row, count in ((change.before, -1), (change.after, 1)):
                if row is not None and self._fits(row):
                    value = self._column.value(row)
                    self._counts[value] = self._counts.get(value, 0) + count
                    if not self._counts[value]:
                        del self._counts[value]
        return self._counts != before

    def result(self) -> dict[Any, int]:
        """Return the numbers by value, as the application knows it."""
        return self.decoded(self._counts)

    def decoded(self, counts: dict[Any, int]) -> dict[Any, int]:
        """Return what `work` returned with the values as the application knows them."""
        decode = self._decode
        if decode is None:
            return dict(counts)
        return {None if value is None else decode(value): count for value, count in counts.items()}


class Rerun(View[T]):
    """A read of any kind: it is done again whenever one of its tables changed."""

    def __init__(
        self, tables: frozenset[str], function: Callable[[Connection], T], *, is_brief: bool = True
    ) -> None:
        self.tables = tables
        self.is_brief = is_brief
        self._function = function
        self._read: T

    def work(self, connection: Connection) -> T:
        """Read."""
        return self._function(connection)

    def load(self, read: Any) -> None:
        """Hold what was read."""
        self._read = read

    def patch(self, changes: Iterable[Change]) -> bool:
        """Nothing is known about it."""
        raise Undecided

    def result(self) -> T:
        """Return what was read."""
        return self._read


def _require_both(change: Change) -> None:
    """Raise `Undecided` unless the change says how the row was and is."""
    if (change.kind != "inserted" and change.before is None) or (
        change.kind != "deleted" and change.after is None
    ):
        raise Undecided
