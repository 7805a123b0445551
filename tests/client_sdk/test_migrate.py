"""A file opened with other declarations keeps every document, and its rows follow the declarations of today."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import client_sdk
from client_sdk import Client, Counter, Record, Text
from client_sdk.database import Connect, Connection, connect_sqlcipher
from client_sdk.errors import NewerFile, QueryError
from crdt.schema import schema_of
from tests.client_sdk.device import KEY, check_laws, sources
from tests.crashing import Crash, Fuse


def old() -> type[Record]:
    class Thing(Record, collection="things", indexes=["size"]):
        name: str
        size: int = 0
        extra: dict[str, Any] = {}

    return Thing


def new() -> type[Record]:
    class Thing(Record, collection="things", indexes=["color"]):
        name: str
        color: str = "grey"
        note: Text = Text()
        seen: Counter = Counter(0)
        tags: set[str] = set()
        parts: list[str] = []

    return Thing


def opening(
    path: Path, *records: type[Record], seed: int = 1, connect: Connect = connect_sqlcipher
) -> client_sdk.opening.Opening:
    return client_sdk.open(path, records=records, key=KEY, sources=sources(seed), connect=connect)


async def all_of(client: Client, record: type[Record]) -> list[Any]:
    return await client.collection(record).order_by("id").all()


async def test_fields_that_a_version_does_not_know_survive_its_edits(tmp_path: Path) -> None:
    older, newer = old(), new()
    path = tmp_path / "a.db"
    async with opening(path, newer) as client:
        await client.collection(newer).insert(
            newer(id="1", name="a", color="red", note="n", seen=3, tags={"t"}, parts=["p"])  # type: ignore[call-arg]
        )
    async with opening(path, older, seed=2) as client:
        (found,) = await all_of(client, older)
        assert (found.name, found.size) == ("a", 0)
        await client.collection(older).update("1", name="b", size=5)
        await check_laws(client)
    async with opening(path, newer, seed=3) as client:
        (found,) = await all_of(client, newer)
        assert (found.name, found.color, found.note, found.seen, found.tags, found.parts) == (
            "b",
            "red",
            "n",
            3,
            {"t"},
            ["p"],
        )
        assert await client.sql("SELECT value FROM things__parts") == [("p",)]
        with pytest.raises(QueryError):
            client.collection(newer).where(size=5)
        await check_laws(client)
    async with opening(path, older, seed=4) as client:
        assert (await all_of(client, older))[0].size == 5


async def test_a_crash_before_any_statement_of_an_opening_under_another_version_loses_no_row(
    tmp_path: Path,
) -> None:
    older, newer = old(), new()
    original, path = tmp_path / "original.db", tmp_path / "a.db"
    async with opening(original, older) as client:
        await client.collection(older).insert_many([older(id=str(n), name=f"n{n}") for n in range(3)])  # type: ignore[call-arg]
    for statements in range(1_000):
        shutil.copy(original, path)
        fuse = Fuse()
        fuse.set(statements)
        try:
            async with opening(path, newer, connect=fuse.connect):
                assert statements > 40
                break
        except Crash:
            pass
        async with opening(path, newer, seed=2) as client:
            assert [thing.name for thing in await all_of(client, newer)] == ["n0", "n1", "n2"], statements
            await check_laws(client)


async def test_a_record_without_a_field_that_is_required_now_waits_in_quarantine(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    older = new()

    class Thing(Record, collection="things"):
        name: str
        owner: str

    async with opening(path, older) as client:
        await client.collection(older).insert(older(id="1", name="a"))  # type: ignore[call-arg]
        digest = await client.digest()
    async with opening(path, Thing, seed=2) as client:
        assert await all_of(client, Thing) == []
        assert await client.sql("SELECT record, code, source FROM pjais_quarantine") == [
            ("1", "unreadable", "schema")
        ]
        assert await client.digest() == digest
        await check_laws(client)
    async with opening(path, older, seed=3) as client:
        assert [thing.name for thing in await all_of(client, older)] == ["a"]


async def test_a_collection_that_is_not_declared_keeps_its_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    thing = old()

    class Other(Record, collection="others"):
        name: str = ""

    async with opening(path, thing) as client:
        await client.collection(thing).insert(thing(id="1", name="a"))  # type: ignore[call-arg]
        digest = await client.digest()
    async with opening(path, Other, seed=2) as client:
        with pytest.raises(QueryError, match="Thing was not opened: name it in open"):
            client.collection(thing)
        with pytest.raises(QueryError):
            await client.sql("SELECT * FROM things")
        assert await client.digest() == digest
    async with opening(path, thing, Other, seed=3) as client:
        assert [one.name for one in await all_of(client, thing)] == ["a"]
        await check_laws(client)


async def test_indexes_follow_the_declaration(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for seed, (record, index) in enumerate(((old(), "things_by_size"), (new(), "things_by_color"))):
        async with opening(path, record, seed=seed) as client:
            found = await client.sql(
                "SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE 'things_by%'"
            )
            assert found == [(index,)]


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    thing = old()
    async with opening(path, thing) as client:
        await client._writer.database.maintain(
            lambda connection: connection.execute("PRAGMA user_version = 99")
        )
    with pytest.raises(NewerFile, match="99"):
        async with opening(path, thing):
            pass


async def test_a_file_of_format_1_is_brought_up_to_date_by_whoever_is_alone_with_it(tmp_path: Path) -> None:
    path, thing = tmp_path / "a.db", old()

    def go_back(connection: Connection) -> None:
        connection.execute("DROP TABLE pjais_notices")
        connection.execute("DROP TABLE pjais_tips")
        connection.execute("DROP TABLE pjais_vectors")
        connection.execute("ALTER TABLE pjais_state DROP COLUMN commits")
        connection.execute("PRAGMA user_version = 1")

    for is_shared in (False, True):
        async with opening(path, thing, seed=1 + is_shared) as client:
            await client.collection(thing).insert(thing(name="a"))  # type: ignore[call-arg]
            await client._writer.database.maintain(go_back)
        both = client_sdk.open(path, records=[thing], key=KEY, multi_instance=is_shared)
        async with both as client:
            await client.collection(thing).insert(thing(name="b"))  # type: ignore[call-arg]
            assert await client.sql("SELECT commits FROM pjais_state") == [(1 + is_shared,)]
            assert len(await client.sql("SELECT * FROM pjais_notices")) == 2 * is_shared
            assert await client.sql("SELECT * FROM pjais_tips") == []
            await check_laws(client)


async def test_two_classes_of_one_collection_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="same collection"):
        async with opening(tmp_path / "a.db", old(), new()):
            pass
    assert schema_of(old()).collection == "things"
