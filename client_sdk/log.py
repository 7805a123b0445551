"""The log: every update this device made or received, by document, and the snapshots that stand for the older part.

The log and the documents' table are the truth of the file; rows, digests and search tables are made from them. A
document is read as its snapshot, if there is one, and the updates after it (its tail). A snapshot is rewritten only
when the tail has outgrown it, so the work of compacting stays proportional to what was written; updates that the
server has not acknowledged stay in the log beneath a snapshot, because the outbox points at them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from client_sdk.database import Connection
from crdt.rename import rename_client

__all__ = ["SCHEMA", "TAIL_BYTES_MIN", "TIPS_SCHEMA", "DocumentRow", "Log", "StoredDocument", "StoredTip"]

# Below this, reading a tail is as fast as reading a snapshot of the same size.
TAIL_BYTES_MIN: Final = 16 * 1024

TIPS_SCHEMA: Final = """CREATE TABLE IF NOT EXISTS pjais_tips(
        doc INTEGER PRIMARY KEY,
        through INTEGER NOT NULL,
        tip BLOB NOT NULL
    )"""

SCHEMA: Final = (
    """CREATE TABLE pjais_documents(
        doc INTEGER PRIMARY KEY,
        collection TEXT NOT NULL,
        record TEXT NOT NULL,
        digest BLOB NOT NULL,
        has_row INTEGER NOT NULL
    )""",
    # Records with a row are found through their table's own index; this one holds the others (deleted,
    # unknown, unreadable).
    "CREATE UNIQUE INDEX pjais_documents_without_row ON pjais_documents(collection, record) WHERE NOT has_row",
    """CREATE TABLE pjais_log(
        position INTEGER PRIMARY KEY,
        doc INTEGER NOT NULL,
        client INTEGER NOT NULL,
        "update" BLOB NOT NULL
    )""",
    "CREATE INDEX pjais_log_by_doc ON pjais_log(doc)",
    """CREATE TABLE pjais_snapshots(
        doc INTEGER PRIMARY KEY,
        through INTEGER NOT NULL,
        snapshot BLOB NOT NULL
    )""",
    TIPS_SCHEMA,
)


class DocumentRow(msgspec.Struct, frozen=True):
    """What the file knows of a document beside its bytes."""

    doc: int
    collection: str
    record: str
    digest: int
    has_row: bool


class StoredDocument(msgspec.Struct, frozen=True):
    """A document's bytes: the snapshot, and the updates after it in order."""

    snapshot: bytes | None
    tail: tuple[bytes, ...]


class StoredTip(msgspec.Struct, frozen=True):
    """A document's tip, and the updates after it in order, each with its client."""

    tip: bytes
    tail: tuple[tuple[int, bytes], ...]


class Log:
    """The next document number and log position, kept in memory by the writer."""

    def __init__(self, connection: Connection) -> None:
        self.read_numbers(connection)

    def read_numbers(self, connection: Connection) -> None:
        """Read from the file what comes next."""
        self.next_doc = _scalar(connection, "SELECT coalesce(max(doc), 0) + 1 FROM pjais_documents")
        self.next_position = _scalar(connection, "SELECT coalesce(max(position), 0) + 1 FROM pjais_log")
        through = _scalar(connection, "SELECT coalesce(max(through), 0) + 1 FROM pjais_snapshots")
        self.next_position = max(self.next_position, through)

    def append(self, connection: Connection, updates: Sequence[tuple[int, int, bytes]]) -> int:
        """Write updates (doc, client, bytes) and return the position of the first."""
        first = self.next_position
        connection.executemany(
            'INSERT INTO pjais_log(position, doc, client, "update") VALUES (?, ?, ?, ?)',
            [(position, *update) for position, update in enumerate(updates, first)],
        )
        self.next_position += len(updates)
        return first

    def add_documents(
        self, connection: Connection, documents: Iterable[tuple[str, str, int, bool]]
    ) -> list[int]:
        """Write new documents (collection, record, digest, has_row) and return their numbers."""
        rows = [
            (doc, collection, record, digest.to_bytes(16, "big"), has_row)
            for doc, (collection, record, digest, has_row) in enumerate(documents, self.next_doc)
        ]
        connection.executemany(
            "INSERT INTO pjais_documents(doc, collection, record, digest, has_row) VALUES (?, ?, ?, ?, ?)",
            rows,
        )
        self.next_doc += len(rows)
        return [row[0] for row in rows]

    @staticmethod
    def find_without_row(connection: Connection, collection: str, record: str) -> int | None:
        """Return the number of a document that has no row."""
        found = connection.execute(
            "SELECT doc FROM pjais_documents WHERE collection = ? AND record = ? AND NOT has_row",
            (collection, record),
        ).fetchone()
        return None if found is None else int(found[0])

    @staticmethod
    def row(connection: Connection, doc: int) -> DocumentRow:
        """Return what the file knows of a document."""
        collection, record, digest, has_row = connection.execute(
            "SELECT collection, record, digest, has_row FROM pjais_documents WHERE doc = ?", (doc,)
        ).fetchone()
        return DocumentRow(doc, collection, record, int.from_bytes(digest, "big"), bool(has_row))

    @staticmethod
    def set_row(connection: Connection, doc: int, digest: int, *, has_row: bool) -> None:
        """Write a document's new digest, and whether it has a row."""
        connection.execute(
            "UPDATE pjais_documents SET digest = ?, has_row = ? WHERE doc = ?",
            (digest.to_bytes(16, "big"), has_row, doc),
        )

    @staticmethod
    def read(connection: Connection, doc: int) -> StoredDocument:
        """Return a document's bytes."""
        found = connection.execute(
            "SELECT through, snapshot FROM pjais_snapshots WHERE doc = ?", (doc,)
        ).fetchone()
        through, snapshot = found or (0, None)
        tail = connection.execute(
            'SELECT "update" FROM pjais_log WHERE doc = ? AND position > ? ORDER BY position', (doc, through)
        )
        return StoredDocument(snapshot, tuple(row[0] for row in tail))

    def write_snapshot(self, connection: Connection, doc: int, snapshot: bytes) -> None:
        """Let a snapshot stand for everything that the log has of a document so far."""
        through = self.next_position - 1
        connection.execute(
            "INSERT INTO pjais_snapshots(doc, through, snapshot) VALUES (?, ?, ?)"
            " ON CONFLICT (doc) DO UPDATE SET through = excluded.through, snapshot = excluded.snapshot",
            (doc, through, snapshot),
        )
        connection.execute(
            "DELETE FROM pjais_log WHERE doc = ? AND position <= ?"
            " AND position NOT IN (SELECT position FROM pjais_outbox)",
            (doc, through),
        )

    @staticmethod
    def read_tip(connection: Connection, doc: int) -> StoredTip | None:
        """Return a document's tip, None if it has none."""
        found = connection.execute("SELECT through, tip FROM pjais_tips WHERE doc = ?", (doc,)).fetchone()
        if found is None:
            return None
        through, tip = found
        tail = connection.execute(
            'SELECT client, "update" FROM pjais_log WHERE doc = ? AND position > ? ORDER BY position',
            (doc, through),
        )
        return StoredTip(tip, tuple(tail))

    def write_tip(self, connection: Connection, doc: int, tip: bytes | None) -> None:
        """Let a tip stand for everything that the log has of a document so far; None: it has none."""
        if tip is None:
            connection.execute("DELETE FROM pjais_tips WHERE doc = ?", (doc,))
            return
        connection.execute(
            "INSERT INTO pjais_tips(doc, through, tip) VALUES (?, ?, ?)"
            " ON CONFLICT (doc) DO UPDATE SET through = excluded.through, tip = excluded.tip",
            (doc, self.next_position - 1, tip),
        )

    @staticmethod
    def rename_client(connection: Connection, doc: int, old: int, new: int) -> None:
        """Call client ``old`` ``new`` in everything that the file has of a document."""
        connection.execute("DELETE FROM pjais_tips WHERE doc = ?", (doc,))
        for position, client, update in connection.execute(
            'SELECT position, client, "update" FROM pjais_log WHERE doc = ?', (doc,)
        ).fetchall():
            connection.execute(
                'UPDATE pjais_log SET client = ?, "update" = ? WHERE position = ?',
                (new if client == old else client, rename_client(update, old, new), position),
            )
        for (snapshot,) in connection.execute(
            "SELECT snapshot FROM pjais_snapshots WHERE doc = ?", (doc,)
        ).fetchall():
            connection.execute(
                "UPDATE pjais_snapshots SET snapshot = ? WHERE doc = ?",
                (rename_client(snapshot, old, new), doc),
            )


def _scalar(connection: Connection, statement: str) -> int:
    return int(connection.execute(statement).fetchone()[0])
