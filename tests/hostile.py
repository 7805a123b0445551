"""Hostile updates against the check, and whatever passes it against a real pycrdt: ``python -m tests.hostile COUNT``.

Each case takes a document in the middle of an honest history (`tests.crdt.histories`) and changes its next update, or
its snapshot: random bytes, bit flips, splices, inflated varints, cuts, and changes that know the grammar (other
clients, clocks, origins, roots, keys, content, counts, deleted ranges; `tests.crdt.forging`). Half of what passes
stays in the document, so that later cases meet a history that no honest device would have made.

What the check lets through is applied to a real document in a child process, which then reads everything, encodes
it, loads what it encoded, reads that, and takes the honest updates that follow. A panic, a hang, a death, an update
that does not arrive or a snapshot that the check refuses is a failure; a difference between a document and its
reload is counted, for folding compares them.

Everything follows from the seed (``SEED`` in the environment, 1 if it is not set).
"""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, Final

import msgspec
from pycrdt import Doc

from crdt.errors import UpdateRefused
from crdt.index import DocumentIndex
from crdt.updates import check_shape, check_snapshot, check_update, read_creation
from tests.crdt.forging import Forger
from tests.crdt.histories import ROOTS, Device, History, contents, state_of

__all__ = ["Report", "main", "run"]

CHILD_SILENT_S_MAX: Final = 10.0  # past this, it hangs
CHILD_MEMORY_BYTES_MAX: Final = 2 * 1024**3
CASES_BY_UPDATE: Final = 12
_LENGTH_BYTES: Final = 4
FATAL: Final = ("panic", "hang", "death", "muted", "pending", "snapshot refused")


# -------------------------------------------------------------------------------------------------------- the child


class Trial(msgspec.Struct, tag=True):
    """Apply ``update`` after ``base``, read everything, reload, then take ``later``."""

    base: list[bytes]
    update: bytes
    roots: list[str]
    later: list[bytes]
    clocks: dict[int, int]  # after the update
    clocks_later: dict[int, int]


def child() -> None:  # pragma: no cover - runs in a process of its own
    """Answer trials on standard input until it ends."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY_BYTES_MAX, CHILD_MEMORY_BYTES_MAX))
    while head := sys.stdin.buffer.read(_LENGTH_BYTES):
        trial = msgspec.msgpack.decode(sys.stdin.buffer.read(int.from_bytes(head, "big")), type=Trial)
        try:
            outcome = attempt(trial)
        except BaseException as error:  # noqa: BLE001 - pycrdt's panics are BaseExceptions
            outcome = f"panic: {type(error).__name__}: {error}"
        _send(sys.stdout.buffer, outcome.encode())


def attempt(trial: Trial) -> str:
    """Do what a device or the server would do with the update; say how it went."""
    doc: Doc[Any] = Doc(client_id=2**53 - 2)
    for update in trial.base:
        doc.apply_update(update)
    contents(doc, trial.roots)
    doc.apply_update(trial.update)
    after = contents(doc, trial.roots)
    if state_of(doc) != trial.clocks:
        return "pending"
    snapshot = doc.get_update()
    reload: Doc[Any] = Doc()
    reload.apply_update(snapshot)
    is_different = contents(reload, trial.roots) != after
    reload.get_update()
    try:
        if check_snapshot(snapshot).clocks != trial.clocks:
            return "snapshot refused: other clocks"
    except UpdateRefused as refused:
        return f"snapshot refused: {refused}"
    for update in trial.later:
        doc.apply_update(update)
    contents(doc, trial.roots)
    if state_of(doc) != trial.clocks_later:
        return "muted"
    device = Device(2**53 - 3)
    device.apply(doc.get_update())
    device.edit(random.Random(len(trial.update)), operations=6)
    contents(device.doc, trial.roots)
    device.close()
    return "reload differs" if is_different else "passed"


def _send(pipe: IO[bytes], body: bytes) -> None:
    pipe.write(len(body).to_bytes(_LENGTH_BYTES, "big") + body)
    pipe.flush()


class Child:
    """A process that may die."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, trial: Trial) -> str:
        """Return the outcome, "hang" or "death: why"."""
        process = self._process
        if process is None:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.hostile", "--child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, msgspec.msgpack.encode(trial))
            if not select.select([process.stdout], [], [], CHILD_SILENT_S_MAX)[0]:
                self.stop()
                return "hang"
            head = process.stdout.read(_LENGTH_BYTES)
        except BrokenPipeError:
            head = b""
        if not head:
            code = process.wait()
            self.stop()
            return f"death: {code}"
        return process.stdout.read(int.from_bytes(head, "big")).decode()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(BrokenPipeError):
                    assert pipe is not None
                    pipe.close()
            self._process = None


# ---------------------------------------------------------------------------------------------------------- running


@dataclass
class Report:
    """What happened. ``outcomes`` are of what passed; ``found`` names the first of each fatal kind, with its bytes."""

    honest: int = 0
    honest_refused: int = 0
    cases: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    passed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    found: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing honest was refused and nothing that passed did harm."""
        return not self.honest_refused and not any(self.outcomes[kind] for kind in FATAL)

    def as_json(self) -> str:
        """Return the figures as one line."""
        return json.dumps(
            {
                "honest": self.honest,
                "honest_refused": self.honest_refused,
                "cases": self.cases,
                "refused": dict(self.refused.most_common()),
                "passed": self.passed,
                **{kind: self.outcomes[kind] for kind in (*FATAL, "reload differs")},
                "found": self.found,
                "seconds": round(self.seconds, 1),
            }
        )


def run(count: int, *, seed: int) -> Report:
    """Try ``count`` hostile updates and snapshots."""
    chance = random.Random(seed)
    report, process = Report(), Child()
    began = time.perf_counter()
    try:
        while report.cases < count:
            _campaign(chance, report, process, count)
    finally:
        process.stop()
    report.seconds = time.perf_counter() - began
    return report


def _campaign(chance: random.Random, report: Report, process: Child, count: int) -> None:
    """Go through one history, and attack each of its moments."""
    history = History.random(chance, devices=chance.randrange(2, 4), steps=chance.randrange(4, 16))
    history.close()
    index, base = DocumentIndex(), list[bytes]()
    for client, update in history.log:
        report.honest += 1
        try:
            index.add(check_update(update, client=client, index=index))
        except UpdateRefused:
            report.honest_refused += 1
    index = DocumentIndex()
    forger = Forger(chance, [update for _, update in history.log])
    for at, (client, update) in enumerate(history.log):
        for _ in range(CASES_BY_UPDATE):
            if report.cases >= count:
                return
            report.cases += 1
            if base and chance.random() < 0.15:
                _attack_snapshot(forger, report, process, base)
            else:
                _attack(forger, report, process, index, base, client, update, history.log[at + 1 :])
        try:
            checked = check_update(update, client=client, index=index)
        except UpdateRefused:  # it does not follow what was forged
            continue
        index.add(checked)
        base.append(update)
        for item in checked.items:
            known = forger.ids.setdefault((item.root, item.key), [])
            known.extend((client, item.clock + unit) for unit in range(min(item.length, 8)))
        forger.clients = list(index.clocks)


def _attack(
    forger: Forger,
    report: Report,
    process: Child,
    index: DocumentIndex,
    base: list[bytes],
    client: int,
    update: bytes,
    later: list[tuple[int, bytes]],
) -> None:
    """Try one hostile update, and keep half of those that pass in the document."""
    forged = forger.forge(update, index.next_clock(client))
    announced = client if forger.chance.random() < 0.9 else forger.chance.choice(forger.clients or [client])
    try:
        checked = check_update(forged, client=announced, index=index)
    except UpdateRefused as refused:
        report.refused[refused.code] += 1
        for judge in (check_shape, read_creation):  # whatever it is, they say so in the same way
            try:
                judge(forged, client=announced)
            except UpdateRefused:
                continue
        return
    report.passed += 1
    check_shape(forged, client=announced)
    read_creation(forged, client=announced)
    after = index.copy()
    after.add(checked)
    clocks = after.clocks
    followers: list[bytes] = []
    for follower, honest in later[:4]:
        try:
            follows = check_update(honest, client=follower, index=after)
        except UpdateRefused:
            continue
        after.add(follows)
        followers.append(honest)
    roots = sorted({*checked.touched, *ROOTS})
    trial = Trial(base, forged, roots, followers, clocks, after.clocks)
    outcome = process.ask(trial)
    _count(report, outcome, trial)
    if outcome in ("passed", "reload differs") and forger.chance.random() < 0.5:
        index.add(checked)
        base.append(forged)


def _attack_snapshot(forger: Forger, report: Report, process: Child, base: list[bytes]) -> None:
    """Try one hostile snapshot."""
    doc: Doc[Any] = Doc()
    for update in base:
        doc.apply_update(update)
    forged = forger.scramble(doc.get_update())
    try:
        index = check_snapshot(forged)
    except UpdateRefused as refused:
        report.refused[refused.code] += 1
        return
    report.passed += 1
    trial = Trial([], forged, ROOTS, [], index.clocks, index.clocks)
    _count(report, process.ask(trial), trial)


def _count(report: Report, outcome: str, trial: Trial) -> None:
    kind = outcome.partition(":")[0]
    report.outcomes[kind] += 1
    if kind in FATAL and kind not in report.found:
        report.found[kind] = (
            f"{outcome}; base {[update.hex() for update in trial.base]}; update {trial.update.hex()}"
        )


def main() -> None:
    """Run COUNT cases (100,000) and print the figures as a line of JSON."""
    if sys.argv[1:] == ["--child"]:
        child()
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    report = run(count, seed=int(os.environ.get("SEED", "1")))
    print(report.as_json())
    sys.exit(0 if report.is_good else 1)


if __name__ == "__main__":
    main()
