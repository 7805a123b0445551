"""Who of several instances syncs, and how it stands: a lock that one of them holds, and a few bytes for the others.

Both are in a file beside the database (``notes.db.sync``). The lock goes with its process, however that ends. What is
posted is sealed with AES-256-GCM-SIV (RFC 8452) under a key derived from the database's, so that the disk gives nothing
away; it is replaced in place and without an fsync, for it is worth nothing once its writer is gone. A reader that comes
while it is being written finds that it does not open, and looks again later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from client_sdk import primitives
from client_sdk.database.lock import BesideLock
from client_sdk.sync.status import State

__all__ = ["Board", "Posted"]

_NONCE_BYTES: Final = 12
_POSTED_BYTES_MAX: Final = 4096
_CONTEXT: Final = b"pjais sync status v1"


class Posted(msgspec.Struct, frozen=True, array_like=True):
    """How it stands, as `client_sdk.sync.status.Status`, for all that the file holds up to its commit ``commits``.

    ``offset_ms``: what to add to the clock for the server's. ``error`` is the text of the last one, or empty.
    """

    commits: int
    state: State
    cursor: int
    head: int
    verified: bool | None
    error: str
    offset_ms: int


class Board:
    """The file beside the database at ``path``. ``random`` brings random bytes."""

    def __init__(self, path: Path, key: bytes, random: Callable[[int], bytes]) -> None:
        self._beside = BesideLock(path, ".sync")
        self._cipher = primitives.AESGCMSIV(key)
        self._random = random
        self._sealed = b""
        self._posted: Posted | None = None

    def take(self) -> bool:
        """Become the one who syncs, if nobody is; without waiting."""
        is_taken = self._beside.lock(alone=True)
        if is_taken:
            self._beside.write(b"")
        return is_taken

    def clear(self) -> None:
        """If nobody syncs, take away what was posted last. Not to be called by the one who does."""
        if self._beside.lock(alone=False):
            self._beside.write(b"")
            self._beside.unlock()

    def leave(self) -> None:
        """Let another one sync."""
        self._beside.write(b"")
        self._beside.unlock()

    def post(self, posted: Posted) -> None:
        """Tell the others how it stands."""
        nonce = self._random(_NONCE_BYTES)
        self._beside.write(nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(posted), _CONTEXT))

    def read(self) -> Posted | None:
        """Return what was posted last; None if nothing was."""
        sealed = self._beside.read(_POSTED_BYTES_MAX)
        if sealed != self._sealed:
            self._sealed = sealed
            if not sealed:
                self._posted = None
                return None
            try:
                opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _CONTEXT)
                self._posted = msgspec.msgpack.decode(opened, type=Posted)
            except (primitives.InvalidTag, ValueError):
                pass  # it is being written just now
        return self._posted

    def close(self) -> None:
        """Give everything up."""
        self._beside.close()
