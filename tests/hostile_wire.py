"""Hostile updates over the wire, in both directions: ``python -m tests.hostile_wire COUNT``.

`tests.hostile` puts forged updates before the check; here they travel. As pushes, a device with a valid account sends
them to a running server, between the honest updates of the same records; as pulls, a stand-in for the server sends
them to a device, in pages and as documents. What is forged, and how, is `tests.crdt.forging`'s.

Meanwhile two honest devices in a space of their own tell each other something again and again. Nothing of ours may
die but the worker that folds, every refusal must have a code, and the honest two must not wait long, and be proved
equal in the end.

Everything follows from the seed (``SEED`` in the environment, 1 if it is not set), but for the machine's timing.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx
import msgspec
from pycrdt import Doc
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

import client_sdk
from client_sdk import Client
from crdt import wire
from crdt.index import DocumentIndex
from crdt.updates import check_update
from server.embedded import EmbeddedPostgres
from tests.client_sdk.device import KEY, check_laws
from tests.client_sdk.records import Note, Tag
from tests.crdt.forging import Forger
from tests.crdt.histories import History
from tests.journeys.live import LiveServer, eventually
from tests.journeys.switch import Switch
from tests.postgres import fast_folder, query
from tests.server.people import Device, hello
from tests.server.serving import Key, Running

__all__ = ["Attack", "Pulled", "Pushed", "Volley", "honest_pair", "main", "pull", "push", "volleys"]

_VARIANTS: Final = 40  # records that go through one history side by side, each with forgeries of its own
_PAGE_ENTRIES: Final = 1_000
_FOLD_S_MAX: Final = 600.0
_FORGED: Final = 0.6


@dataclass(frozen=True, slots=True)
class Attack:
    """An update to a record. ``client`` is announced; ``is_forged`` unless it is an honest one of the history."""

    record: str
    client: int
    update: bytes
    is_forged: bool


@dataclass(frozen=True, slots=True)
class Volley:
    """Updates of one client, for different moments of different records, and a document as a whole."""

    client: int
    attacks: list[Attack]
    snapshot: bytes


def volleys(chance: random.Random, count: int) -> Iterator[Volley]:
    """Yield ``count`` forged updates, between the honest ones of histories that they break."""
    forged, number = 0, 0
    while forged < count:
        number += 1
        history = History.random(chance, devices=chance.randrange(2, 4), steps=chance.randrange(4, 16))
        history.close()
        forger = Forger(chance, [update for _, update in history.log])
        index, doc = DocumentIndex(), Doc[Any]()
        for client, update in history.log:
            by_client: dict[int, list[Attack]] = {client: []}
            for variant in range(_VARIANTS):
                record = f"{number}-{variant}"
                if chance.random() < _FORGED:
                    announced = client if chance.random() < 0.9 else chance.choice(forger.clients or [client])
                    hostile = forger.forge(update, index.next_clock(client))
                    by_client.setdefault(announced, []).append(
                        Attack(record, announced, hostile, is_forged=True)
                    )
                    forged += 1
                by_client[client].append(Attack(record, client, update, is_forged=False))
            doc.apply_update(update)
            snapshot = forger.scramble(doc.get_update())
            for announced, attacks in by_client.items():  # never empty: each has an honest or a forged one
                yield Volley(announced, attacks, snapshot)
            checked = check_update(update, client=client, index=index)
            index.add(checked)
            for item in checked.items:
                known = forger.ids.setdefault((item.root, item.key), [])
                known.extend((client, item.clock + unit) for unit in range(min(item.length, 8)))
            forger.clients = list(index.clocks)


# ------------------------------------------------------------------------------------------------------ as pushes


@dataclass
class Pushed:
    """What came of pushes. ``quarantined`` are those that the log took and the folding refused."""

    forged: int = 0
    honest: int = 0
    admitted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    latency_p50_ms: float = 0.0
    latency_max_ms: float = 0.0
    seconds: float = 0.0
    folded_s: float = 0.0


async def push(server: LiveServer, hostile: Device, pair: Pair, *, count: int, seed: int) -> Pushed:
    """Push ``count`` forged updates from a process of its own, while the pair goes on."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.hostile_wire", "--attack", stdin=PIPE, stdout=PIPE
    )
    order = _Order(f"{server.url.replace('http', 'ws', 1)}/v1/sync", hostile, count, seed)
    telling = asyncio.create_task(pair.tell_each_other())
    try:
        told, _ = await process.communicate(msgspec.json.encode(order))
        assert process.returncode == 0, process.returncode
        pushed = msgspec.json.decode(told, type=Pushed)
        assert server.is_running
        await eventually(lambda: _is_folded(server, hostile.space), within_s=_FOLD_S_MAX)
        pushed.folded_s = time.perf_counter() - began
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    reasons = await _reasons(server, hostile.space)
    assert all(": " in reason for reason in reasons), reasons[:3]
    pushed.quarantined = dict(Counter(reason.partition(":")[0] for reason in reasons))
    pushed.latency_p50_ms, pushed.latency_max_ms = pair.latency_ms()
    return pushed


class _Order(msgspec.Struct):
    url: str
    device: Device
    count: int
    seed: int


def attack() -> None:
    """Push what standard input says, and print what came of it."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=_Order)
    print(msgspec.json.encode(asyncio.run(_attack(order))).decode())


async def _attack(order: _Order) -> Pushed:
    device, pushed = order.device, Pushed()
    sent: dict[int, int] = {}  # by client, which has an incarnation to itself
    began = time.perf_counter()
    async with connect(order.url, max_size=None, compression=None, ping_interval=None) as socket:
        await socket.send(wire.encode(hello(device)))
        assert isinstance(await _answer(socket), wire.Welcome)
        for volley in volleys(random.Random(order.seed), order.count):
            first = sent.get(volley.client, 0) + 1
            edits = [wire.Edit("notes", attack.record, attack.update) for attack in volley.attacks]
            message = wire.Push(str(device.space), volley.client, volley.client, first, edits)
            await socket.send(wire.encode(message))
            ack = await _answer(socket)
            assert isinstance(ack, wire.Ack), ack
            sent[volley.client] = first + len(edits) - 1
            assert (ack.incarnation, ack.through) == (volley.client, sent[volley.client])
            for refusal in ack.refusals:
                assert refusal.code.isidentifier(), refusal
                assert refusal.detail, refusal
                pushed.refused[refusal.code] = pushed.refused.get(refusal.code, 0) + 1
            pushed.forged += sum(attack.is_forged for attack in volley.attacks)
            pushed.honest += sum(not attack.is_forged for attack in volley.attacks)
            pushed.admitted += len(edits) - len(ack.refusals)
    pushed.seconds = time.perf_counter() - began
    return pushed


async def _answer(socket: Any) -> wire.FromServer:
    """Return the next answer; pages of what other incarnations pushed are not for us."""
    while True:
        message = wire.decode_from_server(await socket.recv())
        if not isinstance(message, wire.Page | wire.Documents):
            return message


async def _is_folded(server: LiveServer, space: UUID) -> bool:
    found = f"SELECT head = position FROM spaces JOIN materializations USING (space_id) WHERE space_id = '{space}'"
    return bool(await query(server.database_url, found))


async def _reasons(server: LiveServer, space: UUID) -> list[str]:
    connection = await asyncpg.connect(server.database_url)
    try:
        rows = await connection.fetch("SELECT reason FROM quarantine WHERE space_id = $1", space)
    finally:
        await connection.close()
    return [row["reason"] for row in rows]


# ------------------------------------------------------------------------------------------------- the honest two


class Pair:
    """Two devices of one space that tell each other something, and how long that takes."""

    def __init__(self, first: Client, second: Client) -> None:
        self.first, self.second = first, second
        self.latencies_s: list[float] = []

    async def tell_each_other(self) -> None:
        """Go on until cancelled."""
        for number in range(1_000_000):
            here, there = (self.first, self.second) if number % 2 else (self.second, self.first)
            heard, title = asyncio.Event(), f"{number} at {time.monotonic_ns()}"
            query = there.collection(Note).where(title=title)
            subscription = query.subscribe(lambda rows, heard=heard: heard.set() if rows else None)  # type: ignore[misc]
            began = time.perf_counter()
            try:
                await here.collection(Note).insert(Note(title=title))
                await heard.wait()
            finally:
                subscription.close()
            self.latencies_s.append(time.perf_counter() - began)
            await asyncio.sleep(0.02)

    def latency_ms(self) -> tuple[float, float]:
        """Return the median and the longest, and begin anew."""
        times, self.latencies_s = sorted(self.latencies_s) or [0.0], []
        return round(times[len(times) // 2] * 1e3, 1), round(times[-1] * 1e3, 1)

    async def verify(self) -> None:
        """Both must be proved equal."""
        for client in (self.first, self.second, self.first):
            await client.synced(60)
        assert self.first.status.verified
        assert self.second.status.verified
        assert await self.first.digest() == await self.second.digest()
        for client in (self.first, self.second):
            await check_laws(client)


@asynccontextmanager
async def honest_pair(folder: Path, url: str) -> AsyncIterator[Pair]:
    """Open two devices in a new space."""
    async with (
        client_sdk.open(folder / "first.db", records=[Note, Tag], key=KEY) as first,
        client_sdk.open(folder / "second.db", records=[Note, Tag], key=KEY) as second,
    ):
        await first.register(url)
        await second.join(url, await first.invite())
        pair = Pair(first, second)
        await pair.verify()
        yield pair


# ------------------------------------------------------------------------------------------------------- as pulls


@dataclass
class Pulled:
    """What came of pulls: ``quarantined`` by code, ``documents_made`` of what could not be refused."""

    forged: int = 0
    honest: int = 0
    documents: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    documents_made: int = 0
    write_p50_ms: float = 0.0
    write_max_ms: float = 0.0
    seconds: float = 0.0


async def pull(switch: Switch, victim: Client, *, count: int, seed: int) -> Pulled:
    """Let a stand-in send ``count`` forged updates to a device, which goes on writing meanwhile."""
    pulled, over, began = Pulled(), asyncio.Event(), time.perf_counter()

    async def stand_in(socket: ServerConnection) -> None:
        message = wire.decode_from_device(await socket.recv())  # type: ignore[arg-type]
        assert isinstance(message, wire.Hello)
        cursor = message.cursors[0]
        state = wire.SpaceState(cursor.space, cursor.generation, 2**40, {})
        await socket.send(wire.encode(wire.Welcome(wire.PROTOCOL, message.now_ms, [state])))
        position = cursor.position
        for page in _pages(random.Random(seed), count, pulled, cursor.space, position):
            await socket.send(wire.encode(page))
            position = page.through
            while True:
                answer = wire.decode_from_device(await socket.recv())  # type: ignore[arg-type]
                if isinstance(answer, wire.Received) and answer.position == position:
                    break
        over.set()
        await socket.wait_closed()

    async with serve(stand_in, "127.0.0.1", 0, max_size=None) as server:
        await switch.turn(next(iter(server.sockets)).getsockname()[1])
        await victim.connect()
        writes: list[float] = []
        while not over.is_set():
            started = time.perf_counter()
            await victim.collection(Tag).insert(Tag(name=str(len(writes))))
            writes.append((time.perf_counter() - started) * 1e3)
            await asyncio.sleep(0.05)
            assert victim.status.state != "error", victim.status
    rows = await victim.sql("SELECT code, detail, source FROM pjais_quarantine")
    odd = [
        tuple(row)
        for row in rows
        if not (row["code"] and row["detail"] and row["source"] in {"pull", "schema"})
    ]
    assert not odd, odd[:3]
    pulled.quarantined = dict(Counter(row["code"] for row in rows))
    pulled.documents_made = (await victim.sql("SELECT count(*) FROM pjais_documents"))[0][0]
    await check_laws(victim)
    writes.sort()
    pulled.write_p50_ms, pulled.write_max_ms = round(writes[len(writes) // 2], 1), round(writes[-1], 1)
    pulled.seconds = time.perf_counter() - began
    return pulled


def _pages(
    chance: random.Random, count: int, pulled: Pulled, space: str, position: int
) -> Iterator[wire.Page | wire.Documents]:
    entries: list[wire.Entry] = []
    states: list[wire.DocumentState] = []
    end = position
    for volley in volleys(chance, count):
        for attack in volley.attacks:
            end += 1
            entries.append(wire.Entry(end, "notes", attack.record, volley.client, attack.update))
            pulled.forged += attack.is_forged
            pulled.honest += not attack.is_forged
        states.append(
            wire.DocumentState(
                0, "notes", volley.attacks[0].record if volley.attacks else "x", volley.snapshot
            )
        )
        if len(entries) >= _PAGE_ENTRIES:
            yield wire.Page(space, position, end, 2**40, entries)
            numbered = [msgspec.structs.replace(state, position=end + n) for n, state in enumerate(states, 1)]
            pulled.documents += len(states)
            position = end + len(states)
            yield wire.Documents(space, end, position, 2**40, numbered)
            end, entries, states = position, [], []
    if entries:
        yield wire.Page(space, position, end, 2**40, entries)


# ----------------------------------------------------------------------------------------------------------- both


def main() -> None:
    """Push and pull COUNT forged updates (100,000), and print a line of JSON for each direction."""
    if sys.argv[1:] == ["--attack"]:
        attack()
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else int(os.environ.get("COUNT", "100000"))
    seed = int(os.environ.get("SEED", "1"))

    async def both(folder: Path) -> None:
        async with (
            EmbeddedPostgres(folder / "cluster") as postgres,
            LiveServer(folder, database_url=postgres.url) as server,
            honest_pair(folder, server.url) as pair,
        ):
            async with httpx.AsyncClient(base_url=server.url, timeout=20) as http:
                hostile = await Running(server.url, http).register(Key())
            pushed = await push(server, hostile, pair, count=count, seed=seed)
            await pair.verify()
            print(json.dumps({"direction": "push", **asdict(pushed)}), flush=True)
            async with (
                Switch(server.port) as switch,
                client_sdk.open(folder / "victim.db", records=[Note, Tag], key=KEY) as victim,
            ):
                await victim.register(switch.url)
                await victim.synced(60)
                pulled = await pull(switch, victim, count=count, seed=seed)
            await pair.verify()
            print(json.dumps({"direction": "pull", **asdict(pulled)}), flush=True)
            assert server.problems() == []

    with fast_folder() as folder:
        asyncio.run(both(folder))


if __name__ == "__main__":
    main()
