"""Many durations in little room: how many fell into each of some hundred buckets, each 4 % wider than the one before.

A bucket's width grows with what it holds, so every percentile is right to within 2 % of itself, whether it is a
microsecond or a minute: the method of DDSketch (Masson, Rim and Lee, VLDB 2019), and the idea of HdrHistogram. Adding
one costs a logarithm.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Histogram"]

_ERROR: Final = 0.02  # of a percentile, relative
_GROWTH: Final = (1 + _ERROR) / (1 - _ERROR)
_BUCKETS_A_NEPER: Final = 1 / math.log(_GROWTH)
# Seconds: what is shorter or longer counts as this. With them there are at most 520 buckets.
_LEAST: Final = 1e-6
_MOST: Final = 1e3


class Histogram:
    """Durations in seconds, as many as come."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.largest = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.total += seconds
        self.largest = max(self.largest, seconds)
        if not _LEAST <= seconds <= _MOST:
            seconds = _LEAST if seconds < _LEAST else _MOST
        bucket = math.ceil(math.log(seconds) * _BUCKETS_A_NEPER)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def quantile(self, share: float) -> float:
        """Return the seconds that ``share`` of all (0 to 1) did not exceed, to within 2 %; 0 where there is none."""
        rank = share * (self.count - 1)
        passed = 0
        for bucket in sorted(self._buckets):
            passed += self._buckets[bucket]
            if passed > rank:
                return min(2 * _GROWTH**bucket / (_GROWTH + 1), self.largest)
        return 0.0
