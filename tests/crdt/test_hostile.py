"""The short form of `tests.hostile`: what passes the check does pycrdt no harm; and the trial can tell harm."""

from __future__ import annotations

import pytest

from tests.crdt.histories import ROOTS
from tests.hostile import Child, Trial, run

__all__: list[str] = []

CASES = 3_000


def test_no_hostile_update_that_passes_the_check_does_harm() -> None:
    report = run(CASES, seed=20)
    assert report.cases == CASES
    assert report.is_good, report.as_json()
    assert report.outcomes["reload differs"] == 0
    assert report.passed > CASES / 20
    assert len(report.refused) > 15
    assert report.honest > 100


def test_one_seed_gives_one_run() -> None:
    first, second = (run(300, seed=4).as_json().partition('"seconds"')[0] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("base", "update", "outcome"),
    [
        ("01010300280103726567016101740131 00", "01010300000000", ("death", "panic", "pending")),
        ("", "010100010080808080000000000000", ("panic", "pending")),
        # its origin stands to the right of its right origin: a reload orders them otherwise
        (
            "0101070008 01066c6973743a6d 03 740131 740132 740133 00",
            "010107 03 c8 0702 0701 01 740134 00",
            ("reload differs", "snapshot refused"),
        ),
        # GC over clocks that nobody wrote
        ("", "01 01 07 00 00 05 00", ("panic", "pending", "snapshot refused")),
    ],
)
def test_what_the_check_refuses_would_do_harm(base: str, update: str, outcome: tuple[str, ...]) -> None:
    child = Child()
    try:
        trial = Trial(
            [bytes.fromhex(base)] if base else [],
            bytes.fromhex(update),
            [*ROOTS, "list:m"],
            [],
            {7: 4},
            {7: 4},
        )
        assert child.ask(trial).startswith(outcome)
    finally:
        child.stop()


def test_a_child_that_died_is_replaced() -> None:
    child = Child()
    try:
        good = Trial(
            [], bytes.fromhex("01 01 07 00 28 01 03 726567 01 61 01 74 01 31 00"), ROOTS, [], {7: 1}, {7: 1}
        )
        assert child.ask(good) == "passed"
        assert child._process is not None
        child._process.kill()
        child._process.wait()
        assert child.ask(good).startswith("death")
        assert child.ask(good) == "passed"
    finally:
        child.stop()
