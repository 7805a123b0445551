"""A question is taken apart, neighbours share, and two lists become one order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client_sdk.embedding.vectors import normalised, quantised, unpacked
from client_sdk.ranking import (
    NAME_WEIGHT,
    NEIGHBOUR_SHARE,
    Neighbours,
    Question,
    best,
    fused,
    lengths,
    shared,
    understood,
)

NAMES = ("Caroline", "Melanie", "Will", "Dr. Ada King")
GROUPS = st.lists(st.integers(1, 5), max_size=8).map(lambda sizes: np.repeat(np.arange(len(sizes)), sizes))


def scores(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.asarray(values, np.float32)


# ---------------------------------------------------------------------------------------------- the question


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            "When did Caroline go to the support group?",
            Question(
                "When did go to the support group?", ("go", "support", "group"), frozenset({"Caroline"})
            ),
        ),
        (
            "what was melanie's and Caroline’s first trip?",
            Question("what was and first trip?", ("first", "trip"), frozenset({"Caroline", "Melanie"})),
        ),
        ("Will it rain?", Question("Will it rain?", ("rain",), frozenset())),
        ("What does Will cook?", Question("What does cook?", ("cook",), frozenset({"Will"}))),
        ("what will she cook", Question("what will she cook", ("cook",), frozenset())),
        ("Caroline", Question("Caroline", ("caroline",), frozenset({"Caroline"}))),
        ("Who is it?", Question("Who is it?", ("who", "is", "it"), frozenset())),
        ("the Carolines", Question("the Carolines", ("carolines",), frozenset())),
        ("", Question("", (), frozenset())),
        ("?!", Question("?!", (), frozenset())),
        ("Où est le vélo ?", Question("Où est le vélo ?", ("où", "est", "le", "vélo"), frozenset())),
    ],
)
def test_names_are_taken_out_and_words_that_tell_are_kept(asked: str, expected: Question) -> None:
    assert understood(asked, NAMES) == expected


def test_a_name_of_several_words_is_taken_out_whole() -> None:
    found = understood("What did Ada King publish with ada?", ["Ada King"])
    assert found == Question("What did publish with ?", ("publish",), frozenset({"Ada King"}))


def test_an_expression_matches_any_of_the_words() -> None:
    assert understood("the bike, AND the lock").match == '"bike" OR "lock"'
    assert understood("").match == ""


@given(st.text(), st.lists(st.text(max_size=8)))
def test_any_question_is_understood(asked: str, names: list[str]) -> None:
    found = understood(asked, names)
    assert found.names <= set(names)
    assert len(set(found.words)) == len(found.words)
    assert all('"' not in word for word in found.words)


# ----------------------------------------------------------------------------------------------- the neighbours


def test_rows_of_one_conversation_are_neighbours() -> None:
    found = Neighbours.in_order([7, 7, 7, 3, 4, 4])
    assert found.before.tolist() == [-1, 0, 1, -1, -1, 4]
    assert found.after.tolist() == [1, 2, -1, -1, 5, -1]


def test_a_row_has_a_share_of_its_neighbours_and_of_no_other_conversation() -> None:
    found = shared(scores(1, 0, 0, 8), Neighbours.in_order([1, 1, 1, 2]), 0.5)
    assert found.tolist() == [1, 0.5, 0, 8]


@given(GROUPS, st.integers(0, 2**32 - 1))
def test_a_shared_cosine_over_its_length_is_the_cosine_with_the_vectors_added(
    groups: np.ndarray[tuple[int], np.dtype[np.int64]], seed: int
) -> None:
    chance = np.random.default_rng(seed)
    vectors = normalised(chance.standard_normal((len(groups), 16)).astype(np.float32))
    query = normalised(chance.standard_normal((1, 16)).astype(np.float32))[0]
    neighbours = Neighbours.in_order(groups)
    added = vectors.copy()
    for row in range(len(groups)):
        for other in (row - 1, row + 1):
            if 0 <= other < len(groups) and groups[other] == groups[row]:
                added[row] += NEIGHBOUR_SHARE * vectors[other]
    ones = np.ones(len(groups), np.float32)
    found = shared(vectors @ query, neighbours) / lengths(ones, vectors, neighbours)
    assert found == pytest.approx(normalised(added) @ query, abs=1e-5)


def test_lengths_of_some_rows_are_those_of_all() -> None:
    vectors = normalised(np.random.default_rng(1).standard_normal((9, 16)).astype(np.float32))
    vectors[4] = 0
    scales, components = unpacked(quantised(vectors), dimensions=16)
    neighbours = Neighbours.in_order([1] * 5 + [2] * 4)
    some = np.asarray([8, 0, 4], np.int32)
    every = lengths(scales, components, neighbours)
    assert lengths(scales, components, neighbours, of=some).tolist() == every[some].tolist()
    assert lengths(scales, components, Neighbours.in_order(range(9))) == pytest.approx(1, abs=0.01)


# -------------------------------------------------------------------------------------------------- the order


def test_what_both_find_stands_above_what_one_finds() -> None:
    found = fused(text=scores(8, 8, 0, 0), meaning=scores(0.1, 0.5, 0.5, -0.3))
    assert best(found, 4).tolist() == [1, 2, 0]


def test_a_list_alone_counts_whole_and_a_list_that_found_nothing_does_no_harm() -> None:
    assert fused(text=scores(2, 4)).tolist() == [0.5, 1]
    assert fused(meaning=scores(-1, 0)).tolist() == [0, 0]
    only_meaning = fused(text=scores(0, 0), meaning=scores(0.2, 0.4))
    assert best(only_meaning, 2).tolist() == [1, 0]
    with pytest.raises(ValueError, match="neither"):
        fused()


def test_a_name_moves_what_was_found_and_finds_nothing_by_itself() -> None:
    found = fused(text=scores(10, 9, 0), is_named=np.asarray([False, True, True]))
    assert found == pytest.approx([1, 0.9 + NAME_WEIGHT, 0])


@given(arrays(np.float32, st.integers(0, 30), elements=st.floats(-4, 4, width=16)), st.integers(0, 40))
def test_the_best_are_the_best_in_order_and_the_earlier_of_equals(
    found: np.ndarray[tuple[int], np.dtype[np.float32]], limit: int
) -> None:
    expected = sorted(
        (row for row in range(len(found)) if found[row] > 0), key=lambda row: (-found[row], row)
    )
    assert best(found, limit).tolist() == expected[:limit]
