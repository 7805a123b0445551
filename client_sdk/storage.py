"""A look at the room on the disk, every so often, in the background: who asked is told when a limit is passed, and
once more when it is not any longer.

::

    watching = client.watch_storage(tell, wal_bytes=256 << 20, free_bytes=1 << 30)

Nothing is done about it: what is large, `client.metrics()` says.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from client_sdk.sizes import FileSizes, file_sizes

__all__ = ["Limits", "StorageAlert", "StorageWatch"]

log = logging.getLogger(__name__)


class StorageAlert(msgspec.Struct, frozen=True):
    """What has passed its ``limit``, or has come back (``is_over`` is False): the file, its log (WAL), or the room
    that is free on the disk, which passes its limit downwards. In bytes.
    """

    what: Literal["file", "wal", "free"]
    bytes: int
    limit: int
    is_over: bool


class Limits(msgspec.Struct, frozen=True):
    """Bytes: at most of the file, and of its log; at least of room. None is not looked at.

    Raises:
        ValueError: there is nothing to look at.
    """

    file_bytes: int | None = None
    wal_bytes: int | None = None
    free_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.file_bytes is None and self.wal_bytes is None and self.free_bytes is None:
            raise ValueError("name a limit: file_bytes, wal_bytes or free_bytes")

    def judge(self, sizes: FileSizes) -> list[StorageAlert]:
        """Return how each that is looked at stands."""
        judged: list[StorageAlert] = []
        if self.file_bytes is not None:
            is_over = sizes.file_bytes > self.file_bytes
            judged.append(StorageAlert("file", sizes.file_bytes, self.file_bytes, is_over))
        if self.wal_bytes is not None:
            is_over = sizes.wal_bytes > self.wal_bytes
            judged.append(StorageAlert("wal", sizes.wal_bytes, self.wal_bytes, is_over))
        if self.free_bytes is not None:
            is_over = sizes.disk_free_bytes < self.free_bytes
            judged.append(StorageAlert("free", sizes.disk_free_bytes, self.free_bytes, is_over))
        return judged


class StorageWatch:
    """One look now, and one every so often. ``pause`` waits: a seam for tests."""

    def __init__(
        self,
        path: Path,
        limits: Limits,
        callback: Callable[[StorageAlert], Any],
        *,
        every: float,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if every <= 0:
            raise ValueError(f"every is {every:g} seconds, and must be more than none")
        self._path = path
        self._limits = limits
        self._callback = callback
        self._every = every
        self._pause = pause
        self._is_over: dict[str, bool] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                judged = self._limits.judge(file_sizes(self._path))
            except OSError:
                log.warning("the disk of %s did not answer; it is asked again", self._path, exc_info=True)
                judged = []
            for alert in judged:
                if alert.is_over != self._is_over.get(alert.what, False):
                    self._is_over[alert.what] = alert.is_over
                    await self._tell(alert)
            await self._pause(self._every)

    async def _tell(self, alert: StorageAlert) -> None:
        try:
            answer = self._callback(alert)
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            log.exception("a callback for storage failed; it is told of the next change")
