"""Who has a file open: locks that the operating system drops when their process dies, however it dies.

SQLite's own locks protect pages; two openings would still each keep documents in memory that the other has changed. So
one opening owns a file (`FileLock.own`), or several that watch one another share it (`FileLock.share`), and never both.

The lock is taken on a file beside the database (``notes.db.lock``), which stays there: to remove it would let two
processes lock two files of one name. It holds the process id of an owner, for the message of who is refused. POSIX
locks are flock's, which belong to an opening, not to a process: two openings in one process are kept apart as well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from pathlib import Path
from typing import Final, Self

from client_sdk.errors import FileInUse, FileUnreachable, ReadOnlyFile

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["BesideLock", "FileLock"]

_SEVERAL: Final = b"several"
_SHARE_S_MAX: Final = 30.0  # seconds that another instance may take to make the file, or its tables anew
_SHARE_AGAIN_S: Final = 0.01

_WINDOWS_LOCK_AT: Final = (
    1 << 30
)  # bytes: Windows forbids reading what is locked, so it is far from the process id
_WINDOWS_PLACES: Final = (
    64  # it knows no shared lock in this form: who shares has one of them, who owns has all
)


class BesideLock:
    """A file beside the database that can be locked: not at all, with others, or alone. `close` gives it up."""

    def __init__(self, path: Path, suffix: str) -> None:
        """Open it, or make it. Raises `FileUnreachable` and `ReadOnlyFile`."""
        try:
            self.descriptor = os.open(path.with_name(path.name + suffix), os.O_RDWR | os.O_CREAT, 0o600)
        except PermissionError as error:
            raise ReadOnlyFile(path) from error
        except OSError as error:
            if error.errno == errno.EROFS:
                raise ReadOnlyFile(path) from error
            raise FileUnreachable(path, error.strerror or str(error)) from error

    def lock(self, *, alone: bool) -> bool:
        """Take the lock, without waiting, or change from one kind to the other; say whether that was possible."""
        try:
            if sys.platform == "win32":
                self._lock_on_windows(alone=alone)
            else:
                fcntl.flock(self.descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def unlock(self) -> None:
        """Let others lock it."""
        if sys.platform == "win32":
            self._unlock_on_windows()
        else:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def read(self, size: int) -> bytes:
        """Return what the file holds, up to ``size`` bytes."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        return os.read(self.descriptor, size)

    def write(self, content: bytes) -> None:
        """Replace what the file holds. On a full disk it is left out: the lock holds all the same."""
        with contextlib.suppress(OSError):
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            os.write(self.descriptor, content)
            os.ftruncate(self.descriptor, len(content))

    def close(self) -> None:
        """Give everything up. A second call does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor != -1:
            os.close(descriptor)

    if sys.platform == "win32":
        _held: range | None = None

        def _lock_on_windows(self, *, alone: bool) -> None:
            self._unlock_on_windows()
            wanted = [range(_WINDOWS_PLACES)] if alone else [range(n, n + 1) for n in range(_WINDOWS_PLACES)]
            for places in wanted:
                os.lseek(self.descriptor, _WINDOWS_LOCK_AT + places.start, os.SEEK_SET)
                with contextlib.suppress(OSError):
                    msvcrt.locking(self.descriptor, msvcrt.LK_NBLCK, len(places))
                    self._held = places
                    return
            raise OSError(errno.EWOULDBLOCK, "locked")

        def _unlock_on_windows(self) -> None:
            if self._held is not None:
                os.lseek(self.descriptor, _WINDOWS_LOCK_AT + self._held.start, os.SEEK_SET)
                msvcrt.locking(self.descriptor, msvcrt.LK_UNLCK, len(self._held))
                self._held = None


class FileLock:
    """The lock of one database file, held until `release` or the end of the process.

    ``is_alone``: nobody else has the file open, nor can open it: always for an owner; for one of several, until
    `admit`.
    """

    def __init__(self, path: Path, beside: BesideLock, *, is_alone: bool) -> None:
        self.is_alone = is_alone
        self._path = path
        self._beside: BesideLock | None = beside

    @classmethod
    def own(cls, path: Path) -> Self:
        """Take the database at ``path`` for one opening, without waiting.

        Raises `FileInUse` (with the holder's process id), `FileUnreachable` and `ReadOnlyFile`.
        """
        beside = BesideLock(path, ".lock")
        if not beside.lock(alone=True):
            raise _in_use(path, beside)
        beside.write(b"%d\n" % os.getpid())
        return cls(path, beside, is_alone=True)

    @classmethod
    def share(cls, path: Path) -> Self:
        """Take the database at ``path`` for one of several openings. Blocks while another one prepares the file.

        Raises as `own`.
        """
        beside = BesideLock(path, ".lock")
        until = time.monotonic() + _SHARE_S_MAX
        while not ((is_alone := beside.lock(alone=True)) or beside.lock(alone=False)):
            content = beside.read(40)
            is_owned = bool(content) and _SEVERAL not in content
            if is_owned or time.monotonic() > until:
                raise _in_use(path, beside)
            time.sleep(_SHARE_AGAIN_S)
        beside.write(b"%d %s\n" % (os.getpid(), _SEVERAL))
        return cls(path, beside, is_alone=is_alone)

    def admit(self) -> None:
        """Let other instances in: what had to be done alone is done. Raises `FileInUse`."""
        if self.is_alone and self._beside is not None:
            self.is_alone = False
            if not self._beside.lock(alone=False):  # the two kinds are not changed in one step everywhere
                raise FileInUse(self._path, pid=None)

    def release(self) -> None:
        """Give the lock back. A second call does nothing."""
        beside, self._beside = self._beside, None
        if beside is not None:
            if self.is_alone:
                beside.write(b"")
            beside.close()


def _in_use(path: Path, beside: BesideLock) -> FileInUse:
    content = beside.read(40)
    beside.close()
    pid = content.split()[0] if content.split() else b""
    return FileInUse(path, pid=int(pid) if pid.isdigit() else None, are_several=_SEVERAL in content)
