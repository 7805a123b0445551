"""A few fixed seeds keep every law, the same seed gives the same trace, and every mutant still has its place."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.ledger import DELETED, REMOVED, Edit, Fact, Key, expected_of
from tests.simulation.mutants import MUTANTS, ROOT, Mutant
from tests.simulation.seeds import Task, devices_of, run_seed
from tests.simulation.simulation import Report
from tests.simulation.world import Broken, World

__all__: list[str] = []

OPERATIONS = 120


@pytest.mark.parametrize("seed", range(8))
def test_after_the_faults_all_are_equal_and_nothing_is_lost(seed: int, database_url: str) -> None:
    report = run_seed(Task(seed, devices_of(seed), OPERATIONS), database_url)
    assert not report.law, report.story
    assert report.rows
    assert sum(report.faults.values())


def test_the_same_seed_gives_the_same_trace_in_another_process_with_other_hashes(database_url: str) -> None:
    here = run_seed(Task(3, 3, 60), database_url)
    other = run_seed(Task(4, 3, 60), database_url)
    environment = {
        **os.environ,
        "PJAIS_SIMULATION_URL": database_url,
        "SEED": "3",
        "DEVICES": "3",
        "OPERATIONS": "60",
        "PYTHONHASHSEED": "7",
    }
    there = subprocess.run(
        [sys.executable, "-m", "tests.simulation"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert here.trace_hash in there.stdout
    assert here.trace[-1] in there.stdout
    assert other.trace_hash != here.trace_hash


def test_a_broken_law_is_told_with_the_command_that_replays_it() -> None:
    report = Report(17, 3, 200, law="nothing is lost", detail="a write is not there", trace=["12 A update"])
    assert "make simulate SEED=17 DEVICES=3 OPERATIONS=200" in report.story
    assert "a write is not there" in report.story
    assert "12 A update" in report.story


def test_events_run_one_at_a_time_in_the_order_of_their_times() -> None:
    world, happened = World(1), []

    async def happen(name: str) -> None:
        happened.append((world.now_ms, name))

    begin_ms = world.now_ms
    for delay_ms, name in ((30, "last"), (10, "first"), (20, "second"), (20, "third")):
        world.after(delay_ms, name, lambda name=name: happen(name))  # type: ignore[misc]
    assert asyncio.run(world.run(lambda: len(happened) == 4, within_ms=1_000))
    assert [(at - begin_ms, name) for at, name in happened] == [
        (10, "first"),
        (20, "second"),
        (20, "third"),
        (30, "last"),
    ]
    assert not asyncio.run(world.run(lambda: False, within_ms=1_000))


def test_a_broken_law_ends_the_run() -> None:
    world = World(1)

    async def breaks() -> None:
        raise Broken("nothing is lost", "it is")

    world.after(1, "breaks", breaks)
    with pytest.raises(Broken, match="nothing is lost: it is"):
        asyncio.run(world.run(lambda: False, within_ms=10))


# ------------------------------------------------------------------------------------------------------ the ledger


def edit(client: int, start: int, *facts: Fact, reading: int = 1, seen: dict[int, int] | None = None) -> Edit:
    return Edit(
        device="d",
        incarnation=client,
        client=client,
        n=start + 1,
        start=start,
        end=start + 1,
        key=Key("notes", "1"),
        reading=reading,
        seen=seen or {},
        facts=facts,
    )


def test_the_ledger_expects_the_latest_of_the_writes_that_nobody_had_seen() -> None:
    early = edit(1, 0, Fact("set", "title", "early"), reading=9)
    after_it = edit(2, 0, Fact("set", "title", "after it"), reading=3, seen={1: 1})
    beside = edit(3, 0, Fact("set", "title", "beside"), reading=5)
    assert expected_of([early, after_it]).registers == {"title": "after it"}
    assert expected_of([early, after_it, beside]).registers == {"title": "beside"}
    gone = edit(3, 1, Fact("set", "title", REMOVED), Fact("set", DELETED, True), reading=6)
    assert expected_of([early, after_it, beside, gone]).registers == {"title": REMOVED, DELETED: True}


def test_the_ledger_expects_an_element_that_no_remover_had_seen() -> None:
    added = edit(1, 0, Fact("add", "tags", "red"))
    again = edit(2, 0, Fact("add", "tags", "red"))
    removed = edit(3, 0, Fact("remove", "tags", "red"), seen={1: 1})
    assert expected_of([added, removed]).sets == {"tags": set()}
    assert expected_of([added, again, removed]).sets == {"tags": {"red"}}


def test_the_ledger_expects_sums_and_what_was_put_in_and_not_taken_out() -> None:
    expected = expected_of(
        [
            edit(1, 0, Fact("count", "views", 2), Fact("put", "scores", (1, 2, 3))),
            edit(2, 0, Fact("count", "views", -5), Fact("take", "scores", (2,)), seen={1: 1}),
            edit(3, 0, Fact("take", "scores", (2, 3)), seen={1: 1}),
        ]
    )
    assert expected.counts == {"views": -3}
    assert dict(expected.pieces["scores"]) == {1: 1}


# ------------------------------------------------------------------------------------------------------ the mutants


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_changes_one_place(mutant: Mutant) -> None:
    assert (Path(ROOT) / mutant.path).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old


def test_there_are_enough_mutants() -> None:
    assert len(MUTANTS) >= 10
