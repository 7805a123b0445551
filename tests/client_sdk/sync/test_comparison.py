"""When a digest counts, and when a difference is believed."""

from __future__ import annotations

import pytest

from client_sdk.sync.comparison import Comparison
from crdt import wire
from tests.client_sdk.sync.model import SPACE

THEIRS = wire.Verified(SPACE, 5, b"t" * 16, 3)
OTHER = b"o" * 16


@pytest.fixture
def comparison() -> Comparison:
    return Comparison()


def ask_and_answer(comparison: Comparison) -> None:
    assert comparison.ask()
    assert comparison.answer(THEIRS)


def differ_twice(comparison: Comparison) -> None:
    for _ in range(2):
        ask_and_answer(comparison)
        comparison.compare(OTHER, 4)


def test_equal_digests_and_numbers_are_equal_contents(comparison: Comparison) -> None:
    ask_and_answer(comparison)
    comparison.compare(THEIRS.digest, THEIRS.records)
    assert comparison.verified is True
    assert not comparison.ask(), "nothing is left to ask"


@pytest.mark.parametrize(("digest", "records"), [(OTHER, 3), (b"t" * 16, 4)])
def test_a_difference_is_believed_the_second_time(
    comparison: Comparison, digest: bytes, records: int
) -> None:
    for believed in (None, False):
        ask_and_answer(comparison)
        comparison.compare(digest, records)
        assert comparison.verified is believed
    assert comparison.difference is not None
    assert (comparison.difference.position, comparison.difference.ours) == (5, records)


def test_a_change_takes_back_what_was_known(comparison: Comparison) -> None:
    differ_twice(comparison)
    comparison.change()
    assert comparison.verified is None
    assert comparison.difference is None
    assert comparison.ask()


def test_a_doubt_does_not_outlive_a_change(comparison: Comparison) -> None:
    ask_and_answer(comparison)
    comparison.compare(OTHER, 4)
    comparison.change()
    ask_and_answer(comparison)
    comparison.compare(OTHER, 4)
    assert comparison.verified is None


def test_one_question_is_open_at_a_time(comparison: Comparison) -> None:
    assert comparison.ask()
    comparison.change()
    assert not comparison.ask()


def test_the_answer_to_a_question_from_before_a_change_does_not_count(comparison: Comparison) -> None:
    comparison.ask()
    comparison.change()
    assert not comparison.answer(THEIRS)
    assert comparison.ask()


def test_a_question_at_an_old_position_is_given_up(comparison: Comparison) -> None:
    comparison.ask()
    comparison.move()
    assert not comparison.answer(THEIRS)
    assert comparison.ask()


def test_an_answer_that_nobody_asked_for_does_not_count(comparison: Comparison) -> None:
    assert not comparison.answer(THEIRS)


def test_our_own_digest_from_before_a_change_does_not_count(comparison: Comparison) -> None:
    ask_and_answer(comparison)
    comparison.change()
    comparison.compare(THEIRS.digest, THEIRS.records)
    assert comparison.verified is None
