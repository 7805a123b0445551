"""``python -m tests.simulation.mutants``, or ``make mutants``: does the simulation notice when something is broken?

Each mutant is a small change to a copy of the source, of the kind that a tired person makes: a check that is
left out, two statements in two transactions, a number that is not moved. Seeds are run on it until a law
breaks. One that breaks none within `SEEDS` seeds has survived, and the exit code is 1. ``MUTANT=word`` runs
those whose name has the word in it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Final, NamedTuple

from tests.simulation.seeds import cluster

__all__ = ["MUTANTS", "ROOT", "Mutant", "main"]

ROOT: Final = Path(__file__).resolve().parent.parent.parent
SEEDS: Final = 150
_JOBS: Final = 2
_PACKAGES: Final = ("crdt", "client_sdk", "server", "tests")
_TIMEOUT_S: Final = 900
_TWO = 'self.connection.execute("COMMIT"); self.connection.execute("BEGIN IMMEDIATE")'


class Mutant(NamedTuple):
    """A change of one place: ``old``, which stands in the file once, becomes ``new``."""

    name: str
    path: str
    old: str
    new: str


MUTANTS: Final = (
    # -- What a device makes durable, and when
    Mutant(
        "log and outbox in two transactions",
        "client_sdk/commit.py",
        "        self.outbox.add(self.connection, first, ",
        f"        {_TWO}\n        self.outbox.add(self.connection, first, ",
    ),
    Mutant(
        "edit and row in two transactions",
        "client_sdk/commit.py",
        "        self._record_local([(doc, table.name, record, update)])\n",
        f"        self._record_local([(doc, table.name, record, update)])\n        {_TWO}\n",
    ),
    Mutant(
        "cursor moved before the page's rows",
        "client_sdk/sync/replica.py",
        "    known = _known(corridor, [(entry.collection, entry.record) for entry in page.entries])\n",
        "    corridor.state.cursor = page.through\n    corridor.finish()\n"
        '    corridor.connection.execute("COMMIT")\n    corridor.connection.execute("BEGIN IMMEDIATE")\n'
        "    known = _known(corridor, [(entry.collection, entry.record) for entry in page.entries])\n",
    ),
    Mutant(
        "cursor not moved",
        "client_sdk/sync/replica.py",
        "    corridor.state.cursor = page.through\n",
        "",
    ),
    Mutant(
        "tables counted as filled before they are",
        "client_sdk/migrate.py",
        "(name, _EMPTY, ",
        "(name, table.fingerprint, ",
    ),
    # -- What it forgets when a transaction does not commit
    Mutant(
        "undo forgets the digest",
        "client_sdk/commit.py",
        "        self.state, self.clock.last, self.seals.keys, *identity = rest\n",
        "        _, self.clock.last, self.seals.keys, *identity = rest\n",
    ),
    Mutant(
        "undo forgets the documents",
        "client_sdk/commit.py",
        "        self.documents.undo()\n",
        "",
    ),
    Mutant(
        "undo forgets the next number",
        "client_sdk/commit.py",
        "(log.next_doc, log.next_position, outbox.next_n, outbox.pending, *rest) = self._before",
        "(log.next_doc, log.next_position, _, outbox.pending, *rest) = self._before",
    ),
    # -- Who writes
    Mutant(
        "incarnation not renewed at open",
        "client_sdk/opening.py",
        "opening=incarnation(sources.random(8)),",
        "opening=incarnation(__import__('pathlib').Path(path).parent.name.encode()[:8].ljust(8)),",
    ),
    Mutant(
        "client id not renewed at open",
        "client_sdk/opening.py",
        "client=client_id(sources.random(7)),",
        "client=client_id(__import__('pathlib').Path(path).parent.name.encode()[:7].ljust(7)),",
    ),
    # -- Outbox, log and snapshots
    Mutant(
        "acknowledged and not deleted",
        "client_sdk/outbox.py",
        "WHERE incarnation = ? AND n <= ?",
        "WHERE incarnation = ? AND n <= ? AND 0",
    ),
    Mutant(
        "outbox cleared on send",
        "client_sdk/sync/engine.py",
        "        self._instructions.append(Send(push))\n",
        "        self._instructions.append(Send(push))\n"
        "        self._instructions.append(Acknowledge(batch.incarnation, last, []))\n",
    ),
    Mutant(
        "a later incarnation overtakes an earlier one",
        "client_sdk/sync/engine.py",
        "        if self._is_turning:\n            return\n",
        "",
    ),
    Mutant(
        "compaction drops what is pending",
        "client_sdk/log.py",
        '            " AND position NOT IN (SELECT position FROM pjais_outbox)",\n',
        "",
    ),
    Mutant(
        "a snapshot stands for one update too many",
        "client_sdk/log.py",
        "        through = self.next_position - 1\n",
        "        through = self.next_position\n",
    ),
    # -- Rows and merging
    Mutant(
        "a tombstone leaves the row",
        "client_sdk/materialize.py",
        "if not had_row or (tombstone and contents.is_deleted):",
        "if not had_row:",
    ),
    Mutant(
        "a record received twice counts twice",
        "client_sdk/sync/replica.py",
        "        if key not in known:\n            if key in fresh:",
        "        if key not in known or entry.position % 7 == 0:\n            if key in fresh:",
    ),
    Mutant(
        "the earlier write wins",
        "crdt/contents.py",
        "if held is None or register[:2] > held[:2]:",
        "if held is None or register[:2] < held[:2]:",
    ),
    Mutant(
        "a counter keeps the last increment",
        "crdt/document.py",
        "to_int64((total_of(root[own]) if own in root else 0) + by)",
        "to_int64(by)",
    ),
    # -- The server's gate
    Mutant(
        "repeats are not known",
        "server/admit/decide.py",
        "range(max(0, through + 1 - push.first), len(push.edits))",
        "range(len(push.edits))",
    ),
    Mutant(
        "a gap is accepted",
        "server/admit/commit.py",
        "            if push.first > writing.through + 1:",
        "            if push.first > writing.through + 1_000_000:",
    ),
    Mutant(
        "what is remembered of a writer is believed",
        "server/admit/memory.py",
        "if writer is not None and writer.through == through:",
        "if writer is not None:",
    ),
    Mutant(
        "a failed commit is acknowledged",
        "server/admit/__init__.py",
        "            for waiting in batch:\n                waiting.fail(error)\n            return []",
        "            for waiting in batch:\n                push = waiting.checked.push\n                done = "
        "Ack(push.space, push.incarnation, waiting.checked.last)\n                "
        "waiting.succeed(Admitted(done, 0, 0))\n            return []",
    ),
    # -- The server's log, sessions and documents
    Mutant(
        "entries of older incarnations are skipped",
        "server/log.py",
        "NOT (device_id = $4 AND incarnation = $5)",
        "NOT (device_id = $4 AND $5::bigint > 0)",
    ),
    Mutant(
        "a page says that it reaches the head",
        "server/log.py",
        "entries[-1].position if is_cut else head",
        "head",
    ),
    Mutant(
        "others' entries between our own are skipped",
        "server/session/feed.py",
        "        if max(self.sent, self.own_through) == after:\n",
        "        if True:\n",
    ),
    Mutant(
        "a cursor amid documents goes on in the log",
        "server/session/__init__.py",
        "feed.by_documents = is_amid or await documents_pay",
        "feed.by_documents = await documents_pay",
    ),
    Mutant(
        "a changed document's old digest stays in the sum",
        "server/materialize/batch.py",
        " - (0 if document is None else document.digest)",
        "",
    ),
)


class Verdict(NamedTuple):
    """What came of a mutant (None: the source as it is): the law that it broke and at which seed, or neither."""

    mutant: Mutant | None
    law: str
    seed: int
    seconds: float


def main() -> int:
    """Run every mutant and print a table; return 1 if one survives."""
    word = os.environ.get("MUTANT", "")
    mutants = [mutant for mutant in MUTANTS if word in mutant.name]
    began = time.perf_counter()
    verdicts = []
    print(f"{'mutant':<52}{'caught by the law':<50}{'seed':>5}{'s':>7}")
    with cluster(_JOBS) as urls, ThreadPoolExecutor(_JOBS) as pool:
        idle: SimpleQueue[str] = SimpleQueue()
        for url in urls:
            idle.put(url)
        for mutant, verdict in zip(
            mutants,
            pool.map(lambda one: _judged(one, idle, first=0, seeds=SEEDS), mutants),
            strict=True,
        ):
            verdicts.append(verdict)
            seed = str(verdict.seed) if verdict.law else "-"
            print(
                f"{mutant.name:<52}{verdict.law or 'SURVIVED':<50}{seed:>5}{verdict.seconds:>7.1f}",
                flush=True,
            )
        # A law that breaks on the source as it is would catch anything.
        seeds = sorted({verdict.seed for verdict in verdicts if verdict.law})
        sound = list(pool.map(lambda seed: _judged(None, idle, first=seed, seeds=1), seeds))
    broken = [verdict for verdict in sound if verdict.law]
    for verdict in broken:
        print(f"without any mutant, seed {verdict.seed} breaks the law {verdict.law!r}: mend that first")
    caught = sum(bool(verdict.law) for verdict in verdicts)
    print(f"\n{caught} of {len(verdicts)} mutants caught, in {time.perf_counter() - began:.0f} s")
    return 0 if caught == len(verdicts) and not broken else 1


def _judged(mutant: Mutant | None, idle: SimpleQueue[str], *, first: int, seeds: int) -> Verdict:
    began = time.perf_counter()
    url = idle.get()
    try:
        with _copied(mutant) as folder:
            environment = {
                **os.environ,
                "PJAIS_SIMULATION_URL": url,
                "PYTHONPATH": str(folder),
                "SEEDS": str(seeds),
                "SEED": "",
                "FIRST": str(first),
                "STOP": "1",
            }
            ran = subprocess.run(
                [sys.executable, "-m", "tests.simulation"],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
    finally:
        idle.put(url)
    broken = re.search(r"^seed +(\d+) .*BROKEN: (.*)$", ran.stdout, re.MULTILINE)
    if broken is None and ran.returncode != 0:
        name = "no mutant" if mutant is None else mutant.name
        raise RuntimeError(
            f"{name}: the simulation did not run\n{ran.stdout[-2_000:]}\n{ran.stderr[-4_000:]}"
        )
    law, seed = (broken[2], int(broken[1])) if broken else ("", -1)
    return Verdict(mutant, law, seed, time.perf_counter() - began)


@contextmanager
def _copied(mutant: Mutant | None) -> Iterator[Path]:
    """Yield a copy of the source with the mutant in it."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="pjais-mutant-", dir=memory if memory.is_dir() else None))
    try:
        for package in _PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            path = folder / mutant.path
            text = path.read_text(encoding="utf-8")
            assert text.count(mutant.old) == 1, (
                f"{mutant.name}: its place stands {text.count(mutant.old)} times"
            )
            path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
