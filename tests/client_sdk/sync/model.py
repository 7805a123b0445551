"""A server and a device's copy in memory, so small that they are plainly right: what the engine is tested against.

A record here is a set of updates; the contents of a copy are its updates, and so its digest is theirs. An update that
begins with ``bad`` is one that the server refuses. Neither of the two knows anything of the engine; they hold to
`crdt.wire` and to `client_sdk.sync.device.Replica`, and complain when the other side does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import count
from typing import Any, TypeVar

from client_sdk.sync.events import OutboxPlace
from crdt import wire
from crdt.limits import PAGES_IN_FLIGHT, PUSHES_IN_FLIGHT

__all__ = [
    "DEVICE",
    "GENERATION",
    "SPACE",
    "Batch",
    "MemoryReplica",
    "ModelServer",
    "ModelSession",
    "Part",
    "at_once",
]

SPACE = "00000000-0000-7000-8000-000000000001"
DEVICE = "00000000-0000-7000-8000-00000000000d"
GENERATION = "00000000-0000-7000-8000-0000000000ff"

Part = tuple[str, str, bytes]  # collection, record, update
_T = TypeVar("_T")


def at_once(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    raise AssertionError("it waited")


def digest_of(parts: set[Part]) -> tuple[bytes, int]:
    total = sum(int.from_bytes(blake2b(repr(part).encode(), digest_size=16).digest()) for part in parts)
    return (total % 2**128).to_bytes(16), len({part[:2] for part in parts})


@dataclass(frozen=True)
class Batch:
    incarnation: int
    client: int
    first: int
    edits: list[wire.Edit]


@dataclass(frozen=True)
class _Pending:
    incarnation: int
    client: int
    n: int
    edit: wire.Edit


class MemoryReplica:
    """A device's copy. Everything in it counts as durable; `reopen` is a crash, or the next start."""

    def __init__(self, numbers: count[int]) -> None:
        self._numbers = numbers
        self.parts: set[Part] = set()
        self.quarantine: list[tuple[Part, str]] = []
        self.outbox: list[_Pending] = []
        self.generation, self.position = "", 0
        self.offset_ms = 0
        self.failing: Exception | None = None  # what the next write raises
        self.reopen()

    def reopen(self) -> None:
        self._incarnation, self._client, self._n = next(self._numbers), next(self._numbers), 0

    def write(self, collection: str, record: str, update: bytes) -> None:
        self._n += 1
        edit = wire.Edit(collection, record, update)
        self.outbox.append(_Pending(self._incarnation, self._client, self._n, edit))
        self.parts.add((collection, record, update))

    @property
    def incarnation(self) -> int:
        return self._incarnation

    @property
    def client(self) -> int:
        return self._client

    async def pending_count(self) -> int:
        return len(self.outbox)

    async def pending(self, after: OutboxPlace | None, *, edits_max: int, bytes_max: int) -> Batch | None:
        waiting = list(self.outbox)
        if after is not None:
            places = [(pending.incarnation, pending.n) for pending in waiting]
            waiting = waiting[places.index(after) + 1 :]
        taken: list[_Pending] = []
        for pending in waiting[:edits_max]:
            if taken and (pending.incarnation != taken[0].incarnation or pending.n != taken[-1].n + 1):
                break
            if taken and sum(len(one.edit.update) for one in [*taken, pending]) > bytes_max:
                break
            taken.append(pending)
        if not taken:
            return None
        return Batch(taken[0].incarnation, taken[0].client, taken[0].n, [one.edit for one in taken])

    async def acknowledge(self, incarnation: int, through: int, refusals: list[wire.Refusal]) -> None:
        self._may_fail()
        refused = {refusal.n: refusal.code for refusal in refusals}
        for pending in [one for one in self.outbox if one.incarnation == incarnation and one.n <= through]:
            self.outbox.remove(pending)
            if pending.n in refused:
                part = (pending.edit.collection, pending.edit.record, pending.edit.update)
                self.parts.discard(part)
                self.quarantine.append((part, refused[pending.n]))

    async def apply_page(self, page: wire.Page) -> None:
        self._may_fail()
        if page.through <= self.position:
            return
        assert page.after == self.position, "the cursor may not skip"
        self.parts |= {(entry.collection, entry.record, entry.update) for entry in page.entries}
        self.position = page.through

    async def apply_documents(self, documents: wire.Documents) -> None:
        self._may_fail()
        if 0 < documents.through <= self.position:
            return
        assert not documents.through or documents.after == self.position, "the cursor may not skip"
        for state in documents.states:
            updates = state.snapshot.split(b"\0")
            self.parts |= {(state.collection, state.record, update) for update in updates}
        self.position = documents.through or self.position

    async def cursor(self) -> tuple[str, int]:
        return self.generation, self.position

    async def set_generation(self, generation: str) -> None:
        self.generation = generation

    async def digest(self) -> tuple[bytes, int]:
        return digest_of(self.parts)

    def observe_server_time(self, offset_ms: int) -> None:
        self.offset_ms = offset_ms

    async def rehome(self, taken: int | None = None) -> None:
        taken = taken or self._incarnation
        incarnation, client = next(self._numbers), next(self._numbers)
        first = min((one.n for one in self.outbox if one.incarnation == taken), default=0)
        if first == 1:
            self.outbox = [
                replace(one, incarnation=incarnation, client=client) if one.incarnation == taken else one
                for one in self.outbox
            ]
        if taken == self._incarnation:
            self._incarnation, self._client, self._n = incarnation, client, self._n if first == 1 else 0

    def _may_fail(self) -> None:
        failing, self.failing = self.failing, None
        if failing is not None:
            raise failing


@dataclass
class Row:
    device: str
    incarnation: int
    client: int
    edit: wire.Edit


@dataclass
class ModelServer:
    """One space. ``log[i]`` stands at position ``i`` + 1."""

    page_entries: int = 3
    now_ms: int = 1_000_000
    log: list[Row] = field(default_factory=list)
    through: dict[tuple[str, int], int] = field(default_factory=dict)
    refused: dict[tuple[str, int], dict[int, wire.Refusal]] = field(default_factory=dict)
    owners: dict[int, tuple[str, int]] = field(default_factory=dict)
    sessions: list[ModelSession] = field(default_factory=list)

    @property
    def parts(self) -> set[Part]:
        return {(row.edit.collection, row.edit.record, row.edit.update) for row in self.log}

    def connect(self) -> ModelSession:
        session = ModelSession(self)
        self.sessions.append(session)
        return session

    def push(self, device: str, push: wire.Push) -> wire.Ack | wire.Failure:
        writer = (device, push.incarnation)
        if self.owners.setdefault(push.client, writer) != writer:
            return wire.Failure("client_id_taken", "mint a new one")
        through = self.through.get(writer, 0)
        if push.first > through + 1:
            return wire.Failure("out_of_order", f"{through + 1} comes next", 0)
        refused = self.refused.setdefault(writer, {})
        last = push.first + len(push.edits) - 1
        for n, edit in enumerate(push.edits, push.first):
            if n <= through:
                continue
            if edit.update.startswith(b"bad"):
                refused[n] = wire.Refusal(n, "bad", "it is bad")
            else:
                self.log.append(Row(device, push.incarnation, push.client, edit))
        self.through[writer] = max(through, last)
        refusals = [refused[n] for n in range(push.first, last + 1) if n in refused]
        return wire.Ack(SPACE, push.incarnation, last, refusals)


class ModelSession:
    """One connection: messages of the device in, messages of the server into ``out``."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self.out: deque[wire.FromServer] = deque()
        self.is_open = True
        self.device, self.incarnation = "", 0
        self.sent = self.received = 0
        self.pages: deque[int] = deque()  # where each page ends that is not known to be durable
        self.unanswered = 0
        self.pushed: dict[int, int] = {}  # by incarnation, how far this session pushed
        self._verify: int | None = None
        self._by_documents = False

    def receive(self, message: wire.FromDevice) -> None:
        if not self.is_open:
            return
        server = self.server
        match message:
            case wire.Hello():
                assert message.protocol == wire.PROTOCOL
                cursor = message.cursors[0]
                assert cursor.space == SPACE
                assert cursor.generation in {"", GENERATION}
                self.device, self.incarnation = message.device, message.incarnation
                assert cursor.position <= len(server.log)
                self.sent = self.received = cursor.position
                self._by_documents = len(server.log) - cursor.position > 3 * server.page_entries
                held = {inc: through for (dev, inc), through in server.through.items() if dev == self.device}
                state = wire.SpaceState(SPACE, GENERATION, len(server.log), held)
                self.out.append(wire.Welcome(wire.PROTOCOL, server.now_ms, [state]))
            case wire.Push():
                self.unanswered += 1
                assert self.unanswered <= PUSHES_IN_FLIGHT, "too many pushes at once"
                assert message.first > self.pushed.get(message.incarnation, 0), "twice in one session"
                self.pushed[message.incarnation] = message.first + len(message.edits) - 1
                self.out.append(server.push(self.device, message))
                self.is_open = isinstance(self.out[-1], wire.Ack)
            case wire.Received(position=position):
                assert position <= self.sent, "it received what was not sent"
                self.received = max(self.received, position)
                while self.pages and self.pages[0] <= position:
                    self.pages.popleft()
            case wire.Verify(position=position):
                assert position == self.received, "it verifies what is not durable"
                self._verify = position
            case wire.Fetch(collection=collection, record=record):
                self.out.append(
                    wire.Documents(SPACE, 0, 0, len(server.log), self._documents(0, {(collection, record)}))
                )

    def take(self) -> wire.FromServer | None:
        """Return what reaches the device next."""
        self._think()
        if not self.out:
            return None
        message = self.out.popleft()
        self.unanswered -= isinstance(message, wire.Ack)
        return message

    def _think(self) -> None:
        """Send what is due: the next page within the window, a digest."""
        if not (self.is_open and self.device):
            return
        log, head = self.server.log, len(self.server.log)
        while self.sent < head and len(self.pages) < PAGES_IN_FLIGHT:
            after = self.sent
            if self._by_documents:
                self._by_documents, through = False, head
                records = {(row.edit.collection, row.edit.record) for row in log[after:]}
                states = self._documents(after, records)
                self.out.append(wire.Documents(SPACE, after, through, head, states))
            else:
                through = min(after + self.server.page_entries, head)
                entries = [
                    wire.Entry(position, row.edit.collection, row.edit.record, row.client, row.edit.update)
                    for position, row in enumerate(log[after:through], after + 1)
                    if (row.device, row.incarnation) != (self.device, self.incarnation)
                ]
                self.out.append(wire.Page(SPACE, after, through, head, entries))
            self.sent = through
            self.pages.append(through)
        if self._verify is not None:
            asked, self._verify = self._verify, None
            if asked == head:
                digest, records_held = digest_of(self.server.parts)
                self.out.append(wire.Verified(SPACE, asked, digest, records_held))

    def _documents(self, after: int, records: set[tuple[str, str]]) -> list[wire.DocumentState]:
        states = []
        for collection, record in records:
            rows = [
                (position, row.edit.update)
                for position, row in enumerate(self.server.log, 1)
                if (row.edit.collection, row.edit.record) == (collection, record)
            ]
            if rows and rows[-1][0] > after:
                snapshot = b"\0".join(update for _, update in rows)
                states.append(wire.DocumentState(rows[-1][0], collection, record, snapshot))
        return sorted(states, key=lambda state: state.position)
