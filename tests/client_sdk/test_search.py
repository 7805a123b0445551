"""Search by text: what is found, in which order, within which filter, and how it is kept true."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import client_sdk.search
from client_sdk import Client, Collection, Hit, Query
from client_sdk.database import Connection
from client_sdk.errors import NotRegistered, QueryError
from client_sdk.meaning.errors import MeaningOff
from client_sdk.text_index import ITEM_BITS
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
        "καφες",
        "STRASSE",
    ],
)
async def test_a_note_is_found_by(notes: Collection[Note], text: str) -> None:
    await notes.insert(
        Note(title="Runs by the river", body="to the café 東京タワー, καφές, Straße", tags={"green tea"})
    )
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


FILTERS: dict[str, Callable[[Collection[Note]], Query[Note]]] = {
    "by an index": lambda notes: notes.where(pinned=True),
    "by an index, and more": lambda notes: notes.where("importance", ">", 5).where(pinned=True),
    "by no index": lambda notes: notes.where("importance", ">", 9),
    "by a set": lambda notes: notes.where("tags", "contains", "even"),
    "by alternatives": lambda notes: notes.where().or_({"pinned": True}, ("importance", "<", 3)),
    "by nothing that is there": lambda notes: notes.where(pinned=True, importance=-1),
}


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("text", ["tea", "tea harbour", "tea unheard-of", "said"])
async def test_a_filtered_search_is_the_search_without_what_the_filter_leaves_out(
    notes: Collection[Note], filter: str, text: str
) -> None:
    await notes.insert_many(
        [
            Note(
                title=f"{'tea ' * (n % 4)} {'harbour' * (n % 5 < 3)}",
                lines=[Line(id="1", content="said " * (n % 3))],
                importance=n,
                pinned=n % 3 == 0,
                tags={"even"} if n % 2 == 0 else set(),
            )
            for n in range(20)
        ]
    )
    query = FILTERS[filter](notes)
    fitting = {note.id for note in await query.all()}
    hits = [hit for hit in await notes.search(text) if hit.record.id in fitting]
    found = await query.search(text)
    assert [(hit.record.id, hit.score, hit.position) for hit in found] == [
        (hit.record.id, hit.score, hit.position) for hit in hits
    ]


async def test_what_a_filter_leaves_out_takes_nobodys_place(notes: Collection[Note]) -> None:
    await notes.insert_many([Note(title="tea tea", importance=1) for _ in range(60)])
    await notes.insert(Note(title="some tea and more words", importance=2))
    assert titles(await notes.where(importance=2).search("tea", limit=1)) == ["some tea and more words"]


async def test_of_very_many_that_have_all_words_the_newest_are_ranked(
    notes: Collection[Note], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_sdk.search, "RANKED_MAX", 3)
    await notes.insert_many([Note(title=f"tea {n}", pinned=n % 2 == 0) for n in range(8)])
    assert sorted(titles(await notes.search("tea"))) == ["tea 5", "tea 6", "tea 7"]
    assert sorted(titles(await notes.search("tea", pinned=True))) == ["tea 2", "tea 4", "tea 6"]
    assert "tea 0" in titles(await notes.search("tea 0 unheard-of")), "any of the words: no matter how old"


async def test_what_only_the_index_knows_is_not_found(client: Client, notes: Collection[Note]) -> None:
    """It is a cache: a row too many in it is not an error, until it is made anew."""
    note = await notes.insert(Note(title="tea", lines=[Line(id="1", content="tea")]))

    def add(connection: Connection) -> None:
        connection.execute("INSERT INTO pjais_text_notes(rowid, f_title) VALUES (99, 'tea')")
        for doc, position in ((99, 0), (1, 7)):
            place = doc << ITEM_BITS | position
            connection.execute(
                "INSERT INTO pjais_text_notes__lines(rowid, f_content) VALUES (?, 'tea')", (place,)
            )

    await client._writer.database.write(add)
    assert [hit.record.id for hit in await notes.search("tea")] == [note.id, note.id]


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


async def test_search_by_meaning_is_refused_where_it_is_off(client: Client, notes: Collection[Note]) -> None:
    with pytest.raises(MeaningOff):
        notes.search("tea", mode="meaning")
    with pytest.raises(QueryError, match="nothing of tags is searchable"):
        client.collection(Tag).search("a")


async def test_a_device_without_a_space_searches_itself_and_says_so(
    client: Client, notes: Collection[Note]
) -> None:
    note = await notes.insert(Note(title="green tea"))
    hits = await notes.search("tea", scope="space")
    assert [hit.record.id for hit in hits] == [note.id]
    assert hits.scope == "device"
    assert isinstance(hits.fallback, NotRegistered)
    assert (await notes.search("tea")).fallback is None
    with pytest.raises(QueryError, match="at most 100"):
        notes.search("tea", scope="space", limit=101)


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
