"""One seed from its beginning to its verdict.

Devices write while everything goes wrong; then the faults stop, everybody opens and dials, and there is so much
simulated time to come to rest. After that the laws are checked (`tests.simulation.laws`), every file is closed and
opened again, and they are checked once more.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from server.database import Database
from server.settings import load_settings
from tests.simulation.device import Device
from tests.simulation.faults import Faults
from tests.simulation.files import Disk
from tests.simulation.laws import SETTLES, UNFORESEEN, check_all, is_settled
from tests.simulation.ledger import Ledger
from tests.simulation.operations import Person
from tests.simulation.scale import small
from tests.simulation.server import Server
from tests.simulation.world import Broken, World

__all__ = ["Report", "simulate"]

#: Simulated time between two operations of one device.
_PAUSE_MS_MAX: Final = 1_200
_LATER_MS: Final = 500  # when the device is not there
_REST_MS: Final = 15 * 60_000
_NAMES: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_GROUP_ROWS_MAX: Final = (1, 5, 40)  # by seed: one push in a commit, small ones together, or all that wait
_TRACE_LINES_SHOWN: Final = 60
_DETAIL_SHOWN: Final = 4_000  # characters


@dataclass(slots=True)
class Report:
    """What came of a seed. ``law`` and ``detail`` are empty if every law holds."""

    seed: int
    devices: int
    operations: int
    trace_hash: str = ""
    law: str = ""
    detail: str = ""
    edits: int = 0
    rows: int = 0
    events: int = 0
    simulated_s: float = 0.0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)

    @property
    def story(self) -> str:
        """What broke, where it came from, and how to see it again."""
        shown = "\n".join(self.trace[-_TRACE_LINES_SHOWN:])
        return (
            f"{shown}\n\nseed {self.seed} breaks the law {self.law!r}:\n{self.detail[:_DETAIL_SHOWN]}\n"
            f"again: make simulate SEED={self.seed} DEVICES={self.devices} OPERATIONS={self.operations}\n"
        )


async def simulate(
    seed: int, *, devices: int, operations: int, url: str, folder: Path | None = None
) -> Report:
    """Run one seed on the database at ``url``, which is emptied. Files go into ``folder``, in memory if possible."""
    report = Report(seed, devices, operations)
    began = time.perf_counter()
    place = Path(tempfile.mkdtemp(prefix="pjais-simulation-", dir=folder))
    world = World(seed)
    settings = load_settings(pool_size_min=1, pool_size_max=2)
    database = await Database.connect(url, settings, application="simulation")
    try:
        with small():
            await _Run(world, database, place, report).run()
    except Broken as broken:
        report.law, report.detail = broken.law, broken.detail
    except Exception:  # noqa: BLE001 - whatever it is, the seed is what finds it again
        report.law, report.detail = UNFORESEEN, traceback.format_exc()
    finally:
        await database.close()
        shutil.rmtree(place)
    report.trace_hash, report.trace, report.events = world.trace_hash, list(world.trace), world.events
    report.faults = Counter({kind: count for kind, count in world.faults.items() if count})
    report.seconds = time.perf_counter() - began
    return report


class _Run:
    def __init__(self, world: World, database: Database, place: Path, report: Report) -> None:
        self.world = world
        self.report = report
        self.place = place
        self.ledger = Ledger()
        self.server = Server(
            world,
            database,
            load_settings(group_commit_rows_max=world.chance("commits").choice(_GROUP_ROWS_MAX)),
        )
        self.person = Person(world.chance("person"), self.ledger)
        self.chance = world.chance("plan")
        self.devices: list[Device] = []
        self.left = report.operations

    async def run(self) -> None:
        world, began_ms = self.world, self.world.now_ms
        try:
            await self.server.begin()
            for name in _NAMES[: self.report.devices]:
                await self._add(name)
            faults = Faults(world, self.server, self.devices, self.ledger, self.place, self._start)
            faults.begin()
            self._fold_soon()
            if not await world.run(lambda: self.left <= 0, within_ms=24 * 3_600_000):
                raise Broken(SETTLES, f"{self.left} operations found no device that was open")
            await faults.end()
            world.note("the faults have stopped")
            await self._rest()
            await check_all(self.devices, self.server, self.ledger)
            for device in self.devices:
                await device.close()
                await device.open()
            await self._rest()
            self.report.rows = await check_all(self.devices, self.server, self.ledger)
            world.note(f"{self.report.rows} rows, digest {await self.devices[0].client.digest()}")  # type: ignore[union-attr]
        finally:
            self.report.edits = len(self.ledger.edits)
            self.report.simulated_s = (world.now_ms - began_ms) / 1_000
            for device in self.devices:
                await device.close()
            await self.server.end()

    async def _add(self, name: str) -> None:
        identity, token = await self.server.enrol(name)
        disk = Disk(self.place / name)
        device = Device(self.world, self.server, self.ledger, self.person, disk, name, (str(identity), token))
        # Some come late: they find a long log.
        first_ms = (
            self.chance.randint(0, 60_000) if self.chance.random() < 0.25 else self.chance.randint(0, 500)
        )
        self.world.after(first_ms, f"{name} opens", device.open)
        self._start(device, first_ms)

    def _start(self, device: Device, first_ms: int = 1_000) -> None:
        self.devices.append(device)
        self._write_soon(device, first_ms)

    def _write_soon(self, device: Device, delay_ms: int = 0) -> None:
        async def write() -> None:
            if self.left <= 0:
                return
            did = await device.write()
            if did is not None:
                self.left -= did
                self._write_soon(
                    device, 0 if self.chance.random() < 0.2 else self.chance.randint(1, _PAUSE_MS_MAX)
                )
            else:
                self._write_soon(device, _LATER_MS)

        self.world.after(delay_ms, f"{device.name} writes", write)

    def _fold_soon(self) -> None:
        async def fold() -> None:
            await self.server.fold(self.chance.choice((1, 3, 20, 1_000)))
            self._fold_soon()

        self.world.after(self.chance.choice((50, 400, 5_000)), "fold", fold)

    async def _rest(self) -> None:
        """Wait until every device is in step."""
        world = self.world
        for device in self.devices:
            await device.confirm()
        head = await self.server.head()

        async def look() -> None:
            nonlocal head
            head = await self.server.head()

        world.every(1_000, "look at the head", look)
        if not await world.run(
            lambda: all(is_settled(device, head) for device in self.devices), within_ms=_REST_MS
        ):
            standing = ", ".join(
                f"{device.name}: {device.runner.status if device.runner else 'not running'}"
                for device in self.devices
            )
            raise Broken(SETTLES, f"within {_REST_MS // 1_000} s; head {head}, {standing}")
