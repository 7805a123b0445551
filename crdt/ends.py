"""Where a list ends: what the origins of its items prove about the last one.

A conversation grows at its end, ten thousand times. As long as the end is known, an append is recognised by its origin
alone, and its rows are written without opening the document.
"""

from __future__ import annotations

from typing import Final

from crdt.grammar import Id

__all__ = ["Ends"]

# How many runs back a concurrent append is looked for; past it the end is unknown, and an update costs no more.
_RUNS_SEARCHED_MAX: Final = 64


class Ends:
    """The way to a list's end: a chain of items, each the next one's origin, of which the last is the list's last.

    The chain is kept as runs of one client's consecutive appends. Yjs orders items that name the same origin by
    client id and never puts one before its origin (YATA: Nicolaescu et al., 2016, as in yrs `Item::integrate`). So an
    item without a right origin

    - whose origin is the end is the new end, for there is nothing that it could be ordered against;
    - whose origin is not on the chain stays before the chain's next item, whatever else the list holds;
    - whose origin is on the chain competes with the chain's next item: the larger client id comes later. That
      is certain while the list has only ever been appended to.

    An insertion between two items of the chain, in that order, moves no end. Anything else makes the end unknown
    (``is_known``), until the index is built again.
    """

    __slots__ = ("is_known", "is_plain", "is_run_open", "runs", "tail")

    def __init__(self) -> None:
        self.tail: Id | None = None  # the last item, deleted or not; None when unknown or empty
        self.runs: list[tuple[int, int, int]] = []  # client, first clock, last clock
        self.is_known = True
        self.is_plain = True  # nothing was ever inserted before something
        self.is_run_open = False

    def copy(self) -> Ends:
        """Return an independent equal."""
        other = Ends()
        other.tail = self.tail
        other.runs = self.runs.copy()
        other.is_known = self.is_known
        other.is_plain = self.is_plain
        other.is_run_open = self.is_run_open
        return other

    def place(self, client: int, first: int, last: int, origin: Id | None, right: Id | None) -> None:
        """Follow a block of the list, ``first`` to ``last``; what it points at was placed before."""
        if not self.is_known:
            return
        if right is None and origin == self.tail:
            self._append(client, first, last)
            return
        self.is_run_open = False  # a later run of this client must not span this block
        if right is None:
            self._compete(client, first, last, origin)
        else:
            self.is_plain = False
            if origin is not None:
                left_run, right_run = self._run_of(origin), self._run_of(right)
                if left_run is None or right_run is None or (left_run, origin[1]) >= (right_run, right[1]):
                    self._lose()

    def _append(self, client: int, first: int, last: int) -> None:
        runs = self.runs
        if self.is_run_open and runs[-1][0] == client:
            runs[-1] = (client, runs[-1][1], last)
        else:
            runs.append((client, first, last))
        self.is_run_open = True
        self.tail = (client, last)

    def _lose(self) -> None:
        """Give up: from now on the end is unknown."""
        self.is_known = False
        self.tail = None
        self.runs.clear()

    def _compete(self, client: int, first: int, last: int, origin: Id | None) -> None:
        """Follow an append made by someone who had not seen the end."""
        runs = self.runs
        if origin is None:
            run, stays_until = -1, -1
        else:
            found = self._run_of(origin)
            if found is None:
                if len(runs) > _RUNS_SEARCHED_MAX:
                    self._lose()
                return
            run, stays_until = found, origin[1]
        is_inside = run >= 0 and stays_until < runs[run][2]
        rival = runs[run][0] if is_inside else runs[run + 1][0]
        if not self.is_plain or client == rival:
            self._lose()
        elif client > rival:
            del runs[run + 1 :]
            if is_inside:
                runs[run] = (rival, runs[run][1], stays_until)
            self._append(client, first, last)

    def _run_of(self, item: Id) -> int | None:
        """Return which run holds an item of this list, None for none of the latest."""
        client, clock = item
        runs = self.runs
        for run in range(len(runs) - 1, max(-1, len(runs) - 1 - _RUNS_SEARCHED_MAX), -1):
            holder, first, last = runs[run]
            if holder == client and first <= clock <= last:
                return run
        return None
