"""The data folder: ours alone while we run, with the password and the log in it.

The lock is flock(2): the kernel gives it back however its holder dies, and it holds between two servers in
one process too.
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from server.errors import EmbeddedFailed, EmbeddedInUse

__all__ = ["DataFolder"]

_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_PASSWORD_BYTES: Final = 32
_LOG_BYTES_MAX: Final = 8 * 1024 * 1024  # at a start; the log before it is kept as postgres.log.1
_LOG_TAIL_LINES: Final = 20


class DataFolder:
    """What stands in ``path`` beside the cluster itself, which is in ``data``."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.data = self.path / "data"
        self.log = self.path / "postgres.log"
        self._lock: int | None = None

    def take(self) -> None:
        """Make the folder, if need be, and make it ours alone.

        Raises:
            EmbeddedInUse: another server has it.
            EmbeddedFailed: it cannot be used, or holds something else.
        """
        if sys.platform == "win32":
            raise EmbeddedFailed("the embedded Postgres does not run on Windows; use --database-url")
        import fcntl

        try:
            self.path.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            if any(self.path.iterdir()) and not (self.path / "lock").exists():
                raise EmbeddedFailed(
                    f"{self.path} holds something else; choose a new or an empty folder with --data"
                )
            self.path.chmod(_PRIVATE_FOLDER)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, _PRIVATE_FILE)
        except OSError as error:
            raise EmbeddedFailed(
                f"cannot use {self.path}: {error.strerror}; choose another with --data"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.pread(lock, 20, 0).decode("ascii", "replace")
            os.close(lock)
            raise EmbeddedInUse(str(self.path), f"process {pid}" if pid else "another process") from error
        os.truncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode("ascii"), 0)
        self._lock = lock

    def leave(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def password(self) -> str:
        """Return the password, made before the cluster and durable, so that a cluster never lacks it.

        Raises:
            EmbeddedFailed: there is a cluster without its password.
        """
        path = self.path / "password"
        if path.exists() and (password := path.read_text("ascii")):
            return password
        if self.data.exists():
            raise EmbeddedFailed(
                f"{path} is missing, and the cluster beside it opens with nothing else; put it back"
            )
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_FILE)
        try:
            os.write(descriptor, password.encode("ascii"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.sync()
        return password

    def sync(self) -> None:
        """Make new names in the folder durable."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def open_log(self) -> BinaryIO:
        """Open the log to append to; a long one is set aside first."""
        if self.log_size() > _LOG_BYTES_MAX:
            self.log.rename(self.log.with_suffix(".log.1"))
        return os.fdopen(os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _PRIVATE_FILE), "ab")

    def log_size(self) -> int:
        """Bytes in the log: a place to read it from later."""
        return self.log.stat().st_size if self.log.exists() else 0

    def log_tail(self, place: int) -> str:
        """The last lines of the log after ``place``, or "" if it cannot be read."""
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(place if place <= self.log_size() else 0)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
        return ""
