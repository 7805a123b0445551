"""What goes wrong, when, and to whom: drawn from the seed, each seed with a temper of its own.

Each fault is one that a person's machines meet. They stop at `Faults.end`, which leaves every device open, with room on
its disk and a network; clocks stay as wrong as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from tests.simulation.device import Device
from tests.simulation.files import Copy, Disk
from tests.simulation.ledger import Ledger
from tests.simulation.network import CUTS
from tests.simulation.server import Server
from tests.simulation.world import World

__all__ = ["Faults"]

_PAUSE_MS_MAX: Final = 2_500
_HOURS_MS: Final = 5 * 3_600_000
_CLONES_MAX: Final = 2
_COPIES_KEPT: Final = 6


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    """A copy of a device's disk."""

    files: Copy
    made: int


class Faults:
    """Makes things go wrong, until told to stop."""

    def __init__(
        self,
        world: World,
        server: Server,
        devices: list[Device],
        ledger: Ledger,
        place: Path,
        start: Callable[[Device], None],
    ) -> None:
        self.world = world
        self.server = server
        self.devices = devices
        self.ledger = ledger
        self.place = place
        self._start = start  # one more device takes part
        self.chance = world.chance("faults")
        self._is_on = True
        self._clones = 0
        self._copies: dict[str, list[_Kept]] = {}
        kinds: Sequence[tuple[Callable[[Device], Awaitable[None]], int]] = (
            (self._cut, 10),
            (self._crash_in_statement, 8),
            (self._crash_between, 4),
            (self._restart_device, 2),
            (self._restart_server, 3),
            (self._jump, 4),
            (self._go_offline, 4),
            (self._fill_disk, 2),
            (self._keep_copy, 4),
            (self._put_back, 3),
            (self._clone, 1),
            (self._take_id, 1),
            (self._slow_down, 1),
            (self._fold_anew, 1),
            (self._expire_token, 1),
            (self._want, 2),
        )
        # A seed's temper: some faults are frequent in it, some do not happen.
        self._kinds = [(kind, weight * self.chance.choice((0, 1, 1, 4))) for kind, weight in kinds]

    def begin(self) -> None:
        """Let things go wrong from now on."""
        self.world.after(self.chance.randint(0, _PAUSE_MS_MAX), "fault", self._next)

    async def _next(self) -> None:
        if not self._is_on:
            return
        device = self.chance.choice(self.devices)
        if not device.is_spared and any(weight for _, weight in self._kinds):
            ((kind, _),) = self.chance.choices(self._kinds, [weight for _, weight in self._kinds])
            await kind(device)
        self.begin()

    async def end(self) -> None:
        """Stop, and mend what can be mended."""
        self._is_on = self.server.is_faulty = False
        for device in self.devices:
            device.is_offline = False
            device.spikes = 0.0
            device.calm()
            await device.open()

    # -- Network

    async def _cut(self, device: Device) -> None:
        if device.link is not None:
            kind = self.chance.choice(CUTS)
            self.world.fault(f"connection: {kind}", device.link.name)
            device.link.cut(kind)

    async def _go_offline(self, device: Device) -> None:
        if device.is_offline:
            return
        self.world.fault("no network", device.name)
        device.is_offline = True
        if device.link is not None:
            device.link.cut("cut")

        async def come_back() -> None:
            device.is_offline = False

        if (
            self.chance.random() < 0.3
        ):  # and the application is restarted meanwhile: two incarnations are pending

            async def restart() -> None:
                if not device.is_spared:
                    await self._restart_device(device)

            self.world.after(self.chance.randint(500, 20_000), f"{device.name} restarts", restart)
        self.world.after(self.chance.randint(2_000, 60_000), f"{device.name} has a network", come_back)

    async def _slow_down(self, device: Device) -> None:
        self.world.fault("slow device", device.name)
        before, device.latency_ms = device.latency_ms, 6_000

        async def speed_up() -> None:
            device.latency_ms = before

        self.world.after(self.chance.randint(5_000, 40_000), f"{device.name} is quick again", speed_up)

    async def _restart_server(self, _: Device) -> None:
        self.server.kill()

    async def _fold_anew(self, _: Device) -> None:
        await self.server.fold_anew()

    async def _expire_token(self, device: Device) -> None:
        self.world.fault("token expired", device.name)
        await self.server.forget_tokens(UUID(device.identity))
        if device.link is not None:
            device.link.cut("cut")

    async def _want(self, device: Device) -> None:
        keys = list(self.ledger.keys)
        if keys:
            self.world.faults["document fetched"] += 1
            await device.want(self.chance.choice(keys))

    # -- Device

    async def _crash_in_statement(self, device: Device) -> None:
        device.crash_before(self.chance.randint(0, 25))

    async def _crash_between(self, device: Device) -> None:
        await device.crash()

    async def _restart_device(self, device: Device) -> None:
        if device.client is not None:
            self.world.fault("closed and opened", device.name)
            await device.close()
            device.reopen()

    async def _jump(self, device: Device) -> None:
        by = self.chance.choice((-1, 1)) * self.chance.randint(1_000, _HOURS_MS)
        self.world.fault(f"clock jumps {'forward' if by > 0 else 'back'}", f"{device.name} {by}")
        device.offset_ms += by

    async def _fill_disk(self, device: Device) -> None:
        if device.client is None:
            return
        self.world.fault("disk full", device.name)
        device.fill_before(self.chance.randint(0, 12))

        async def make_room() -> None:
            device.make_room()

        self.world.after(self.chance.randint(500, 10_000), f"{device.name} has room", make_room)

    # -- Files

    async def _keep_copy(self, device: Device) -> None:
        """Copy the file: while it is open, between two statements, or closed."""
        if self.chance.random() < 0.5 and device.client is not None:
            await device.close()
            device.reopen()
        copied = device.copy()
        if copied is not None:
            self.world.faults["copy kept"] += 1
            kept = self._copies.setdefault(device.name, [])
            kept.append(_Kept(*copied))
            del kept[:-_COPIES_KEPT]

    async def _put_back(self, device: Device) -> None:
        kept = self._copies.get(device.name)
        if not kept:
            return
        # What was copied after the copy that is put back belongs to a history that ends here.
        index = self.chance.randrange(len(kept))
        self.world.fault("file put back", device.name)
        await device.put_back(kept[index].files, kept[index].made)
        del kept[index + 1 :]

    async def _clone(self, device: Device) -> None:
        """Let a copy of the file go on beside the original, under the same identity."""
        kept = self._copies.get(device.name)
        if not kept or self._clones >= _CLONES_MAX:
            return
        self._clones += 1
        copied = self.chance.choice(kept)
        name = f"{device.name}-clone{self._clones}"
        self.world.fault("file cloned", name)
        disk = Disk(self.place / name)
        disk.put_back(copied.files)
        clone = Device(
            self.world, self.server, self.ledger, device.person, disk, name, (device.identity, device.token)
        )
        clone.made = device.made[: copied.made]
        clone.reopen()
        self._start(clone)

    async def _take_id(self, device: Device) -> None:
        """Open the file under a client id that another device has claimed, and whose edits this file has not seen."""
        for other in self.devices:
            if other.client is None or device.client is None or other.identity == device.identity:
                continue
            client = other.client._writer.corridor.client
            claimed = await self.server.rows(
                f"SELECT 1 FROM writers WHERE space_id = $1 AND client_id = {client}"
            )
            if claimed and not device.has_seen(client):
                self.world.fault("client id drawn twice", f"{device.name} as {other.name}")
                await device.close()
                device.will_take_id = client
                await device.open()
                return
