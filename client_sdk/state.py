"""What the file says of itself in one row: how far it has read, what it comes to, its clock, its commits."""

from __future__ import annotations

import msgspec

from client_sdk.database import Connection

__all__ = ["SCHEMA", "State"]

SCHEMA = (
    """CREATE TABLE pjais_state(
        one INTEGER PRIMARY KEY CHECK (one = 1),
        generation TEXT NOT NULL,
        cursor INTEGER NOT NULL,
        digest BLOB NOT NULL,
        records INTEGER NOT NULL,
        clock INTEGER NOT NULL,
        commits INTEGER NOT NULL DEFAULT 0
    )""",
    "INSERT INTO pjais_state VALUES (1, '', 0, zeroblob(16), 0, 0, 0)",
)


class State(msgspec.Struct):
    """The row. ``digest`` is the sum of the records' digests, ``commits`` the number of transactions."""

    generation: str
    cursor: int
    digest: int
    records: int
    clock: int
    commits: int

    @classmethod
    def read(cls, connection: Connection) -> State:
        """Return what the file says."""
        generation, cursor, digest, records, clock, commits = connection.execute(
            "SELECT generation, cursor, digest, records, clock, commits FROM pjais_state"
        ).fetchone()
        return cls(generation, cursor, int.from_bytes(digest, "big"), records, clock, commits)

    def write(self, connection: Connection) -> None:
        """Let the file say it."""
        connection.execute(
            "UPDATE pjais_state SET generation = ?, cursor = ?, digest = ?, records = ?, clock = ?, commits = ?"
            " WHERE one = 1",
            (
                self.generation,
                self.cursor,
                self.digest.to_bytes(16, "big"),
                self.records,
                self.clock,
                self.commits,
            ),
        )
