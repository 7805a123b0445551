"""Kill what can be killed, at random, and count what was lost: ``python -m tests.journeys.kill``, or ``make kill``.

Three journeys, each on real parts in real processes:

* a device that writes (all verbs) and syncs is killed again and again, and reopened on the same file;
* the server is killed under the pushes of two devices, while Postgres lives on;
* Postgres is killed under them, its postmaster and its backends in turn, while the server lives on.

After each death what had returned must be there, and at the end of a journey no acknowledged update may be missing in
the server's log, nor stand there twice, and all devices must be equal, and proved so. A loss is an `AssertionError`.

``KILLS`` in the environment is the number for the device (50); server and Postgres get two fifths of it each.
``SEED`` is the seed (1): it decides what is written and about when is killed, the machine's own timing
decides the rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

import client_sdk
from client_sdk import Client
from server.embedded import EmbeddedPostgres
from tests.client_sdk.device import KEY, check_laws
from tests.client_sdk.records import Note, Tag
from tests.journeys.afterwards import check_equal, check_log, check_quiet, check_served, settle
from tests.journeys.live import LiveServer, eventually
from tests.journeys.work import SHARED, Held, Work, held_by_title, ids_of, tokens_of
from tests.journeys.writers import writer_on
from tests.journeys.writing import Doubt, Life, Step
from tests.postgres import fast_folder

__all__ = ["Report", "kill_devices", "kill_postgres", "kill_servers", "main"]

_LINE_BYTES_MAX: Final = 256 * 1024 * 1024  # what a device holds, in one line
_OPEN_S_MAX: Final = 60.0
_RECOVER_S_MAX: Final = 60.0
_SETTLE_S_MAX: Final = 120.0


@dataclass
class Report:
    """What was killed, and what came of it. Seconds are from a death until all go on: opened, or acknowledged."""

    killed: str
    kills: int = 0
    writes: int = 0
    in_doubt: int = 0
    happened: int = 0  # of those in doubt
    acknowledged: int = 0
    log_rows: int = 0
    recovery_s: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> str:
        figures = asdict(self)
        times = sorted(figures.pop("recovery_s")) or [0.0]
        figures |= {"recovery_p50_s": round(median(times), 2), "recovery_max_s": round(times[-1], 2)}
        figures["seconds"] = round(self.seconds, 1)
        return json.dumps(figures)


# --------------------------------------------------------------------------------------------------- the device


class Mortal:
    """The device that dies: its writers' works, and what its lives said."""

    def __init__(self, path: Path, chance: random.Random, report: Report) -> None:
        self.path = path
        self.works = {name: Work(name) for name in ("a0", "a1", "a2")}
        self.doubts: dict[str, Doubt] = {}
        self.met: set[str] = set()
        self.maybe_met: set[str] = set()
        self._chance = chance
        self._report = report

    async def live(self, server: LiveServer) -> None:
        """Open the file in a new process, and kill that at some moment: now and then before the file is open."""
        chance = self._chance
        is_young = chance.random() < 0.15
        pause_s = chance.choice([0.0, 0.002, 0.01])
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.journeys.writing",
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=_LINE_BYTES_MAX,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            life = Life(str(self.path), chance.randrange(2**40), pause_s)
            process.stdin.write(msgspec.json.encode(life) + b"\n")
            if is_young:
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.stdout.readline(), chance.uniform(0.2, 1.0))
            elif opened := (await asyncio.wait_for(process.stdout.readline(), _OPEN_S_MAX)):
                self._report.recovery_s.append(time.perf_counter() - began)
                self._settle(msgspec.json.decode(opened, type=Step).opened or {})
                process.stdin.write(msgspec.json.encode(list(self.works.values())) + b"\n")
                with suppress(TimeoutError):
                    async with asyncio.timeout(chance.uniform(0.02, 1.2)):
                        while line := await process.stdout.readline():
                            self._hear(line)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            told, complaint = await process.communicate()
        if not is_young:
            for line in told.splitlines(keepends=True):
                if line.endswith(b"\n"):
                    self._hear(line)
        assert not complaint, f"the device had something to say: {complaint.decode()}"
        assert process.returncode == -signal.SIGKILL, process.returncode
        self._report.kills += 1

    def _hear(self, line: bytes) -> None:
        step = msgspec.json.decode(line, type=Step)
        if step.begin is not None:
            self.doubts[step.begin.writer] = step.begin
        elif step.done is not None:
            operation = self.doubts.pop(step.done).operation
            self.works[step.done].apply(operation)
            self.met |= {token for token in [operation.get("token")] if token}
            self._report.writes += 1

    def _settle(self, found: dict[str, Held]) -> None:
        """Hold what the file has against what returned. What was in doubt is there as a whole, or not at all."""
        for name, work in self.works.items():
            doubt = self.doubts.pop(name, None)
            if doubt is not None:
                self._report.in_doubt += 1
                self.maybe_met |= {token for token in [doubt.operation.get("token")] if token}
            problem = work.difference(found)
            if problem and doubt is not None:
                work.apply(doubt.operation)
                self._report.happened += 1
                still = work.difference(found)
                assert not still, f"without {doubt}: {problem}; with it: {still}"
            else:
                assert not problem, f"a write that had returned is lost: {problem}"
            work.learn(ids_of(found))
            work.begun += 1_000  # names of what was in doubt are not given again
        tokens = {token for token in tokens_of(found[SHARED]) if token.startswith("a")}
        assert self.met <= tokens <= self.met | self.maybe_met, "what met in the shared record is lost"

    async def settle(self, client: Client) -> None:
        """As at each opening, on the open device."""
        self._settle(await held_by_title(client))


async def kill_devices(folder: Path, database_url: str, *, kills: int, seed: int = 1) -> Report:
    """Kill a device ``kills`` times while it writes and syncs, beside another that lives."""
    report, chance, began = Report("device"), random.Random(seed), time.perf_counter()
    async with LiveServer(folder, database_url=database_url) as server, AsyncExitStack() as stack:
        mortal = Mortal(folder / "mortal.db", chance, report)
        async with client_sdk.open(mortal.path, records=[Note, Tag], key=KEY) as client:
            await client.register(server.url)
            await client.collection(Note).insert(Note(title=SHARED))
            code = await client.invite()
            await client.synced(_SETTLE_S_MAX)
        other = await stack.enter_async_context(writer_on(folder / "other.db", "b0", seed))
        await other.client.join(server.url, code)
        await other.client.synced(_SETTLE_S_MAX)
        await other.begin(pause_s=0.02)
        for _ in range(kills):
            await mortal.live(server)
        await other.end()
        async with client_sdk.open(mortal.path, records=[Note, Tag], key=KEY) as client:
            await mortal.settle(client)
            await settle([client, other.client])
            await mortal.settle(client)
            works = [*mortal.works.values(), other.work]
            await check_equal(
                [client, other.client], works, met=mortal.met | other.met, maybe_met=mortal.maybe_met
            )
            await check_served(client, server, works)
            await check_laws(client)
        await check_laws(other.client)
        report.log_rows = await check_log(database_url, {other.client: other.acknowledged})
        report.acknowledged = other.acknowledged.count
        check_quiet(server)
    report.seconds = time.perf_counter() - began
    return report


# ---------------------------------------------------------------------------------------- the server and Postgres


async def kill_servers(folder: Path, database_url: str, *, kills: int, seed: int = 1) -> Report:
    """Kill the server ``kills`` times under the pushes of two devices. Postgres lives on."""
    server = LiveServer(folder, database_url=database_url)

    async def strike(_: int) -> None:
        await server.kill()
        await server.start()

    return await _kill_under_pushes(Report("server"), server, strike, kills=kills, seed=seed)


async def kill_postgres(folder: Path, *, kills: int, seed: int = 1) -> Report:
    """Kill Postgres ``kills`` times under the pushes of two devices: its postmaster, or one of its backends."""
    server, chance = LiveServer(folder), random.Random(seed)

    async def strike(number: int) -> None:
        postmaster, backends = 0, list[int]()

        def is_served() -> bool:
            nonlocal postmaster, backends
            postmaster, backends = server.postgres()
            return bool(backends)

        await eventually(is_served, within_s=_RECOVER_S_MAX)
        with suppress(ProcessLookupError):  # it was quicker
            os.kill(chance.choice(backends) if number % 2 else postmaster, signal.SIGKILL)

    report = await _kill_under_pushes(Report("postgres"), server, strike, kills=kills, seed=seed)
    assert server.starts == 1, "the server had to be started again"
    return report


async def _kill_under_pushes(
    report: Report, server: LiveServer, strike: Callable[[int], Awaitable[None]], *, kills: int, seed: int
) -> Report:
    chance, began = random.Random(seed), time.perf_counter()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        writers = [
            await stack.enter_async_context(writer_on(server.folder / f"{name}.db", name, seed))
            for name in ("a0", "b0")
        ]
        first, second = (writer.client for writer in writers)
        await first.register(server.url)
        await first.collection(Note).insert(Note(title=SHARED))
        await first.synced(_SETTLE_S_MAX)
        await second.join(server.url, await first.invite())
        await second.synced(_SETTLE_S_MAX)
        for writer in writers:
            await writer.begin(pause_s=0.01)
        for number in range(kills):
            await asyncio.sleep(chance.uniform(0.0, 0.6))
            died = time.perf_counter()
            await strike(number)
            await asyncio.gather(*(writer.progress() for writer in writers))
            report.recovery_s.append(time.perf_counter() - died)
            report.kills += 1
        for writer in writers:
            await writer.end()
        clients = [writer.client for writer in writers]
        await settle(clients)
        works = [writer.work for writer in writers]
        await check_equal(clients, works, met=writers[0].met | writers[1].met)
        await check_served(first, server, works)
        for client in clients:
            await check_laws(client)
        acknowledged = {writer.client: writer.acknowledged for writer in writers}
        report.log_rows = await check_log(server.database_url, acknowledged)
        report.acknowledged = sum(one.count for one in acknowledged.values())
        report.writes = sum(writer.writes for writer in writers)
        check_quiet(server)
    report.seconds = time.perf_counter() - began
    return report


def main() -> None:
    """Run the three journeys, and print a line of JSON for each."""
    kills, seed = int(os.environ.get("KILLS", "50")), int(os.environ.get("SEED", "1"))
    fewer = max(1, kills * 2 // 5)

    async def journeys(folder: Path) -> None:
        for name in ("device", "server", "postgres"):
            (folder / name).mkdir()
        async with EmbeddedPostgres(folder / "cluster") as postgres:
            print(
                (await kill_devices(folder / "device", postgres.url, kills=kills, seed=seed)).as_json(),
                flush=True,
            )
            print(
                (await kill_servers(folder / "server", postgres.url, kills=fewer, seed=seed)).as_json(),
                flush=True,
            )
        print((await kill_postgres(folder / "postgres", kills=fewer, seed=seed)).as_json(), flush=True)

    with fast_folder() as folder:
        asyncio.run(journeys(folder))


if __name__ == "__main__":
    main()
