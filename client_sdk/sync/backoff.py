"""How long to wait before dialling again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from websockets.client import backoff

__all__ = ["delays"]

# Between half of it and all of it, by chance: a server that restarts is back within a second.
_S_MIN: Final = 0.2
_S_MAX: Final = 30.0  # a person who mends the network should not have to wait longer


def delays(random: Callable[[], float]) -> Iterator[float]:
    """Yield seconds, doubling; ``random`` gives numbers from 0 to 1."""
    # The first of `backoff` is for the very first connection of many clients; ours has been made by now.
    steps = backoff(initial_delay=0, min_delay=_S_MIN, max_delay=_S_MAX, factor=2)
    return (step * (1 + random()) / 2 for step in islice(steps, 1, None))
