"""A live query as a Qt list model: Qt's own tester watches every signal while records change at random."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
QtCore = pytest.importorskip("PySide6.QtCore", reason="Qt's libraries do not load here", exc_type=ImportError)
QtTest = pytest.importorskip("PySide6.QtTest", reason="Qt's libraries do not load here", exc_type=ImportError)

from client_sdk import Client, Collection  # noqa: E402
from client_sdk.desktop.qt import RecordListModel  # noqa: E402
from client_sdk.differences import difference  # noqa: E402
from client_sdk.errors import QueryError  # noqa: E402
from tests.client_sdk.device import open_device  # noqa: E402
from tests.client_sdk.records import Note  # noqa: E402

__all__: list[str] = []


@pytest.fixture(scope="module")
def application() -> Any:
    return QtCore.QCoreApplication.instance() or QtCore.QCoreApplication([])


@pytest.fixture
async def client(tmp_path: Path, application: Any) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as opened:
        yield opened


@pytest.fixture
def notes(client: Client) -> Collection[Note]:
    return client.collection(Note)


async def shows(model: RecordListModel[Note], expected: list[Note]) -> None:
    async with asyncio.timeout(20):
        while [model.get(row) for row in range(model.rowCount())] != expected:  # noqa: ASYNC110 - told by signals
            await asyncio.sleep(0)


async def test_every_signal_is_right_while_records_change_at_random(notes: Collection[Note]) -> None:
    chance = random.Random(5)
    query = notes.where("importance", ">=", 20).order_by("importance").order_by("title", "desc").limit(25)
    model = RecordListModel(query, display="title")
    tester = QtTest.QAbstractItemModelTester(
        model, QtTest.QAbstractItemModelTester.FailureReportingMode.Fatal
    )
    proxy = QtCore.QSortFilterProxyModel()  # it believes the signals, and keeps a mapping of its own by them
    proxy.setSourceModel(model)
    moves: list[bool] = []
    model.rowsMoved.connect(lambda _from, first, _last, _to, place: moves.append(place > first))
    model.start()
    for _ in range(80):
        held = await notes.all()
        # What a view remembers of rows (a selection, say) goes along with them.
        remembered = [
            (model.get(row).id, QtCore.QPersistentModelIndex(model.index(row)))
            for row in range(model.rowCount())
        ]
        match chance.choice(["insert", "insert_many", "move", "move", "move", "change", "delete", "delete"]):
            case "insert":
                await notes.insert(Note(title=str(chance.random()), importance=chance.randint(0, 100)))
            case "insert_many":
                await notes.insert_many(
                    Note(title=str(n), importance=chance.randint(0, 100)) for n in range(5)
                )
            case "move" if held:
                await notes.update(chance.choice(held).id, importance=chance.randint(15, 100))
            case "change" if held:
                await notes.update(chance.choice(held).id, pinned=chance.random() < 0.5)
            case "delete" if held:
                await notes.delete(chance.choice(held).id)
        await shows(model, await query.all())
        left = {note.id for note in await query.all()}
        for record, index in remembered:
            assert index.isValid() == (record in left)
            assert not index.isValid() or model.get(index.row()).id == record
        assert proxy.rowCount() == model.rowCount()
        seen = [proxy.data(proxy.index(row, 0)) for row in range(proxy.rowCount())]
        assert sorted(seen) == sorted(note.title for note in await query.all())
    model.stop()
    assert min(moves.count(True), moves.count(False)) > 3  # down, and up
    del tester


async def test_only_the_roles_that_changed_are_told(notes: Collection[Note]) -> None:
    note = await notes.insert(Note(title="a"))
    model = RecordListModel(notes.order_by("title"), display="title")
    model.start()
    await shows(model, [note])
    names = {bytes(name.data()).decode(): role for role, name in model.roleNames().items()}
    told: list[tuple[int, set[int]]] = []
    model.dataChanged.connect(lambda first, _last, roles: told.append((first.row(), set(roles))))
    changed = await notes.update(note.id, pinned=True)
    await shows(model, [changed])
    assert told == [(0, {names["pinned"], names["updated_at"], names["record"]})]
    renamed = await notes.update(note.id, title="b")
    await shows(model, [renamed])
    assert told[1][1] == {
        names["title"],
        names["updated_at"],
        names["record"],
        QtCore.Qt.ItemDataRole.DisplayRole,
    }
    index = model.index(0)
    assert (model.data(index), model.data(index, names["record"])) == ("b", renamed)
    assert model.data(index, names["id"]) == note.id
    assert model.data(model.index(5)) is None
    assert model.data(index, QtCore.Qt.ItemDataRole.DecorationRole) is None
    model.stop()


async def test_many_records_come_as_one_insertion(notes: Collection[Note]) -> None:
    await notes.insert_many(Note(title=f"{n:03}") for n in range(200))
    model = RecordListModel(notes.order_by("title"))
    told: list[tuple[int, int]] = []
    model.rowsInserted.connect(lambda _parent, first, last: told.append((first, last)))
    model.start()
    model.start()
    await shows(model, await notes.order_by("title").all())
    assert told == [(0, 199)]
    model.stop()
    await notes.insert(Note(title="later"))
    model.start()
    await shows(model, await notes.order_by("title").all())
    assert told == [(0, 199), (200, 200)]
    model.stop()


def note(number: int, title: str = "") -> Note:
    return Note(id=f"n{number}", title=title)


def show(model: RecordListModel[Note], result: list[Note]) -> None:
    model._show(difference(model._records, result))


RESULTS = st.lists(
    st.lists(
        st.builds(note, st.integers(0, 12), st.sampled_from("abc")), max_size=12, unique_by=lambda one: one.id
    ),
    max_size=6,
)


async def test_any_results_one_after_the_other_are_told_exactly(notes: Collection[Note]) -> None:
    @given(RESULTS)
    def holds(results: list[list[Note]]) -> None:
        model = RecordListModel(notes.where(), display="title")
        tester = QtTest.QAbstractItemModelTester(
            model, QtTest.QAbstractItemModelTester.FailureReportingMode.Fatal
        )
        for result in results:
            held = {model.get(row).id: model.index(row) for row in range(model.rowCount())}
            remembered = {id: QtCore.QPersistentModelIndex(index) for id, index in held.items()}
            show(model, result)
            assert [model.get(row) for row in range(model.rowCount())] == result
            row_by_id = {one.id: row for row, one in enumerate(result)}
            assert {id: index.row() for id, index in remembered.items()} == {
                id: row_by_id.get(id, -1) for id in remembered
            }
        del tester

    holds()


async def test_neighbours_are_told_together(notes: Collection[Note]) -> None:
    model = RecordListModel(notes.where())
    told: list[tuple[Any, ...]] = []
    model.rowsInserted.connect(lambda _parent, first, last: told.append(("came", first, last)))
    model.rowsRemoved.connect(lambda _parent, first, last: told.append(("left", first, last)))
    model.rowsMoved.connect(lambda _from, first, _last, _to, before: told.append(("moved", first, before)))
    model.dataChanged.connect(lambda first, last, _roles: told.append(("changed", first.row(), last.row())))

    def told_of(result: list[Note]) -> list[tuple[Any, ...]]:
        told.clear()
        show(model, result)
        return list(told)

    a, b, c, d, e = (note(number) for number in range(5))
    assert told_of([a, b, c, d, e]) == [("came", 0, 4)]
    assert told_of([a, e]) == [("left", 1, 3)]
    assert told_of([a, b, c, e, d]) == [("came", 1, 2), ("came", 4, 4)]
    assert told_of([b, c, e, a, d]) == [("moved", 0, 4)]  # before row 4, counted while it was at 0
    assert told_of([d, b, c, e, a]) == [("moved", 4, 0)]
    assert told_of([d, note(1, "x"), note(2, "y"), e, a]) == [("changed", 1, 2)]


async def test_deleted_with_its_parent_it_watches_no_more(client: Client, notes: Collection[Note]) -> None:
    shiboken = pytest.importorskip("shiboken6")
    parent = QtCore.QObject()
    model = RecordListModel(notes.where(), parent=parent)
    model.start()
    counts = client._watches.counts
    async with asyncio.timeout(20):
        while not counts.open:  # noqa: ASYNC110 - it rings no bell
            await asyncio.sleep(0)
        shiboken.delete(parent)
        while counts.open:  # noqa: ASYNC110 - it rings no bell
            await asyncio.sleep(0)


def test_a_field_to_show_must_be_one(notes: Collection[Note]) -> None:
    with pytest.raises(QueryError, match="no field 'colour' to show"):
        RecordListModel(notes.order_by("title"), display="colour")


def test_it_runs_on_qts_own_loop(tmp_path: Path, application: Any) -> None:
    qasync = pytest.importorskip("qasync")

    async def story() -> list[str]:
        async with open_device(tmp_path / "b.db") as client:
            notes = client.collection(Note)
            model = RecordListModel(notes.order_by("title"), display="title")
            model.start()
            made = [await notes.insert(Note(title=title)) for title in "ba"]
            await shows(model, made[::-1])
            model.stop()
            return [model.data(model.index(row)) for row in range(model.rowCount())]

    with qasync.QEventLoop(application) as loop:
        assert loop.run_until_complete(story()) == ["a", "b"]
