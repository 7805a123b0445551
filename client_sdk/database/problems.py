"""What SQLite and the operating system report, as errors that say what to do.

SQLite's result codes are at sqlite.org/rescode.html. What is not in this table is a bug of ours, or a constraint, and
passes as it is: `SqlError`, which is not ``sqlite3.Error``.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from pathlib import Path
from typing import Final

from sqlcipher3 import dbapi2 as sqlcipher

from client_sdk.errors import (
    DamagedFile,
    DiskFailed,
    DiskFull,
    FileInUse,
    FileProblem,
    FileUnreachable,
    ReadOnlyFile,
)

__all__ = ["IntegrityError", "SqlError", "errors_of", "problem_of", "problem_of_system"]

SqlError: Final[type[Exception]] = sqlcipher.Error
"""The base of SQLite's own errors."""

IntegrityError: Final[type[Exception]] = sqlcipher.IntegrityError
"""A row broke a constraint: the only one that a function given to ``write`` may catch and go on."""

_MOVED: Final = 0x408  # SQLITE_READONLY_DBMOVED
_ROOM_BYTES_MIN: Final = (
    1 << 20
)  # with less free, a failed write is a full disk: the log grows in steps of 32 KiB


class errors_of:  # noqa: N801 - reads as the clause that it is; a class, as a generator costs 2 µs more
    """A context that turns SQLite's errors about the file at ``path`` into ours."""

    __slots__ = ("path", "reading")

    def __init__(self, path: Path, *, reading: bool = False) -> None:
        self.path = path
        self.reading = reading  # then a refused write is not the file's fault: the connection allows none

    def __enter__(self) -> None:
        """Do nothing: what matters is how it ends."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            problem = problem_of(error, self.path)
            if problem is not None and not (self.reading and isinstance(problem, ReadOnlyFile)):
                raise problem from error


def problem_of(error: BaseException, path: Path) -> FileProblem | None:
    """Return our error for one of SQLite's about the file at ``path``, or None if it is not about the file."""
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(error, SqlError) or code is None:
        return None
    match code & 0xFF:  # the rest is detail
        case sqlcipher.SQLITE_FULL:
            return DiskFull(path)
        case sqlcipher.SQLITE_IOERR:
            return (
                DiskFull(path)
                if _has_no_room(path)
                else DiskFailed(path, getattr(error, "sqlite_errorname", "I/O error"))
            )
        case sqlcipher.SQLITE_READONLY:
            if code == _MOVED:
                return FileUnreachable(path, "it was moved or deleted while it was open")
            return ReadOnlyFile(path)
        case sqlcipher.SQLITE_CORRUPT | sqlcipher.SQLITE_NOTADB:
            return DamagedFile(path, str(error))
        case sqlcipher.SQLITE_BUSY | sqlcipher.SQLITE_LOCKED:
            return FileInUse(path, pid=None)
        case sqlcipher.SQLITE_CANTOPEN | sqlcipher.SQLITE_PERM:
            return FileUnreachable(path, str(error))
        case _:
            return None


def problem_of_system(error: OSError, path: Path) -> FileProblem:
    """Return our error for one of the operating system's about the file at ``path``, while it is opened."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return DiskFull(path)
        case errno.EROFS:
            return ReadOnlyFile(path)
        case _:
            return FileUnreachable(path, error.strerror or str(error))


def _has_no_room(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(path.parent).free < _ROOM_BYTES_MIN
    return False
