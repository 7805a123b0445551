"""Searching everything that a person owns: from a device that made no vector, through a real server."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from pathlib import Path

import pytest

import client_sdk
from client_sdk import Client, Collection
from client_sdk.embedding.errors import ModelMissing
from client_sdk.hits import Hits
from client_sdk.sync.errors import NotConnected
from tests.client_sdk.device import KEY
from tests.client_sdk.meaning.embedders import Broken, Counted
from tests.client_sdk.records import Line, Mood, Note, Tag
from tests.journeys.conftest import Opens
from tests.journeys.live import LiveServer, eventually

__all__: list[str] = []

FOUND_S_MAX = 2.0


async def two(server: LiveServer, opens: Opens) -> tuple[Client, Client]:
    first, second = await opens("a", embedder=Counted()), await opens("b", embedder=Counted())
    await first.register(server.url)
    await second.join(server.url, await first.invite())
    await first.connect()
    await second.connect()
    await first.synced(10)
    await second.synced(10)
    return first, second


def ids(hits: Hits[Note]) -> list[str]:
    return [hit.record.id for hit in hits]


async def until_found(notes: Collection[Note], text: str, record: str, **options: object) -> Hits[Note]:
    """Ask again until the space has it; it takes no longer than is promised."""
    found: list[Hits[Note]] = []

    async def is_found() -> bool:
        hits = await notes.search(text, scope="space", **options)  # type: ignore[arg-type]
        found[:] = [hits]
        return hits.scope == "space" and record in ids(hits)

    await eventually(is_found, within_s=FOUND_S_MAX, what=lambda: found)
    return found[0]


async def test_what_one_device_wrote_another_finds_by_meaning_within_two_seconds(
    server: LiveServer, opens: Opens
) -> None:
    first, second = await two(server, opens)
    mine, theirs = first.collection(Note), second.collection(Note)
    await mine.insert_many([Note(title=f"filler {number}") for number in range(20)])
    note = await mine.insert(Note(title="the trip where her bike was stolen"))
    hits = await until_found(theirs, "stolen bike", note.id, mode="meaning")
    assert hits[0].record == note
    assert hits[0].found_by == {"meaning"}
    assert hits.fallback is None
    both = await until_found(theirs, "stolen bike", note.id)
    assert both[0].found_by == {"text", "meaning"}
    assert both[0].snippet == "the trip where her **bike** was **stolen**"
    await mine.delete(note.id)
    await first.synced(10)
    assert note.id not in ids(await theirs.search("stolen bike", scope="space"))  # and not here either
    assert note.id not in ids(await mine.search("stolen bike", scope="space"))


async def test_an_item_of_a_list_is_found_with_those_beside_it(server: LiveServer, opens: Opens) -> None:
    first, second = await two(server, opens)
    lines = [
        Line(id=str(place), content=text) for place, text in enumerate(("hello", "her bike", "a garden"))
    ]
    note = await first.collection(Note).insert(Note(title="a talk", lines=lines))
    hits = await until_found(second.collection(Note), "bike", note.id)
    assert (hits[0].field, hits[0].position, hits[0].item.content) == ("lines", 1, "her bike")


async def test_filters_hold_in_the_space_as_on_the_device(server: LiveServer, opens: Opens) -> None:
    first, second = await two(server, opens)
    day = dt.datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=dt.UTC)
    notes = [
        Note(
            title=f"stolen bike {number}",
            pinned=number % 2 == 0,
            importance=number * 10,
            mood=Mood.BAD if number % 3 == 0 else Mood.GOOD,
            tags={"even"} if number % 2 == 0 else {"odd"},
            due=None if number == 0 else day + dt.timedelta(milliseconds=number * 500),
            rating=None if number == 1 else number / 2,
        )
        for number in range(8)
    ]
    await first.collection(Note).insert_many(notes)
    theirs = second.collection(Note)
    await first.synced(10)
    await second.synced(10)
    await second.embedded(20)
    asked = [
        theirs.where(pinned=True),
        theirs.where(pinned=False),
        theirs.where("importance", ">=", 40),
        theirs.where("importance", "<", 60),  # the default is among them
        theirs.where("mood", "in", [Mood.BAD]),
        theirs.where("tags", "contains", "odd"),
        theirs.where("due", ">", day + dt.timedelta(seconds=2)),
        theirs.where("due", "<=", day + dt.timedelta(seconds=2)),
        theirs.where("rating", ">", 1.0).where(pinned=True),
        theirs.where("rating", "is_null", True),
        theirs.where("title", "startswith", "stolen bike 3"),
        theirs.where().or_({"pinned": True}, ("importance", "=", 30)),
        theirs.where("created_at", ">", day),
    ]
    for query in asked:
        expected = {one.id for one in await query.all()}
        hits = await query.search("stolen bike", scope="space")
        assert hits.scope == "space"
        assert set(ids(hits)) == expected, query.plan.conditions
    assert all([await query.exists() for query in asked])


async def test_without_the_server_the_device_is_searched_and_says_why(
    tmp_path: Path, shared_url: str, opens: Opens
) -> None:
    async with LiveServer(tmp_path, database_url=shared_url) as server:
        first, second = await two(server, opens)
        note = await first.collection(Note).insert(Note(title="stolen bike"))
        await first.synced(10)
        await second.synced(10)
        await second.embedded(20)
        theirs = second.collection(Note)
        assert (await theirs.search("bike", scope="space")).scope == "space"
    await eventually(lambda: second.status.state != "synced")
    hits = await theirs.search("bike", scope="space")
    assert ids(hits) == [note.id]
    assert hits.scope == "device"
    assert isinstance(hits.fallback, NotConnected)


async def test_a_device_that_does_not_sync_asks_by_http(server: LiveServer, opens: Opens) -> None:
    first, second = await two(server, opens)
    note = await first.collection(Note).insert(Note(title="stolen bike", pinned=True))
    await first.synced(10)
    await second.synced(10)
    await until_found(second.collection(Note), "bike", note.id, mode="meaning")
    await second.disconnect()
    hits = await second.collection(Note).where(pinned=True).search("bike", mode="meaning", scope="space")
    assert (hits.scope, ids(hits)) == ("space", [note.id])


async def test_a_live_search_of_the_space_hears_of_what_another_device_writes(
    server: LiveServer, opens: Opens
) -> None:
    first, second = await two(server, opens)
    told: list[Hits[Note]] = []
    subscription = second.collection(Note).search("bike", scope="space").subscribe(told.append)
    live = second.collection(Note).search("bike", mode="meaning", scope="space").watch()
    async with contextlib.aclosing(live):
        assert await anext(live) == []
        note = await first.collection(Note).insert(Note(title="stolen bike"))
        async with asyncio.timeout(10):
            while note.id not in ids(await anext(live)):
                pass
        await eventually(lambda: bool(told) and note.id in ids(told[-1]))
        await first.collection(Note).delete(note.id)
        async with asyncio.timeout(10):
            while ids(await anext(live)):
                pass
        await eventually(lambda: ids(told[-1]) == [])
    subscription.close()


async def test_a_live_search_that_began_offline_asks_the_space_once_there_is_a_connection(
    server: LiveServer, opens: Opens
) -> None:
    first, second = await two(server, opens)
    note = await first.collection(Note).insert(Note(title="stolen bike"))
    await first.synced(10)
    await until_found(second.collection(Note), "bike", note.id, mode="meaning")
    await second.disconnect()
    membership = second._account.membership
    second._account.membership = None  # and nobody is asked by HTTP either
    live = second.collection(Note).search("bike", scope="space").watch()
    async with contextlib.aclosing(live):
        assert (await anext(live)).scope == "device"
        second._account.membership = membership
        await second.connect()
        async with asyncio.timeout(10):
            while (await anext(live)).scope != "space":
                pass


async def test_the_space_of_another_person_is_never_searched(server: LiveServer, opens: Opens) -> None:
    owner, stranger = await opens("a", embedder=Counted()), await opens("b", embedder=Counted())
    for client in (owner, stranger):
        await client.register(server.url)
        await client.connect()
    note = await owner.collection(Note).insert(Note(title="stolen bike"))
    await owner.synced(10)
    await until_found(owner.collection(Note), "bike", note.id, mode="meaning")
    for mode in ("text", "meaning", "hybrid"):
        hits = await stranger.collection(Note).search("bike", mode=mode, scope="space")
        assert (hits, hits.scope) == ([], "space")


async def test_another_model_than_the_spaces_is_named_and_the_device_searched(
    server: LiveServer, tmp_path: Path, opens: Opens
) -> None:
    first, _ = await two(server, opens)
    note = await first.collection(Note).insert(Note(title="stolen bike"))
    await first.synced(10)
    await until_found(first.collection(Note), "bike", note.id, mode="meaning")
    other = client_sdk.open(tmp_path / "c.db", records=[Note, Tag], key=KEY, embedder=Counted("2"))
    async with other as third:
        await third.join(server.url, await first.invite())
        assert third.status.state == "offline"  # it has read nothing: its own vectors would soon be there
        hits = await third.collection(Note).search("bike", mode="meaning", scope="space")
        assert (hits, hits.scope) == ([], "device")
        assert "hashing" in str(hits.fallback)


async def test_without_a_model_the_space_is_searched_by_words(server: LiveServer, opens: Opens) -> None:
    first = await opens("a", embedder=Broken())
    await first.register(server.url)
    await first.connect()
    note = await first.collection(Note).insert(Note(title="stolen bike"))
    await first.synced(10)
    hits = await until_found(first.collection(Note), "bike", note.id)
    assert hits[0].found_by == {"text"}
    with pytest.raises(ModelMissing):
        await first.collection(Note).search("bike", mode="meaning", scope="space")
