"""What a document knows about its items, without pycrdt: enough to judge the next update.

For each client the index keeps the clocks at which a run begins: items that follow one another in one root or key,
each the next one's origin. So any (client, clock) is found by one bisection. It is built by walking a snapshot
once and then follows each update. It holds no content, so a hot document can afford one.

Beyond places it knows four small things:

- where UTF-16 splits a character in two: pycrdt replaces both halves of one that is cut, on one device only;
- which entry each client wrote last under a map's key: an honest rewrite names it as its origin;
- which item is last in a list, as far as origins alone prove it (`crdt.ends`);
- which item stands directly behind another, as long as that is plain (`crdt.neighbours`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping

import msgspec

from crdt.ends import Ends
from crdt.grammar import Id, Range
from crdt.neighbours import Neighbours, Place

__all__ = ["CheckedUpdate", "DocumentIndex", "Draft", "Item", "Place", "low_halves"]


class Item(msgspec.Struct, frozen=True, gc=False):
    """One block of an update, its place resolved.

    ``length`` counts Yjs clock units (text: UTF-16 code units); ``values`` are the buffers' bytes (a map's entry has
    one, a list's block one or more), None for text and deleted content; ``key`` is None outside maps.
    """

    client: int
    clock: int
    length: int
    root: str
    key: str | None
    values: tuple[bytes, ...] | None
    text: str | None
    origin: Id | None
    right_origin: Id | None


class CheckedUpdate(msgspec.Struct, frozen=True):
    """What one update says, checked.

    It holds the client's clocks from ``start`` to ``end`` (exclusive); ``deletes`` are (client, start, end), sorted.
    ``touched`` names for each root the map keys that were written or deleted (none for lists and texts). ``appended``
    holds the new items of those lists where appending at the very end was all that the update did.
    """

    client: int
    start: int
    end: int
    items: tuple[Item, ...]
    deletes: tuple[Range, ...]
    touched: Mapping[str, frozenset[str]]
    appended: Mapping[str, tuple[bytes, ...]]
    is_creation: bool


def low_halves(text: str, clock: int) -> list[int]:
    """Return the clocks of the second halves of surrogate pairs, for text that begins at ``clock``."""
    halves: list[int] = []
    for character in text:
        clock += 1
        if character > "\uffff":
            halves.append(clock)
            clock += 1
    return halves


class _Known:
    """One client's items: the run at ``places[i]`` is from ``starts[i]`` to the next start, the last one to ``end``."""

    __slots__ = ("end", "halves", "last_by_place", "places", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.places: list[Place] = []
        self.end = 0
        self.halves: set[int] = set()
        self.last_by_place: dict[Place, int] = {}  # the clock of the last entry under a map's key

    def following(self, clock: int) -> bool:
        """Tell whether the item's run goes on behind it."""
        if clock + 1 >= self.end:
            return False
        starts = self.starts
        return starts[bisect_right(starts, clock + 1) - 1] <= clock

    def copy(self) -> _Known:
        other = _Known()
        other.starts = self.starts.copy()
        other.places = self.places.copy()
        other.end = self.end
        other.halves = self.halves.copy()
        other.last_by_place = self.last_by_place.copy()
        return other


class DocumentIndex:
    """What a document knows: built by `check_snapshot` or from nothing, then kept up by `add`."""

    __slots__ = ("_ends", "_known", "neighbours")

    def __init__(self) -> None:
        self.neighbours = Neighbours()
        self._known: dict[int, _Known] = {}
        self._ends: dict[str, Ends] = {}

    def __bool__(self) -> bool:
        return bool(self._known)

    @property
    def clocks(self) -> dict[int, int]:
        """The state vector: next clock by client."""
        return {client: known.end for client, known in self._known.items()}

    def next_clock(self, client: int) -> int:
        """Return the clock at which a client's next update starts."""
        known = self._known.get(client)
        return 0 if known is None else known.end

    def place(self, client: int, clock: int) -> Place | None:
        """Return where an item stands, None if it is unknown."""
        known = self._known.get(client)
        if known is None or clock >= known.end:
            return None
        return known.places[bisect_right(known.starts, clock) - 1]

    def places(self, client: int, start: int, end: int) -> list[Place]:
        """Return where the items of a range of clocks stand, one for each stretch; none if any is unknown."""
        known = self._known.get(client)
        if known is None or end > known.end:
            return []
        starts = known.starts
        return known.places[bisect_right(starts, start) - 1 : bisect_right(starts, end - 1)]

    def run_start(self, client: int, clock: int) -> int:
        """Return the clock at which the run of a (known) item starts."""
        starts = self._known[client].starts
        return starts[bisect_right(starts, clock) - 1]

    def starts(self, client: int) -> set[int]:
        """Return the clocks at which a client's runs start, and the next one's."""
        known = self._known.get(client)
        return set() if known is None else {*known.starts, known.end}

    def following(self, item: Id | None) -> Id | None:
        """Return the item that the same client wrote on behind a (known) one, in its run; None for none."""
        if item is not None and self._known[item[0]].following(item[1]):
            return item[0], item[1] + 1
        return None

    def is_split(self, client: int, clock: int) -> bool:
        """Tell whether a cut before ``clock`` would part the halves of a character."""
        known = self._known.get(client)
        return known is not None and clock in known.halves

    def last_entry(self, client: int, place: Place) -> int | None:
        """Return the clock of the last entry that a client wrote under a map's key."""
        known = self._known.get(client)
        return None if known is None else known.last_by_place.get(place)

    def last_entries(self, root: str) -> dict[str, Id] | None:
        """Return the last entry under each key of a map, deleted or not; None if a key has two clients' entries."""
        found: dict[str, Id] = {}
        for client, known in self._known.items():
            for (held, key), clock in known.last_by_place.items():
                if held == root and key is not None:
                    if key in found:
                        return None
                    found[key] = (client, clock)
        return found

    def has_list(self, root: str) -> bool:
        """Tell whether a list has, or ever had, items."""
        return root in self._ends

    def tail(self, root: str) -> Id | None:
        """Return the last item of a list, deleted or not; None when it is empty or origins alone do not tell."""
        ends = self._ends.get(root)
        return None if ends is None else ends.tail

    def add(self, update: CheckedUpdate) -> None:
        """Follow a checked update, after it was applied or kept."""
        client = update.client
        for item in update.items:
            self.put(
                client,
                item.clock,
                item.length,
                (item.root, item.key),
                item.text,
                item.origin,
                item.right_origin,
            )
        for deleted in update.deletes:
            self.cut(self.places(*deleted))

    def put(
        self,
        client: int,
        clock: int,
        length: int,
        place: Place,
        text: str | None,
        origin: Id | None,
        right: Id | None,
    ) -> None:
        """Follow one block, which starts at the client's next clock; what it points at was put before."""
        known = self._known.get(client)
        if known is None:
            known = self._known[client] = _Known()
        is_run = origin is not None and origin[1] == clock - 1 and origin[0] == client
        root, key = place
        if key is not None:
            known.last_by_place[place] = clock + length - 1
            if origin is None:
                self.neighbours.begin(place, (client, clock))
        else:
            self.neighbours.insert(
                place, (client, clock), origin, right, self.following(origin), is_run=is_run
            )
            if root[0] == "l":
                ends = self._ends.get(root)
                if ends is None:
                    ends = self._ends[root] = Ends()
                ends.place(client, clock, clock + length - 1, origin, right)
            elif text is not None and len(text) != length:
                known.halves.update(low_halves(text, clock))
        if not is_run:
            known.starts.append(clock)
            known.places.append(place)
        known.end = clock + length

    def cut(self, places: Iterable[Place]) -> None:
        """Follow the deletion of a range of items that stand there."""
        for place in places:
            if place[1] is None:
                self.neighbours.cut(place)

    def contradicted_by(self, other: DocumentIndex) -> int | None:
        """Return a client whose items stand elsewhere in the other document, as far as both know them.

        None if there is none. Two copies of one record never contradict one another, and only such may be merged:
        what one lacks points at items of the other, and pycrdt comes to harm where these are of another root or key.
        """
        for client, known in self._known.items():
            theirs = other._known.get(client)
            if theirs is None:
                continue
            end = min(known.end, theirs.end)
            ours_count, theirs_count = bisect_left(known.starts, end), bisect_left(theirs.starts, end)
            if (
                known.starts[:ours_count] != theirs.starts[:theirs_count]
                or known.places[:ours_count] != theirs.places[:theirs_count]
            ):
                return client
        return None

    def copy(self) -> DocumentIndex:
        """Return an independent equal."""
        other = DocumentIndex()
        other._known = {client: known.copy() for client, known in self._known.items()}
        other.neighbours = self.neighbours.copy()
        other._ends = {root: ends.copy() for root, ends in self._ends.items()}
        return other


class Draft:
    """A document's index with one client's update on top, which is still being judged."""

    __slots__ = ("_client", "_index", "_is_continued", "_known", "_start", "neighbours")

    def __init__(self, index: DocumentIndex, client: int, start: int) -> None:
        self._index = index
        self._client = client
        self._start = start
        self._known = _Known()
        self.neighbours = Neighbours(index.neighbours)
        self._is_continued = False  # the first block continues the index's last run

    def put(
        self, clock: int, length: int, place: Place, text: str | None, origin: Id | None, right: Id | None
    ) -> None:
        """Add a block of the update; the index stays as it is."""
        client, known = self._client, self._known
        is_run = origin is not None and origin[1] == clock - 1 and origin[0] == client
        if place[1] is not None:
            known.last_by_place[place] = clock + length - 1
            if origin is None:
                self.neighbours.begin(place, (client, clock))
        else:
            following = None
            if origin is not None:
                if origin[0] != client or origin[1] < self._start:
                    following = self._index.following(origin)
                elif known.following(origin[1]):
                    following = (client, origin[1] + 1)
            is_implied = is_run and clock != self._start
            self.neighbours.insert(place, (client, clock), origin, right, following, is_run=is_implied)
            if text is not None and len(text) != length:
                known.halves.update(low_halves(text, clock))
        if clock == self._start:
            self._is_continued = is_run
        if clock == self._start or not is_run:
            known.starts.append(clock)
            known.places.append(place)
        known.end = clock + length

    def place(self, client: int, clock: int) -> Place | None:
        """Return where an item stands, None if it is unknown."""
        if client != self._client or clock < self._start:
            return self._index.place(client, clock)
        known = self._known
        return known.places[bisect_right(known.starts, clock) - 1] if clock < known.end else None

    def places(self, client: int, start: int, end: int) -> list[Place]:
        """Return where the items of a range of clocks stand, one for each stretch; none if any is unknown."""
        index = self._index
        if client != self._client or end <= self._start:
            return index.places(client, start, end)
        known = self._known
        if end > known.end:
            return []
        before = index.places(client, start, self._start) if start < self._start else []
        first = max(0, bisect_right(known.starts, start) - 1)
        return before + known.places[first : bisect_right(known.starts, end - 1)]

    def run_start(self, client: int, clock: int) -> int:
        """Return the clock at which the run of a (known) item starts."""
        if client != self._client or clock < self._start:
            return self._index.run_start(client, clock)
        starts = self._known.starts
        start = starts[bisect_right(starts, clock) - 1]
        return (
            self._index.run_start(client, start - 1) if self._is_continued and start == self._start else start
        )

    def starts(self, client: int) -> set[int]:
        """Return the clocks at which a client's runs start, and the next one's."""
        starts = self._index.starts(client)
        return starts | {*self._known.starts, self._known.end} if client == self._client else starts

    def is_split(self, client: int, clock: int) -> bool:
        """Tell whether a cut before ``clock`` would part the halves of a character."""
        if client == self._client and clock in self._known.halves:
            return True
        return self._index.is_split(client, clock)

    def last_entry(self, client: int, place: Place) -> int | None:
        """Return the clock of the last entry that a client wrote under a map's key."""
        if client == self._client:
            clock = self._known.last_by_place.get(place)
            if clock is not None:
                return clock
        return self._index.last_entry(client, place)
