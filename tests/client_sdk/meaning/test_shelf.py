"""Vectors in memory: the cosines of exact search, after any changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.embedding.errors import VectorInvalid
from client_sdk.embedding.vectors import dequantised, normalised, quantised
from client_sdk.meaning.shelf import HOLE, Shelf, key_of
from client_sdk.meaning.stored import Stored

__all__: list[str] = []

DIMENSIONS = 8
QUERY = normalised(np.arange(1, DIMENSIONS + 1, dtype=np.float32)[None])[0]


def row(doc: int, position: int, seed: int, speaker: str | None = None) -> Stored:
    vector = np.random.default_rng(seed).standard_normal((1, DIMENSIONS)).astype(np.float32)
    return doc, position, seed.to_bytes(16, "big"), speaker, quantised(normalised(vector))[0]


def by_key(shelf: Shelf, scores: npt.NDArray[np.float32]) -> dict[int, float]:
    return {int(key): float(score) for key, score in zip(shelf.keys, scores, strict=True) if key != HOLE}


def expected(rows: list[Stored], *, is_list: bool) -> dict[int, float]:
    vectors = {
        key_of(one[0], one[1]): dequantised([one[4]], dimensions=DIMENSIONS)[0].astype(np.float64)
        for one in rows
    }
    found = {}
    for key, vector in vectors.items():
        whole = vector
        if is_list:
            whole = whole + 0.4 * (vectors.get(key - 1, 0 * vector) + vectors.get(key + 1, 0 * vector))
            whole = whole / np.linalg.norm(whole)
        found[key] = float(whole @ QUERY)
    return found


steps = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 4), st.integers(1, 1_000)), min_size=1, max_size=20
)


@given(steps=steps, is_list=st.booleans(), first=st.integers(0, 400))
def test_cosines_are_those_of_what_is_held_after_any_changes(
    steps: list[tuple[int, int, int]], is_list: bool, first: int
) -> None:
    held: dict[int, list[Stored]] = {
        doc: [row(doc, 0 if is_list else -1, doc)] for doc in range(10, 10 + first)
    }
    shelf = Shelf(DIMENSIONS, is_list=is_list)
    shelf.fill([one for rows in held.values() for one in rows])
    for doc, count, seed in steps:
        places = range(count) if is_list else range(-1, min(count, 1) - 1)
        held[doc] = [row(doc, place, seed + place + 1) for place in places]
        shelf.replace([doc], held[doc])
        with shelf.lock:
            found = by_key(shelf, shelf.cosines(QUERY))
        wanted = expected([one for rows in held.values() for one in rows], is_list=is_list)
        assert found == pytest.approx(wanted, abs=1e-5)


def test_a_filter_leaves_the_others_at_nothing() -> None:
    shelf = Shelf(DIMENSIONS, is_list=False)
    rows = [row(doc, -1, doc) for doc in range(1, 40)]
    shelf.replace((), rows)
    shelf.replace([7], [])
    whole = by_key(shelf, shelf.cosines(QUERY))
    for docs in ([3], [3, 7, 999], list(range(1, 30)), []):
        found = by_key(shelf, shelf.cosines(QUERY, shelf.within(docs)))
        wanted = {key: score if key >> 24 in docs else 0 for key, score in whole.items()}
        assert found == pytest.approx(wanted, abs=1e-6)


def test_who_said_what_is_known() -> None:
    shelf = Shelf(DIMENSIONS, is_list=True)
    said = [row(1, 0, 1, "Anna"), row(1, 1, 2, "Ben"), row(1, 2, 3), row(1, 3, 4, "Anna")]
    shelf.replace((), said)
    assert shelf.speakers == ["Anna", "Ben"]
    assert shelf.said_by({"Anna"}).tolist() == [True, False, False, True]
    assert shelf.said_by(set()).tolist() == [False] * 4


def test_a_damaged_row_changes_nothing() -> None:
    shelf = Shelf(DIMENSIONS, is_list=False)
    shelf.replace((), [row(1, -1, 1)])
    with pytest.raises(VectorInvalid):
        shelf.replace([1], [(1, -1, b"", None, b"short")])
    assert list(by_key(shelf, shelf.cosines(QUERY))) == [key_of(1, -1)]
