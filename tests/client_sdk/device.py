"""Devices for tests: a client on a file, and the laws that hold for every file at every moment."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import client_sdk
from client_sdk.client import Client
from client_sdk.commit import Corridor, Sources
from client_sdk.database import Connect, Connection, connect_sqlcipher
from client_sdk.opening import Opening
from client_sdk.rows import Table
from crdt.contents import add_digests
from crdt.document import Document
from crdt.errors import DocumentUnreadable
from crdt.records import read
from tests.client_sdk.records import Note, Tag

KEY = bytes(range(32))


def sources(seed: int = 1) -> Sources:
    """Return a clock that advances a millisecond at each look, and bytes from a seed."""
    chance = random.Random(seed)
    ticks = itertools.count(1_750_000_000_000)
    return Sources(now_ms=lambda: next(ticks), random=chance.randbytes)


def open_device(
    path: Path, *, seed: int = 1, connect: Connect = connect_sqlcipher, **options: Any
) -> Opening:
    """Open a device on a file, its time and chance from a seed."""
    return client_sdk.open(
        path, records=[Note, Tag], key=KEY, sources=sources(seed), connect=connect, **options
    )


async def check_laws(client: Client) -> None:
    """Rows say what their documents say, the text index what a fresh one would, the digest is that of the documents,
    the outbox points into the log.
    """
    await client._writer.run(_laws)


def _laws(corridor: Corridor) -> None:
    connection: Connection = corridor.connection
    total = 0
    documents = connection.execute(
        "SELECT doc, collection, record, digest, has_row FROM pjais_documents"
    ).fetchall()
    for doc, collection, record, digest, has_row in documents:
        stored = corridor.log.read(connection, doc)
        contents = Document.load(stored.snapshot, stored.tail, client=1).contents
        held = corridor.documents.get(doc).contents
        assert contents.digest(collection, record) == held.digest(collection, record)
        assert int.from_bytes(digest, "big") == contents.digest(collection, record)
        total = add_digests(total, contents.digest(collection, record))
        table = corridor.tables.get(collection)
        if table is None:
            assert not has_row
            continue
        rows = connection.execute(f"{table.select} WHERE id = ?", (record,)).fetchall()
        try:
            values = None if contents.is_deleted else {"id": record, **read(table.schema, contents)}
        except DocumentUnreadable:
            values = None
        assert bool(rows) == bool(has_row) == (values is not None)
        if values is not None:
            (found,) = table.records(connection, rows, None)
            assert {name: getattr(found, name) for name in values} == table.opened(values)
        else:
            for child in table.lists.values():
                left = connection.execute(f'SELECT 1 FROM "{child.name}" WHERE doc = ?', (doc,)).fetchall()
                assert not left
    for table in corridor.tables.values():
        _check_words(connection, table)
    assert corridor.state.digest == total
    assert corridor.state.records == len(documents)
    lost = connection.execute(
        "SELECT 1 FROM pjais_outbox WHERE position NOT IN (SELECT position FROM pjais_log)"
    ).fetchall()
    assert not lost
    pending = connection.execute("SELECT count(*) FROM pjais_outbox").fetchone()[0]
    assert pending == corridor.outbox.pending


def _check_words(connection: Connection, table: Table) -> None:
    """The text index holds what one holds that is made of the rows just now."""
    held = words(connection, table)
    connection.execute("SAVEPOINT fresh")
    table.index_again(connection)
    fresh = words(connection, table)
    connection.execute("ROLLBACK TO fresh")
    connection.execute("RELEASE fresh")
    assert held == fresh
    assert table.is_indexed(connection)


def words(connection: Connection, table: Table) -> dict[str, Any]:
    """Return everything that a text index holds: each word with its places, by row, and the rows."""
    found: dict[str, Any] = {}
    for one in table.text.tables if table.text else ():
        name = f"temp.words_of_{one.name}"
        connection.execute(
            f"CREATE VIRTUAL TABLE IF NOT EXISTS {name} USING fts5vocab(main, '{one.name}', 'instance')"
        )
        places = connection.execute(f"SELECT doc, col, offset, term FROM {name} ORDER BY 1, 2, 3").fetchall()
        rows = connection.execute(f'SELECT id, hex(sz) FROM "{one.name}_docsize" ORDER BY id').fetchall()
        found[one.name] = (places, rows)
    return found
