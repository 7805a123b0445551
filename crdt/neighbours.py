"""How far yrs would walk to find an item's place: a bound, so that nobody can make it walk for hours.

yrs puts an item behind its origin by walking from there to its right origin, over what others put between the two
in the meantime (`Item::integrate`). Between honest devices that is a few steps. Made up by someone hostile,
144 KB of insertions took it 67 s, twice the bytes four times as long, and the interpreter's lock is held throughout.

So this keeps, for each item, the one that was put directly behind it last. Where the next one names that as its
right origin, or is the first, there is nothing to walk over. Where it does not, two have written in the same place at
the same time: from then on each further item there counts as many steps as the list has blocks, which is the
most that it can take. `crdt.updates` refuses an update past `STEPS_MAX` ("steps").
"""

from __future__ import annotations

from typing import Final, TypeAlias

from crdt.grammar import Id

__all__ = ["SNAPSHOT_STEPS_MAX", "STEPS_MAX", "Neighbours", "Place"]

Place: TypeAlias = tuple[str, str | None]  # root, and the key in a map

# Measured, the costliest 1,000,000 of these take yrs 28 ms, so one update at the very worst six seconds. It is room
# for 2,000 conflicts in one update to a text in 100,000 pieces.
STEPS_MAX: Final = 200_000_000
# A snapshot holds all the conflicts that its document ever had, most of them far cheaper than counted.
SNAPSHOT_STEPS_MAX: Final = 5_000_000_000

_SEVERAL: Final = (-1, -1)
_PIECES_A_BLOCK: Final = 3  # an item also cuts the blocks of both its origins in two


class Neighbours:
    """What stands directly behind each item. With a ``base`` it is a layer on top, which leaves the base as it is."""

    __slots__ = ("_base", "_behind", "_pieces", "steps")

    def __init__(self, base: Neighbours | None = None) -> None:
        self.steps = 0
        self._base = base
        self._behind: dict[Id | Place, Id] = {}  # by item, or by place for its start
        self._pieces: dict[Place, int] = {}

    def copy(self) -> Neighbours:
        """Return an independent equal."""
        other = Neighbours(self._base)
        other.steps = self.steps
        other._behind = self._behind.copy()
        other._pieces = self._pieces.copy()
        return other

    def insert(
        self,
        place: Place,
        item: Id,
        origin: Id | None,
        right: Id | None,
        following: Id | None,
        *,
        is_run: bool,
    ) -> None:
        """Follow an insertion into a list or a text.

        ``following`` is the item that the origin's own client wrote on behind it, if any; ``is_run`` says that
        this is such an item.
        """
        key = place if origin is None else origin
        behind = self.behind(key)
        if behind is None:
            behind = following
        if behind is None or behind == right:
            if not is_run or behind is not None:
                self._behind[key] = item
        else:
            self._behind[key] = _SEVERAL
            self.steps += self.pieces(place)
        self._pieces[place] = self._pieces.get(place, 0) + _PIECES_A_BLOCK

    def begin(self, place: Place, item: Id) -> None:
        """Follow a first entry under a map's key: yrs walks over those that others began."""
        if self.behind(place) is None:
            self._behind[place] = item
        else:
            self._pieces[place] = self._pieces.get(place, 1) + 1
            self.steps += self.pieces(place)

    def cut(self, place: Place) -> None:
        """Follow a deleted range, which cuts blocks at both its ends."""
        self._pieces[place] = self._pieces.get(place, 0) + 2

    def behind(self, key: Id | Place) -> Id | None:
        """Return what was put behind an item (or at the start of a place) last; None if nothing was."""
        found = self._behind.get(key)
        if found is None and self._base is not None:
            return self._base.behind(key)
        return found

    def pieces(self, place: Place) -> int:
        """Return how many blocks yrs may hold in a place, at most."""
        pieces = self._pieces.get(place, 0)
        return pieces if self._base is None else pieces + self._base.pieces(place)
