"""Devices as the server meets them: enrolled in a space, with a token, honest updates and frames of the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from uuid import UUID, uuid4

import msgspec
import pycrdt

from crdt import wire
from crdt.updates import write_creation
from server import devices, spaces
from server.admit import Admit
from server.database import Connection, Database
from server.notify import Notify
from server.session import Meeting, Session
from server.settings import Settings

__all__ = [
    "Device",
    "Document",
    "creation",
    "edits",
    "enrolled",
    "eventually",
    "hello",
    "materialized",
    "meeting_of",
    "received",
]

_numbers = count(1)


@dataclass(frozen=True)
class Device:
    """A device of a space; ``client`` and ``incarnation`` are those of its present opening."""

    account: UUID
    space: UUID
    device: UUID
    token: str
    incarnation: int = field(default_factory=lambda: next(_numbers) << 20)
    client: int = field(default_factory=lambda: next(_numbers) << 20)

    def push(self, first: int, records: Iterable[wire.Edit]) -> wire.Push:
        return wire.Push(str(self.space), self.incarnation, self.client, first, list(records))

    def reopened(self) -> Device:
        """The same device after its file was opened again."""
        return Device(self.account, self.space, self.device, self.token)


async def enrolled(database: Database, *, beside: Device | None = None) -> Device:
    """Enrol a device: in a new account and space, or beside another."""
    account, space, device = (
        (beside.account, beside.space, uuid4()) if beside else (uuid4(), uuid4(), uuid4())
    )
    now = datetime.now(UTC)

    async def work(connection: Connection) -> str:
        if beside is None:
            await spaces.add_account(connection, account, space=space, generation=uuid4())
        await devices.enrol(connection, device, account=account, public_key=device.bytes * 2, name="a device")
        await spaces.add_member(connection, space, device)
        return (await devices.token_issued(connection, device, now=now, lifetime_s=3_600)).text

    return Device(account, space, device, await database.transaction(work))


def creation(client: int, **values: object) -> bytes:
    """The update that creates a record."""
    registers = [(b"@", msgspec.msgpack.encode(1))]
    registers += [(name.encode(), msgspec.msgpack.encode(value)) for name, value in values.items()]
    return write_creation(client, registers)


def edits(client: int, number: int, *, start: int = 0, size: int = 20) -> list[wire.Edit]:
    """So many records created by a client."""
    return [
        wire.Edit("notes", f"{client}-{n}", creation(client, title="x" * size))
        for n in range(start, start + number)
    ]


class Document:
    """A record that one client edits again and again: each call returns the next update."""

    def __init__(self, client: int, record: str) -> None:
        self.client = client
        self.record = record
        self._doc: pycrdt.Doc[pycrdt.Map[bytes]] = pycrdt.Doc(client_id=client)
        self._reg = self._doc.get("reg", type=pycrdt.Map)

    def edit(self, value: str) -> wire.Edit:
        before = self._doc.get_state()
        self._reg[f"title@{self.client}"] = msgspec.msgpack.encode([1, value])
        return wire.Edit("notes", self.record, self._doc.get_update(before))


@asynccontextmanager
async def meeting_of(
    database: Database, settings: Settings, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AsyncIterator[Meeting]:
    """The rooms of one server process, running."""
    notify = Notify(database.listener, compare_interval_s=0.2)
    admit = Admit(database, notify.announce, settings)
    tasks = [asyncio.create_task(notify.run()), asyncio.create_task(admit.run())]
    try:
        yield Meeting(database, admit, notify, now=now)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def hello(
    device: Device, *, position: int = 0, generation: str = "", protocol: int = wire.PROTOCOL
) -> wire.Hello:
    cursors = [wire.Cursor(str(device.space), generation, position)]
    return wire.Hello(
        protocol, device.token, str(device.device), device.incarnation, device.client, cursors, now_ms=0
    )


async def received(session: Session, message: wire.FromDevice) -> list[wire.FromServer]:
    """Give a session a message and return its answers."""
    return [wire.decode_from_server(frame) for frame in await session.receive(wire.encode(message))]


async def materialized(database: Database, device: Device, documents: dict[str, tuple[int, bytes]]) -> None:
    """Do what the folding process does, for documents given as record → (position, snapshot)."""

    async def work(connection: Connection) -> None:
        await connection.executemany(
            "INSERT INTO documents (space_id, collection, record_id, position, snapshot, clocks, digest, value) "
            "VALUES ($1, 'notes', $2, $3, $4, '', decode(repeat('00', 16), 'hex'), '{\"title\": \"x\"}') "
            "ON CONFLICT (space_id, collection, record_id) DO UPDATE SET position = $3, snapshot = $4",
            [
                (device.space, record, position, snapshot)
                for record, (position, snapshot) in documents.items()
            ],
        )
        await connection.execute(
            "INSERT INTO materializations (space_id, position, records) "
            "SELECT space_id, head, (SELECT count(*) FROM documents WHERE space_id = $1) FROM spaces "
            "WHERE space_id = $1 "
            "ON CONFLICT (space_id) DO UPDATE SET position = excluded.position, records = excluded.records",
            device.space,
        )

    await database.transaction(work)


async def eventually(holds: Callable[[], Awaitable[bool] | bool], *, within_s: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(within_s):
        while True:
            now = holds()
            if now if isinstance(now, bool) else await now:
                return
            await asyncio.sleep(0.01)
