"""``python -m tests.simulation``, or ``make simulate``: run many seeds, or one again.

``SEEDS=200`` runs so many, ``FIRST`` says from which on (0); ``SEED=17`` runs one and prints its trace.
``DEVICES`` and ``OPERATIONS`` are for each seed (by default 3 to 5, and 200), ``JOBS`` is how many processes
share the seeds. ``STOP=1`` ends with the first seed that breaks a law. The exit code is 1 if one does; what
replays it is printed with it.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from tests.simulation.seeds import Task, cluster, devices_of, quieten, run_many, run_seed
from tests.simulation.simulation import Report

__all__ = ["main"]

_OPERATIONS = 200


def main() -> int:
    """Run what the environment asks for; return the exit code."""
    one = os.environ.get("SEED", "")
    first = int(one or os.environ.get("FIRST") or "0")
    seeds = range(first, first + (1 if one else int(os.environ.get("SEEDS") or "200")))
    operations = int(os.environ.get("OPERATIONS") or _OPERATIONS)
    tasks = [Task(seed, int(os.environ.get("DEVICES") or devices_of(seed)), operations) for seed in seeds]
    began = time.perf_counter()
    quieten()
    reports = []
    for report in _run(tasks):
        reports.append(report)
        print(_line(report), flush=True)
        if report.law:
            print(f"\n{report.story}", flush=True)
            if os.environ.get("STOP"):
                break
    _print_summary(reports, time.perf_counter() - began)
    if one:
        print("\n".join(reports[0].trace))
    return 1 if any(report.law for report in reports) else 0


def _run(tasks: list[Task]) -> Iterator[Report]:
    url = os.environ.get("PJAIS_SIMULATION_URL")  # of a migrated database that may be emptied
    if url:
        yield from (run_seed(task, url) for task in tasks)
    elif len(tasks) == 1:
        with cluster(1) as (only,):
            yield run_seed(tasks[0], only)
    else:
        yield from run_many(tasks, jobs=int(os.environ.get("JOBS") or "2"))


def _line(report: Report) -> str:
    return (
        f"seed {report.seed:>4}  {report.devices} devices  {report.edits:>4} edits  {report.rows:>4} rows  "
        f"{sum(report.faults.values()):>4} faults  {report.events:>6} events  {report.simulated_s:>5.0f} s simulated "
        f"in {report.seconds:>4.1f} s  {report.trace_hash}  {f'BROKEN: {report.law}' if report.law else 'ok'}"
    )


def _print_summary(reports: Iterable[Report], seconds: float) -> None:
    reports = list(reports)
    faults: Counter[str] = Counter()
    for report in reports:
        faults.update(report.faults)
    print(f"\n{'fault':<34}{'times':>8}{'seeds':>8}")
    for kind, count in sorted(faults.items()):
        print(f"{kind:<34}{count:>8}{sum(kind in report.faults for report in reports):>8}")
    print(
        f"\n{len(reports)} seeds, {sum(report.operations for report in reports)} operations, "
        f"{sum(report.edits for report in reports)} edits, {sum(report.rows for report in reports)} log rows, "
        f"{sum(report.events for report in reports)} events, "
        f"{sum(report.simulated_s for report in reports):.0f} simulated seconds in {seconds:.0f} s; "
        f"{sum(bool(report.law) for report in reports)} broke a law"
    )


if __name__ == "__main__":
    sys.exit(main())
