"""A device's disk: its file as it stands at any moment, copied, put back, and cut off in the middle of a statement.

A process that dies leaves the file and its log exactly as they were. So the `Tripwire` copies both at the moment at
which it blows, and the copy takes the place of what an orderly closing, which a dead process does not get, makes of
them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from sqlcipher3 import dbapi2 as sqlcipher

from client_sdk.config import Config
from client_sdk.database import Connection, Cursor, Role, connect_sqlcipher
from tests.crashing import Crash

__all__ = ["Copy", "Disk", "FullDisk", "Tripwire"]

_NOT_COPIED: Final = (".lock", "-shm")

Copy = dict[str, bytes]
"""A disk's files, by name."""


class FullDisk(sqlcipher.OperationalError):  # type: ignore[misc]
    """What SQLite says when the disk is full."""

    sqlite_errorcode = sqlcipher.SQLITE_FULL
    sqlite_errorname = "SQLITE_FULL"


class Disk:
    """A folder with one device's file in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        self.path = folder / "device.db"

    def copy(self) -> Copy:
        """Return the files as they are now; the file may be open, between two statements."""
        return {
            path.name: path.read_bytes()
            for path in sorted(self.folder.iterdir())
            if not path.name.endswith(_NOT_COPIED)
        }

    def put_back(self, copy: Copy) -> None:
        """Replace the files, which nobody has open, by a copy."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        for name, data in copy.items():
            (self.folder / name).write_bytes(data)


class Tripwire:
    """Stands before each statement of the writer: lets it pass, kills the process, or says that the disk is full.

    Give `connect` to ``client_sdk.open``. Once it has blown, nothing passes any more.
    """

    def __init__(self, disk: Disk) -> None:
        self.left: Copy | None = None
        self.is_full = False
        self.is_blown = False
        self._disk = disk
        self._crash_in: int | None = None
        self._full_in: int | None = None
        self._is_held = False

    def crash_before(self, statements: int | None) -> None:
        """Die before the statement that comes after so many others; None: live."""
        self._crash_in = statements

    def fill_before(self, statements: int | None) -> None:
        """Refuse the statement that comes after so many others, and those after it until `make_room`."""
        self._full_in = statements

    def make_room(self) -> None:
        """Let statements pass again."""
        self.is_full, self._full_in = False, None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The observer reads: what it does is not counted."""
        self._is_held, before = True, self._is_held
        try:
            yield
        finally:
            self._is_held = before

    def blow(self) -> None:
        """Die now."""
        if not self.is_blown:
            self.is_blown = True
            self.left = self._disk.copy()

    def pass_one(self, sql: str) -> None:
        """Let one statement pass, or raise."""
        if self._is_held and not self.is_blown:
            return
        if self.is_blown or self._crash_in == 0:
            self.blow()
            raise Crash
        if self._crash_in is not None:
            self._crash_in -= 1
        if self._full_in is not None:
            self.is_full = self.is_full or self._full_in == 0
            self._full_in -= 1
        if self.is_full and sql.startswith(("INSERT", "UPDATE", "DELETE", "COMMIT", "CREATE")):
            raise FullDisk("database or disk is full")

    def connect(self, path: Path, *, role: Role, config: Config) -> Connection:
        """Make a connection, as `connect_sqlcipher` does."""
        raw = connect_sqlcipher(path, role=role, config=config)
        return _Wired(raw, self) if role == "writer" else raw


class _Wired:
    """The part of a connection that the SDK uses."""

    def __init__(self, raw: Any, wire: Tripwire) -> None:
        self._raw = raw
        self._wire = wire
        self.set_progress_handler: Callable[..., None] = raw.set_progress_handler
        self.set_authorizer: Callable[..., None] = raw.set_authorizer
        self.create_function: Callable[..., None] = raw.create_function
        self.interrupt: Callable[[], None] = raw.interrupt
        self.close: Callable[[], None] = raw.close

    @property
    def in_transaction(self) -> bool:
        return bool(self._raw.in_transaction)

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        self._wire.pass_one(sql)
        return self._raw.execute(sql, parameters)  # type: ignore[no-any-return]

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Cursor:
        self._wire.pass_one(sql)
        return self._raw.executemany(sql, parameters)  # type: ignore[no-any-return]
