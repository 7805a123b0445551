"""The text index is what one made anew would be, whatever happened, and it mends itself."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta

import client_sdk
from client_sdk import Client, Counter, Item, Record, SchemaError, Sealed, Text, rows
from client_sdk.database import Connection
from client_sdk.text_index import ITEM_BITS, TextIndex
from crdt.schema import schema_of
from tests.client_sdk.device import KEY, check_laws, open_device, sources, words
from tests.client_sdk.records import Line, Note
from tests.client_sdk.test_live import Device


class Thing(Record, collection="things", searchable=["name", "lines", "body", "tags", "more"]):
    """Fields that `Device.change` knows how to change."""

    name: str = ""
    body: Text = Text()
    tags: set[str] = set()
    more: dict[str, Any] = {}
    lines: list[Line] = []
    is_on: bool = False
    views: Counter = Counter(0)


class Colour(enum.Enum):
    RED = "red"


class Part(Item, kw_only=True):
    id: str = ""
    said: str
    title: Annotated[str, Meta(max_length=10)] | None = None
    role: Literal["user", "assistant"]
    maybe: Literal["x"] | None = None
    colour: Colour = Colour.RED
    count: int = 0
    more: dict[str, Any] = {}


class Whole(Record, collection="wholes", searchable=["parts", "names"]):
    parts: list[Part] = []
    names: list[str] = []


STEPS = 25

# ------------------------------------------------------------------------------------------------- it stays right


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32))
async def test_after_any_local_and_remote_changes_it_is_what_a_fresh_one_is(seed: int) -> None:
    chance = random.Random(seed)
    with TemporaryDirectory() as folder:
        opening = [
            client_sdk.open(
                Path(folder, f"{n}.db"),
                records=[Thing],
                key=KEY,
                sources=sources(chance.randrange(1 << 32)),
            )
            for n in range(2)
        ]
        async with opening[0] as one, opening[1] as other:
            devices = [Device(one, Thing), Device(other, Thing)]
            for _ in range(STEPS):
                acting = chance.choice(devices)
                await acting.change(chance)
                if chance.random() < 0.3:
                    await append(acting, chance)
                if chance.random() < 0.5:
                    first, second = chance.sample(devices, 2)
                    await first.send(second)
            for device in devices:
                await check_laws(device.client)


async def append(device: Device, chance: random.Random) -> None:
    there = await device.things.all()
    if there:
        items = [Line(id="n", content=chance.choice(["some words", "日本語", ""])) for _ in range(2)]
        await device.things.append(chance.choice(there).id, lines=items)


async def test_a_write_that_touches_no_searchable_field_leaves_it_alone(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        notes = client.collection(Note)
        note = await notes.insert(Note(title="a", lines=[Line(id="1", content="x")]))
        before = await changes_of_index(client)
        await notes.update(note.id, pinned=True, settings={"a": "b"})
        await notes.increment(note.id, views=1)
        await notes.append(note.id, scores=[1])
        assert await changes_of_index(client) == before
        await notes.update(note.id, title="b")
        assert await changes_of_index(client) > before


async def changes_of_index(client: Client) -> int:
    """Return the bytes of the index's segments: each write adds one."""
    rows = await client.sql("SELECT total(length(block)) FROM pjais_text_notes_data")
    return int(rows[0][0])


async def test_appending_to_a_long_list_indexes_what_is_appended(tmp_path: Path) -> None:
    statements: list[tuple[str, int]] = []
    async with open_device(tmp_path / "a.db") as client:
        notes = client.collection(Note)
        note = await notes.insert(Note(title="a", lines=[Line(id=str(n), content="old") for n in range(300)]))

        class Told:
            def __init__(self, raw: Any) -> None:
                self._raw = raw

            def __getattr__(self, name: str) -> Any:
                return getattr(self._raw, name)

            def executemany(self, sql: str, parameters: Any) -> Any:
                listed = list(parameters)
                statements.append((sql, len(listed)))
                return self._raw.executemany(sql, listed)

        corridor = client._writer.corridor
        raw = corridor.connection
        corridor.connection = Told(raw)
        await notes.append(note.id, lines=[Line(id="new", content="new")])
        corridor.connection = raw
        assert [size for sql, size in statements if "pjais_text" in sql] == [1]
        (hit,) = await notes.search("new")
        assert hit.position == 300
        await check_laws(client)


# ---------------------------------------------------------------------------------------------- what it consists of


def test_an_items_prose_is_indexed_and_its_choices_are_not() -> None:
    index = TextIndex(schema_of(Whole))
    assert index.record is None
    assert {name: table.places for name, table in index.lists.items()} == {
        "parts": ("said", "title"),
        "names": ("value",),
    }


class Shown(Item, kw_only=True):
    searchable: ClassVar[tuple[str, ...]] = ("said", "shows")

    id: str = ""
    said: str
    aside: str = ""
    metadata: dict[str, Any] = {}

    @property
    def shows(self) -> str:
        return str(self.metadata.get("shows", ""))


class Album(Record, collection="albums", searchable=["parts"]):
    parts: list[Shown] = []


async def test_an_item_that_names_its_text_is_found_by_that_alone(tmp_path: Path) -> None:
    async with client_sdk.open(tmp_path / "a.db", records=[Album], key=KEY, embedder="off") as client:
        albums = client.collection(Album)
        first = Shown(said="here", aside="whispered", metadata={"shows": "a lamp", "by": "Nora"})
        album = await albums.insert(Album(parts=[first]))
        await albums.append(album.id, parts=[Shown(said="there", metadata={"shows": "a stair"})])
        found = {
            word: [hit.position for hit in await albums.search(word)]
            for word in ("here", "lamp", "stair", "whispered", "Nora")
        }
        assert found == {"here": [0], "lamp": [0], "stair": [1], "whispered": [], "Nora": []}
        await check_laws(client)


class Odd(Item):
    searchable: ClassVar[tuple[str, ...]] = ("text",)

    said: str = ""


class Odds(Record, collection="odds", searchable=["parts"]):
    parts: list[Odd] = []


def test_what_an_item_names_must_be_there() -> None:
    with pytest.raises(SchemaError, match=r"Odds\.parts: Odd has no 'text', which it names as searchable"):
        TextIndex(schema_of(Odds))


class Numbers(Record, collection="numbers", searchable=["parts"]):
    parts: list[int] = []


class Choices(Record, collection="choices", searchable=["parts"]):
    parts: list[Literal["a", "b"]] = []


@pytest.mark.parametrize("record", [Numbers, Choices])
def test_a_list_without_prose_cannot_be_searchable(record: type[Record]) -> None:
    with pytest.raises(SchemaError, match=r"\.parts is searchable, but its items have no text"):
        TextIndex(schema_of(record))


def test_a_sealed_field_is_refused() -> None:
    class Secret(Record, collection="secrets", searchable=["secret"]):
        secret: Sealed[str | None] = None

    with pytest.raises(SchemaError, match="a sealed field is never searchable"):
        schema_of(Secret)


async def test_what_is_not_searchable_is_nowhere_in_it(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        await client.collection(Note).insert(
            Note(title="seen", summary="unseen", settings={"a": "unseen"}, lines=[Line(id="unseen")])
        )
        held = await client._writer.run(lambda one: words(one.connection, one.tables["notes"]))
    terms = {place[3] for places, _ in held.values() for place in places}
    assert terms == {"seen", "user"}  # a line's role is declared as any text


def test_a_field_may_be_called_what_fts5_keeps_for_itself() -> None:
    class Odd(Record, collection="odds", searchable=["rank", "rowid"]):
        rank: str = ""
        rowid: str = ""

    index = TextIndex(schema_of(Odd))
    assert index.record is not None
    assert index.record.places == ("rank", "rowid")


def test_positions_and_documents_do_not_meet() -> None:
    assert (5 << ITEM_BITS | ((1 << ITEM_BITS) - 1)) < 6 << ITEM_BITS


# ------------------------------------------------------------------------------------------------------ it mends itself

DAMAGES: dict[str, Callable[[Connection], object]] = {
    "a row too few": lambda c: c.execute('DELETE FROM "pjais_text_notes" WHERE rowid = 1'),
    "a row too many": lambda c: c.execute('INSERT INTO "pjais_text_notes"(rowid, f_title) VALUES (99, "x")'),
    "an item too few": lambda c: c.execute('DELETE FROM "pjais_text_notes__lines"'),
    "no rows": lambda c: c.execute('DELETE FROM "pjais_text_notes"'),
    "its structure destroyed": lambda c: c.execute(
        "UPDATE pjais_text_notes_data SET block = x'ff' WHERE id = 10"
    ),
    "its averages lost": lambda c: c.execute("DELETE FROM pjais_text_notes_data WHERE id = 1"),
    "its pages lost": lambda c: c.execute("DELETE FROM pjais_text_notes_data"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_index_is_made_anew_when_the_file_is_opened(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.db"
    async with open_device(path) as client:
        for n in range(3):
            await client.collection(Note).insert(
                Note(title=f"title {n}", body="body", lines=[Line(id="1", content="said")])
            )
        await client._writer.database.write(lambda connection: DAMAGES[damage](connection) and None)
    async with open_device(path, seed=2) as client:
        notes = client.collection(Note)
        assert len(await notes.search("title")) == 3
        assert len(await notes.search("said")) == 3
        await check_laws(client)
        await notes.insert(Note(title="title again"))
        assert len(await notes.search("title")) == 4


async def test_an_index_is_made_anew_some_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_PAGE", 3)
    async with open_device(tmp_path / "a.db") as client:
        await client.collection(Note).insert_many(
            [Note(title=f"title {n}", lines=[Line(id="1", content="said")] * (n % 5)) for n in range(10)]
        )
        await check_laws(client)  # it is what the writes made


async def test_the_look_at_an_index_costs_the_same_however_long_it_is(tmp_path: Path) -> None:
    steps: list[int] = []
    async with open_device(tmp_path / "a.db") as client:
        for _ in range(2):
            await client.collection(Note).insert_many([Note(title="a title") for _ in range(2_000)])

            def look(connection: Connection) -> int:
                count = 0

                def step() -> int:
                    nonlocal count
                    count += 1
                    return 0

                connection.set_progress_handler(step, 1)
                assert client._tables[Note].is_indexed(connection)
                connection.set_progress_handler(None, 0)
                return count

            steps.append(await client._writer.database.write(look))
    assert steps[1] < steps[0] * 1.1


async def test_a_field_that_becomes_searchable_is_indexed_when_the_file_is_opened(tmp_path: Path) -> None:
    class Before(Record, collection="things", searchable=["name"]):
        name: str = ""
        body: str = ""

    class After(Record, collection="things", searchable=["body", "name"]):
        name: str = ""
        body: str = ""

    class Neither(Record, collection="things"):
        name: str = ""
        body: str = ""

    path = tmp_path / "a.db"
    async with client_sdk.open(path, records=[Before], key=KEY) as client:
        await client.collection(Before).insert(Before(name="alpha", body="beta"))
        assert not await client.collection(Before).search("beta")
    async with client_sdk.open(path, records=[After], key=KEY) as client:
        assert await client.collection(After).search("beta")
    async with client_sdk.open(path, records=[Neither], key=KEY) as client:
        assert not await client.sql("SELECT name FROM sqlite_schema WHERE name LIKE 'pjais_text%'")
