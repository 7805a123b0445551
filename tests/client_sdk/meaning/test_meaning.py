"""Meaning on one device: vectors follow the rows whatever happens, and search by them is filtered, live and honest."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client_sdk import Client, Collection, Hit
from client_sdk.embedding import HashingEmbedder, MiniLm
from client_sdk.embedding.embedder import Kind, Vectors
from client_sdk.embedding.errors import ModelMissing, VectorInvalid
from client_sdk.embedding.vectors import quantised
from client_sdk.errors import RecordNotFound
from client_sdk.meaning import stored
from client_sdk.meaning.errors import EmbeddingTimeout, MeaningOff
from client_sdk.meaning.meaning import _Held
from client_sdk.meaning.shelf import Shelf
from tests.client_sdk.device import check_laws, open_device
from tests.client_sdk.meaning.embedders import Broken, Counted, Gated
from tests.client_sdk.records import Line, Note

__all__: list[str] = []


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db", embedder=HashingEmbedder()) as client:
        yield client


@pytest.fixture
async def notes(client: Client) -> Collection[Note]:
    return client.collection(Note)


def titles(hits: Sequence[Hit[Note]]) -> list[str]:
    return [hit.record.title for hit in hits]


async def check_vectors(client: Client) -> None:
    """Each searchable text has the vector that it would get now, and there are no others."""
    await client.embedded(timeout=30)
    assert client._meaning is not None
    embedder = await client._meaning.embedder()
    wanted: dict[tuple[str, int, int], str] = {}
    held: dict[tuple[str, int, int], tuple[bytes, bytes]] = {}
    for table in client._tables.values():
        for text in table.text.tables if table.text else ():
            docs = await client._writer.read(lambda c, t=table: stored.docs_after(c, t, 0, 1_000))  # type: ignore[misc]
            found = await client._writer.read(
                lambda c, t=table, x=text, d=docs: list(t.searchable(c, x, d))  # type: ignore[misc]
            )
            for doc, position, value in found:
                wanted[text.name, doc, position] = stored.text_of(text, value)
            rows = await client.sql(
                "SELECT doc, position, hash, vector FROM pjais_vectors WHERE collection = ? AND field = ?",
                (table.name, stored.field_of(text)),
            )
            held |= {(text.name, row[0], row[1]): (row[2], row[3]) for row in rows}
    vectors = quantised(await embedder.embed(list(wanted.values())))
    fresh = {
        place: (stored.hash_of(text), vector)
        for (place, text), vector in zip(wanted.items(), vectors, strict=True)
    }
    assert held == fresh


# ------------------------------------------------------------------------------------------------ vectors follow rows

texts = st.text(st.sampled_from("abc é京\n "), max_size=12)
verbs = st.one_of(
    st.tuples(st.just("insert"), texts, texts),
    st.tuples(st.just("title"), st.integers(0, 9), texts),
    st.tuples(st.just("views"), st.integers(0, 9), st.just("")),
    st.tuples(st.just("append"), st.integers(0, 9), texts),
    st.tuples(st.just("cut"), st.integers(0, 9), st.just("")),
    st.tuples(st.just("delete"), st.integers(0, 9), st.just("")),
    st.tuples(st.just("restore"), st.integers(0, 9), st.just("")),
    st.tuples(st.just("embedded"), st.just(0), st.just("")),
)


async def carry_out(client: Client, ids: list[str], verb: tuple[str, Any, str]) -> None:
    notes = client.collection(Note)
    what, which, text = verb
    if what == "embedded":
        await client.embedded(timeout=30)
    elif what == "insert":
        note = await notes.insert(Note(title=which, lines=[Line(id="1", content=text)]))
        ids.append(note.id)
    elif ids:
        record = ids[which % len(ids)]
        with contextlib.suppress(RecordNotFound):
            if what == "title":
                await notes.update(record, title=text)
            elif what == "views":
                await notes.increment(record, views=1)
            elif what == "append":
                await notes.append(record, lines=[Line(id="2", content=text), Line(id="3")])
            elif what == "cut":
                held = await notes.get(record)
                if held is not None and held.lines:
                    await notes.remove_items(record, "lines", 0)
            elif what == "delete":
                await notes.delete(record)
            else:
                await notes.restore(record)


@settings(max_examples=25)
@given(story=st.lists(verbs, max_size=25), is_reopened=st.booleans())
async def test_vectors_are_those_of_the_rows_whatever_happened(
    story: list[tuple[str, Any, str]], is_reopened: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, ids = Path(folder) / "a.db", list[str]()
        async with open_device(path, embedder=HashingEmbedder()) as client:
            for verb in story:
                await carry_out(client, ids, verb)
            if not is_reopened:
                await check_vectors(client)
                await check_laws(client)
        async with open_device(path, seed=2, embedder=HashingEmbedder()) as client:
            await check_vectors(client)


async def test_what_an_opening_left_undone_the_next_one_does_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    embedder = Gated(batches=1)
    async with open_device(path, embedder=embedder) as client:
        await client.collection(Note).insert_many(Note(title=f"note {n}") for n in range(100))
        await embedder.is_waiting.wait()
    again = Counted()
    async with open_device(path, seed=2, embedder=again) as client:
        await check_vectors(client)
        assert len(again.texts) == 100 + 100 - len(embedder.texts)  # the check embeds all
    assert 0 < len(embedder.texts) < 100


async def test_a_change_of_another_field_embeds_nothing(tmp_path: Path) -> None:
    embedder = Counted()
    async with open_device(tmp_path / "a.db", embedder=embedder) as client:
        note = await client.collection(Note).insert(Note(title="a"))
        await client.embedded(timeout=30)
        embedder.texts.clear()
        await client.collection(Note).increment(note.id, views=1)
        await client.collection(Note).update(note.id, summary="not searchable", secret="hidden")
        await client.embedded(timeout=30)
        assert embedder.texts == []


async def test_a_sealed_field_is_never_embedded(tmp_path: Path) -> None:
    embedder = Counted()
    async with open_device(tmp_path / "a.db", embedder=embedder) as client:
        await client.collection(Note).insert(Note(title="open", secret="hidden"))
        await client.embedded(timeout=30)
    assert embedder.texts == ["open"]


async def test_no_write_waits_for_an_embedder(tmp_path: Path) -> None:
    embedder = Gated()
    async with open_device(tmp_path / "a.db", embedder=embedder) as client:
        notes = client.collection(Note)
        await notes.insert(Note(title="first"))
        await embedder.is_waiting.wait()
        await notes.insert_many(Note(title=f"note {n}") for n in range(10))
        assert await notes.count() == 11
        with pytest.raises(EmbeddingTimeout, match="still wait"):
            await client.embedded(timeout=0.01)
        progress = await client.embedding_progress()
        assert (progress.done, progress.total) == (0, 11)
        assert titles(await notes.search("first")) == ["first"]  # by its words
        await notes.insert(Note(title="what she did"))
        assert titles(await notes.search("what did you cook")) == ["what she did"]  # by any
        await notes.delete((await notes.search("she"))[0].record.id)
        embedder.is_let.set()
        await check_vectors(client)
        assert (await client.embedding_progress()).done == 11


# --------------------------------------------------------------------------------------------------- what is found


async def test_what_found_a_hit_is_told(client: Client, notes: Collection[Note]) -> None:
    await notes.insert_many([Note(title="green tea"), Note(title="a tall tree"), Note(title="?!")])
    await client.embedded(timeout=30)
    (hit,) = await notes.search("tea", limit=1)
    assert hit.record.title == "green tea"
    assert hit.found_by == {"text", "meaning"}
    assert hit.snippet == "green **tea**"
    (hit,) = await notes.search("tea", mode="meaning")
    assert hit.record.title == "green tea"
    assert hit.found_by == {"meaning"}
    assert hit.score == pytest.approx(1)
    (hit,) = await notes.search("tea", mode="text")
    assert hit.found_by == {"text"}
    assert await notes.search("") == await notes.search("?!") == await notes.search("tea", limit=0) == []


async def test_the_default_model_finds_what_no_word_finds(tmp_path: Path) -> None:
    embedder = MiniLm()
    async with open_device(tmp_path / "a.db", embedder=embedder) as client:
        notes = client.collection(Note)
        await notes.insert_many(
            Note(title=title)
            for title in ("Her bike was stolen in Rome", "How to brew green tea", "The dog barked all night")
        )
        await client.embedded(timeout=60)
        assert titles(await notes.search("theft of a bicycle", limit=1)) == ["Her bike was stolen in Rome"]
        assert titles(await notes.search("a noisy hound", mode="meaning", limit=1)) == [
            "The dog barked all night"
        ]
    await embedder.close()


async def test_an_item_is_found_with_its_place_and_read_with_its_neighbours(
    client: Client, notes: Collection[Note]
) -> None:
    said = ["when is the wedding", "yes last june", "nothing else", "something apart"]
    await notes.insert(Note(title="", lines=[Line(id=str(n), content=one) for n, one in enumerate(said)]))
    await client.embedded(timeout=30)
    hits = await notes.search("wedding", mode="meaning")
    assert [(hit.field, hit.position, hit.item.content) for hit in hits] == [
        ("lines", 0, said[0]),
        ("lines", 1, said[1]),
    ]


async def test_a_filter_comes_before_the_scores(client: Client, notes: Collection[Note]) -> None:
    await notes.insert_many(Note(title=f"green tea {n}") for n in range(100))
    await notes.insert(Note(title="tea with milk and sugar", pinned=True))
    await client.embedded(timeout=30)
    for mode in ("meaning", "hybrid"):
        hits = await notes.search("green tea", mode=mode, limit=1, pinned=True)
        assert titles(hits) == ["tea with milk and sugar"]
    assert await notes.search("green tea", pinned=True, importance=1) == []


async def test_what_is_deleted_or_changed_is_gone_at_once(tmp_path: Path) -> None:
    embedder = Gated(batches=100)
    async with open_device(tmp_path / "a.db", embedder=embedder) as client:
        notes = client.collection(Note)
        gone = await notes.insert(Note(title="green tea gone"))
        changed = await notes.insert(Note(title="green tea changed"))
        cut = await notes.insert(
            Note(title="", lines=[Line(id="1", content="green tea"), Line(id="2", content="b")])
        )
        await notes.insert(Note(title="green tea that stays for long"))
        await client.embedded(timeout=30)
        assert len(await notes.search("green tea", mode="meaning", limit=4)) == 4
        embedder.batches = 0
        await notes.update(changed.id, title="other")
        await notes.remove_items(cut.id, "lines", 0)
        await notes.delete(gone.id)
        assert titles(await notes.search("green tea", mode="meaning")) == ["green tea that stays for long"]
        embedder.is_let.set()
        await check_vectors(client)
        assert await client.sql("SELECT 1 FROM pjais_vectors WHERE doc = 1") == []


async def test_similar_records_are_those_nearest(client: Client, notes: Collection[Note]) -> None:
    one = await notes.insert(Note(title="a walk by the river"))
    await notes.insert_many([Note(title="a walk by the sea"), Note(title="taxes are due"), Note(title="")])
    await client.embedded(timeout=30)
    hits = await notes.similar(one.id)
    assert titles(hits)[0] == "a walk by the sea"
    assert one.id not in {hit.record.id for hit in hits}
    assert await notes.similar(one.id, pinned=True) == []
    with pytest.raises(RecordNotFound):
        await notes.similar("nothing")


async def test_a_watched_search_hears_of_a_vector(client: Client, notes: Collection[Note]) -> None:
    await notes.insert(Note(title="a walk by the river"))
    await client.embedded(timeout=30)
    told: asyncio.Queue[list[str]] = asyncio.Queue()
    async with contextlib.aclosing(notes.search("walk", mode="meaning").watch()) as results:
        assert titles(await anext(results)) == ["a walk by the river"]
        subscription = notes.search("walk", mode="meaning").subscribe(
            lambda hits: told.put_nowait(titles(hits))
        )
        await notes.insert(Note(title="walk"))
        while titles(hits := await anext(results)) != ["walk", "a walk by the river"]:
            assert len(hits) == 1
        while await told.get() != ["walk", "a walk by the river"]:
            pass
        subscription.close()


class LateShelf(Shelf):
    """Holds what was read once it is let."""

    is_reached = threading.Event()
    is_let = threading.Event()

    def fill(self, rows: Sequence[stored.Stored]) -> None:
        self.is_reached.set()
        self.is_let.wait()
        super().fill(rows)


async def test_what_is_written_while_vectors_are_loaded_is_not_missed(
    client: Client, notes: Collection[Note]
) -> None:
    meaning = client._meaning
    assert meaning is not None
    model = (await meaning.embedder()).model
    held = _Held(LateShelf(model.dimensions, is_list=False))
    meaning._shelves["notes", "", model.id] = held
    loading = asyncio.create_task(meaning._load(held, "notes", "", model.id))
    await asyncio.to_thread(LateShelf.is_reached.wait)
    await notes.insert(Note(title="green tea"))
    await client.embedded(timeout=30)
    LateShelf.is_let.set()
    await loading
    assert titles(await notes.search("tea", mode="meaning")) == ["green tea"]


async def test_names_prefer_what_somebody_said(tmp_path: Path) -> None:
    from client_sdk.hub import Hub, Persona
    from client_sdk.hub.records import Conversation, Message

    async with Hub.open(tmp_path / "hub.db", key=bytes(32), embedder=HashingEmbedder()) as hub:
        await hub.personas.insert(Persona(name="Anna"))
        said = [
            ("Anna", "we went to the sea"),
            ("Ben", "hello Anna we went to the sea"),
            ("Anna", "and back"),
        ]
        await hub.conversations.insert(
            Conversation(
                messages=[
                    Message(role="user", content=text, metadata={"speaker": name}) for name, text in said
                ]
            )
        )
        await hub.client.embedded(timeout=30)
        hits = await hub.conversations.search("Where went Ben to the sea?", limit=1)
        assert hits[0].message.speaker == "Ben"
        hits = await hub.conversations.search("Where went Anna to the sea?", limit=1)
        assert hits[0].message.speaker == "Anna"
        assert (await hub.search("sea"))[0].found_by == {"text", "meaning"}


async def test_what_another_instance_wrote_is_found_here(tmp_path: Path) -> None:
    path, is_shared = tmp_path / "a.db", dict[str, Any](embedder=HashingEmbedder(), multi_instance=True)
    async with open_device(path, **is_shared) as one, open_device(path, seed=2, **is_shared) as other:
        found = other.collection(Note).search("tea", mode="meaning", limit=1)
        async with contextlib.aclosing(found.watch()) as results:
            assert await anext(results) == []
            await one.collection(Note).insert(Note(title="green tea"))
            await one.embedded(timeout=30)
            while titles(await anext(results)) != ["green tea"]:
                pass
        await check_vectors(other)


# ---------------------------------------------------------------------------------------------- a change of model


async def test_old_vectors_are_searched_until_the_new_ones_are_there(tmp_path: Path) -> None:
    path, old, new = tmp_path / "a.db", Counted(), Gated("2")
    async with open_device(path, embedder=old) as client:
        await client.collection(Note).insert_many([Note(title="green tea"), Note(title="black bread")])
        await client.embedded(timeout=30)
    async with open_device(path, seed=2, embedder=new, old_embedder=old) as client:
        notes = client.collection(Note)
        async with contextlib.aclosing(notes.search("tea", mode="meaning").watch()) as results:
            assert titles(await anext(results)) == ["green tea"]
            await new.is_waiting.wait()
            assert (await client.embedding_progress()).done == 0
            new.is_let.set()
            await check_vectors(client)
            assert await client.sql("SELECT DISTINCT model FROM pjais_vectors") == [(new.model.id,)]
            await notes.insert(Note(title="tea"))
            while titles(hits := await anext(results)) != ["tea", "green tea"]:
                assert titles(hits) == ["green tea"]


# --------------------------------------------------------------------------------------------------- what goes wrong


async def test_without_its_model_hybrid_search_is_by_text_and_meaning_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_device(tmp_path / "a.db", embedder=Broken()) as client:
        notes = client.collection(Note)
        note = await notes.insert(Note(title="green tea"))
        with pytest.raises(ModelMissing, match="put it back"):
            await client.embedded(timeout=30)
        (hit,) = await notes.search("tea")
        assert hit.found_by == {"text"}
        with pytest.raises(ModelMissing):
            await notes.search("tea", mode="meaning")
        with pytest.raises(ModelMissing):
            await notes.similar(note.id)
        assert isinstance((await client.embedding_progress()).problem, ModelMissing)
        told: asyncio.Queue[set[str]] = asyncio.Queue()
        notes.search("tea").subscribe(
            lambda hits: told.put_nowait({one for hit in hits for one in hit.found_by})
        )
        assert await told.get() == {"text"}
    assert "found by their words only" in caplog.text


async def test_a_client_without_an_embedder_says_so(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db", embedder="off") as client:
        notes = client.collection(Note)
        await notes.insert(Note(title="green tea"))
        assert titles(await notes.search("tea")) == ["green tea"]
        with pytest.raises(MeaningOff):
            await client.embedded()
        with pytest.raises(MeaningOff):
            await client.embedding_progress()
        with pytest.raises(MeaningOff):
            await notes.similar("a")


class Spoilt(HashingEmbedder):
    async def embed(self, texts: Sequence[str], *, kind: Kind = "passage") -> Vectors:
        vectors = await super().embed(texts, kind=kind)
        vectors[[text == "bad" for text in texts]] = np.nan
        return vectors


async def test_a_vector_with_nan_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db", embedder=Spoilt()) as client:
        await client.collection(Note).insert_many(Note(title=title) for title in ("one", "bad", "two"))
        with pytest.raises(VectorInvalid):
            await client.embedded(timeout=30)
        assert await client.sql("SELECT count(*) FROM pjais_vectors") == [(2,)]
        with pytest.raises(VectorInvalid):
            await client.collection(Note).search("bad", mode="meaning")


LANGUAGES = (
    "The lighthouse keeper", "Der Leuchtturmwärter", "Le gardien du phare", "El farero", "Смотритель маяка",
    "灯台守", "등대지기", "حارس المنارة", "ผู้ดูแลประภาคาร", "दीपघर का रखवाला",
)  # fmt: skip


async def test_a_long_text_no_text_and_ten_languages(tmp_path: Path) -> None:
    embedder = MiniLm()
    async with open_device(tmp_path / "a.db", embedder=embedder) as client:
        notes = client.collection(Note)
        await notes.insert(Note(title="long", body="word " * 200_000))
        await notes.insert_many(Note(title=title) for title in (*LANGUAGES, "", "\u200b"))
        await client.embedded(timeout=60)
        assert (await client.embedding_progress()).done == 13
        for title in LANGUAGES:
            assert titles(await notes.search(title, limit=1)) == [title]
        assert "long" in titles(await notes.search("word"))
    await embedder.close()
