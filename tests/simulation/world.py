"""Time, chance and order: a heap of timed events, run one at a time, each awaited to its end.

There is one asyncio loop, and nothing in it runs on its own: no timers, no background tasks, no real time. So a seed
decides everything, and the trace, which every event writes to, comes out the same. Time is simulated: a second costs
what happens in it.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
import traceback
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

__all__ = ["Broken", "World", "where"]

_EPOCH_MS: Final = 1_750_000_000_000
_TRACE_LINES_KEPT: Final = 400

Action = Callable[[], Awaitable[object]]


class Broken(Exception):
    """A law does not hold. ``law`` names it in a few words."""

    def __init__(self, law: str, detail: str) -> None:
        super().__init__(f"{law}: {detail}")
        self.law = law
        self.detail = detail


def where(error: BaseException) -> str:
    """Return an error with the line that raised it: an assertion alone says little."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error!r} at {Path(last.filename).name}:{last.lineno}: {last.line}"


class World:
    """One simulated world. ``now_ms`` is the true time, which no device's clock need agree with."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_ms = _EPOCH_MS
        self.faults: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=_TRACE_LINES_KEPT)
        self.events = 0
        self._hash = hashlib.blake2b(digest_size=8)
        self._heap: list[tuple[int, int, str, Action]] = []
        self._numbers = itertools.count()

    def chance(self, purpose: str) -> random.Random:
        """Return a source of chance for one purpose: what one draws does not change what another gets."""
        return random.Random(f"{self.seed}/{purpose}")

    def after(self, delay_ms: float, label: str, action: Action) -> None:
        """Let something happen later; what is due at the same time happens in the order in which it was asked for."""
        at = self.now_ms + max(0, int(delay_ms))
        heapq.heappush(self._heap, (at, next(self._numbers), label, action))

    def every(self, interval_ms: int, label: str, action: Action) -> None:
        """Let something happen again and again."""

        async def happen() -> None:
            await action()
            self.after(interval_ms, label, happen)

        self.after(interval_ms, label, happen)

    def fault(self, kind: str, detail: str = "") -> None:
        """Count a fault, and note it."""
        self.faults[kind] += 1
        self.note(f"FAULT {kind} {detail}".rstrip())

    def note(self, line: str) -> None:
        """Add a line to the trace. What it says must follow from the seed alone."""
        whole = f"{self.now_ms - _EPOCH_MS:>9} {line}"
        self.trace.append(whole)
        self._hash.update(whole.encode() + b"\n")

    @property
    def trace_hash(self) -> str:
        """The hash of the whole trace so far."""
        return self._hash.hexdigest()

    async def run(self, until: Callable[[], bool], *, within_ms: int) -> bool:
        """Run events until something is so; say whether it came to that within some simulated time."""
        end = self.now_ms + within_ms
        while not until():
            if not self._heap or self._heap[0][0] > end:
                return False
            self.now_ms, _, label, action = heapq.heappop(self._heap)
            self.events += 1
            try:
                await action()
            except Broken:
                raise
            except Exception as error:
                error.add_note(f"in the event {label!r}")
                raise
        return True
