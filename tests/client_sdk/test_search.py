"""Search by text: what is found, in which order, within which filter, and how it is kept true."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client_sdk import Client, Collection, Hit
from client_sdk.errors import NotAvailable, QueryError
from client_sdk.meaning.errors import MeaningOff
from tests.client_sdk.device import check_laws, open_device
from tests.client_sdk.records import Line, Note, Tag

__all__: list[str] = []


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as client:
        yield client


@pytest.fixture
async def notes(client: Client) -> Collection[Note]:
    return client.collection(Note)


def titles(hits: list[Hit[Note]]) -> list[str]:
    return [hit.record.title for hit in hits]


# ------------------------------------------------------------------------------------------------- what is found


@pytest.mark.parametrize(
    "text",
    [
        "running",
        "run",
        "CAFÉ",
        "cafe",
        "riv",
        "river cafe",
        '"by the river"',
        "river)",
        "NEAR river",
        "東京",
        "京タ",
        "green",
        "river unheard-of",
    ],
)
async def test_a_note_is_found_by(notes: Collection[Note], text: str) -> None:
    await notes.insert(Note(title="Runs by the river", body="to the café 東京タワー", tags={"green tea"}))
    await notes.insert(Note(title="Another one"))
    assert titles(await notes.search(text)) == ["Runs by the river"]


@pytest.mark.parametrize(
    "text", ["", "   ", "***", '"river the by"', "ive", "京東", "zebra", "x" * 1_000_000]
)
async def test_a_note_is_not_found_by(notes: Collection[Note], text: str) -> None:
    await notes.insert(Note(title="Runs by the river", body="東京タワー"))
    assert await notes.search(text) == []


async def test_all_words_are_wanted_and_any_of_them_where_none_has_all(notes: Collection[Note]) -> None:
    await notes.insert_many([Note(title="green tea"), Note(title="black tea"), Note(title="green wall")])
    assert titles(await notes.search("green tea")) == ["green tea"]
    assert set(titles(await notes.search("black wall"))) == {"black tea", "green wall"}


async def test_an_earlier_field_weighs_more_and_a_whole_word_more_than_a_beginning(
    notes: Collection[Note],
) -> None:
    await notes.insert_many(
        [
            Note(title="other", body="harbour"),
            Note(title="harbour", body="other"),
            Note(title="harbourmaster", body="other"),
        ]
    )
    hits = await notes.search("harbour")
    assert titles(hits)[0] == "harbour"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.score for hit in hits}) == 3


async def test_a_hit_in_a_list_names_the_item_and_its_place(notes: Collection[Note]) -> None:
    lines = [Line(id=str(n), content=f"line {word}") for n, word in enumerate(["alpha", "beta", "gamma"])]
    await notes.insert(Note(title="a", lines=lines))
    (hit,) = await notes.search("beta")
    assert (hit.field, hit.position, hit.item, hit.message) == ("lines", 1, lines[1], lines[1])
    assert hit.snippet == "line **beta**"
    assert hit.found_by == {"text"}
    assert hit.around == ()


async def test_what_was_changed_is_found_as_it_is(notes: Collection[Note]) -> None:
    note = await notes.insert(Note(title="first", body="hello", lines=[Line(id="1", content="one")]))
    await notes.update(note.id, title="second")
    await notes.edit_text(note.id, "body", insert=(5, " kettle"))
    await notes.append(note.id, lines=[Line(id="2", content="two")])
    await notes.remove_items(note.id, "lines", 0)
    for text, count in {"first": 0, "second": 1, "kettle": 1, "one": 0, "two": 1}.items():
        assert len(await notes.search(text)) == count, text
    await notes.delete(note.id)
    assert await notes.search("second") == []
    await notes.restore(note.id)
    assert titles(await notes.search("second")) == ["second"]


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(st.text(max_size=200), min_size=1, max_size=3), asked=st.text(max_size=50))
async def test_any_text_can_be_kept_and_searched(
    notes: Collection[Note], texts: list[str], asked: str
) -> None:
    made = Note(title="a", lines=[Line(id="1", content=text) for text in texts])
    await notes.insert(made)
    await notes.search(asked)
    hits = await notes.search(texts[0])
    assert all(hit.score for hit in hits)


# --------------------------------------------------------------------------------------------- within which filter


async def test_filters_limit_and_marks(client: Client, notes: Collection[Note]) -> None:
    await notes.insert_many([Note(title=f"tea {n}", importance=n, pinned=n % 2 == 0) for n in range(60)])
    assert len(await notes.search("tea")) == 50
    assert len(await notes.search("tea", limit=3)) == 3
    assert await notes.search("tea", limit=0) == []
    assert {hit.record.importance % 2 for hit in await notes.search("tea", pinned=True)} == {0}
    few = notes.where("importance", ">=", 58).search("tea", marks=("<", ">"))
    assert {hit.snippet for hit in await few} == {"<tea> 58", "<tea> 59"}
    await check_laws(client)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda notes: notes.order_by("title").search("a"),
        lambda notes: notes.limit(3).search("a"),
        lambda notes: notes.offset(3).search("a"),
        lambda notes: notes.search("a", limit=-1),
        lambda notes: notes.search("a", limit=True),
        lambda notes: notes.search("a", mode="other"),
        lambda notes: notes.search("a", nothing=1),
        lambda notes: notes.search(b"a"),
    ],
)
def test_a_wrong_search_is_refused_when_it_is_made(notes: Collection[Note], wrong: Any) -> None:
    with pytest.raises(QueryError):
        wrong(notes)


async def test_what_is_not_there_yet_says_so(client: Client, notes: Collection[Note]) -> None:
    for options, error in (({"mode": "meaning"}, MeaningOff), ({"scope": "space"}, NotAvailable)):
        with pytest.raises(error):
            notes.search("a", **options)  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="nothing of tags is searchable"):
        client.collection(Tag).search("a")


# ------------------------------------------------------------------------------------------------ how it is kept true


async def test_a_watched_search_is_told_what_changed(notes: Collection[Note]) -> None:
    first = await notes.insert(Note(title="tea"))
    async with contextlib.aclosing(notes.search("tea").watch()) as results:
        assert titles(await anext(results)) == ["tea"]
        await notes.insert(Note(title="tea tea"))
        assert set(titles(await anext(results))) == {"tea", "tea tea"}
        await notes.delete(first.id)
        assert titles(await anext(results)) == ["tea tea"]


async def test_a_subscription_is_called_until_it_is_closed(notes: Collection[Note]) -> None:
    told: asyncio.Queue[list[Hit[Note]]] = asyncio.Queue()
    subscription = notes.search("tea").subscribe(told.put_nowait)
    assert await told.get() == []
    await notes.insert(Note(title="tea"))
    assert titles(await told.get()) == ["tea"]
    subscription.close()


async def test_a_search_inside_a_transaction_sees_what_it_wrote(
    client: Client, notes: Collection[Note]
) -> None:
    async with client.transaction():
        await notes.insert(Note(title="tea"))
        assert titles(await notes.search("tea")) == ["tea"]
