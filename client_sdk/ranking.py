"""How what was found by words and what was found by meaning become one order. Pure functions on numbers and texts.

A question is taken apart (`understood`): the names of people in it say *who*, the rest says *what*. Each row then has
three numbers, which `fused` adds:

=========  =======================================================================  ==========
number     is                                                                       weight
=========  =======================================================================  ==========
text       bm25 of the question's words, the best row at 1                          0.4 (alone: 1)
meaning    the cosine with the question's vector, what is below 0 at 0, best at 1   0.6 (alone: 1)
name       1 where somebody whom the question names said it                         0.3
=========  =======================================================================  ==========

The sum is a convex combination of normalised scores, which keeps what reciprocal ranks throw away: how sure each list
is (Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", ACM TOIS 2023).

**A turn of a conversation is read with its neighbours.** "Yes, last June!" answers a question only beside the turn
before it. So each row's numbers take in a share of those of the rows before and after it (`shared`), as a passage is
scored with the text around it (Callan, "Passage-Level Evidence in Document Retrieval", SIGIR 1994; Fernández, Losada
and Azzopardi, "Extending the language modeling framework for sentence retrieval to include local context", Information
Retrieval 14, 2011). Nothing is indexed or embedded twice for it: shares are taken when a question is asked. For
meaning the result is the cosine with the *sum* of the three vectors, so it is divided by that sum's length (`lengths`),
which is kept beside the vectors. Records that stand alone have no neighbours, and all this does nothing.

**Names are not meaning.** "What did Anna cook?" is, to an embedding, most like "Hi Anna, how are you?": said to Anna by
somebody else. Names are taken out of what is embedded and matched, and come back as a number of their own.

The figures are in ``loadtests/README.md``; the weights stand on a plateau (any near ones do as well).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from crdt.ranking import NAME_WEIGHT, NEIGHBOUR_SHARE, TEXT_WEIGHT

__all__ = [
    "CANDIDATES",
    "NAME_WEIGHT",
    "NEIGHBOUR_SHARE",
    "STOPWORDS",
    "TEXT_WEIGHT",
    "Neighbours",
    "Question",
    "best",
    "fused",
    "lengths",
    "shared",
    "understood",
]

Rows: TypeAlias = npt.NDArray[np.int32]
Scores: TypeAlias = npt.NDArray[np.float32]

CANDIDATES: Final = 200
"""Rows asked of the full-text index: from 50 on, more changed nothing."""

_WORD: Final = re.compile(r"\w+")
_POSSESSIVE: Final = re.compile(r"['’]s\b")
_ROWS_AT_ONCE: Final = 4_096  # rows widened to float32 at once: 6 MB of 384 dimensions

STOPWORDS: Final = frozenset(
    _WORD.findall("""
        a about am an and any are as at be been being but by can could did do does doing done for from had has have
        having he her here hers him his how i if in into is it its may me might must my of on or our ours shall she
        should so some than that the their theirs them then there these they this those to us was we were what when
        where which who whom whose why how will with would you your yours
    """)
)
"""Words that say how a question is asked, not what about (English). A question of nothing else keeps them."""


# ---------------------------------------------------------------------------------------------- the question


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, taken apart."""

    text: str  # to be embedded
    words: tuple[str, ...]  # to be matched, each once, small
    names: frozenset[str]  # those of the known names that stand in it, as they are known

    @property
    def match(self) -> str:
        """An FTS5 expression: any of the words. Empty where there is no word."""
        return " OR ".join(f'"{word}"' for word in self.words)


def understood(asked: str, names: Iterable[str] = ()) -> Question:
    """Take a question apart. ``names`` are those of everybody who may have said something.

    A name counts where it, or its first word, stands as a whole word, in capitals or not. A name that is also a
    stopword (Will, May) counts where it is written as a name and does not begin the question. Linear in the names.
    """
    found = list(_WORD.finditer(asked))
    small = [word[0].casefold() for word in found]
    at = {word: place for place, word in reversed(list(enumerate(small)))}
    mentioned: set[str] = set()
    taken: set[int] = set()
    for name in names:
        parts = _WORD.findall(name)
        if not parts or (first := parts[0].casefold()) not in at:
            continue
        whole = [part.casefold() for part in parts]
        for place in range(at[first], len(small)):
            is_written_so = small[place] not in STOPWORDS or (place > 0 and found[place][0] == parts[0])
            if small[place] == first and is_written_so:
                mentioned.add(name)
                taken.update(
                    range(place, place + (len(whole) if small[place : place + len(whole)] == whole else 1))
                )
    text = _without(asked, [found[place] for place in sorted(taken)])
    if not _WORD.search(text):
        text = asked  # nothing but names: they are what is looked for
    words = dict.fromkeys(word.casefold() for word in _WORD.findall(text))
    telling = [word for word in words if word not in STOPWORDS]
    return Question(text.strip(), tuple(telling or words), frozenset(mentioned))


def _without(text: str, words: Iterable[re.Match[str]]) -> str:
    """Return a text without some of its words and their possessive ending."""
    kept, end = [], 0
    for word in words:
        kept.append(text[end : word.start()])
        ending = _POSSESSIVE.match(text, word.end())
        end = ending.end() if ending else word.end()
    return re.sub(r"\s+", " ", "".join([*kept, text[end:]]))


# ----------------------------------------------------------------------------------------------- the neighbours


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Which row stands before and after each in its conversation: row numbers of shape (rows,), -1 for none."""

    before: Rows
    after: Rows

    @classmethod
    def in_order(cls, groups: npt.ArrayLike) -> Neighbours:
        """Return those of rows that lie in order, row by row of the same group (a number a conversation)."""
        group = np.asarray(groups)
        row = np.arange(len(group), dtype=np.int32)
        is_joined = np.zeros(len(group) + 1, np.bool_)
        is_joined[1:-1] = group[1:] == group[:-1]
        none = np.int32(-1)
        return cls(np.where(is_joined[:-1], row - 1, none), np.where(is_joined[1:], row + 1, none))


def shared(scores: Scores, neighbours: Neighbours, share: float = NEIGHBOUR_SHARE) -> Scores:
    """Return each row's score with a share of its neighbours', of the shape of ``scores``: (rows,)."""
    padded = np.append(scores, np.float32(0))  # row -1
    around = padded[neighbours.before] + padded[neighbours.after]
    return scores + np.float32(share) * around


def lengths(
    scales: Scores,
    components: npt.NDArray[Any],
    neighbours: Neighbours,
    share: float = NEIGHBOUR_SHARE,
    *,
    of: Rows | None = None,
) -> Scores:
    """Return the length of each row's vector with a share of its neighbours'.

    ``shared(cosines) / lengths`` is the cosine with that sum. ``scales`` of shape (rows,) and ``components`` of shape
    (rows, dimensions) are as `client_sdk.embedding.vectors` keeps them. ``of`` names the rows that are wanted, default
    all: after a turn was added, it and the one before.
    """
    rows = np.arange(len(components), dtype=np.int32) if of is None else of
    found = np.empty(len(rows), np.float32)

    def wide(at: Rows) -> npt.NDArray[np.float32]:
        weights = np.where(at >= 0, scales[at], np.float32(0)) if len(scales) else scales[at]
        return components[at].astype(np.float32) * weights[:, None]

    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        around = wide(neighbours.before[block]) + wide(neighbours.after[block])
        found[start : start + len(block)] = np.linalg.norm(wide(block) + np.float32(share) * around, axis=1)
    return np.where(found > 0, found, np.float32(1))  # a row that says nothing stays at 0


# -------------------------------------------------------------------------------------------------- the order


def fused(
    *,
    text: Scores | None = None,
    meaning: Scores | None = None,
    is_named: npt.NDArray[np.bool_] | None = None,
) -> Scores:
    """Return one score a row, at most ``1 + NAME_WEIGHT``, 0 for what was not found. Arrays of shape (rows,).

    ``text`` is bm25 turned so that more is better, 0 where no word matched; ``meaning`` are cosines. Without one of
    them the other counts alone. A name moves what was found, and finds nothing by itself.
    """
    if text is not None and meaning is not None:
        found = np.float32(TEXT_WEIGHT) * _best_at_one(text)
        found += np.float32(1 - TEXT_WEIGHT) * _best_at_one(meaning)
    else:
        one = meaning if text is None else text
        if one is None:
            raise ValueError("neither text nor meaning: there is nothing to order")
        found = _best_at_one(one)
    if is_named is not None:
        found[is_named & (found > 0)] += np.float32(NAME_WEIGHT)
    return found


def _best_at_one(scores: Scores) -> Scores:
    best_score = scores.max(initial=0)
    if best_score <= 0:
        return np.zeros(len(scores), np.float32)
    at_most_one: Scores = np.maximum(scores, np.float32(0)) / best_score
    return at_most_one


def best(scores: Scores, limit: int) -> npt.NDArray[np.intp]:
    """Return the rows with the best scores above 0, the best first; of equals the earlier row. Linear in the rows."""
    if limit <= 0:
        return np.empty(0, np.intp)
    rows = np.flatnonzero(
        scores > 0
    )  # first, since a partition of many equal numbers takes ten times as long
    if len(rows) > limit:
        found = scores[rows]
        rows = rows[found >= np.partition(found, len(found) - limit)[len(found) - limit]]
    return rows[np.argsort(-scores[rows], kind="stable")][:limit]
