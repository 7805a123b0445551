"""A few fixed seeds keep every law, the same seed gives the same trace, and every mutant still has its place."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, ROOT, Mutant
from tests.simulation.seeds import Task, devices_of, run_seed
from tests.simulation.__main__ import told

OPERATIONS = 120


@pytest.mark.parametrize("seed", range(8))
def test_after_the_faults_all_are_equal_and_nothing_is_lost(seed: int, database_url: str) -> None:
    report = run_seed(Task(seed, devices_of(seed), OPERATIONS), database_url)
    assert not report.law, told(report)
    assert report.edits
    assert sum(report.faults.values())


def test_the_same_seed_gives_the_same_trace(database_url: str) -> None:
    first = run_seed(Task(3, 3, 60), database_url)
    again = run_seed(Task(3, 3, 60), database_url)
    assert first.trace == again.trace
    assert run_seed(Task(4, 3, 60), database_url).trace != first.trace


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old


def test_there_are_enough_mutants() -> None:
    assert len(MUTANTS) >= 10
