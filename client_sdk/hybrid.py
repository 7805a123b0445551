"""What words and meaning found of one collection, as one order: the recipe of `client_sdk.ranking` on a device's data.

Each row is one text: a record's own, or an item's. Those that have a vector come from the shelves; those that have none
yet, and were found by their words, stand behind them. A filter comes before any score.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from client_sdk.meaning.shelf import HOLE, POSITION_BITS, Shelf
from client_sdk.meaning.stored import field_of
from client_sdk.ranking import best, fused
from client_sdk.text_index import TextTable, spaced
from client_sdk.typed import TYPED_WORDS_MAX, Typed

if TYPE_CHECKING:
    from client_sdk.embedding.embedder import Vectors
    from client_sdk.meaning.meaning import Asking
    from client_sdk.ranking import Question, Scores

__all__ = ["Fused", "Placed", "expression"]

Matched: TypeAlias = Sequence[tuple[float, int]]  # FTS5's rank and rowid


class Placed(msgspec.Struct, frozen=True):
    """A row's place, its score, and what found it. ``hash``: of the text that its vector stands for."""

    table: TextTable
    doc: int
    position: int | None
    score: float
    found_by: frozenset[str]
    hash: bytes | None


def expression(question: Question, typed: Typed) -> str:
    """Return the FTS5 expression for a question: any of its words, the last one perhaps not typed to its end."""
    if any(" " in part for part in typed.parts):  # a phrase was asked for
        return typed.any
    words = [f'"{spaced(word)}"' for word in question.words[:TYPED_WORDS_MAX]]
    last = typed.parts[-1].casefold() if typed.parts else ""
    if words and typed.is_last_open and question.words[-1:] == (last,):
        words[-1] = f"{words[-1]} OR {words[-1]} *"
    return " OR ".join(words)


class _Part(msgspec.Struct):
    """One text table's rows: those on its shelf, then others."""

    table: TextTable
    keys: npt.NDArray[np.int64]
    words: Scores
    own: npt.NDArray[np.bool_]  # a word stands in the row itself, and not beside it
    meaning: Scores
    is_named: npt.NDArray[np.bool_]
    shelf: Shelf


class Fused:
    """Every row's score.

    ``matched``: of each text table what words found. ``docs``: the documents that fit the filter, None for all.
    """

    def __init__(
        self,
        asking: Asking,
        matched: Sequence[tuple[TextTable, Matched]],
        docs: Sequence[int] | None,
        *,
        is_text: bool,
        top: int,
        without: Collection[int] = (),
    ) -> None:
        assert asking.vector is not None
        names = asking.question.names if asking.question else frozenset[str]()
        parts = [
            _part(table, asking.shelves[field_of(table)], found, asking.vector, names, docs)
            for table, found in matched
        ]
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part.keys) for part in parts)])
        meaning = np.concatenate([part.meaning for part in parts])
        own = np.concatenate([part.own for part in parts])
        self._scores = fused(
            text=np.concatenate([part.words for part in parts]) if is_text else None,
            meaning=meaning,
            is_named=np.concatenate([part.is_named for part in parts]),
        )
        keys = np.concatenate([part.keys for part in parts])
        self._scores[keys == HOLE] = 0
        if without:
            self._scores[np.isin(keys >> POSITION_BITS, list(without))] = 0
        by_meaning = np.zeros(len(meaning), np.bool_)
        by_meaning[best(meaning, top)] = True
        self._found = {"text": own if is_text else np.zeros_like(own), "meaning": by_meaning}

    def best(self, count: int) -> list[Placed]:
        """Return the first rows, the best first."""
        return [self._placed(int(row)) for row in best(self._scores, count)]

    def _placed(self, row: int) -> Placed:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        part = self._parts[number]
        key = int(part.keys[row - self._starts[number]])
        held = part.shelf.row_by_key.get(key)
        found_by = frozenset(name for name, is_found in self._found.items() if is_found[row])
        return Placed(
            table=part.table,
            doc=key >> POSITION_BITS,
            position=key & ((1 << POSITION_BITS) - 1) if part.table.list_field else None,
            score=float(self._scores[row]),
            found_by=found_by or frozenset({"meaning"}),
            hash=None if held is None else part.shelf.hashes[held],
        )


def _part(
    table: TextTable,
    shelf: Shelf,
    matched: Matched,
    vector: Vectors,
    names: Collection[str],
    docs: Sequence[int] | None,
) -> _Part:
    bits = 0 if table.list_field else POSITION_BITS
    with shelf.lock:
        within = None if docs is None else shelf.within(docs)
        keys = shelf.keys.copy()
        words = np.zeros(len(keys), np.float32)
        others: list[tuple[int, float]] = []
        for rank, rowid in matched:
            row = shelf.row_by_key.get(rowid << bits)
            if row is None:
                others.append((rowid << bits, -rank))
            else:
                words[row] = -rank
        own = words > 0
        words = shelf.with_neighbours(words)
        meaning = shelf.cosines(vector, within)
        is_named = shelf.said_by(names)
    count = len(others)
    return _Part(
        table=table,
        keys=np.append(keys, np.array([key for key, _ in others], np.int64)),
        words=np.append(words, np.array([score for _, score in others], np.float32)),
        own=np.append(own, np.ones(count, np.bool_)),
        meaning=np.append(meaning, np.zeros(count, np.float32)),
        is_named=np.append(is_named, np.zeros(count, np.bool_)),
        shelf=shelf,
    )
