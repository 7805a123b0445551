"""The exchange of vectors against a server that a test plays: honest, forgetful, refusing, or hostile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from client_sdk import Client, Collection, Item, Record
from client_sdk.commit import Corridor
from client_sdk.meaning import shared
from client_sdk.rows import Table
from client_sdk.sync import vectors as vectors_module
from client_sdk.sync.requests import Requests
from client_sdk.sync.vectors import Exchange
from crdt import requests, wire
from crdt.requests import PartVector
from crdt.schema import schema_of
from crdt.vectors import packed_vector
from tests.client_sdk.device import check_laws, open_device
from tests.client_sdk.meaning.embedders import Counted
from tests.client_sdk.records import Line, Note
from tests.server.people import eventually

__all__: list[str] = []


class Played:
    """What the server is asked, and what it answers: by default nothing to a pull, and a push is taken."""

    def __init__(self, client: Client) -> None:
        self.asked: list[wire.FromDevice] = []
        self.beside = Requests()
        self.head = 0
        self.held: set[tuple[str, int]] = set()
        self.keeps_all = True
        self.refusal = ""
        self.retry_after_ms: int | None = None
        self.pages: list[Callable[[requests.PullVectors], requests.Answer]] = []
        assert client._meaning is not None
        spawn = client._watches.spawn
        self.exchange = Exchange(
            self.beside, client._meaning, space=lambda: "space", runner=lambda: None, spawn=spawn
        )

    def connect(self) -> None:
        self.beside.open(self.send)

    async def reconnect(self) -> None:
        self.beside.close()
        await asyncio.sleep(0)
        self.connect()

    async def send(self, message: wire.FromDevice) -> None:
        self.asked.append(message)
        match message:
            case requests.PushVectors() if self.refusal:
                self.beside.answer(requests.Refused(message.n, self.refusal, "no", self.retry_after_ms))
                if self.retry_after_ms is not None:
                    self.refusal = ""
            case requests.PushVectors():
                before, self.head = self.head, self.head + len(message.vectors)
                self.held.update((one.record, one.part) for one in message.vectors[not self.keeps_all :])
                self.beside.answer(requests.VectorsTaken(message.n, before, self.head, len(self.held)))
            case requests.PullVectors() if self.pages:
                self.beside.answer(self.pages.pop(0)(message))
            case requests.PullVectors(waits=False):
                self.beside.answer(requests.Vectors(message.n, self.head, 0, len(self.held), []))

    @property
    def is_noted(self) -> bool:
        """Whether the device has written down what was taken."""
        return self.head > 0 and self.exchange._place.position == self.head

    @property
    def pushed(self) -> list[list[PartVector]]:
        return [message.vectors for message in self.asked if isinstance(message, requests.PushVectors)]

    @property
    def pulled(self) -> list[int]:
        return [message.after for message in self.asked if isinstance(message, requests.PullVectors)]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db", embedder=Counted()) as client:
        yield client


@pytest.fixture
def server(client: Client) -> Played:
    return Played(client)


@pytest.fixture
def notes(client: Client) -> Collection[Note]:
    return client.collection(Note)


async def hashes(client: Client) -> dict[str, tuple[bytes, int]]:
    """Of each note its text's hash and its document."""
    rows = await client._writer.read(
        lambda c: c.execute(
            "SELECT id, hash, vectors.doc FROM pjais_vectors AS vectors JOIN notes USING (doc) WHERE field = ''"
        ).fetchall()
    )
    return {row[0]: (row[1], row[2]) for row in rows}


async def test_what_is_made_here_is_pushed_once(
    server: Played, client: Client, notes: Collection[Note]
) -> None:
    made = await notes.insert_many([Note(title=f"the title of {n}") for n in range(3)])
    await client.embedded(10)
    server.connect()
    await eventually(lambda: len(server.pushed) == 1)
    assert sorted(one.record for one in server.pushed[0]) == sorted(note.id for note in made)
    later = await notes.insert(Note(title="one more title"))
    await eventually(lambda: len(server.pushed) == 2)
    assert [one.record for one in server.pushed[1]] == [later.id]
    await eventually(lambda: server.is_noted)
    await server.reconnect()
    await eventually(lambda: server.pulled[-1:] == [4])  # own ones are not asked for
    assert len(server.pushed) == 2


async def test_a_push_without_an_answer_is_made_again(
    server: Played, client: Client, notes: Collection[Note]
) -> None:
    await notes.insert(Note(title="a title"))
    await client.embedded(10)

    async def silent(message: wire.FromDevice) -> None:
        if isinstance(message, requests.PushVectors):
            server.asked.append(message)
        else:
            await server.send(message)

    server.beside.open(silent)
    await eventually(lambda: len(server.pushed) == 1)
    await server.reconnect()
    await eventually(lambda: len(server.pushed) == 2)
    assert server.pushed[0] == server.pushed[1]


async def test_a_refused_push_is_tried_in_the_next_session_and_pulls_go_on(
    server: Played, client: Client, notes: Collection[Note], caplog: pytest.LogCaptureFixture
) -> None:
    await notes.insert(Note(title="a title"))
    await client.embedded(10)
    server.refusal = "model_mismatch"
    server.connect()
    await eventually(lambda: "vectors are not shared until the next connection" in caplog.text)
    assert len(server.pushed) == 1
    assert server.pulled == [0, 0]
    server.refusal = ""
    await server.reconnect()
    await eventually(lambda: server.head == 1)


async def test_another_history_of_the_server_is_given_everything(
    server: Played, client: Client, notes: Collection[Note]
) -> None:
    await notes.insert(Note(title="a title"))
    await client.embedded(10)
    server.connect()
    await eventually(lambda: server.is_noted)

    def restored(corridor: Corridor) -> None:
        corridor.state.generation = "another"

    await client._writer.run(restored)
    server.head, server.held = 0, set()
    await server.reconnect()
    await eventually(lambda: server.head == 1)
    await eventually(lambda: server.pulled[-1:] in ([0], [1]))


async def test_what_the_server_was_told_to_forget_is_shared_again(
    server: Played, client: Client, notes: Collection[Note]
) -> None:
    made = await notes.insert_many([Note(title=f"the title of {n}") for n in range(5)])
    await client.embedded(10)
    server.connect()
    await eventually(lambda: server.is_noted)
    assert len(server.held) == 5
    server.held.clear()
    await server.reconnect()
    await eventually(lambda: len(server.held) == 5)
    server.held.clear()  # and in the middle of a session, as soon as it tells how many it has
    later = await notes.insert(Note(title="one more title"))
    await eventually(lambda: len(server.held) == 6)
    assert {record for record, _ in server.held} == {note.id for note in (*made, later)}


async def test_what_the_server_never_keeps_is_not_sent_for_ever(
    server: Played, client: Client, notes: Collection[Note]
) -> None:
    await notes.insert_many([Note(title=f"the title of {n}") for n in range(5)])
    await client.embedded(10)
    server.keeps_all = False  # but for the first of each push
    server.connect()
    await eventually(lambda: server.is_noted)
    await server.reconnect()
    await eventually(lambda: server.exchange._place.gap == 1)
    assert len(server.pushed) == 2
    for _ in range(3):
        server.asked.clear()
        await server.reconnect()
        await eventually(lambda: len(server.pulled) == 2)
        assert server.pushed == []


async def test_a_server_with_less_than_was_read_is_read_from_the_start(
    server: Played, client: Client, notes: Collection[Note]
) -> None:
    server.pages.append(lambda pull: requests.Vectors(pull.n, 2**63 - 1, 0, 0, []))
    server.connect()
    await eventually(lambda: server.pulled == [0, 2**63 - 1])
    await server.reconnect()
    await eventually(lambda: server.pulled[-2:] == [2**63 - 1, 0])


async def test_a_busy_server_is_asked_again(
    server: Played, client: Client, notes: Collection[Note], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "_AGAIN_S", 0.01)
    await notes.insert(Note(title="a title"))
    await client.embedded(10)
    server.refusal, server.retry_after_ms = "unavailable", 10
    server.connect()
    await eventually(lambda: len(server.held) == 1)
    assert len(server.pushed) == 2


async def test_what_is_deleted_and_restored_at_once_is_shared_again(
    server: Played, client: Client, notes: Collection[Note]
) -> None:
    note = await notes.insert(Note(title="a title"))
    await client.embedded(10)
    server.connect()
    await eventually(lambda: server.is_noted)
    async with client.transaction():
        await notes.delete(note.id)
    server.held.clear()
    await notes.restore(note.id)
    await eventually(lambda: len(server.held) == 1)


async def test_what_is_not_wanted_of_what_comes_is_left(
    server: Played, client: Client, notes: Collection[Note]
) -> None:
    """The texts have no vectors yet: the one that fits is taken, and nothing else, whatever it is."""
    note = await notes.insert(Note(title="a title", lines=[Line(id="1", content="a line")]))
    await client.embedded(10)
    ((hashed, doc),) = (await hashes(client)).values()
    await client._writer.database.write(lambda c: c.execute("DELETE FROM pjais_vectors"))
    steps = [1, 20] * (Counted().model.dimensions // 2)
    good = packed_vector(sum(step * step for step in steps) ** -0.5, steps)

    def offered(pull: requests.PullVectors) -> requests.Vectors:
        def vector(**changes: Any) -> PartVector:
            fields = {"collection": "notes", "record": note.id, "part": -1, "hash": hashed, "vector": good}
            return PartVector(**{**fields, **changes})

        came = [
            vector(collection="no such"),
            vector(collection="tags"),
            vector(record="no such"),
            vector(record="x" * 9_000),
            vector(part=-7, hash=b"another text"),
            vector(part=0),
            vector(part=1 << 40),
            vector(hash=b"another text"),
            vector(vector=b""),
            vector(vector=packed_vector(0.5, [1, 1])),  # of another model
            vector(vector=b"\x00\x00\xc0\x7f" + good[4:]),  # NaN
            vector(vector=b"\x00\x00\x80\x7f" + good[4:]),  # infinite
            vector(),
        ]
        return requests.Vectors(pull.n, 20, 0, 0, came)

    server.pages.append(offered)
    server.connect()
    await eventually(lambda: server.pulled == [0, 20])
    rows = await client._writer.read(
        lambda c: c.execute(
            "SELECT doc, field, position, hash, vector, is_shared FROM pjais_vectors"
        ).fetchall()
    )
    assert rows == [(doc, "", -1, hashed, good, 1)]
    await check_laws(client)


async def test_a_server_that_leads_nowhere_is_not_followed(
    server: Played, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "_AGAIN_S", 60.0)
    server.pages += [lambda pull: requests.Vectors(pull.n, pull.after, 0, 0, [])] * 1_000
    server.connect()
    await eventually(lambda: "0 vectors up to 0 where those after 0 were asked" in caplog.text)
    assert server.pulled == [0, 0]


async def test_what_was_pushed_while_a_pull_was_open_may_come_back(
    server: Played, client: Client, notes: Collection[Note], caplog: pytest.LogCaptureFixture
) -> None:
    server.connect()
    await eventually(lambda: server.pulled == [0, 0])
    waiting = server.asked[-1]
    assert isinstance(waiting, requests.PullVectors)
    await notes.insert(Note(title="a title"))
    await eventually(lambda: server.head == 1)
    await client.embedded(10)
    server.beside.answer(requests.Vectors(waiting.n, 1, 0, 1, server.pushed[0]))
    await eventually(lambda: server.pulled == [0, 0, 1])
    assert "broke the protocol" not in caplog.text


async def test_a_model_that_is_not_there_shares_nothing_and_harms_nothing(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db", embedder="off") as client:
        assert client._meaning is None  # and there is no exchange at all
        await client.collection(Note).insert(Note(title="a title"))


class Said(Item):
    text: str


class Talk(Record, collection="talks", searchable=["title", "lines"]):
    title: str
    lines: list[Said] = []
    names: list[str] = []


class TwoLists(Record, collection="two_lists", searchable=["title", "lines", "others"]):
    title: str
    lines: list[Said] = []
    others: list[Said] = []


class Home(Record, collection="home", searchable=["title"], vectors="device"):
    title: str


class Plain(Record, collection="plain"):
    title: str


@pytest.mark.parametrize(
    ("record", "fields", "item"),
    [(Talk, ["", "lines"], "lines"), (TwoLists, [""], None), (Home, [], None), (Plain, [], None)],
)
def test_a_part_names_an_item_only_where_there_is_one_list_of_items(
    record: type[Record], fields: list[str], item: str | None
) -> None:
    table = Table(schema_of(record))
    assert shared.fields_of(table) == fields
    assert shared.field_of_part(table, 3) == item
    assert shared.field_of_part(table, -1) == (None if record is Plain else "")
