"""A connection to the encrypted file, as every one of ours is made; and a transaction on it.

`Connection` is all that the package uses of ``sqlcipher3``, and `Connect` the seam: a simulation hands in one that
wraps the connection and stops before a chosen statement. Every statement goes through `Connection.execute` or
`executemany`, ``BEGIN`` and ``COMMIT`` as well.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar

from sqlcipher3 import dbapi2 as sqlcipher

from client_sdk.config import Config
from client_sdk.database.pages import salt_of
from client_sdk.errors import DamagedFile, FileUnreachable

__all__ = [
    "Connect",
    "Connection",
    "Cursor",
    "LockTaken",
    "Role",
    "configure",
    "connect_sqlcipher",
    "create",
    "find_damage",
    "transaction",
]

T = TypeVar("T")
Role = Literal["writer", "reader"]

_TRY_AGAIN_S: Final = 0.001  # between attempts at a lock that another instance holds


class LockTaken(Exception):
    """Another instance is writing, and this thread must not wait for it."""


class Cursor(Protocol):
    """What `Connection.execute` returns: the cursor of DB-API 2.0."""

    @property
    def rowcount(self) -> int:
        """Rows changed by the last statement."""

    @property
    def lastrowid(self) -> int | None:
        """The row id of the last insert."""

    @property
    def description(self) -> Sequence[Sequence[Any]] | None:
        """The columns, by name first; None without a result."""

    def fetchone(self) -> Any:
        """Return the next row as a tuple, or None."""

    def fetchall(self) -> list[Any]:
        """Return the rows that remain."""

    def fetchmany(self, size: int = ..., /) -> list[Any]:
        """Return up to ``size`` rows."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """The part of a ``sqlcipher3`` connection that this package uses, and so all that a stand-in must have."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Cursor:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Cursor:
        """Run one statement for each of many parameters."""

    def set_progress_handler(self, handler: Callable[[], int] | None, n: int) -> None:
        """Call ``handler`` every ``n`` steps; what it returns is whether to stop."""

    def create_function(self, name: str, narg: int, function: Callable[..., Any], /) -> None:
        """Let SQL call ``function``."""

    def interrupt(self) -> None:
        """Stop what runs; from any thread."""

    def close(self) -> None:
        """Close it."""


class Connect(Protocol):
    """The seam under the database: makes a connection to the file at ``path``, before its key is given."""

    def __call__(self, path: Path, *, role: Role, config: Config) -> Connection:
        """Return it in autocommit mode. Called on the thread that will use it."""


def connect_sqlcipher(path: Path, *, role: Role, config: Config) -> Connection:
    """Return a plain ``sqlcipher3`` connection."""
    del role  # the same for both
    connection: Connection = sqlcipher.connect(
        str(path),
        isolation_level=None,  # BEGIN and COMMIT are ours
        cached_statements=config.cached_statements,
        check_same_thread=False,  # one thread at a time, which `Lane` sees to
    )
    return connection


def create(path: Path, key: bytes, *, connect: Connect, config: Config) -> None:
    """Make a new file appear whole at ``path``: an empty one there is then always a damaged one.

    Raises `DamagedFile` where the log of a lost file still stands beside, for SQLite would write it into the new one.
    """
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise DamagedFile(path, f"the file is missing, and {log.name} still holds commits of it")
    draft = path.with_name(path.name + ".new")
    for suffix in ("", "-wal", "-shm", "-journal"):  # of a creation that was cut short
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    os.close(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    )  # SQLite gives its other files the same mode
    connection = connect(draft, role="writer", config=config)
    try:
        connection.execute(f"PRAGMA key = \"x'{key.hex()}{salt_of(key).hex()}'\"")
        connection.execute("PRAGMA journal_mode = WAL")  # writes the first page, with its fsync
    finally:
        connection.close()
    draft.rename(path)
    if os.name == "posix":  # a name is durable only once its folder is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def configure(
    connection: Connection, path: Path, *, key_specification: str, role: Role, config: Config
) -> None:
    """Give the connection its key and its options. Raises SQLite's error if the key does not open the file."""

    def pragma(name: str, value: object) -> Any:
        return connection.execute(f"PRAGMA {name} = {value}").fetchone()

    pragma("cipher_log_level", "NONE")  # it would write to stderr what our errors say
    # Wiping memory costs a bulk insert 20 % and hides little: key and contents are in Python's memory as well, unwiped.
    pragma("cipher_memory_security", "OFF")
    pragma("key", f'"{key_specification}"')
    pragma("busy_timeout", config.busy_timeout_ms)
    pragma("temp_store", "MEMORY")  # a temporary file would be in plain text
    pragma(
        "mmap_size", 0
    )  # a mapping of a file that is cut off kills the process, and SQLCipher gains nothing from one
    pragma("cache_size", -(config.cache_bytes >> 10))
    pragma("foreign_keys", "ON")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # here the key is tried
    if role == "reader":
        pragma("query_only", "ON")
        return
    mode = pragma("journal_mode", "WAL")
    if mode != ("wal",):
        raise FileUnreachable(path, f"its file system has no shared memory for the log (journal mode {mode})")
    pragma("synchronous", config.synchronous)
    pragma(
        "wal_autocheckpoint", 4 * config.wal_pages
    )  # a net: the log is copied between transactions, except in bulk
    pragma("journal_size_limit", config.wal_bytes_max)
    if sys.platform == "darwin":
        pragma(
            "fullfsync", "ON" if config.synchronous == "FULL" else "OFF"
        )  # fsync there does not reach the disk


def find_damage(connection: Connection) -> tuple[str, ...]:
    """Return what is wrong with the file, a line each: of each page's seal, the trees in them, and foreign keys."""
    found: list[str] = []
    for pragma in ("cipher_integrity_check", "integrity_check", "foreign_key_check"):
        try:
            rows = connection.execute(f"PRAGMA {pragma}").fetchall()
        except sqlcipher.Error as error:
            rows = [(f"{pragma}: {error}",)]
        found += [" ".join(map(str, row)) for row in rows if row != ("ok",)]
    return tuple(found)


def transaction(
    connection: Connection,
    begin: str,
    function: Callable[[Connection], T],
    *,
    undo: Callable[[], None] | None = None,
    wait_s: float | None = None,
) -> T:
    """Run ``function`` between ``begin`` and ``COMMIT``, and return its result; undo it if it raises anything.

    ``undo`` is called afterwards if it had begun and did not commit. ``wait_s``: how long to wait for a lock that
    another instance holds, where SQLite does not wait by itself. Raises `LockTaken` if it is 0.
    """
    if connection.in_transaction:  # an undoing that failed, as on a full disk
        connection.execute("ROLLBACK")
    _begin(connection, begin, wait_s)
    try:
        result = function(connection)
        connection.execute("COMMIT")
    except BaseException as error:
        try:
            if connection.in_transaction:  # SQLite undoes some by itself
                connection.execute("ROLLBACK")
        except BaseException as second:  # noqa: BLE001 - the first says what happened; the next transaction tries again
            error.add_note(f"and undoing it failed: {second}")
        if undo is not None:
            undo()
        raise
    return result


def _begin(connection: Connection, begin: str, wait_s: float | None) -> None:
    until = None if wait_s is None else time.monotonic() + wait_s
    while True:
        try:
            connection.execute(begin)
        except sqlcipher.OperationalError as error:
            is_taken = (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlcipher.SQLITE_BUSY
            if until is None or not is_taken:
                raise
            if not wait_s:
                raise LockTaken from error
            if time.monotonic() > until:
                raise
        else:
            return
        time.sleep(_TRY_AGAIN_S)
