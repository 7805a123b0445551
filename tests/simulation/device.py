"""One device: the real client on a real encrypted file, its runner driven step by step, and a life full of accidents.

The device opens, dials, hears frames, writes, dies and opens again. Whatever it does may hit the tripwire and end it
before a statement (`tests.crashing.Crash`). What was being written then is in doubt; when the file is open again, the
outbox tells whether it happened, all of it or nothing.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from uuid import UUID

import client_sdk
from client_sdk.client import Client
from client_sdk.commit import Sources
from client_sdk.config import Config
from client_sdk.errors import (
    ClientIdTaken,
    DiskFull,
    ServerUnreachable,
    TransactionFailed,
)
from client_sdk.sync.errors import TransportClosed
from client_sdk.sync.events import Committed, Confirm, Event, Lost, Tick, Wanted
from client_sdk.sync.runner import Runner
from client_sdk.sync.status import Status
from client_sdk.sync.transport import Transport
from tests.client_sdk.device import check_laws
from tests.crashing import Crash
from tests.simulation.evidence import edits_of, identities, renamed
from tests.simulation.files import Copy, Disk, FullDisk, Tripwire
from tests.simulation.laws import check_ending
from tests.simulation.ledger import Edit, Key
from tests.simulation.network import Link, LinkTransport
from tests.simulation.operations import ChangeOfMind, Pen, Person
from tests.simulation.records import CLASSES, KINDS
from tests.simulation.world import Broken, World, where

if TYPE_CHECKING:
    from tests.simulation.ledger import Ledger
    from tests.simulation.server import Server

__all__ = ["Device"]

_KEY: Final = bytes(range(32))
_CONFIG: Final = Config(
    inline="always", readers=1, synchronous="NORMAL", hot_document_bytes=6_000, cached_statements=128
)
_EDITS_A_PUSH: Final = 5
_TICK_MS: Final = 5_000


class Device:
    """A device, or a clone of one: a copy of its file that goes on by itself under the same identity."""

    def __init__(
        self,
        world: World,
        server: Server,
        ledger: Ledger,
        person: Person,
        disk: Disk,
        name: str,
        identity: tuple[str, str],
    ) -> None:
        self.world = world
        self.server = server
        self.ledger = ledger
        self.person = person
        self.disk = disk
        self.name = name
        self.identity, self.token = identity
        self.chance = world.chance(f"device {name}")
        self.offset_ms = self.chance.choice((0, 0, self.chance.randint(-7_200_000, 7_200_000)))
        self.latency_ms = self.chance.choice((20, 120, 1_500))
        self.spikes = self.chance.choice((0.0, 0.02, 0.1))
        self.client: Client | None = None
        self.runner: Runner | None = None
        self.link: Link | None = None
        self.made: list[Edit] = []  # what this file holds of this device's own
        self.is_offline = False  # no network at all
        self.will_take_id: int | None = None  # the client id of the next opening, if chance is to repeat one
        # Until it has been told that its id is another's: a second accident beside the one in 2**53 may do harm.
        self.is_spared = False
        self.classes = KINDS
        self._wire = Tripwire(disk)
        self._doubt: Pen | None = None
        self._links = 0
        self._openings = 0
        self._may_be_taken = False
        self._is_dialling = False
        self._is_calm = False
        self._broken: Broken | None = None
        world.every(_TICK_MS, f"{name} tick", self._tick)

    # -- Opening and dying

    async def open(self) -> None:
        """Open the file, in a new incarnation, and settle what was in doubt."""
        if self.client is not None:
            return
        wire = self._wire = Tripwire(self.disk)
        if self.chance.random() < 0.2 and not (self._is_calm or self.will_take_id):
            wire.crash_before(self.chance.randint(0, 90))
        self.classes = self.chance.choice(CLASSES) if self.chance.random() < 0.4 else KINDS
        chance = self.world.chance(f"{self.name} opening {self._openings}")
        self._openings += 1
        try:
            self.client = await client_sdk.open(
                self.disk.path,
                records=self.classes,
                key=_KEY,
                config=_CONFIG,
                sources=Sources(now_ms=self.wall_ms, random=self._random_of(chance)),
                connect=wire.connect,
                embedder="off",  # it works in the background, and here nothing does
            )
        except Crash:
            self.world.fault("crash while opening", self.name)
            await self._die()
            return
        self.world.note(f"{self.name} open {len(self.classes)} client {self.client._writer.corridor.client}")
        doubt, self._doubt = self._doubt, None
        if doubt is not None:
            self._record(doubt, is_doubted=True)
        with wire.held():
            if self.chance.random() < 0.3:
                await self._check()
        self._dial_in(self.chance.randint(0, 300))

    def _random_of(self, chance: random.Random) -> Callable[[int], bytes]:
        """Return where the client's random bytes come from: they may repeat another's client id, once."""

        def draw(count: int) -> bytes:
            taken = self.will_take_id
            if (
                count == 7 and taken is not None
            ):  # of the three things that are drawn, only a client id takes 7 bytes
                self.will_take_id, self._may_be_taken, self.is_spared = None, True, True
                return (taken - 1).to_bytes(7, "big")
            return chance.randbytes(count)

        return draw

    def wall_ms(self) -> int:
        """What this device's clock says."""
        return self.world.now_ms + self.offset_ms

    async def _check(self) -> None:
        assert self.client is not None
        try:
            await check_laws(self.client)
        except AssertionError as error:
            raise Broken(
                "rows, digest and outbox follow from the log", f"{self.name}: {where(error)}"
            ) from error

    async def _guarded(self, step: Callable[[], Awaitable[object]]) -> bool:
        """Carry out a step that may kill the device; say whether it lives."""
        with contextlib.suppress(Crash):
            await step()
        if self._wire.is_blown:
            self.world.fault("crash before a statement", self.name)
            await self._die()
            return False
        if self._broken is not None:
            raise self._broken
        return True

    async def crash(self) -> None:
        """Die between two events."""
        if self.client is not None:
            self.world.fault("crash between", self.name)
            self._wire.blow()
            await self._die()

    async def close(self) -> None:
        """Close in good order, and stay closed until `reopen`."""
        if self.client is not None:
            self._let_go("closed", is_sudden=False)
            client, self.client, self.runner = self.client, None, None
            await client.close()
            self.world.note(f"{self.name} closed")

    async def _die(self) -> None:
        self._let_go("died", is_sudden=True)
        client, self.client, self.runner = self.client, None, None
        if client is not None:
            await client.close()
        assert self._wire.left is not None
        self.disk.put_back(self._wire.left)
        self.world.note(f"{self.name} died")
        self.reopen()

    def reopen(self) -> None:
        """Open again after a while."""
        self.world.after(self.chance.randint(50, 4_000), f"{self.name} opens", self.open)

    def _let_go(self, reason: str, *, is_sudden: bool) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.close_at_device(reason, is_sudden=is_sudden)

    def copy(self) -> tuple[Copy, int] | None:
        """Return a copy of the disk, and how much of what was made is in it; None while something is in doubt."""
        if self._doubt is not None or self._wire.is_full:
            return None
        return self.disk.copy(), len(self.made)

    async def put_back(self, copy: Copy, made: int) -> None:
        """Replace the disk by an older copy: what was made since is owed only as far as the server has it."""
        await self.close()
        self._doubt = None
        held = {
            row[0]: row[1]
            for row in await self.server.rows(
                "SELECT incarnation, max(through) FROM writers WHERE space_id = $1 GROUP BY incarnation"
            )
        }
        for edit in self.made[made:]:
            edit.is_loose = edit.is_loose or held.get(edit.incarnation, 0) < edit.n
        self.made = self.made[:made]
        self.disk.put_back(copy)
        self.reopen()

    # -- Faults to come

    def crash_before(self, statements: int) -> None:
        """Let the process die before its writer's next statement but so many."""
        self._wire.crash_before(statements)

    def fill_before(self, statements: int) -> None:
        """Let the disk be full from such a statement on, until `make_room`."""
        self._wire.fill_before(statements)

    def make_room(self) -> None:
        """Let the disk have room again."""
        self._wire.make_room()

    def calm(self) -> None:
        """Let no more accidents happen here."""
        self._is_calm = True
        self._wire.crash_before(None)
        self._wire.make_room()

    def has_seen(self, client: int) -> bool:
        """Whether the file holds anything that was written under a client id."""
        assert self.client is not None
        corridor = self.client._writer.corridor
        with self._wire.held():
            docs = corridor.connection.execute("SELECT doc FROM pjais_documents").fetchall()
            return any(client in corridor.documents.get(doc).clocks() for (doc,) in docs)

    # -- Syncing

    async def _dial(self) -> None:
        """Open a session with the server."""
        self._is_dialling = False
        if self.client is None or self.link is not None:
            return
        if self.runner is None:
            self.runner = Runner(
                self.client._replica,
                self._connect,
                space=str(self.server.space),
                device=self.identity,
                token=self._token_again,
                now_ms=self.wall_ms,
                random=self.chance.random,
                on_status=self._heard,
            )
            self.runner.engine._edits_max = _EDITS_A_PUSH
        runner = self.runner
        await self._step(runner.dial)

    async def _token_again(self, is_refused: bool) -> str:
        if is_refused:
            self.world.note(f"{self.name} gets another token")
            self.token = await self.server.token(UUID(self.identity))
        return self.token

    async def _connect(self) -> Transport:
        seat = None if self.is_offline else self.server.seat()
        if seat is None:
            raise ServerUnreachable("http://simulated", "no network")
        self._links += 1
        self.link = Link(self.world, self, seat, self._links, self.chance)
        return LinkTransport(self.link)

    async def deliver(self, link: Link, frame: bytes) -> None:
        """A frame of the server is there."""
        if link is self.link and self.runner is not None:
            runner = self.runner
            await self._step(lambda: runner.deliver(frame))

    async def lost(self, link: Link, reason: str) -> None:
        """A connection turns out to be gone."""
        if link is self.link:
            await self._feed(Lost(TransportClosed(1006, reason)))

    async def confirm(self) -> None:
        """Have it verified once more that both sides are equal."""
        await self._feed(Confirm())

    async def want(self, key: Key) -> None:
        """Fetch a record's whole document, as after an update that could not be applied."""
        await self._feed(Wanted(*key))

    async def _tick(self) -> None:
        await self._feed(Tick(self.world.now_ms))

    async def _tell(self) -> None:
        """Tell the engine, connected or not, that something was written."""
        if self.runner is not None and self.client is not None:
            runner, pending = self.runner, await self.client._replica.pending_count()
            await self._step(lambda: runner.feed(Committed(pending)))

    async def _feed(self, event: Event) -> None:
        if self.link is not None and self.runner is not None:
            runner = self.runner
            await self._step(lambda: runner.feed(event))

    async def _step(self, step: Callable[[], Awaitable[object]]) -> None:
        known = self._identities()
        if not await self._guarded(step):
            return
        others = renamed(known, self._identities()) if known else {}
        if others:
            self.world.note(f"{self.name} renamed {len(others)}")
            self.ledger.rename(self.made, self.identity, others)
        runner = self.runner
        if runner is None or runner.ending is None or self._is_dialling:
            return
        ending = runner.ending
        self.world.note(
            f"{self.name} session ended: {type(ending.error).__name__} {getattr(ending.error, 'code', '')}"
        )
        check_ending(self.name, ending.error, may_be_taken=self._may_be_taken)
        if isinstance(ending.error, ClientIdTaken):
            self.world.fault("client id was taken")
            self.is_spared = False
        self._let_go("closed", is_sudden=False)
        if not ending.retry:
            raise Broken("no device gives up", f"{self.name}: {ending.error!r}")
        self._dial_in(ending.delay_ms if ending.delay_ms is not None else self.chance.randint(100, 5_000))

    def _dial_in(self, delay_ms: int) -> None:
        self._is_dialling = True
        self.world.after(delay_ms, f"{self.name} dial", self._dial)

    def _heard(self, status: Status) -> None:
        if status.verified is False and self._broken is None:
            self._broken = Broken("equal whenever compared", f"{self.name}: {status.last_error}")

    # -- Writing

    async def write(self) -> bool | None:
        """Let the person do something here; say whether there was something to do, None if the device is not there."""
        client = self.client
        if client is None:
            return None
        pen, wire = Pen(client), self._wire
        done = ""
        try:
            done = await self.person.act(pen, self.classes)
        except ChangeOfMind:
            pen.intents.clear()
            self.world.fault("transaction given up", self.name)
        except (DiskFull, FullDisk, TransactionFailed) as error:
            if not wire.is_full:
                raise
            pen.intents.clear()
            self.world.note(f"{self.name} no room: {type(error).__name__}")
        except Crash:
            pass
        except Exception as error:
            raise Broken("verbs do what they say", f"{self.name}: {where(error)}") from error
        if wire.is_blown:  # also where the death was taken for an error of undoing
            self._doubt = pen
            self.world.fault("crash before a statement", f"{self.name} in a write")
            await self._die()
            return True
        self._record(pen)
        self.world.note(f"{self.name} {done}")
        self.world.after(self.chance.randint(0, 60), f"{self.name} tells", self._tell)
        return not done.startswith("nothing")

    def _record(self, pen: Pen, *, is_doubted: bool = False) -> None:
        """Enter into the ledger what has come of an operation."""
        assert self.client is not None
        with self._wire.held():
            made = edits_of(
                self.client, self.identity, pen.incarnation, pen.before_n, pen.intents, is_doubted=is_doubted
            )
        self.ledger.add(made)
        self.made += made

    def _identities(self) -> dict[tuple[int, int], int]:
        """Return under which identities something is pending; nobody asks as long as no id can be taken."""
        if not self._may_be_taken or self.client is None:
            return {}
        with self._wire.held():
            return identities(self.client)
