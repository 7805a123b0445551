"""The network: one `Link` for each connection, which delivers late, and can be cut in the ways in which TCP is.

Within a connection frames arrive in their order, each once; between connections nothing is ordered. A cut loses what is
under way. The two ends learn of it at different times, or only by silence; so the server may still get what the device
sent over a connection that the device has long replaced by another.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from client_sdk.sync.errors import TransportClosed

if TYPE_CHECKING:
    from tests.simulation.device import Device
    from tests.simulation.seat import Seat
    from tests.simulation.world import World

__all__ = ["CUTS", "Link", "LinkTransport"]

CUTS: Final = ("cut", "half open", "answers lost", "silence")

_SPIKE_MS_MAX: Final = 8_000
_PING_MS: Final = 80_000  # when a device that is owed nothing learns that a connection is dead


class Link:
    """One connection between a device and its seat at the server."""

    def __init__(self, world: World, device: Device, seat: Seat, number: int, chance: random.Random) -> None:
        self.world = world
        self.device = device
        self.seat = seat
        self.name = f"{device.name}#{number}"
        self.is_open_at_device = True
        self._chance = chance
        self._is_up_cut = self._is_down_cut = False
        self._up_at = self._down_at = 0
        seat.link = self

    def _arrival(self, last: int) -> int:
        device, chance = self.device, self._chance
        # Often a frame travels with the one before it.
        delay = 1 if chance.random() < 0.5 else chance.randint(1, device.latency_ms)
        if chance.random() < device.spikes:
            delay += chance.randint(0, _SPIKE_MS_MAX)
            self.world.faults["frame delayed"] += 1
        return max(last, self.world.now_ms + delay)

    def up(self, frame: bytes) -> None:
        """Send a frame to the server. Raises `TransportClosed` if the device knows that the connection is gone."""
        if not self.is_open_at_device:
            raise TransportClosed(1006, "simulated")
        self._up_at = self._arrival(self._up_at)

        async def arrive() -> None:
            if self._is_up_cut:
                self.world.faults["frame lost"] += 1
            else:
                await self.seat.arrive(frame)

        self.world.after(self._up_at - self.world.now_ms, f"{self.name} up", arrive)

    def down(self, frame: bytes) -> None:
        """Send a frame to the device."""
        self._down_at = self._arrival(self._down_at)

        async def arrive() -> None:
            if self._is_down_cut or not self.is_open_at_device:
                self.world.faults["frame lost"] += 1
            else:
                await self.device.deliver(self, frame)

        self.world.after(self._down_at - self.world.now_ms, f"{self.name} down", arrive)

    def close_at_device(self, reason: str, *, is_sudden: bool = False) -> None:
        """The device lets go. What it has sent still arrives; the server learns of it after that, or much later."""
        if not self.is_open_at_device:
            return
        self.is_open_at_device = False
        self._is_down_cut = True
        delay = self._chance.randint(0, 60_000) if is_sudden else 0
        at = max(self._up_at, self.world.now_ms) + delay
        self.world.after(at - self.world.now_ms, f"{self.name} ends", lambda: self.seat.end(reason))

    def cut_by_server(self, reason: str) -> None:
        """The server is gone, or has ended the session; what it sent before still arrives."""
        self._is_up_cut = True
        at = max(self._down_at, self.world.now_ms) + self._chance.randint(0, 500)
        self.world.after(at - self.world.now_ms, f"{self.name} lost", lambda: self._tell_device(reason))

    def cut(self, kind: str) -> None:
        """Cut the connection in one of the ways that there are (`CUTS`)."""
        chance = self._chance
        match kind:
            case "cut":  # all that is under way is lost; both learn of it sooner or later
                self._is_up_cut = self._is_down_cut = True
                self._tell(chance.randint(0, 2_000), chance.randint(0, 60_000), kind)
            case "half open":  # the device sees it and goes on; what it sent before dribbles in much later
                self._up_at = max(self._up_at, self.world.now_ms) + chance.randint(0, 40_000)
                self._is_down_cut = True
                self._tell(0, self._up_at - self.world.now_ms + chance.randint(0, 60_000), kind)
            case "answers lost":  # the server goes on, and nobody hears it
                self._is_down_cut = True
                self._tell(chance.randint(0, 5_000), chance.randint(5_000, 60_000), kind)
            case "silence":  # nobody is told: the device has to find out
                self._is_up_cut = self._is_down_cut = True
                self._tell(_PING_MS, chance.randint(60_000, 120_000), kind)

    def _tell(self, device_ms: int, server_ms: int, reason: str) -> None:
        self.world.after(device_ms, f"{self.name} lost", lambda: self._tell_device(reason))
        self.world.after(server_ms, f"{self.name} ends", lambda: self.seat.end(reason))

    async def _tell_device(self, reason: str) -> None:
        if self.is_open_at_device:
            self.is_open_at_device = False
            await self.device.lost(self, reason)


class LinkTransport:
    """The device's end of a link (`client_sdk.sync.transport.Transport`)."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def send(self, frame: bytes) -> None:
        """Hand over one frame."""
        self.link.up(frame)

    async def receive(self) -> bytes:
        """Nothing is received here: the world delivers."""
        raise NotImplementedError

    async def close(self) -> None:
        """End the connection."""
        self.link.close_at_device("closed by the device")
