"""A query returns exactly the records that a plain filter over all records would, and refuses what it cannot mean."""

from __future__ import annotations

import datetime as dt
import operator
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client_sdk import Client, Collection
from client_sdk.errors import QueryError
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Mood, Note

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as opened:
        yield opened


@pytest.fixture
async def notes(client: Client) -> Collection[Note]:
    collection = client.collection(Note)
    await collection.insert_many(
        Note(
            title=f"t{n % 7}é%_",
            body="alpha beta" if n % 3 else "gamma",
            tags={f"tag{n % 4}", "all"},
            views=n,
            pinned=n % 2 == 0,
            rating=None if n % 5 == 0 else n / 2,
            due=None if n % 4 == 0 else START + dt.timedelta(days=n % 6),
            mood=Mood.BAD if n % 3 == 0 else Mood.GOOD,
            importance=n % 11,
            settings={"theme": "dark" if n % 2 else "light", "deep": {"n": n % 3}},
        )
        for n in range(60)
    )
    return collection


async def test_each_operator_agrees_with_python(notes: Collection[Note]) -> None:
    every = await notes.all()
    cases: list[tuple[tuple[Any, ...], Callable[[Note], bool]]] = [
        (("title", "=", "t3é%_"), lambda note: note.title == "t3é%_"),
        (("title", "!=", "t3é%_"), lambda note: note.title != "t3é%_"),
        (("title", "startswith", "t3é%"), lambda note: note.title.startswith("t3é%")),
        (("title", "contains", "%_"), lambda note: "%_" in note.title),
        (("views", "<", 10), lambda note: note.views < 10),
        (("views", ">=", 50), lambda note: note.views >= 50),
        (("rating", "is_null"), lambda note: note.rating is None),
        (("rating", "is_null", False), lambda note: note.rating is not None),
        (("rating", "!=", 3.0), lambda note: note.rating != 3.0),
        (("rating", "=", None), lambda note: note.rating is None),
        (("due", ">", START), lambda note: note.due is not None and note.due > START),
        (("due", "<=", START), lambda note: note.due is not None and note.due <= START),
        (("mood", "=", Mood.BAD), lambda note: note.mood is Mood.BAD),
        (("mood", "in", [Mood.BAD]), lambda note: note.mood is Mood.BAD),
        (("importance", "in", {1, 5}), lambda note: note.importance in {1, 5}),
        (("importance", "in", ()), lambda _: False),
        (("tags", "contains", "tag2"), lambda note: "tag2" in note.tags),
        (("tags", "contains", "tag"), lambda _: False),
        (("settings.theme", "=", "dark"), lambda note: note.settings["theme"] == "dark"),
        (("settings.deep.n", ">", 1), lambda note: note.settings["deep"]["n"] > 1),
        (("settings", "contains", "theme"), lambda note: "theme" in note.settings),
        (("body", "contains", "beta"), lambda note: "beta" in note.body),
        (("id", "=", every[3].id), lambda note: note.id == every[3].id),
    ]
    for condition, fits in cases:
        assert await notes.where(*condition).all() == [note for note in every if fits(note)], condition


comparisons = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(data=st.data())
async def test_any_mix_of_conditions_order_and_window_agrees_with_python(
    notes: Collection[Note], data: st.DataObject
) -> None:
    query, every = notes.offset(0), await notes.all()
    for _ in range(data.draw(st.integers(0, 3))):
        name = data.draw(st.sampled_from(["views", "importance", "title"]))
        sign = data.draw(st.sampled_from(sorted(comparisons)))
        value: Any = (
            data.draw(st.integers(-2, 61)) if name != "title" else f"t{data.draw(st.integers(0, 7))}é%_"
        )
        query = query.where(name, sign, value)
        every = [note for note in every if comparisons[sign](getattr(note, name), value)]
    if data.draw(st.booleans()):
        query = query.or_(("pinned", "=", True), {"importance": 3})
        every = [note for note in every if note.pinned or note.importance == 3]
    limit, offset = data.draw(st.none() | st.integers(0, 70)), data.draw(st.integers(0, 70))
    count = await query.count()
    assert count == len(every)
    window = query.order_by("views").offset(offset)
    window = window if limit is None else window.limit(limit)
    by_views = sorted(every, key=lambda note: note.views)[offset:][:limit]
    assert await window.all() == by_views
    assert await window.count() == len(by_views)
    assert await window.first() == (by_views[0] if by_views else None)


async def test_order_by_several_fields(notes: Collection[Note]) -> None:
    every = await notes.all()
    found = await notes.order_by("importance", "desc").order_by("views").all()
    assert found == sorted(every, key=lambda note: (-note.importance, note.views))


WRONG: list[tuple[tuple[Any, ...], str]] = [
    (("nothing", "=", 1), "notes has no field 'nothing' to ask by; there are id, created_at"),
    (("lines", "=", []), "notes has no field 'lines' to ask by"),
    (("views", "=", "1"), "notes.views: Expected `int`, got `str`"),
    (("due", ">", dt.datetime(2026, 1, 1)), "notes.due: "),  # noqa: DTZ001
    (("pinned", "~", True), "notes.pinned: there is no operator '~'"),
    (("tags", "<", {"a"}), "notes.tags: a set has no order to compare by"),
    (("title.x", "=", 1), "notes.title is a register: only a map has leaves"),
    (('settings.a"b', "=", 1), "a leaf's name has no quotation mark"),
    (("importance", "in", 5), "notes.importance: in takes a collection of values"),
    (("title", "startswith", 5), "notes.title: startswith compares text with text"),
    (("title",), "a condition is (field, operator, value)"),
]


@pytest.mark.parametrize(("condition", "message"), WRONG)
async def test_what_cannot_be_meant_is_refused_before_sql_runs(
    notes: Collection[Note], condition: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(QueryError) as caught:
        notes.where(*condition)
    assert message in str(caught.value)


async def test_order_limit_and_offset_are_checked(notes: Collection[Note]) -> None:
    wrongs: list[Callable[[], object]] = [
        lambda: notes.order_by("tags"),
        lambda: notes.order_by("title", "up"),
        lambda: notes.limit(-1),
        lambda: notes.offset("1"),  # type: ignore[arg-type]
        lambda: notes.limit(True),
    ]
    for wrong in wrongs:
        with pytest.raises(QueryError):
            wrong()


async def test_sql_reads_by_number_and_name_and_never_writes(client: Client, notes: Collection[Note]) -> None:
    rows = await client.sql("SELECT title, views FROM notes WHERE views < ? ORDER BY views", (2,))
    assert rows == [("t0é%_", 0), ("t1é%_", 1)]
    assert (rows[1]["views"], rows[1][0], rows[0].asdict()) == (1, "t1é%_", {"title": "t0é%_", "views": 0})
    with pytest.raises(KeyError):
        rows[0]["nothing"]
    due = await client.sql("SELECT count(*) FROM notes WHERE due > ?", (START,))
    assert due[0][0] == len([note for note in await notes.all() if note.due is not None and note.due > START])
    for statement in (
        "DELETE FROM notes",
        "WITH x AS (SELECT 1) DELETE FROM notes",
        "PRAGMA user_version = 5",
        "",
    ):
        with pytest.raises(QueryError):
            await client.sql(statement)
    with pytest.raises(QueryError, match="SQLite does not understand"):
        await client.sql("SELECT nothing FROM notes")
    assert await notes.count() == 60
