"""The table of vectors, and what it lacks. Functions on a connection.

A vector stands for one text: a record's own (``field`` is empty, ``position`` -1) or a list item's. Beside it lie the
hash of the text and who said it. So what must be embedded, or embedded again, is known from the rows at any time,
whatever crashed when: a text whose hash is not there. Vectors of several models lie side by side while a change is
under way.

A vector takes 4 + dimensions bytes (`client_sdk.embedding.vectors`), a row of 384 dimensions about 450.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from client_sdk.database import Connection
from client_sdk.rows import Table
from client_sdk.text_index import TextTable

__all__ = [
    "HASH_BYTES",
    "SCHEMA",
    "SINCE_2",
    "Compared",
    "Piece",
    "Stored",
    "compare",
    "docs_after",
    "field_of",
    "hash_of",
    "models",
    "orphans",
    "read",
    "remove_model",
    "text_of",
    "totals",
    "unshare",
    "write",
]

SCHEMA: Final = (
    """CREATE TABLE pjais_vectors(
        collection TEXT NOT NULL,
        field TEXT NOT NULL,
        model TEXT NOT NULL,
        doc INTEGER NOT NULL,
        position INTEGER NOT NULL,
        hash BLOB NOT NULL,
        speaker TEXT,
        vector BLOB NOT NULL,
        is_shared INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (collection, field, model, doc, position)
    ) WITHOUT ROWID""",
)
SINCE_2: Final = ("ALTER TABLE pjais_vectors ADD COLUMN is_shared INTEGER NOT NULL DEFAULT 0",)

HASH_BYTES: Final = 16  # as many as two different texts of all the world's need to differ
_ROWS_REMOVED_AT_ONCE: Final = 500  # of another model's: a write that waits for it waits about 3 ms

Place: TypeAlias = tuple[str, int, int]  # field, document, position
Stored: TypeAlias = tuple[int, int, bytes, str | None, bytes]  # document, position, hash, speaker, vector


class Piece(msgspec.Struct, frozen=True):
    """A text that is to have a vector."""

    field: str
    doc: int
    position: int
    text: str
    hash: bytes
    speaker: str | None


class Compared(msgspec.Struct, frozen=True):
    """What some documents' vectors lack: texts without one, and places that have one and no text."""

    lacking: list[Piece]
    gone: list[Place]


def field_of(text: TextTable) -> str:
    """Return the field's name as the table has it."""
    return text.list_field or ""


def text_of(text: TextTable, value: Any) -> str:
    """Return what is embedded of a record, given by its values or as it is, or of an item."""
    return "\n".join(filter(None, text.held(value)))


def hash_of(text: str) -> bytes:
    """Return the hash of a text."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=HASH_BYTES).digest()


def compare(connection: Connection, table: Table, model: str, docs: Sequence[int]) -> Compared:
    """Return what the vectors of some documents (at most some hundred) lack."""
    lacking: list[Piece] = []
    gone: list[Place] = []
    places = ", ".join("?" * len(docs))
    for text in table.text.tables if table.text else ():
        field = field_of(text)
        held = {
            (doc, position): (hashed, speaker)
            for doc, position, hashed, speaker in connection.execute(
                "SELECT doc, position, hash, speaker FROM pjais_vectors"
                f" WHERE collection = ? AND field = ? AND model = ? AND doc IN ({places})",
                (table.name, field, model, *docs),
            )
        }
        for doc, position, value in table.searchable(connection, text, docs):
            words = text_of(text, value)
            speaker = getattr(value, "speaker", None)
            piece = Piece(field, doc, position, words, hash_of(words), speaker)
            if held.pop((doc, position), None) != (piece.hash, speaker):
                lacking.append(piece)
        gone += [(field, doc, position) for doc, position in held]
    return Compared(lacking, gone)


def write(
    connection: Connection,
    collection: str,
    model: str,
    pieces: Iterable[tuple[Piece, bytes]],
    gone: Iterable[Place] = (),
    *,
    is_shared: bool = False,
) -> None:
    """Write vectors in place of those that were there, and remove the ones that stand for nothing.

    ``is_shared``: the server has them.
    """
    connection.executemany(
        "DELETE FROM pjais_vectors WHERE collection = ? AND field = ? AND model = ? AND doc = ? AND position = ?",
        [(collection, field, model, doc, position) for field, doc, position in gone],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO pjais_vectors"
        "(collection, field, model, doc, position, hash, speaker, vector, is_shared)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (collection, one.field, model, one.doc, one.position, one.hash, one.speaker, vector, is_shared)
            for one, vector in pieces
        ],
    )


def unshare(connection: Connection, table: Table, model: str, docs: Sequence[int]) -> None:
    """Note that the server has no vectors of some documents."""
    connection.executemany(
        "UPDATE pjais_vectors SET is_shared = 0 WHERE collection = ? AND field = ? AND model = ? AND doc = ?",
        [
            (table.name, field_of(text), model, doc)
            for text in (table.text.tables if table.text else ())
            for doc in docs
        ],
    )


def read(
    connection: Connection,
    collection: str,
    field: str,
    model: str,
    docs: Sequence[int] | None = None,
    *,
    limit: int = -1,
) -> list[Stored]:
    """Return the vectors of some documents, None: of the newest that ``limit`` allows."""
    which = "" if docs is None else f" AND doc IN ({', '.join('?' * len(docs))})"
    return connection.execute(
        "SELECT doc, position, hash, speaker, vector FROM pjais_vectors"
        f" WHERE collection = ? AND field = ? AND model = ?{which} ORDER BY doc DESC, position DESC LIMIT ?",
        (collection, field, model, *(docs or ()), limit),
    ).fetchall()


def docs_after(connection: Connection, table: Table, doc: int, count: int) -> list[int]:
    """Return the next documents that have a row."""
    rows = connection.execute(
        f'SELECT doc FROM "{table.name}" WHERE doc > ? ORDER BY doc LIMIT ?', (doc, count)
    )
    return [row[0] for row in rows]


def orphans(connection: Connection, table: Table) -> list[int]:
    """Return the documents of a collection that have vectors and no row."""
    rows = connection.execute(
        "SELECT DISTINCT doc FROM pjais_vectors WHERE collection = ?"
        f' AND doc NOT IN (SELECT doc FROM "{table.name}")',
        (table.name,),
    )
    return [row[0] for row in rows]


def models(connection: Connection, collection: str, field: str) -> list[str]:
    """Return the models that have vectors for a collection's records, or a list's items. Costs a look a model."""
    found: list[str] = []
    while True:
        row = connection.execute(
            "SELECT model FROM pjais_vectors WHERE collection = ? AND field = ? AND model > ? LIMIT 1",
            (collection, field, found[-1] if found else ""),
        ).fetchone()
        if row is None:
            return found
        found.append(row[0])


def remove_model(connection: Connection, collection: str, field: str, model: str) -> bool:
    """Remove some vectors of a model, and return whether there may be more."""
    rows = connection.execute(
        "SELECT doc, position FROM pjais_vectors WHERE collection = ? AND field = ? AND model = ? LIMIT ?",
        (collection, field, model, _ROWS_REMOVED_AT_ONCE),
    ).fetchall()
    write(connection, collection, model, (), [(field, doc, position) for doc, position in rows])
    return len(rows) == _ROWS_REMOVED_AT_ONCE


def totals(connection: Connection, tables: Mapping[str, Table], model: str) -> tuple[int, int]:
    """Return how many texts have a vector of a model, and how many texts there are. Counts the rows."""
    done = total = 0
    for table in tables.values():
        for text in table.text.tables if table.text else ():
            rows = table.lists[text.list_field].name if text.list_field else table.name
            (one,) = connection.execute(
                "SELECT count(*) FROM pjais_vectors WHERE collection = ? AND field = ? AND model = ?",
                (table.name, field_of(text), model),
            ).fetchone()
            done += one
            total += connection.execute(f'SELECT count(*) FROM "{rows}"').fetchone()[0]
    return done, total
