"""What words and meaning found of one collection, as one order: the recipe of `client_sdk.ranking` on a device's data.

Each row is one text: a record's own, or an item's. Those that have a vector come from the shelves; those that have none
yet, and were found by their words, stand behind them. A filter comes before any score.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from client_sdk.matching import BEGINNING
from client_sdk.meaning.shelf import POSITION_BITS, Shelf
from client_sdk.meaning.stored import field_of
from client_sdk.ranking import best, fused
from client_sdk.text_index import TextTable
from client_sdk.typed import TYPED_WORDS_MAX, Typed
from crdt.words import spaced

if TYPE_CHECKING:
    from client_sdk.embedding.embedder import Vectors
    from client_sdk.meaning.meaning import Asking
    from client_sdk.ranking import Question, Scores

__all__ = ["Fused", "Placed", "expressions"]

T = TypeVar("T", bound=np.generic)

Matched: TypeAlias = Sequence[tuple[float, int]]  # FTS5's rank and rowid


class Placed(msgspec.Struct, frozen=True):
    """A row's place, its score, and what found it. ``hash``: of the text that its vector stands for."""

    table: TextTable
    doc: int
    position: int | None
    score: float
    found_by: frozenset[str]
    hash: bytes | None


def expressions(question: Question, typed: Typed) -> list[str]:
    """Return an FTS5 expression for each word of a question, of which the last is perhaps not typed to its end."""
    if any(" " in part for part in typed.parts):  # a phrase was asked for
        return typed.each
    words = [f'"{spaced(word)}"' for word in question.words[:TYPED_WORDS_MAX]]
    last = typed.parts[-1].casefold() if typed.parts else ""
    if words and typed.is_last_open and question.words[-1:] == (last,):
        words.append(f"{words[-1]}{BEGINNING}")
    return words


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
        meaning = _joined([part.meaning for part in parts])
        own = _joined([part.own for part in parts])
        self._scores = fused(  # 0 for a hole: it has no vector, no words and no neighbours
            text=_joined([part.words for part in parts]) if is_text else None,
            meaning=meaning,
            is_named=_joined([part.is_named for part in parts]),
        )
        if without:
            docs_of_rows = _joined([part.keys for part in parts]) >> POSITION_BITS
            self._scores[np.isin(docs_of_rows, list(without))] = 0
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
    return _Part(
        table=table,
        keys=_longer(keys, [key for key, _ in others]),
        words=_longer(words, [score for _, score in others]),
        own=_longer(own, [True] * len(others)),
        meaning=_longer(meaning, [0] * len(others)),
        is_named=_longer(is_named, [False] * len(others)),
        shelf=shelf,
    )


def _longer(rows: npt.NDArray[T], others: Sequence[Any]) -> npt.NDArray[T]:
    return np.append(rows, np.array(others, rows.dtype)) if others else rows


def _joined(arrays: Sequence[npt.NDArray[T]]) -> npt.NDArray[T]:
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
