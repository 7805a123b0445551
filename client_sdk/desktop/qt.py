"""A live query as a Qt list model, through PySide6 (the extra ``qt``), for views in widgets and in QML.

::

    model = RecordListModel(notes.where(pinned=True).order_by("title"), display="title")
    view.setModel(model)
    model.start()                    # in a running event loop: `qasync` makes Qt's loop one

Each change of the result is told as the rows that came, left and moved, and the roles that changed, never as a reset: a
view keeps its selection and its place. Every field is a role under its own name, and the whole record is ``record``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from client_sdk.differences import Added, Changed, Difference, Moved, Removed, difference
from client_sdk.errors import QueryError
from client_sdk.extras import ExtraMissing
from client_sdk.plan import Plan
from crdt.schema import Record

try:
    from PySide6.QtCore import (
        QAbstractListModel,
        QByteArray,
        QModelIndex,
        QObject,
        QPersistentModelIndex,
        Qt,
        Signal,
    )
except ImportError as error:
    raise ExtraMissing("qt", "PySide6-Essentials") from error

__all__ = ["RecordListModel", "Watchable"]

R = TypeVar("R", bound=Record)

_Index: TypeAlias = QModelIndex | QPersistentModelIndex
_NOWHERE = QModelIndex()
_RECORD_ROLE = Qt.ItemDataRole.UserRole + 1


class Watchable(Protocol[R]):
    """What is shown: a query."""

    @property
    def plan(self) -> Plan:
        """What is wanted, and of which collection."""

    def watch(self) -> AsyncGenerator[list[R], None]:
        """Yield the records, now and each time that they change."""


class RecordListModel(QAbstractListModel, Generic[R]):
    """The records of a query, kept true from `start` to `stop`. ``display`` names the field that a plain view shows.

    ``failed`` is emitted with the error if the query cannot be read; the rows stay as they were.

    Raises:
        QueryError: ``display`` is no field.
    """

    failed = Signal(object)

    def __init__(self, query: Watchable[R], *, display: str = "id", parent: QObject | None = None) -> None:
        super().__init__(parent)
        schema = query.plan.table.schema
        names = ("id", *schema.by_name)
        if display not in names:
            raise QueryError(
                f"{schema.collection} has no field {display!r} to show; there are {', '.join(names)}"
            )
        self._query = query
        self._records: list[R] = []
        self._field_by_role = dict(enumerate(names, _RECORD_ROLE + 1))
        self._display = display
        self._task: asyncio.Task[None] | None = None

    # -- Following

    def start(self) -> None:
        """Begin to follow the query; the first records come in the next turns of the event loop. Twice is once.

        It follows until `stop`, or until Qt deletes it as its parent's child.
        """
        if self._task is None or self._task.done():
            task = self._task = asyncio.get_running_loop().create_task(self._follow(), name="list model")
            self.destroyed.connect(lambda: task.cancel())  # noqa: PLW0108 - Qt would hand the object over

    def stop(self) -> None:
        """Follow no more; the rows stay as they are, and `start` brings them up to date."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _follow(self) -> None:
        results = self._query.watch()
        try:
            async with contextlib.aclosing(results):
                async for result in results:
                    self._show(difference(self._records, result))
        except Exception as error:  # noqa: BLE001 - it is told to who listens
            self.failed.emit(error)

    def _show(self, steps: list[Difference[R]]) -> None:
        for run in _runs(steps):
            self._take(run)

    def _take(self, run: list[Difference[R]]) -> None:
        first, last = sorted((run[0].place, run[-1].place))
        records = [step.record for step in run]
        match run[0]:
            case Removed():
                self.beginRemoveRows(_NOWHERE, first, last)
                del self._records[first : last + 1]
                self.endRemoveRows()
            case Added():
                self.beginInsertRows(_NOWHERE, first, last)
                self._records[first:first] = records
                self.endInsertRows()
            case Moved(source, place):
                # Qt counts the place with the row still where it was.
                self.beginMoveRows(_NOWHERE, source, source, _NOWHERE, place + 1 if place > source else place)
                self._records.insert(place, self._records.pop(source))
                self.endMoveRows()
            case Changed():
                old, self._records[first : last + 1] = self._records[first : last + 1], records
                roles = {
                    role
                    for one, other in zip(old, records, strict=True)
                    for role in self._changed_roles(one, other)
                }
                self.dataChanged.emit(self.index(first), self.index(last), sorted(roles))

    def _changed_roles(self, old: R, new: R) -> list[int]:
        changed = [
            role for role, name in self._field_by_role.items() if getattr(old, name) != getattr(new, name)
        ]
        if any(self._field_by_role[role] == self._display for role in changed):
            changed.append(int(Qt.ItemDataRole.DisplayRole))
        return [*changed, _RECORD_ROLE]

    # -- What views ask

    def get(self, row: int) -> R:
        """Return a row's record. Raises ``IndexError``."""
        return self._records[row]

    def rowCount(self, parent: _Index = _NOWHERE) -> int:  # noqa: N802 - Qt's name; an invalid index is a value
        """Return how many records there are."""
        return 0 if parent.isValid() else len(self._records)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a record's field by its role; None for other roles."""
        if not index.isValid() or not 0 <= index.row() < len(self._records):
            return None
        record = self._records[index.row()]
        if role == _RECORD_ROLE:
            return record
        name = self._display if role == Qt.ItemDataRole.DisplayRole else self._field_by_role.get(role)
        return None if name is None else getattr(record, name)

    def roleNames(self) -> dict[int, QByteArray]:  # noqa: N802 - Qt's name
        """Return the roles that QML knows by name."""
        names = {_RECORD_ROLE: "record", **self._field_by_role}
        return super().roleNames() | {role: QByteArray(name.encode()) for role, name in names.items()}


def _runs(steps: list[Difference[R]]) -> Iterator[list[Difference[R]]]:
    """Yield steps of one kind whose rows are neighbours together: each list is one signal."""
    run: list[Difference[R]] = []
    for step in steps:
        if run and not _goes_on(run[-1], step):
            yield run
            run = []
        run.append(step)
    if run:
        yield run


def _goes_on(last: Difference[R], step: Difference[R]) -> bool:
    match last, step:
        case (Added(), Added()) | (Changed(), Changed()):
            return step.place == last.place + 1
        case (Removed(), Removed()):  # they are told from the end
            return step.place == last.place - 1
    return False
