"""A crash before any statement of any kind of write leaves all of that write or nothing of it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from client_sdk import Client
from client_sdk.config import Config
from client_sdk.reseal import take_key
from client_sdk.seal import SpaceKey
from client_sdk.sync.replica import apply_documents, apply_page
from crdt import wire
from crdt.changes import InsertText, SetRegister
from crdt.document import Document
from tests.client_sdk.device import check_laws, open_device
from tests.client_sdk.records import Line, Note
from tests.crashing import Crash, Fuse

Write = Callable[[Client], Awaitable[object]]


async def transaction(client: Client) -> None:
    notes = client.collection(Note)
    async with client.transaction():
        made = await notes.insert(Note(title="inside"))
        await notes.append("one", lines=[Line(id="t")])
        await notes.delete("two")
        await notes.increment(made.id, views=1)


async def page(client: Client) -> None:
    """Another device edits `one`, deletes `two` and creates two records; one entry is hostile."""
    creations = await client._writer.run(
        lambda corridor: {
            record: corridor.log.read(corridor.connection, corridor.documents.find("notes", record) or 0).tail
            for record in ("one", "two")
        }
    )
    entries = []
    for record, operations in (("one", {"title": b"\xa3new"}), ("two", {"$deleted": b"\xc3"})):
        document = Document.load(None, creations[record], client=777)
        update, _ = document.edit(
            [SetRegister(path, value) for path, value in operations.items()], reading=1 << 62
        )
        entries.append((record, update))
    fresh = Document(client=777)
    made, _ = fresh.edit([SetRegister("title", b"\xa1x"), SetRegister("createdAt", b"\xc0")], reading=1 << 61)
    entries += [("three", made), ("bad", b"\x01\x01\x03\x00\x00\x00\x00")]
    listed = [
        wire.Entry(position, "notes", record, 777, update)
        for position, (record, update) in enumerate(entries, 1)
    ]
    message = wire.Page(space="s", after=0, through=9, head=9, entries=listed)
    await client._writer.run(lambda corridor: apply_page(corridor, message), is_remote=True)


async def documents(client: Client) -> None:
    """A whole document arrives beside `one`, and another that is new."""
    states = []
    for position, record in enumerate(("one", "four"), 1):
        document = Document(client=888)
        for text in ("a", "b"):
            document.edit(
                [SetRegister("title", b"\xa1" + text.encode()), InsertText("body", 0, text)], reading=1 << 62
            )
        states.append(wire.DocumentState(position, "notes", record, document.snapshot()))
    message = wire.Documents(space="s", after=0, through=5, head=5, states=states)
    await client._writer.run(lambda corridor: apply_documents(corridor, message), is_remote=True)


async def acknowledge(client: Client) -> None:
    batch = await client._replica.pending(None, edits_max=10, bytes_max=1 << 20)
    assert batch is not None
    await client._replica.acknowledge(
        batch.incarnation, batch.first, [wire.Refusal(batch.first, "gap", "why")]
    )


KINDS: dict[str, Write] = {
    "insert": lambda client: client.collection(Note).insert(
        Note(title="a", lines=[Line(id="1")], scores=[1])
    ),
    "insert_many": lambda client: client.collection(Note).insert_many(
        [Note(title="a"), Note(id="b", title="b")]
    ),
    "update": lambda client: client.collection(Note).update(
        "one", title="n", tags={"z"}, lines=[], body="other"
    ),
    "increment": lambda client: client.collection(Note).increment("one", views=1),
    "add": lambda client: client.collection(Note).add("one", tags={"q"}),
    "remove": lambda client: client.collection(Note).remove("one", tags={"x"}),
    "append": lambda client: client.collection(Note).append("one", lines=[Line(id="3"), Line(id="4")]),
    "append past the tail": lambda client: client.collection(Note).append(
        "one", lines=[Line(id="big", content="x" * 9_000) for _ in range(4)]
    ),
    "remove_items": lambda client: client.collection(Note).remove_items("one", "lines", 0),
    "edit_text": lambda client: client.collection(Note).edit_text("one", "body", insert=(1, "é")),
    "delete": lambda client: client.collection(Note).delete("one"),
    "restore": lambda client: client.collection(Note).restore("gone"),
    "transaction": transaction,
    "page": page,
    "documents": documents,
    "insert sealed": lambda client: client.collection(Note).insert(Note(title="s", secret="sealed")),
    "update sealed": lambda client: client.collection(Note).update("one", secret="another"),
    "take_key": lambda client: client._writer.run(
        lambda corridor: take_key(corridor, SpaceKey(b"s" * 32)), is_remote=True
    ),
    "acknowledge": acknowledge,
    "set_generation": lambda client: client._replica.set_generation("g"),
    "rehome": lambda client: client._replica.rehome(),
}


@pytest.fixture
async def prepared(tmp_path: Path) -> Path:
    """Return a closed file with a few records in several states."""
    path = tmp_path / "prepared.db"
    async with open_device(path) as client:
        notes = client.collection(Note)
        await notes.insert(
            Note(
                id="one",
                title="one",
                tags={"x", "y"},
                body="body",
                lines=[Line(id="1")],
                views=2,
                secret="sealed",
            )
        )
        await notes.insert(Note(id="two", title="two"))
        await notes.insert(Note(id="gone", title="gone", scores=[1]))
        await notes.update("gone", title="gone again")
        await notes.delete("gone")
    return path


async def state_of(client: Client) -> tuple[object, ...]:
    notes = await client.collection(Note).order_by("id").all()
    own = await client.sql("SELECT position, n FROM pjais_outbox ORDER BY position")
    cursor = await client.sql("SELECT generation, cursor FROM pjais_state")
    quarantined = await client.sql("SELECT code, record FROM pjais_quarantine ORDER BY 1, 2")
    secrets = [note.secret for note in notes]
    return (repr(notes), secrets, [tuple(row) for row in own], cursor, quarantined, await client.digest())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_crash_before_each_statement_leaves_all_or_nothing(
    prepared: Path, tmp_path: Path, kind: str
) -> None:
    write, outcomes = KINDS[kind], []
    async with open_device(prepared, seed=9) as client:
        before = await state_of(client)
    whole = await _outcome(prepared, tmp_path / "whole.db", write, None)
    assert kind in {"acknowledge", "set_generation", "rehome"} or whole != before
    for statements in range(200):
        fuse = Fuse()
        found = await _outcome(prepared, tmp_path / f"{statements}.db", write, fuse, statements)
        if not fuse.is_blown:
            break
        assert found in (before, whole), f"a crash before statement {statements} left a part"
        outcomes.append(found == whole)
    else:
        pytest.fail("the write never ended")
    assert found == whole
    assert len(outcomes) >= 3, "BEGIN, something, COMMIT"
    assert before == whole or outcomes == sorted(outcomes), "what a longer life had done was undone"


async def _outcome(
    prepared: Path, path: Path, write: Write, fuse: Fuse | None, statements: int | None = None
) -> tuple[object, ...]:
    """Return what a file holds when it is opened again after a write, or after a crash in the middle of it."""
    shutil.copyfile(prepared, path)
    fuse = fuse or Fuse()
    client = await open_device(path, seed=5, connect=fuse.connect, config=Config(inline="always", readers=1))
    fuse.set(statements)
    with contextlib.suppress(Crash):
        await write(client)
    fuse.set(None)
    await client.close()
    async with open_device(path, seed=6) as again:
        await check_laws(again)
        found = await state_of(again)
        await again.collection(Note).insert(Note(title="it can be written"))
        await check_laws(again)
    return found
