"""Many durations in little room: how many fell into each of some hundred buckets, each 4 % wider than the one before.

A bucket's width grows with what it holds, so every percentile is right to within 2 % of itself, whether it is a
microsecond or a minute: the method of DDSketch (Masson, Rim and Lee, VLDB 2019), and the idea of HdrHistogram. Adding
one costs a logarithm. Two of them are merged by adding their counts, so `SlidingHistogram` keeps one for each part of
its time, and forgets the oldest.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

__all__ = ["Histogram", "SlidingHistogram"]

_ERROR: Final = 0.02  # of a percentile, relative
_GROWTH: Final = (1 + _ERROR) / (1 - _ERROR)
_BUCKETS_A_NEPER: Final = 1 / math.log(_GROWTH)
# Seconds: what is shorter or longer counts as this. With them there are at most 520 buckets.
_LEAST: Final = 1e-6
_MOST: Final = 1e3
_PARTS: Final = 5  # of the time that slides


class Histogram:
    """Durations in seconds, as many as come."""

    def __init__(self) -> None:
        self.count = 0
        self.largest = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.largest = max(self.largest, seconds)
        if not _LEAST <= seconds <= _MOST:
            seconds = _LEAST if seconds < _LEAST else _MOST
        bucket = math.ceil(math.log(seconds) * _BUCKETS_A_NEPER)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def merge(self, other: Histogram) -> None:
        """Count all that another has counted."""
        self.count += other.count
        self.largest = max(self.largest, other.largest)
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def quantile(self, share: float) -> float:
        """Return the seconds that ``share`` of all (0 to 1) did not exceed, to within 2 %; 0 where there is none."""
        rank = share * (self.count - 1)
        passed = 0
        for bucket in sorted(self._buckets):
            passed += self._buckets[bucket]
            if passed > rank:
                return min(2 * _GROWTH**bucket / (_GROWTH + 1), self.largest)
        return 0.0


class SlidingHistogram:
    """The durations of the last ``seconds``, or a fifth less: the parts of that time are forgotten one by one.

    ``now`` is a clock in seconds that never runs backwards.
    """

    def __init__(self, seconds: float) -> None:
        self._part_s = seconds / _PARTS
        self._parts: deque[tuple[int, Histogram]] = deque([(-1, Histogram())], maxlen=_PARTS)

    def add(self, seconds: float, now: float) -> None:
        """Count one that ended just now."""
        part, histogram = self._parts[-1]
        if now >= (part + 1) * self._part_s:
            histogram = Histogram()
            self._parts.append((int(now / self._part_s), histogram))
        histogram.add(seconds)

    def recent(self, now: float) -> Histogram:
        """Return all that is not forgotten."""
        oldest = int(now / self._part_s) - _PARTS + 1
        merged = Histogram()
        for part, histogram in self._parts:
            if part >= oldest:
                merged.merge(histogram)
        return merged
