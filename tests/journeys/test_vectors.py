"""Vectors between two devices through a real server: made once, taken by the other, kept home where that is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import client_sdk
from client_sdk import Client, Record
from client_sdk.embedding import HashingEmbedder
from client_sdk.opening import Opening
from tests.client_sdk.device import KEY
from tests.client_sdk.meaning.embedders import Counted
from tests.client_sdk.records import Note
from tests.journeys.conftest import Opens
from tests.journeys.live import LiveServer, eventually
from tests.postgres import query

__all__: list[str] = []


class Diary(Record, collection="diary", searchable=["text"], vectors="device"):
    """Its vectors stay where they were made."""

    text: str


async def joined(server: LiveServer, first: Client, second: Client) -> None:
    await first.register(server.url)
    await second.join(server.url, await first.invite())
    await first.connect()
    await second.connect()


async def count(url: str, client: Client, what: str = "") -> int:
    found = await query(url, f"SELECT count(*) FROM vectors WHERE space_id = '{client.space}' {what}")
    assert isinstance(found, int)
    return found


async def test_a_text_is_embedded_on_one_device_for_all(
    server: LiveServer, opens: Opens, shared_url: str
) -> None:
    here, there = Counted(), Counted()
    first, second = await opens("a", embedder=here), await opens("b", embedder=there)
    await joined(server, first, second)
    notes = await first.collection(Note).insert_many(
        [Note(title=f"the bike number {number} was stolen") for number in range(30)]
    )
    await first.synced(10)
    await second.synced(10)
    await second.embedded(20)
    assert len(here.texts) == 30
    assert there.texts == []
    found = await second.collection(Note).search("bike number 7", mode="meaning", limit=3)
    assert notes[7].id in [hit.record.id for hit in found]
    assert await count(shared_url, first) == 30
    # The other way round, and a change.
    await second.collection(Note).update(notes[0].id, title="a garden in the rain")
    await second.synced(10)
    await first.synced(10)
    await first.embedded(20)
    assert there.texts == ["a garden in the rain"]
    assert len(here.texts) == 30


async def test_what_was_made_offline_is_shared_once_there_is_a_space(
    server: LiveServer, opens: Opens, shared_url: str
) -> None:
    first, second = await opens("a", embedder=Counted()), await opens("b", embedder=Counted())
    await first.collection(Note).insert_many(
        [Note(title=f"the title of number {number}") for number in range(700)]
    )
    await first.collection(Note).insert(Note(title=""))
    await first.embedded(20)
    await joined(server, first, second)

    seen: list[int] = []

    async def are_all_there() -> bool:
        seen.append(await count(shared_url, first))
        return seen[-1] == 700  # a text that says nothing has no direction to share

    await eventually(are_all_there, what=lambda: seen)


async def test_vectors_of_a_large_model_are_shared_in_pushes_that_the_server_takes(
    server: LiveServer, opens: Opens, shared_url: str
) -> None:
    first = await opens("a", embedder=HashingEmbedder(dimensions=3_072))
    await first.register(server.url)
    await first.collection(Note).insert_many([Note(title=f"the title of number {n}") for n in range(200)])
    await first.embedded(20)
    await first.connect()

    async def are_all_there() -> bool:
        return await count(shared_url, first) == 200

    await eventually(are_all_there)


async def test_vectors_of_a_collection_that_keeps_them_home_are_at_no_server(
    server: LiveServer, tmp_path: Path, shared_url: str
) -> None:
    here, there = Counted(), Counted()
    async with (
        client_sdk.open(tmp_path / "a.db", records=[Note, Diary], key=KEY, embedder=here) as first,
        client_sdk.open(tmp_path / "b.db", records=[Note, Diary], key=KEY, embedder=there) as second,
    ):
        await joined(server, first, second)
        await first.collection(Diary).insert(Diary(text="nobody's business"))
        await first.collection(Note).insert(Note(title="everybody's"))
        await first.embedded(20)
        await first.synced(10)
        await second.synced(10)
        await second.embedded(20)
        assert there.texts == ["nobody's business"]  # it makes its own

        async def is_shared() -> bool:
            return await count(shared_url, first, "AND collection = 'notes'") == 1

        await eventually(is_shared)
        assert await count(shared_url, first, "AND collection = 'diary'") == 0


async def test_a_device_that_nobody_gives_a_vector_makes_its_own(server: LiveServer, opens: Opens) -> None:
    there = Counted()
    first, second = await opens("a", embedder="off"), await opens("b", embedder=there)
    await joined(server, first, second)
    note = await first.collection(Note).insert(Note(title="the bike was stolen"))
    await first.synced(10)
    await second.synced(10)
    await second.embedded(20)
    assert there.texts == ["the bike was stolen"]
    (hit,) = await second.collection(Note).search("stolen bike", mode="meaning")
    assert hit.record.id == note.id


async def test_a_change_of_model_is_made_on_one_device_for_all(
    server: LiveServer, tmp_path: Path, shared_url: str
) -> None:
    old, new, others = Counted(), Counted("2"), Counted("2")

    def opened(name: str, embedder: Counted, **options: Any) -> Opening:
        path = tmp_path / f"{name}.db"
        return client_sdk.open(path, records=[Note], key=KEY, embedder=embedder, **options)

    async with opened("a", old) as first, opened("b", Counted()) as second:
        await joined(server, first, second)
        notes = await first.collection(Note).insert_many(
            [Note(title=f"the bike number {number} was stolen") for number in range(10)]
        )
        await first.synced(10)
        await second.synced(10)
        await second.embedded(20)
    async with opened("a", new, old_embedder=old) as first:
        await first.connect()

        async def has_changed() -> bool:
            return (
                await count(shared_url, first, f"AND model = '{new.model.label}'") == 10
                and await count(shared_url, first, f"AND model = '{old.model.label}'") == 0
            )

        await eventually(has_changed)
        async with opened("b", others, old_embedder=old) as second:
            await second.connect()
            await second.synced(10)
            (hit, *_) = await second.collection(Note).search("bike number 7", mode="meaning", scope="space")
            assert hit.record.id in [note.id for note in notes]
            await second.embedded(20)
            assert (await second.embedding_progress()).done == 10
            assert others.texts == []
