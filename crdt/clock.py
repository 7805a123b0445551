"""The hybrid logical clock: wall time that never runs backwards and follows what it sees.

Kulkarni, Demirbas et al., *Logical Physical Clocks* (2014), with both parts in one 64-bit number:
48 bits of milliseconds since 1970, 16 bits of counter. A reading orders edits; equal readings are ordered by
client id. The clock takes wall time as an argument and holds no source of its own.

A reading from the far future is stored with its edit, but does not pull this clock further ahead than
``CLOCK_DRIFT_MS_MAX``; since an edit deletes the entries that it has seen, one wrong clock cannot win for ever. Wall
time is held within ``WALL_MS_MAX`` (the year 6429), whatever a clock or the server's offset says: a reading then fits
into 63 bits, which is what databases hold.
"""

from __future__ import annotations

from typing import Final

from crdt.limits import CLOCK_DRIFT_MS_MAX

__all__ = ["COUNTER_BITS", "WALL_MS_MAX", "HybridClock", "offset_to_server", "reading_ms"]

COUNTER_BITS: Final = 16
WALL_MS_MAX: Final = (1 << 47) - 1 - CLOCK_DRIFT_MS_MAX


def reading_ms(reading: int) -> int:
    """Return the wall time of a reading, in milliseconds since 1970."""
    return reading >> COUNTER_BITS


def offset_to_server(server_ms: int, sent_ms: int, received_ms: int) -> int:
    """Return how far the server's clock is ahead, in milliseconds, by an answer given between two of our times.

    It is 0 where that can be, so that two devices of one machine agree however long their questions took; else the
    middle of the two is taken for the moment of the answer (Cristian, *Probabilistic Clock Synchronization*, 1989).
    """
    if sent_ms <= server_ms <= received_ms:
        return 0
    return server_ms - (sent_ms + received_ms) // 2


class HybridClock:
    """One device's clock. ``offset_ms`` corrects its wall time to the server's, learnt at Hello."""

    __slots__ = ("last", "offset_ms")

    def __init__(self, last: int = 0, offset_ms: int = 0) -> None:
        self.last = last
        self.offset_ms = offset_ms

    def tick(self, now_ms: int) -> int:
        """Return a reading later than every one before it."""
        self.last = max(self._wall_ms(now_ms) << COUNTER_BITS, self.last + 1)
        return self.last

    def observe(self, reading: int, now_ms: int) -> None:
        """Follow a reading seen in another device's edit, so that the next tick here is later than it."""
        bound = (self._wall_ms(now_ms) + CLOCK_DRIFT_MS_MAX) << COUNTER_BITS
        self.last = max(self.last, min(reading, bound))

    def _wall_ms(self, now_ms: int) -> int:
        return min(max(now_ms + self.offset_ms, 0), WALL_MS_MAX)
