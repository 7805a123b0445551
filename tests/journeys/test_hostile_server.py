"""What no honest server says, said to a running device: it quarantines, names the error, and goes on.

The long form is `tests.hostile_wire`; what a hostile device says to a server is in `test_hostile_wire`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from client_sdk.errors import ClientError, ServerLostData
from client_sdk.sync.errors import ContentsDiffer
from crdt import wire
from crdt.errors import UpdateRefused
from crdt.limits import FRAME_BYTES_MAX
from crdt.updates import check_update
from tests.client_sdk.device import check_laws
from tests.client_sdk.records import Note
from tests.hostile_wire import pull
from tests.journeys.afterwards import quarantined
from tests.journeys.conftest import Opens
from tests.journeys.hazards import HAZARDS, NO_MESSAGES
from tests.journeys.live import LiveServer, eventually
from tests.journeys.switch import Switch
from tests.server.people import creation

__all__: list[str] = []


@pytest.fixture
async def switch(server: LiveServer) -> AsyncIterator[Switch]:
    async with Switch(server.port) as switch:
        yield switch


async def test_forged_updates_that_are_pulled_are_quarantined_and_the_device_goes_on(
    switch: Switch, opens: Opens
) -> None:
    victim = await opens("victim")
    await victim.register(switch.url)
    await victim.synced(20)
    pulled = await pull(switch, victim, count=1_000, seed=12)
    assert pulled.forged >= 1_000
    assert len(pulled.quarantined) > 15
    assert pulled.documents_made > 50
    # It has read what the real server never had: that is said, and what to do.
    await switch.turn(switch.port)
    with pytest.raises(ServerLostData, match="join the new history from a new file"):
        await victim.synced(20)
    await victim.collection(Note).insert(Note(title="it goes on"))
    await check_laws(victim)


Say = Callable[[ServerConnection, wire.Hello], Awaitable[None]]


def after_welcome(*frames: wire.FromServer | bytes) -> Say:
    async def say(socket: ServerConnection, greeting: wire.Hello) -> None:
        await socket.send(wire.encode(welcome_to(greeting)))
        for frame in frames:
            await socket.send(frame if isinstance(frame, bytes) else wire.encode(frame))

    return say


def instead(*frames: bytes | str) -> Say:
    async def say(socket: ServerConnection, greeting: wire.Hello) -> None:
        for frame in frames:
            await socket.send(frame)

    return say


def welcome_to(greeting: wire.Hello, **changes: Any) -> wire.Welcome:
    cursor = greeting.cursors[0]
    state = wire.SpaceState(cursor.space, cursor.generation, cursor.position, {})
    state = msgspec.structs.replace(
        state, **{name: changes[name] for name in changes.keys() & {"space", "generation", "head", "held"}}
    )
    rest = {name: changes[name] for name in changes.keys() & {"protocol", "now_ms"}}
    return msgspec.structs.replace(wire.Welcome(1, greeting.now_ms, changes.get("spaces", [state])), **rest)


def welcomed(**changes: Any) -> Say:
    async def say(socket: ServerConnection, greeting: wire.Hello) -> None:
        await socket.send(wire.encode(welcome_to(greeting, **changes)))

    return say


def of_the_space(make: Callable[[str, int], list[wire.FromServer]]) -> Say:
    async def say(socket: ServerConnection, greeting: wire.Hello) -> None:
        cursor = greeting.cursors[0]
        await socket.send(wire.encode(welcome_to(greeting, head=cursor.position + 10)))
        for message in make(cursor.space, cursor.position):
            await socket.send(wire.encode(message))

    return say


GOOD = creation(77, title="x")
NONSENSE: dict[str, Say] = {
    **{f"no message: {what}": instead(frame) for what, frame in NO_MESSAGES.items()},
    "a frame past the limit": instead(bytes(FRAME_BYTES_MAX + 1)),
    "text": instead("text"),
    "a page before it has greeted": instead(wire.encode(wire.Page("s", 0, 1, 1, []))),
    "a message of a device": instead(wire.encode(wire.Verify("s", 1))),
    "another space": welcomed(space="00000000-0000-7000-8000-000000000000"),
    "no space": welcomed(spaces=[]),
    "no generation": welcomed(generation=""),
    "a negative head": welcomed(head=-1),
    "a head past 63 bits": welcomed(head=2**64 - 1),
    "fewer than no updates": welcomed(held={1: -1}),
    "a clock past its bits": welcomed(now_ms=2**62),
    "a clock before time": welcomed(now_ms=-1),
    "two greetings": of_the_space(lambda s, p: [wire.Welcome(1, 0, [])]),
    "an acknowledgement of nothing": of_the_space(lambda s, p: [wire.Ack(s, 1, 1)]),
    "a digest of another size": of_the_space(lambda s, p: [wire.Verified(s, p, b"short", 1)]),
    "a digest from the future": of_the_space(lambda s, p: [wire.Verified(s, p + 5, bytes(16), 1)]),
    "a page of another space": of_the_space(lambda s, p: [wire.Page("s", p, p + 1, p + 1, [])]),
    "a page too far ahead": of_the_space(lambda s, p: [wire.Page(s, p + 1, p + 2, p + 2, [])]),
    "a page that runs backwards": of_the_space(lambda s, p: [wire.Page(s, p, p - 1, p, [])]),
    "a page past its head": of_the_space(lambda s, p: [wire.Page(s, p, p + 2, p + 1, [])]),
    "a page past 63 bits": of_the_space(lambda s, p: [wire.Page(s, p, 2**64 - 1, 2**64 - 1, [])]),
    "an entry past its page": of_the_space(
        lambda s, p: [wire.Page(s, p, p + 1, p + 1, [wire.Entry(p + 2, "notes", "r", 77, GOOD)])]
    ),
    "an entry before its page": of_the_space(
        lambda s, p: [wire.Page(s, p, p + 1, p + 1, [wire.Entry(p, "notes", "r", 77, GOOD)])]
    ),
    "entries that do not increase": of_the_space(
        lambda s, p: [wire.Page(s, p, p + 2, p + 2, [wire.Entry(p + 1, "notes", "r", 77, GOOD)] * 2)]
    ),
    "documents past their page": of_the_space(
        lambda s, p: [wire.Documents(s, p, p + 1, p + 1, [wire.DocumentState(p + 2, "notes", "r", GOOD)])]
    ),
    "a document that nobody asked for": of_the_space(
        lambda s, p: [wire.Documents(s, 0, 0, p, [wire.DocumentState(1, "notes", "r", GOOD)])]
    ),
}
NONSENSE |= {
    f"a failure {code!r:.20}": instead(wire.encode(wire.Failure(code, message, after)))
    for code, message, after in [
        ("", "", None),
        ("x" * 100_000, "y" * 5_000_000, 0),
        ("internal", "\0", -(2**63)),
        ("too_large", "x", 2**63),
        ("unauthorized", "x", None),
        ("out_of_order", "x", 0),
        ("unknown_device", "x", 0),
        ("not_in_space", "x", 0),
        ("cursor_ahead", "x", 0),
        ("protocol_mismatch", "the server 999999999999", 0),
    ]
}


async def test_nonsense_of_a_server_is_an_error_with_a_name_and_changes_nothing(
    switch: Switch, opens: Opens
) -> None:
    victim = await opens("victim")
    await victim.register(switch.url)
    await victim.collection(Note).insert(Note(title="mine"))
    await victim.synced(20)
    digest, position = await victim.digest(), await victim._replica.cursor()
    said = asyncio.Event()
    say: Say = instead()

    async def stand_in(socket: ServerConnection) -> None:
        greeting = wire.decode_from_device(await socket.recv())  # type: ignore[arg-type]
        assert isinstance(greeting, wire.Hello)
        with contextlib.suppress(ConnectionClosed):
            await say(socket, greeting)
            await socket.wait_closed()
        said.set()

    async with serve(stand_in, "127.0.0.1", 0, max_size=None) as server:
        await switch.turn(next(iter(server.sockets)).getsockname()[1])
        for what, saying in NONSENSE.items():
            say = saying
            said.clear()
            await victim.connect()
            async with asyncio.timeout(20):
                await said.wait()
            runner = victim._runner
            assert runner is not None
            await eventually(lambda runner=runner: runner.ending is not None, what=lambda what=what: what)  # type: ignore[misc]
            ending = victim.status.last_error
            assert isinstance(ending, ClientError), f"{what}: {ending!r}"
            assert len(str(ending)) < 1_100, what
            assert runner._task is not None
            assert not runner._task.done(), what
            assert (await victim.digest(), await victim._replica.cursor()) == (digest, position), what
            assert await quarantined(victim) == [], what
    await switch.turn(switch.port)
    await victim.synced(20)
    assert victim.status.verified
    await check_laws(victim)


@dataclass
class Meddler:
    """Stands between a device and the real server, and puts into its pages what it likes.

    A device's own updates take up positions in the log that its pages pass over: there is the room.
    """

    port: int
    harmful: list[tuple[str, bytes]]
    put_in: int = 0

    async def __call__(self, near: ServerConnection) -> None:
        url = f"ws://127.0.0.1:{self.port}/v1/sync"
        async with connect(url, max_size=None, compression=None, ping_interval=None) as far:
            ways = [asyncio.create_task(self._up(near, far)), asyncio.create_task(self._down(far, near))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _up(self, near: ServerConnection, far: ClientConnection) -> None:
        async for frame in near:
            await far.send(frame)

    async def _down(self, far: ClientConnection, near: ServerConnection) -> None:
        async for frame in far:
            assert isinstance(frame, bytes)
            message = wire.decode_from_server(frame)
            if isinstance(message, wire.Page):
                message = self._meddled(message)
            elif isinstance(message, wire.Documents) and not message.through and message.states:
                _, update = self.harmful[self.put_in % len(self.harmful)]
                self.put_in += 1
                states = [msgspec.structs.replace(message.states[0], snapshot=update)]
                message = msgspec.structs.replace(message, states=states)
            await near.send(wire.encode(message))

    def _meddled(self, page: wire.Page) -> wire.Page:
        held = {entry.position: entry for entry in page.entries}
        for position in range(page.after + 1, page.through + 1):
            if position not in held:
                record, update = self.harmful[self.put_in % len(self.harmful)]
                held[position] = wire.Entry(position, "notes", record, 77, update)
                self.put_in += 1
        return msgspec.structs.replace(page, entries=[held[position] for position in sorted(held)])


async def test_a_server_that_puts_poison_between_honest_pages_does_no_harm(
    server: LiveServer, switch: Switch, opens: Opens
) -> None:
    victim, friend = await opens("victim"), await opens("friend")
    await victim.register(switch.url)
    await friend.join(server.url, await victim.invite())
    note = await victim.collection(Note).insert(Note(title="ours"))
    for client in (victim, friend):
        await client.synced(20)
    poison = [update for update in HAZARDS.values() if is_refused(update)]
    assert len(poison) == len(HAZARDS), "what may harm must not pass the check"
    harmful = [(record, update) for record in (note.id, "new", "", "\0", "x" * 300) for update in poison]
    meddler = Meddler(switch.port, harmful)
    async with serve(meddler, "127.0.0.1", 0, max_size=None, compression=None) as between:
        await switch.turn(next(iter(between.sockets)).getsockname()[1])
        await victim.connect()
        for n in range(60):
            await victim.collection(Note).insert(Note(title=f"of the victim {n}"))
            await friend.collection(Note).insert(Note(title=f"of the friend {n}"))
        assert victim._runner is not None
        for _ in range(len(poison)):
            victim._runner.want("notes", note.id)
            await victim.synced(20)
        await friend.synced(20)
        await victim.synced(20)
    assert meddler.put_in > 60
    kept = await quarantined(victim)
    assert len(kept) >= meddler.put_in - 1  # a snapshot of nothing is no harm
    assert all(code and source == "pull" for _, code, source in kept)
    await switch.turn(switch.port)
    await victim.collection(Note).insert(Note(title="afterwards"))
    for client in (victim, friend, victim):
        await client.synced(20)
        assert client.status.verified
    assert await victim.digest() == await friend.digest()
    assert await quarantined(friend) == []
    await check_laws(victim)


async def test_a_server_that_makes_things_up_is_found_out(switch: Switch, opens: Opens) -> None:
    victim = await opens("victim")
    await victim.register(switch.url)
    await victim.synced(20)
    meddler = Meddler(switch.port, [("made up", GOOD)])
    async with serve(meddler, "127.0.0.1", 0, max_size=None, compression=None) as between:
        await switch.turn(next(iter(between.sockets)).getsockname()[1])
        await victim.collection(Note).insert(Note(title="mine"))
        with pytest.raises(ContentsDiffer):
            await victim.synced(20)
        assert victim.status.verified is False
    await switch.turn(switch.port)
    await victim.collection(Note).insert(Note(title="it goes on"))
    await eventually(lambda: victim.status.pending == 0)
    await check_laws(victim)


def is_refused(update: bytes) -> bool:
    try:
        check_update(update, client=77, index=None)
    except UpdateRefused:
        return True
    return False
