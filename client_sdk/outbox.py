"""The outbox: which updates the server has not acknowledged, in the order in which they were made.

A row points at its update in the log. ``n`` numbers the updates of one incarnation from 1; the outbox may
hold updates of earlier incarnations (the program was closed before they were sent), and sends the oldest
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from client_sdk.database import Connection
from crdt.wire import Edit, Refusal

__all__ = ["SCHEMA", "Outbox", "PendingBatch", "quarantine"]

SCHEMA: Final = (
    """CREATE TABLE pjais_outbox(
        position INTEGER PRIMARY KEY,
        incarnation INTEGER NOT NULL,
        n INTEGER NOT NULL,
        client INTEGER NOT NULL,
        collection TEXT NOT NULL,
        record TEXT NOT NULL
    )""",
    """CREATE TABLE pjais_quarantine(
        quarantine INTEGER PRIMARY KEY,
        collection TEXT NOT NULL,
        record TEXT NOT NULL,
        code TEXT NOT NULL,
        detail TEXT NOT NULL,
        source TEXT NOT NULL,
        "update" BLOB
    )""",
)


_MOVED: Final = (
    "moved/{}"  # in `pjais_meta`, by incarnation: the incarnation and client id that it has become
)


class PendingBatch(msgspec.Struct, frozen=True):
    """Consecutive updates of one incarnation, from number ``first`` on."""

    incarnation: int
    client: int
    first: int
    edits: list[Edit]
    last_position: int


class Outbox:
    """The next number of this incarnation, and how many updates are pending, kept in memory by the writer."""

    def __init__(self, connection: Connection, *, incarnation: int, client: int) -> None:
        self.incarnation = incarnation
        self.client = client
        self.next_n = 1
        self.pending = int(connection.execute("SELECT count(*) FROM pjais_outbox").fetchone()[0])

    def add(self, connection: Connection, first_position: int, records: Sequence[tuple[str, str]]) -> None:
        """Enter updates of (collection, record) that stand in the log from ``first_position`` on."""
        incarnation, client, n = self.incarnation, self.client, self.next_n
        connection.executemany(
            "INSERT INTO pjais_outbox(position, incarnation, n, client, collection, record) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (first_position + place, incarnation, n + place, client, collection, record)
                for place, (collection, record) in enumerate(records)
            ],
        )
        self.next_n += len(records)
        self.pending += len(records)

    def move(self, connection: Connection, old: int, incarnation: int, client: int) -> None:
        """Let what an incarnation has pending be another's, and leave word for the instance that writes as the old."""
        connection.execute(
            "UPDATE pjais_outbox SET incarnation = ?, client = ? WHERE incarnation = ?",
            (incarnation, client, old),
        )
        connection.execute(
            "INSERT INTO pjais_meta(name, value) VALUES (?, ?)",
            (_MOVED.format(old), msgspec.msgpack.encode((incarnation, client))),
        )

    def home(self, connection: Connection) -> tuple[int, int]:
        """Return the incarnation and client id to write under: others, if another instance has moved this one's."""
        home = (self.incarnation, self.client)
        while moved := connection.execute(
            "SELECT value FROM pjais_meta WHERE name = ?", (_MOVED.format(home[0]),)
        ).fetchone():
            home = msgspec.msgpack.decode(moved[0], type=tuple[int, int])
        return home

    @staticmethod
    def batch(
        connection: Connection, *, after_position: int, edits_max: int, bytes_max: int
    ) -> PendingBatch | None:
        """Return the next pending updates after a place in the log, all of one incarnation and consecutive.

        Where several instances write in turn, one batch passes over what the others wrote in between, and ends before
        a record that one of them touched: between records no order is needed, within one it is.
        """
        rows = connection.execute(
            'SELECT o.position, o.incarnation, o.n, o.client, o.collection, o.record, l."update"'
            " FROM pjais_outbox o JOIN pjais_log l ON l.position = o.position"
            " WHERE o.position > ? ORDER BY o.position LIMIT ?",
            (after_position, edits_max),
        )
        edits: list[Edit] = []
        head: tuple[int, int, int] | None = None
        passed: set[tuple[str, str]] = set()
        position = size = 0
        for at, incarnation, n, client, collection, record, update in rows:
            if head is None:
                head = (incarnation, client, n)
                passed = _passed_before(connection, after_position, incarnation)
            elif incarnation != head[0]:
                passed.add((collection, record))
                continue
            if (client, n) != (head[1], head[2] + len(edits)) or (collection, record) in passed:
                break
            if edits and size + len(update) > bytes_max:
                break
            edits.append(Edit(collection, record, update))
            position, size = at, size + len(update)
        if head is None or not edits:
            return None
        return PendingBatch(head[0], head[1], head[2], edits, position)

    def acknowledge(
        self, connection: Connection, incarnation: int, through: int, refusals: Sequence[Refusal]
    ) -> None:
        """Drop what the server has; what it refused is kept in quarantine, with its bytes."""
        for refusal in refusals:
            connection.execute(
                'INSERT INTO pjais_quarantine(collection, record, code, detail, source, "update")'
                " SELECT o.collection, o.record, ?, ?, 'push', l.\"update\" FROM pjais_outbox o"
                " JOIN pjais_log l ON l.position = o.position WHERE o.incarnation = ? AND o.n = ?",
                (refusal.code, refusal.detail, incarnation, refusal.n),
            )
        dropped = connection.execute(
            "DELETE FROM pjais_outbox WHERE incarnation = ? AND n <= ?", (incarnation, through)
        )
        self.pending -= max(dropped.rowcount, 0)


def _passed_before(connection: Connection, position: int, incarnation: int) -> set[tuple[str, str]]:
    """Return the records of earlier updates of other incarnations, which earlier batches passed over."""
    if not position:
        return set()
    rows = connection.execute(
        "SELECT collection, record FROM pjais_outbox WHERE position <= ? AND incarnation <> ?",
        (position, incarnation),
    )
    return set(rows.fetchall())


def quarantine(
    connection: Connection,
    collection: str,
    record: str,
    code: str,
    detail: str,
    source: str,
    update: bytes | None,
) -> None:
    """Keep what could not be taken, and why."""
    connection.execute(
        'INSERT INTO pjais_quarantine(collection, record, code, detail, source, "update") VALUES (?, ?, ?, ?, ?, ?)',
        (collection, record, code, detail, source, update),
    )
