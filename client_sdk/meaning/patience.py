"""What came from other devices is left to them for a while: whoever wrote a text embeds it, and shares the vector.

A document is left for `LEFT_TO_DEVICES_S`, which begins anew with each one that another device serves. So a thousand
that come at the pace of an embedder are all waited for, each of them `LEFT_TO_DEVICES_S_MAX` at the most. While records
still come that vectors will follow, none is given up. What nobody serves is embedded here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final, TypeAlias

__all__ = ["LEFT_TO_DEVICES_S", "LEFT_TO_DEVICES_S_MAX", "Patience"]

LEFT_TO_DEVICES_S: Final = 3.0
"""Seconds in which a device embeds what it wrote, and shares it."""
LEFT_TO_DEVICES_S_MAX: Final = 600.0
"""Seconds after which a text is embedded here, whatever else comes."""

Ended: TypeAlias = Callable[[str, Collection[int]], None]


class Patience:
    """By collection, the documents that are left to other devices. Its methods belong to the event loop.

    ``ended`` gets those that nobody served; ``turned`` is called whenever there may be something to do.
    """

    def __init__(self, collections: Iterable[str], *, ended: Ended, turned: Callable[[], None]) -> None:
        #: Whether a connection is likely that has not come yet: then all that lacks vectors is left alone.
        self.is_expecting = False
        self._left: dict[str, dict[int, float]] = {name: {} for name in collections}  # document, since when
        self._ended = ended
        self._turned = turned
        self._is_catching_up: Callable[[], bool] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_on(self) -> bool:
        """Whether other devices share what they embed."""
        return self._is_catching_up is not None

    def count(self, collection: str | None = None) -> int:
        """Return how many documents are left, of one collection or of all."""
        return sum(map(len, self._left.values())) if collection is None else len(self._left[collection])

    def expect(self) -> None:
        """A connection is likely within moments."""
        self.is_expecting = True
        self._arm()

    def begin(self, is_catching_up: Callable[[], bool]) -> None:
        """Other devices share from now on; ``is_catching_up``: whether records come that vectors will follow."""
        self._is_catching_up = is_catching_up
        self.is_expecting = False
        self._turned()

    def end(self) -> None:
        """They no longer do: embed all of it here."""
        self._is_catching_up = None
        self._give_up()

    def leave(self, collection: str, docs: Iterable[int]) -> None:
        """Leave some documents to other devices."""
        now = asyncio.get_running_loop().time()
        left = self._left[collection]
        for doc in docs:
            left.setdefault(doc, now)
        if self._timer is None and left:
            self._arm()

    def served(self, collection: str, docs: Iterable[int]) -> None:
        """Another device has given vectors for these documents."""
        left = self._left[collection]
        if sum(left.pop(doc, None) is not None for doc in docs):
            if self.count():
                self._arm()
            else:
                self._disarm()
                self._turned()

    def _arm(self) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(LEFT_TO_DEVICES_S, self._look)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Give up, but not while records still come; those that have waited for too long in any case."""
        self.is_expecting = False
        if self._is_catching_up is None or not self._is_catching_up():
            self._give_up()
            return
        since = asyncio.get_running_loop().time() - LEFT_TO_DEVICES_S_MAX
        for name, left in self._left.items():
            if overdue := [doc for doc, began in left.items() if began <= since]:
                for doc in overdue:
                    del left[doc]
                self._ended(name, overdue)
        self._arm()

    def _give_up(self) -> None:
        self._disarm()
        self.is_expecting = False
        for name, left in self._left.items():
            docs = list(left)
            left.clear()
            self._ended(name, docs)
        self._turned()
