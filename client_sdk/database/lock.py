"""One opening at a time owns a file: a lock that the operating system drops when its process dies, however it dies.

SQLite's own locks protect pages; two processes would still each keep documents in memory that the other has changed.
The lock is taken on a file beside the database (``notes.db.lock``), which stays there: to remove it would let two
processes lock two files of one name. It holds the process id of its owner, for the message of the second.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import Self

from client_sdk.errors import FileInUse, FileUnreachable, ReadOnlyFile

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["FileLock"]

_WINDOWS_LOCK_AT = 1 << 30  # bytes: Windows forbids reading what is locked, so it is far from the process id


class FileLock:
    """The lock of one database file, held until `release` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Take the lock of the database at ``path``, without waiting.

        Raises `FileInUse` (with the holder's process id), `FileUnreachable` and `ReadOnlyFile`.
        """
        beside = path.with_name(path.name + ".lock")
        try:
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600)
        except PermissionError as error:
            raise ReadOnlyFile(path) from error
        except OSError as error:
            if error.errno == errno.EROFS:
                raise ReadOnlyFile(path) from error
            raise FileUnreachable(path, error.strerror or str(error)) from error
        try:
            _lock(descriptor)
        except OSError as error:
            holder = os.read(descriptor, 20)
            os.close(descriptor)
            raise FileInUse(path, pid=int(holder) if holder.strip().isdigit() else None) from error
        with contextlib.suppress(
            OSError
        ):  # a full disk: the lock holds all the same, only the message is poorer
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
        return cls(descriptor)

    def release(self) -> None:
        """Give the lock back. A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _WINDOWS_LOCK_AT, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
