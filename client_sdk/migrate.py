"""What stands in the file before anything runs: our own tables, and one for each declared collection.

A collection whose declaration changed has its tables dropped and made anew from the documents (`rebuild`), which hold
everything, also fields that no version here knows. One that is no longer declared loses its tables, not its documents.
A text index that looks damaged is made anew from the rows (`Table.is_indexed` says what is looked at).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from client_sdk.commit import Corridor
from client_sdk.database import Connection
from client_sdk.errors import DeclaredOtherwise, NewerFile
from client_sdk.log import SCHEMA as LOG_SCHEMA
from client_sdk.log import TIPS_SCHEMA
from client_sdk.materialize import write_whole_row
from client_sdk.meaning.stored import SCHEMA as VECTORS_SCHEMA
from client_sdk.meaning.stored import SINCE_2 as VECTORS_SINCE_2
from client_sdk.notices import SCHEMA as NOTICES_SCHEMA
from client_sdk.outbox import SCHEMA as OUTBOX_SCHEMA
from client_sdk.rows import Table
from client_sdk.state import SCHEMA as STATE_SCHEMA
from client_sdk.workload import SCHEMA as WORKLOAD_SCHEMA

__all__ = ["FORMAT", "join", "prepare", "rebuild"]

FORMAT: Final = 3

# The fingerprint of tables that are not filled yet: an opening that ends in between leaves them to the next one.
_EMPTY: Final = ""

_OWN = (
    "CREATE TABLE pjais_meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE pjais_tables(
        collection TEXT PRIMARY KEY,
        fingerprint TEXT NOT NULL,
        names TEXT NOT NULL
    ) WITHOUT ROWID""",
)

_ALL: Final = (
    *_OWN,
    *LOG_SCHEMA,
    *OUTBOX_SCHEMA,
    *STATE_SCHEMA,
    *NOTICES_SCHEMA,
    *WORKLOAD_SCHEMA,
    *VECTORS_SCHEMA,
)
_SINCE_1: Final = (  # what files of format 1 lack
    "ALTER TABLE pjais_state ADD COLUMN commits INTEGER NOT NULL DEFAULT 0",
    *NOTICES_SCHEMA,
    *WORKLOAD_SCHEMA,
    TIPS_SCHEMA,
    *VECTORS_SCHEMA,
)


_SINCE_2: Final = VECTORS_SINCE_2


def prepare(connection: Connection, tables: Iterable[Table], path: str | os.PathLike[str]) -> list[Table]:
    """Bring the file's tables up to date, and return those that must be filled from the documents.

    Raises:
        NewerFile: a newer version of this package made the file.
    """
    version = _version(connection, path)
    for statement in {0: _ALL, 1: _SINCE_1, 2: _SINCE_2}.get(version, ()):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    held = _held(connection)
    declared = {table.name: table for table in tables}
    stale = []
    for name, (fingerprint, names) in held.items():
        if name not in declared or declared[name].fingerprint != fingerprint:
            for old in names.split():
                connection.execute(f'DROP TABLE "{old}"')
            connection.execute("DELETE FROM pjais_tables WHERE collection = ?", (name,))
            connection.execute("UPDATE pjais_documents SET has_row = 0 WHERE collection = ?", (name,))
    for name, table in declared.items():
        if name in held and held[name][0] == table.fingerprint:
            if not table.is_indexed(connection):
                table.index_again(connection)
            continue
        for statement in table.statements():
            connection.execute(statement)
        connection.execute(
            "INSERT INTO pjais_tables(collection, fingerprint, names) VALUES (?, ?, ?)",
            (name, _EMPTY, " ".join(table.names)),
        )
        stale.append(table)
    return stale


def join(connection: Connection, tables: Iterable[Table], path: str | os.PathLike[str]) -> None:
    """See that the file's tables are as they must be, where other instances use them.

    Raises:
        NewerFile: a newer version of this package made the file.
        DeclaredOtherwise: they must be changed first, and other instances have the file open.
    """
    version = _version(connection, path)
    held = {name: fingerprint for name, (fingerprint, _) in _held(connection).items()} if version else {}
    declared = {table.name: table.fingerprint for table in tables}
    if version != FORMAT or held != declared:
        differing = {name for name, _ in held.items() ^ declared.items()}
        raise DeclaredOtherwise(Path(path), sorted(differing or held))


def _version(connection: Connection, path: str | os.PathLike[str]) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > FORMAT:
        raise NewerFile(Path(path), ours=FORMAT, theirs=version)
    return version


def _held(connection: Connection) -> dict[str, tuple[str, str]]:
    """Return each collection's fingerprint, and the names of its tables."""
    rows = connection.execute("SELECT collection, fingerprint, names FROM pjais_tables")
    return {name: (fingerprint, names) for name, fingerprint, names in rows}


def rebuild(corridor: Corridor, tables: Iterable[Table]) -> None:
    """Fill tables from their collections' documents."""
    for table in tables:
        documents = corridor.connection.execute(
            "SELECT doc, record FROM pjais_documents WHERE collection = ? ORDER BY doc", (table.name,)
        ).fetchall()
        for doc, record in documents:
            document = corridor.documents.get(doc)
            if write_whole_row(corridor.connection, table, doc, record, document.contents, had_row=False)[0]:
                corridor.connection.execute("UPDATE pjais_documents SET has_row = 1 WHERE doc = ?", (doc,))
        corridor.connection.execute(
            "UPDATE pjais_tables SET fingerprint = ? WHERE collection = ?", (table.fingerprint, table.name)
        )
