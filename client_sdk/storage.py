"""A look at the room that is taken, every so often, in the background: who asked is told when a threshold is passed,
and once more when it is not any longer.

::

    watching = client.watch_storage(tell, every=60, thresholds={"wal_bytes": 256 << 20, "disk_free_bytes": 1 << 30})

What is near its threshold would pass it again and again, so it counts as back only once it is a twentieth of the
threshold away from it. The file system is asked on a thread, and what collections take on a reader's
(`client_sdk.sizes`), so a slow disk holds nobody up. Nothing is done about what is found: that is the application's.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from client_sdk.errors import ClosedClient
from client_sdk.sizes import FileSizes, Sizes, file_sizes

__all__ = ["StorageAlert", "StorageWatch", "check_thresholds"]

_BACK_SHARE: Final = 0.05  # of the threshold, that what passed it has to be away from it to count as back
_FILES: Final = frozenset({"file_bytes", "wal_bytes"})
_DISK: Final = "disk_free_bytes"
_COLLECTION: Final = re.compile(r"collection\.(\w+)\.bytes")

log = logging.getLogger(__name__)


class StorageAlert(msgspec.Struct, frozen=True):
    """What has passed its ``threshold``, or has come back (``is_over`` is False). In bytes.

    ``what`` is the name of the threshold. "disk_free_bytes" passes it downwards, all others upwards.
    """

    what: str
    bytes: int
    threshold: int
    is_over: bool


def check_thresholds(thresholds: Mapping[str, int], collections: Collection[str]) -> None:
    """Refuse thresholds that cannot be meant.

    Raises:
        ValueError: there is none, or one of another name, of an unknown collection, or of less than a byte.
    """
    known = [*sorted(_FILES), _DISK, *(f"collection.{name}.bytes" for name in sorted(collections))]
    if not thresholds:
        raise ValueError(f"name a threshold: {', '.join(known)}")
    for name, threshold in thresholds.items():
        if name not in known:
            raise ValueError(f"there is no threshold {name!r}; there are {', '.join(known)}")
        if threshold < 1:
            raise ValueError(f"the threshold {name} is {threshold} bytes, and must be at least one")


class StorageWatch:
    """One look now, and one every so often. ``sizes`` works out what collections take; ``pause`` waits."""

    def __init__(
        self,
        path: Path,
        thresholds: Mapping[str, int],
        callback: Callable[[StorageAlert], Any],
        *,
        every: float,
        sizes: Callable[[], Awaitable[Sizes]],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if every <= 0:
            raise ValueError(f"every is {every:g} seconds, and must be more than none")
        self._path = path
        self._thresholds = dict(thresholds)
        self._callback = callback
        self._every = every
        self._sizes = sizes
        self._pause = pause
        self._over: set[str] = set()

    async def run(self) -> None:
        """Look until cancelled, or until the client is closed."""
        while True:
            try:
                found = await self._look()
            except ClosedClient:
                return
            except Exception:
                log.warning(
                    "what %s takes up was not found; it is looked at again", self._path, exc_info=True
                )
                found = {}
            for name, size in found.items():
                await self._judge(name, size)
            await self._pause(self._every)

    async def _look(self) -> dict[str, int]:
        files = await asyncio.to_thread(file_sizes, self._path)
        found = {name: _of_files(files, name) for name in self._thresholds if name in {*_FILES, _DISK}}
        collections = {name: match[1] for name in self._thresholds if (match := _COLLECTION.fullmatch(name))}
        if collections:
            held = (await self._sizes()).collections
            found |= {name: held[collection].total_bytes for name, collection in collections.items()}
        return found

    async def _judge(self, name: str, size: int) -> None:
        threshold = self._thresholds[name]
        excess = threshold - size if name == _DISK else size - threshold
        if excess > 0 and name not in self._over:
            self._over.add(name)
        elif excess <= -threshold * _BACK_SHARE and name in self._over:
            self._over.discard(name)
        else:
            return
        await self._tell(StorageAlert(name, size, threshold, name in self._over))

    async def _tell(self, alert: StorageAlert) -> None:
        try:
            answer = self._callback(alert)
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            log.exception("a callback for storage failed; it is told of the next change")


def _of_files(files: FileSizes, name: str) -> int:
    size: int = getattr(files, name)
    return size
