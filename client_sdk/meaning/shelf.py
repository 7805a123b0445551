"""Vectors in memory: of a collection's records, or of a list's items, by one model; compared exactly.

Each takes 4 + dimensions bytes and about 150 for its place, hash and neighbours: 100,000 of 384 dimensions 55 MB. At
most `ROWS_MAX` are held, the newest documents first; what is older is found by its words.

A row of these arrays is one text. Rows stay where they are: one that goes leaves a hole, which the next one fills. The
neighbours of an item are those just before and after it in its list (`client_sdk.ranking`).

Searches come from readers' threads and changes from others, so each takes the ``lock``, for milliseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from client_sdk.embedding.embedder import Vectors
from client_sdk.embedding.errors import VectorInvalid
from client_sdk.embedding.vectors import dot, unpacked
from client_sdk.meaning.stored import Stored
from client_sdk.ranking import Neighbours, Rows, Scores, lengths, shared

__all__ = ["HOLE", "POSITION_BITS", "ROWS_MAX", "Shelf", "key_of"]

ROWS_MAX: Final = 500_000
"""Texts: 270 MB of 384 dimensions. A person's conversations of ten years, 130 messages a day, are as many."""
POSITION_BITS: Final = 24  # as in the text index
HOLE: Final = -1
_ROWS_FIRST: Final = 256
_WHOLE_PAST: Final = 0.25  # of the rows: picking out more than that costs what comparing all does


def key_of(doc: int, position: int) -> int:
    """Return one number for a place, in the order of places."""
    return doc << POSITION_BITS | max(position, 0)


class Shelf:
    """The vectors of one field by one model."""

    def __init__(self, dimensions: int, *, is_list: bool) -> None:
        self.lock = threading.Lock()
        self.speakers: list[str] = []
        self.row_by_key: dict[int, int] = {}
        self.hashes: list[bytes] = []
        self.count = 0
        self._is_list = is_list
        self._holes: list[int] = []
        self._changed: set[int] = set()
        self._keys = np.full(_ROWS_FIRST, HOLE, np.int64)
        self._said_by = np.full(_ROWS_FIRST, -1, np.int32)
        self._scales = np.zeros(_ROWS_FIRST, np.float32)
        self._components = np.zeros((_ROWS_FIRST, dimensions), np.int8)
        self._lengths = np.ones(_ROWS_FIRST, np.float32)
        self._neighbours = Neighbours(np.empty(0, np.int32), np.empty(0, np.int32))

    @property
    def keys(self) -> npt.NDArray[np.int64]:
        """The place of each row (`key_of`), `HOLE` where there is none: shape (count,)."""
        return self._keys[: self.count]

    # -- Kept right

    def fill(self, rows: Sequence[Stored]) -> None:
        """Hold ``rows``, where nothing is held yet. Raises `VectorInvalid` for a damaged one."""
        if len(rows) < _ROWS_FIRST:
            self.replace((), rows)
            return
        scales, components = unpacked([row[4] for row in rows], dimensions=self._components.shape[1])
        with self.lock:
            self.count = len(rows)
            self._keys = np.fromiter((key_of(row[0], row[1]) for row in rows), np.int64, self.count)
            self._said_by = np.fromiter((self._code(row[3]) for row in rows), np.int32, self.count)
            self._scales, self._components = scales, components
            self._lengths = np.ones(self.count, np.float32)
            self.hashes = [row[2] for row in rows]
            self.row_by_key = dict(zip(self._keys.tolist(), range(self.count), strict=True))
            if self._is_list:
                self._changed = set(range(self.count))

    def sorted_out(self, rows: Sequence[Stored]) -> tuple[list[Stored], list[Stored]]:
        """Return the rows whose vectors are vectors of this model, and the damaged ones."""
        good: list[Stored] = []
        bad: list[Stored] = []
        for row in rows:
            try:
                unpacked([row[4]], dimensions=self._components.shape[1])
                good.append(row)
            except VectorInvalid:
                bad.append(row)
        return good, bad

    def replace(self, docs: Collection[int], rows: Sequence[Stored]) -> None:
        """Hold ``rows``, and nothing else of ``docs``. Raises `VectorInvalid` for a damaged row, changing nothing."""
        scales, components = unpacked([row[4] for row in rows], dimensions=self._components.shape[1])
        with self.lock:
            gone = self._rows_of(docs)
            at = np.empty(len(rows), np.intp)
            for place, (doc, position, hashed, speaker, _) in enumerate(rows):
                key = key_of(doc, position)
                row = self.row_by_key.get(key)
                if row is None:
                    row = self._new_row(key)
                gone.discard(row)
                at[place] = row
                self.hashes[row] = hashed
                self._said_by[row] = self._code(speaker)
            self._scales[at] = scales
            self._components[at] = components
            for row in gone:
                del self.row_by_key[int(self._keys[row])]
                self._keys[row], self._scales[row], self._said_by[row] = HOLE, 0, -1
                self._holes.append(row)
            if self._is_list:
                self._changed |= gone | set(at.tolist())

    def _rows_of(self, docs: Collection[int]) -> set[int]:
        if not self._is_list:
            return {self.row_by_key[key] for doc in docs if (key := key_of(doc, 0)) in self.row_by_key}
        if not docs or not self.count:
            return set()
        found = np.isin(self.keys >> POSITION_BITS, np.fromiter(docs, np.int64, len(docs)))
        return set(np.flatnonzero(found).tolist())

    def _new_row(self, key: int) -> int:
        if self._holes:
            row = self._holes.pop()
        else:
            row = self.count
            self.count += 1
            self.hashes.append(b"")
            if row == len(self._keys):
                self._grow(2 * row)
        self._keys[row] = key
        self.row_by_key[key] = row
        return row

    def _grow(self, size: int) -> None:
        def grown(held: npt.NDArray[Any], filled: int) -> npt.NDArray[Any]:
            larger = np.full((size, *held.shape[1:]), filled, held.dtype)
            larger[: len(held)] = held
            return larger

        self._keys = grown(self._keys, HOLE)
        self._said_by = grown(self._said_by, -1)
        self._scales = grown(self._scales, 0)
        self._components = grown(self._components, 0)
        self._lengths = grown(self._lengths, 1)

    def _code(self, speaker: str | None) -> int:
        if speaker is None:
            return -1
        if speaker not in self.speakers:
            self.speakers.append(speaker)
        return self.speakers.index(speaker)

    # -- Searched, under the lock

    def within(self, docs: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Return which rows are of these documents: shape (count,)."""
        if not docs or not self.count:
            return np.zeros(self.count, np.bool_)
        held = self.keys >> POSITION_BITS  # that of a hole is -1: the last place, which is no document's
        is_wanted = np.zeros(max(int(held.max()), int(np.max(docs))) + 2, np.bool_)
        is_wanted[np.asarray(docs)] = True
        found: npt.NDArray[np.bool_] = is_wanted[held]
        return found

    def cosines(self, query: Vectors, within: npt.NDArray[np.bool_] | None = None) -> Scores:
        """Return each row's cosine with a query, with its neighbours' share: shape (count,), 0 where not within."""
        scales, components = self._scales[: self.count], self._components[: self.count]
        if within is None or np.count_nonzero(within) > _WHOLE_PAST * self.count:
            scores = dot(scales, components, query)
            if within is not None:
                scores[~within] = 0
        else:
            rows = np.flatnonzero(within)
            scores = np.zeros(self.count, np.float32)
            scores[rows] = dot(scales[rows], components[rows], query)
        if not self._is_list:
            return scores
        self._find_neighbours()
        return shared(scores, self._neighbours) / self._lengths[: self.count]

    def with_neighbours(self, scores: Scores) -> Scores:
        """Return scores of shape (count,) with each row's share of its neighbours'."""
        if not self._is_list:
            return scores
        self._find_neighbours()
        return shared(scores, self._neighbours)

    def said_by(self, names: Collection[str]) -> npt.NDArray[np.bool_]:
        """Return which rows somebody of these names said: shape (count,)."""
        codes = [code for code, name in enumerate(self.speakers) if name in names]
        return np.isin(self._said_by[: self.count], codes) if codes else np.zeros(self.count, np.bool_)

    def vector(self, key: int) -> Vectors | None:
        """Return the vector at a place, None if there is none: shape (dimensions,)."""
        row = self.row_by_key.get(key)
        if row is None:
            return None
        found: Vectors = self._components[row].astype(np.float32) * self._scales[row]
        return found

    def _find_neighbours(self) -> None:
        if not self._changed:
            return
        keys = self.keys
        order = np.argsort(keys, kind="stable").astype(np.int32)
        ordered = keys[order]
        follows = (np.diff(ordered) == 1) & (ordered[:-1] != HOLE)
        before = np.full(self.count, -1, np.int32)
        after = np.full(self.count, -1, np.int32)
        after[order[:-1][follows]] = order[1:][follows]
        before[order[1:][follows]] = order[:-1][follows]
        touched = np.ones(self.count, np.bool_)
        old = self._neighbours
        known = len(old.before)
        touched[:known] = (before[:known] != old.before) | (after[:known] != old.after)
        changed = np.fromiter(self._changed, np.int32, len(self._changed))
        touched[changed] = True
        around: Rows = np.concatenate([before[changed], after[changed]])
        touched[around[around >= 0]] = True
        self._neighbours = Neighbours(before, after)
        rows = np.flatnonzero(touched).astype(np.int32)
        found = lengths(self._scales[: self.count], self._components[: self.count], self._neighbours, of=rows)
        self._lengths[rows] = found
        self._changed.clear()
