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
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from client_sdk.differences import Added, Changed, Difference, Moved, Removed, difference
from client_sdk.errors import QueryError
from client_sdk.extras import ExtraMissing
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

if TYPE_CHECKING:
    from client_sdk.query import Query

__all__ = ["RecordListModel"]

R = TypeVar("R", bound=Record)

_Index: TypeAlias = QModelIndex | QPersistentModelIndex
_NOWHERE = QModelIndex()
_RECORD_ROLE = Qt.ItemDataRole.UserRole + 1


class RecordListModel(QAbstractListModel, Generic[R]):
    """The records of a query, kept true from `start` to `stop`. ``display`` names the field that a plain view shows.

    ``failed`` is emitted with the error if the query cannot be read; the rows stay as they were.

    Raises:
        QueryError: ``display`` is no field.
    """

    failed = Signal(object)

    def __init__(self, query: Query[R], *, display: str = "id", parent: QObject | None = None) -> None:
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
        """Begin to follow the query; the first records come in the next turns of the event loop. Twice is once."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow(), name="list model")

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
        place = 0
        while place < len(steps):
            step = steps[place]
            if isinstance(step, Added):
                run = _run(steps, place)
                self.beginInsertRows(_NOWHERE, step.place, step.place + len(run) - 1)
                self._records[step.place : step.place] = run
                self.endInsertRows()
                place += len(run)
                continue
            self._take(step)
            place += 1

    def _take(self, step: Removed[R] | Moved[R] | Changed[R] | Added[R]) -> None:
        match step:
            case Removed(place):
                self.beginRemoveRows(_NOWHERE, place, place)
                del self._records[place]
                self.endRemoveRows()
            case Moved(source, place):
                # Qt counts the place with the row still where it was.
                self.beginMoveRows(_NOWHERE, source, source, _NOWHERE, place + 1 if place > source else place)
                self._records.insert(place, self._records.pop(source))
                self.endMoveRows()
            case Changed(place, record):
                old, self._records[place] = self._records[place], record
                index = self.index(place)
                self.dataChanged.emit(index, index, self._changed_roles(old, record))

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


def _run(steps: list[Difference[R]], start: int) -> list[R]:
    """Return the records of steps that add at one place after the other."""
    run: list[R] = []
    for step in steps[start:]:
        first = steps[start]
        if not isinstance(step, Added) or step.place != first.place + len(run):
            break
        run.append(step.record)
    return run
