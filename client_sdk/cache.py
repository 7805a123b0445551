"""Results kept for a while, and kept true: what an application asks again and again is not read again.

A kept result is a live query without a listener (`client_sdk.watch`): a commit that touches it patches it,
and one that it cannot be patched with throws it away. So a hit is never older than the last commit. What is
kept ends after its time, or when the results together are larger than ``bytes_max``: the ones not asked for
longest go first.

Sizes are those of the records' JSON; as Python's objects they take about three times as much.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import msgspec

from client_sdk.listeners import Held
from client_sdk.views import View
from client_sdk.watch import Watches

__all__ = ["CacheCounts", "ResultCache"]

T = TypeVar("T")


class CacheCounts(msgspec.Struct):
    """How often a kept result was there and was not, how many were thrown away by commits, and what is kept now."""

    hits: int = 0
    misses: int = 0
    dropped: int = 0
    results: int = 0
    bytes: int = 0

    @property
    def hit_rate(self) -> float:
        """The share of hits, from 0 to 1."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class _Kept(msgspec.Struct):
    held: Held[Any]
    until: float
    size: int = 0


class ResultCache:
    """The results of queries that asked for it. ``now`` is a clock in seconds that never runs backwards."""

    def __init__(self, watches: Watches, *, bytes_max: int, now: Callable[[], float]) -> None:
        self.counts = CacheCounts()
        self._watches = watches
        self._bytes_max = bytes_max
        self._now = now
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    async def get(self, view: View[T], seconds: float) -> T:
        """Return a view's result: what is kept of it, or what is read now and then kept for ``seconds``."""
        key = view.key
        kept = self._kept.get(key)
        if kept is not None and kept.until <= self._now():
            self._forget(key)
            kept = None
        if kept is None:
            self.counts.misses += 1
            kept = self._kept[key] = _Kept(
                self._watches.hold(view, lambda: self._drop(key)), self._now() + seconds
            )
        else:
            self.counts.hits += 1
            self._kept.move_to_end(key)
        try:
            result: T = await kept.held.result()
        except BaseException:
            self._forget(key)
            raise
        if not kept.size and self._kept.get(key) is kept:
            self._weigh(kept, result)
        return result

    def clear(self) -> None:
        """Forget everything."""
        for key in list(self._kept):
            self._forget(key)

    def _weigh(self, kept: _Kept, result: Any) -> None:
        kept.size = len(msgspec.json.encode(result, enc_hook=str))
        self.counts.bytes += kept.size
        self.counts.results = len(self._kept)
        while self.counts.bytes > self._bytes_max and self._kept:
            self._forget(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        self.counts.dropped += 1
        self._forget(key)

    def _forget(self, key: Hashable) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            kept.held.close()
            self.counts.bytes -= kept.size
            self.counts.results = len(self._kept)
