"""The remote door: what the server sends becomes true once, in order; what cannot be trusted is quarantined."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client_sdk import Client
from client_sdk.sync.events import OutboxPlace
from crdt import wire
from crdt.changes import AddElements, Increment, InsertItems, InsertText, Operation, SetRegister
from crdt.document import Document
from crdt.values import encode_value
from tests.client_sdk.device import check_laws, open_device
from tests.client_sdk.records import Line, Note

READING = 1_750_000_000_000 << 16


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as opened:
        yield opened
        await check_laws(opened)


class Remote:
    """Another device that writes one record, and the server that numbers what it wrote."""

    def __init__(self, record: str = "r", client: int = 777) -> None:
        self.record = record
        self.document = Document(client=client)
        self.client = client
        self.entries: list[wire.Entry] = []

    def edit(self, *operations: Operation) -> bytes:
        stamp = SetRegister("updatedAt", encode_value(None))
        update, _ = self.document.edit([*operations, stamp], reading=READING + len(self.entries))
        self.entries.append(wire.Entry(len(self.entries) + 1, "notes", self.record, self.client, update))
        return update

    def create(self, title: str = "title") -> bytes:
        return self.edit(
            SetRegister("title", encode_value(title)), SetRegister("createdAt", encode_value(None))
        )

    def page(self, after: int = 0, through: int | None = None) -> wire.Page:
        end = len(self.entries) if through is None else through
        return wire.Page("s", after, end, end, self.entries[after:end])


async def quarantined(client: Client) -> list[tuple[str, str]]:
    rows = await client.sql("SELECT record, code FROM pjais_quarantine ORDER BY quarantine")
    return [(row["record"], row["code"]) for row in rows]


async def test_a_page_makes_rows_and_moves_the_cursor(client: Client) -> None:
    remote = Remote()
    remote.create("a")
    remote.edit(AddElements("tags", ('"x"',)), Increment("views", 2), InsertText("body", 0, "hé"))
    remote.edit(InsertItems("lines", None, (encode_value({"id": "1"}), encode_value({"id": "2"}))))
    await client._replica.apply_page(remote.page())
    found = await client.collection(Note).get("r")
    assert found is not None
    assert (found.title, found.tags, found.views, found.body) == ("a", {"x"}, 2, "hé")
    assert found.lines == [Line(id="1"), Line(id="2")]
    assert await client._replica.cursor() == ("", 3)
    assert client.status.pending == 0


async def test_a_page_that_comes_twice_or_overlaps_changes_nothing(client: Client) -> None:
    remote = Remote()
    remote.create()
    for _ in range(3):
        remote.edit(Increment("views", 1), InsertItems("scores", None, (encode_value(1),)))
    await client._replica.apply_page(remote.page())
    digest = await client.digest()
    for page in (remote.page(), remote.page(through=2), wire.Page("s", 0, 5, 5, remote.entries)):
        await client._replica.apply_page(page)
        assert await client.digest() == digest
    found = await client.collection(Note).get("r")
    assert found is not None
    assert (found.views, found.scores) == (3, [1, 1, 1])
    assert await quarantined(client) == []


async def test_remote_and_local_edits_of_one_record_merge(client: Client) -> None:
    notes = client.collection(Note)
    remote = Remote()
    remote.create("theirs")
    await client._replica.apply_page(remote.page())
    await notes.update("r", title="ours")
    await notes.append("r", lines=[Line(id="ours")])
    remote.edit(Increment("views", 2), InsertItems("lines", None, (encode_value({"id": "theirs"}),)))
    remote.edit(SetRegister("importance", encode_value(9)))
    await client._replica.apply_page(remote.page(after=1))
    found = await notes.get("r")
    assert found is not None
    assert (found.title, found.views, found.importance) == ("ours", 2, 9)
    assert sorted(line.id for line in found.lines) == ["ours", "theirs"]


async def test_a_hostile_entry_is_quarantined_and_the_rest_goes_on(client: Client) -> None:
    remote = Remote()
    remote.create()
    good = Remote("good", client=778)
    good.create("good")
    bad = [
        ("r", 777, bytes.fromhex("01010300000000")),
        ("r", 777, bytes.fromhex("010100010080808080000000000000")),
        ("new", 777, b""),
        ("new", 777, remote.entries[0].update[:-1]),
        ("new", 12, remote.entries[0].update),
        ("", 777, remote.entries[0].update),
        ("x" * 500, 777, remote.entries[0].update),
    ]
    entries = [remote.entries[0]]
    entries += [wire.Entry(n, "notes", record, who, update) for n, (record, who, update) in enumerate(bad, 2)]
    entries.append(wire.Entry(len(bad) + 2, "notes", "good", 778, good.entries[0].update))
    await client._replica.apply_page(wire.Page("s", 0, 20, 20, entries))
    assert [note.title for note in await client.collection(Note).order_by("title").all()] == ["good", "title"]
    assert len(await quarantined(client)) == len(bad)
    assert await client._replica.cursor() == ("", 20)


async def test_a_gap_is_quarantined_and_a_whole_document_heals_it(client: Client) -> None:
    remote = Remote()
    remote.create()
    remote.edit(Increment("views", 1))
    remote.edit(Increment("views", 1))
    missing = [remote.entries[0], remote.entries[2]]
    await client._replica.apply_page(wire.Page("s", 0, 3, 3, missing))
    assert await quarantined(client) == [("r", "gap")]
    state = wire.DocumentState(3, "notes", "r", remote.document.snapshot())
    await client._replica.apply_documents(wire.Documents("s", 0, 0, 3, [state]))
    found = await client.collection(Note).get("r")
    assert found is not None
    assert found.views == 2
    assert await client._replica.cursor() == ("", 3)


async def test_documents_stand_for_their_updates(client: Client) -> None:
    edited, single = Remote("edited"), Remote("single", client=778)
    edited.create("a")
    edited.edit(SetRegister("title", encode_value("b")), InsertText("body", 0, "x"))
    single.create("c")
    states = [
        wire.DocumentState(2, "notes", "edited", edited.document.snapshot()),
        wire.DocumentState(3, "notes", "single", single.document.snapshot()),
        wire.DocumentState(4, "notes", "bad", b"\x01\x01\x03\x00\x00\x00\x00"),
    ]
    page = wire.Documents("s", 0, 4, 9, states)
    await client._replica.apply_documents(page)
    await client._replica.apply_documents(page)
    titles = [note.title for note in await client.collection(Note).order_by("title").all()]
    assert titles == ["b", "c"]
    assert [record for record, _ in await quarantined(client)] == ["bad"]
    assert await client._replica.cursor() == ("", 4)
    edited.edit(Increment("views", 1))
    entry = wire.Entry(5, "notes", "edited", 777, edited.entries[-1].update)
    await client._replica.apply_page(wire.Page("s", 4, 5, 9, [entry]))
    await client.collection(Note).increment("edited", views=1)
    found = await client.collection(Note).get("edited")
    assert found is not None
    assert found.views == 2


async def test_a_snapshot_joins_what_is_pending_here(client: Client) -> None:
    remote = Remote()
    remote.create()
    await client._replica.apply_page(remote.page())
    await client.collection(Note).append("r", lines=[Line(id="mine")])
    remote.edit(InsertItems("lines", None, (encode_value({"id": "theirs"}),)))
    state = wire.DocumentState(2, "notes", "r", remote.document.snapshot())
    await client._replica.apply_documents(wire.Documents("s", 1, 2, 2, [state]))
    found = await client.collection(Note).get("r")
    assert found is not None
    assert sorted(line.id for line in found.lines) == ["mine", "theirs"]
    batch = await client._replica.pending(None, edits_max=10, bytes_max=1 << 20)
    assert batch is not None
    assert len(batch.edits) == 1


async def test_a_collection_that_is_not_declared_is_carried(client: Client) -> None:
    remote = Remote()
    remote.create()
    entry = wire.Entry(1, "unknown_things", "r", 777, remote.entries[0].update)
    await client._replica.apply_page(wire.Page("s", 0, 1, 1, [entry]))
    assert (await client.digest())[1] == 1
    assert await quarantined(client) == []


async def test_pending_batches_are_of_one_incarnation_and_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    for seed in (1, 2):
        async with open_device(path, seed=seed) as client:
            await client.collection(Note).insert_many([Note(title=str(n)) for n in range(5)])
    async with open_device(path, seed=3) as client:
        replica = client._replica
        await client.collection(Note).insert(Note(title="x"))
        sizes, place = [], None
        while batch := await replica.pending(place, edits_max=3, bytes_max=1 << 20):
            sizes.append((batch.first, len(batch.edits)))
            place = OutboxPlace(batch.incarnation, batch.first + len(batch.edits) - 1)
        assert sizes == [(1, 3), (4, 2), (1, 3), (4, 2), (1, 1)]
        small = await replica.pending(None, edits_max=3, bytes_max=1)
        assert small is not None
        assert len(small.edits) == 1
        assert await replica.pending_count() == 11
        await replica.acknowledge(small.incarnation, 5, [wire.Refusal(2, "gap", "why")])
        assert await replica.pending_count() == 6
        assert [code for _, code in await quarantined(client)] == ["gap"]
        await check_laws(client)


async def test_rehoming_gives_pending_work_new_names(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with open_device(path, seed=1) as client:
        notes = client.collection(Note)
        note = await notes.insert(Note(title="a", views=1, tags={"t"}))
        await notes.update(note.id, title="b", body="text")
        await notes.append(note.id, lines=[Line(id="big", content="x" * 9_000) for _ in range(4)])
        before, old = await notes.get(note.id), client._replica.client
        await client._replica.rehome()
        assert client._replica.client != old
        assert await notes.get(note.id) == before
        await check_laws(client)
        await notes.update(note.id, title="c")
        batch = await client._replica.pending(None, edits_max=10, bytes_max=1 << 20)
        assert batch is not None
        assert (batch.client, batch.first, len(batch.edits)) == (client._replica.client, 1, 4)
        server = Document(client=1)
        for edit in batch.edits:
            server.apply(edit.update, client=batch.client)
        assert server.contents.value()["title"] == "c"
        await check_laws(client)
