"""Random histories of two devices and one server end equal, whatever is cut, and whenever it is.

The engine is given its events one at a time, and its instructions are carried out late: messages, commits and cuts come
in between. The server (`model`) is honest and checks what it is sent.
"""

from __future__ import annotations

from collections import deque
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from client_sdk.sync.engine import Engine
from client_sdk.sync.errors import TransportClosed
from client_sdk.sync.events import (
    Acknowledge,
    Acknowledged,
    Applied,
    ApplyDocuments,
    ApplyPage,
    BatchLoaded,
    Close,
    Committed,
    Confirm,
    Connected,
    Dialling,
    DigestRead,
    Event,
    Instruction,
    LoadPending,
    Lost,
    ObserveTime,
    ReadDigest,
    Received,
    Rehome,
    Report,
    Send,
    SetGeneration,
    Wanted,
)
from crdt import wire
from tests.client_sdk.sync.model import SPACE, MemoryReplica, ModelServer, ModelSession, at_once

DEVICES = ("00000000-0000-7000-8000-00000000000a", "00000000-0000-7000-8000-00000000000b")
RECORDS = st.sampled_from(["r1", "r2", "r3", "r4"])


class Device:
    """An engine, a copy, and a hand that carries out one instruction when told."""

    def __init__(self, name: str, numbers: count[int], server: ModelServer) -> None:
        self.name = name
        self.server = server
        self.replica = MemoryReplica(numbers)
        self.engine = Engine(space=SPACE, device=name)
        self.session: ModelSession | None = None
        self.instructions: deque[Instruction] = deque()
        self.up: deque[wire.FromDevice] = deque()
        self.closes: list[Close] = []
        self.clock = 0

    def feed(self, event: Event) -> None:
        self.instructions.extend(self.engine.handle(event))

    def do_one(self) -> None:
        event = self._do(self.instructions.popleft())
        if event is not None:
            self.feed(event)

    def do_all(self) -> None:
        while self.instructions:
            self.do_one()

    def _do(self, instruction: Instruction) -> Event | None:
        replica = self.replica
        match instruction:
            case Send(message):
                if self.session is not None:
                    self.up.append(message)
            case LoadPending(after, edits_max, bytes_max):
                assert edits_max > 2
                return BatchLoaded(at_once(replica.pending(after, edits_max=2, bytes_max=bytes_max)))
            case Acknowledge(incarnation, through, refusals):
                at_once(replica.acknowledge(incarnation, through, refusals))
                return Acknowledged(len(replica.outbox))
            case ApplyPage(page):
                at_once(replica.apply_page(page))
                return Applied(page.through)
            case ApplyDocuments(documents):
                at_once(replica.apply_documents(documents))
                return Applied(documents.through)
            case ReadDigest():
                digest, records = at_once(replica.digest())
                return DigestRead(digest, records, len(replica.outbox))
            case SetGeneration(generation):
                at_once(replica.set_generation(generation))
            case ObserveTime(offset_ms):
                replica.observe_server_time(offset_ms)
            case Rehome(taken):
                at_once(replica.rehome(taken))
            case Close():
                self.closes.append(instruction)
                self.session = None
                self.up.clear()
            case Report():
                pass
            case _:
                raise AssertionError(instruction)
        return None

    def connect(self) -> None:
        self.do_all()
        self.feed(Dialling())
        self.session = self.server.connect()
        replica = self.replica
        hello = Connected(
            token="t",
            incarnation=replica.incarnation,
            client=replica.client,
            generation=replica.generation,
            position=replica.position,
            pending=len(replica.outbox),
            now_ms=self.server.now_ms - 5,
        )
        self.feed(hello)

    def cut(self) -> None:
        self.do_all()
        if self.session is not None:
            self.session = None
            self.up.clear()
            self.feed(Lost(TransportClosed(1006)))
            self.do_all()

    def crash(self) -> None:
        """End anywhere, between any two instructions, and start again: only the copy stays."""
        self.instructions.clear()
        self.up.clear()
        self.session = None
        self.engine = Engine(space=SPACE, device=self.name)
        self.replica.reopen()

    def send_one(self) -> None:
        if self.up and self.session is not None:
            self.session.receive(self.up.popleft())

    def receive_one(self) -> bool:
        message = self.session.take() if self.session is not None else None
        if message is not None:
            self.feed(Received(message, self.server.now_ms))
        return message is not None

    def settle(self) -> None:
        """Let everything that is under way arrive."""
        for _ in range(2_000):
            self.do_all()
            if self.up:
                self.send_one()
            elif not self.receive_one() and not self.instructions:
                return
        raise AssertionError("it does not come to rest")


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        numbers = count(1)
        self.server = ModelServer()
        self.devices = [Device(name, numbers, self.server) for name in DEVICES]
        self.written: list[bytes] = []

    @rule(
        which=st.integers(0, 1),
        records=st.lists(RECORDS, min_size=1, max_size=12),
        are_bad=st.sets(st.integers(0, 11), max_size=2),
        is_told=st.booleans(),
    )
    def write(self, which: int, records: list[str], are_bad: set[int], is_told: bool) -> None:
        device = self.devices[which]
        for place, record in enumerate(records):
            update = b"%s %d" % (b"bad" if place in are_bad else b"good", len(self.written))
            device.replica.write("notes", record, update)
            self.written.append(update)
        if is_told:
            device.feed(Committed(len(device.replica.outbox)))

    @rule(which=st.integers(0, 1))
    def connect(self, which: int) -> None:
        if self.devices[which].session is None:
            self.devices[which].connect()

    @rule(which=st.integers(0, 1), steps=st.lists(st.sampled_from("dsr"), min_size=1, max_size=12))
    def go_on(self, which: int, steps: list[str]) -> None:
        device = self.devices[which]
        for step in steps:
            if step == "d" and device.instructions:
                device.do_one()
            elif step == "s":
                device.send_one()
            elif step == "r":
                device.receive_one()

    @rule(which=st.integers(0, 1))
    def settle(self, which: int) -> None:
        self.devices[which].settle()

    @rule(which=st.integers(0, 1))
    def cut(self, which: int) -> None:
        self.devices[which].cut()

    @rule(which=st.integers(0, 1))
    def crash(self, which: int) -> None:
        self.devices[which].crash()

    @rule(which=st.integers(0, 1), record=RECORDS)
    def want(self, which: int, record: str) -> None:
        self.devices[which].feed(Wanted("notes", record))

    @rule(which=st.integers(0, 1))
    def confirm(self, which: int) -> None:
        self.devices[which].feed(Confirm())

    @rule()
    def take_the_client_id(self) -> None:
        """Another device claims the id that this one is about to write under."""
        replica = self.devices[0].replica
        self.server.owners.setdefault(replica.client, ("someone else", 1))

    @invariant()
    def the_server_is_never_blamed(self) -> None:
        for device in self.devices:
            for close in device.closes:
                assert getattr(close.error, "code", None) in {1006, "client_id_taken"}, close

    @invariant()
    def the_status_says_no_more_than_is_so(self) -> None:
        for device in self.devices:
            status = device.engine.status
            assert status.cursor <= device.replica.position, "durable before told"
            assert status.verified is not False
            if status.state == "synced" or status.verified:
                assert status.pending == 0
                assert status.cursor == status.head

    def teardown(self) -> None:
        for device in self.devices:
            device.cut()
        # The second has what the first pushed, and the other way round; and each id that was taken costs a session.
        for _ in range(3 + len(self.server.owners)):
            for device in self.devices:
                if device.session is None:
                    device.connect()
                device.feed(Committed(len(device.replica.outbox)))
                device.settle()
        good = sorted(update for update in self.written if update.startswith(b"good"))
        bad = sorted(update for update in self.written if update.startswith(b"bad"))
        assert sorted(row.edit.update for row in self.server.log) == good, "one row for each edit, none lost"
        refused = sorted(part[2] for device in self.devices for part, _ in device.replica.quarantine)
        assert refused == bad, "each refusal reached its device, once"
        for device in self.devices:
            assert not device.replica.outbox
            assert device.replica.parts == self.server.parts
            status = device.engine.status
            assert (status.state, status.pending, status.verified) == ("synced", 0, True), status
            assert status.cursor == status.head == len(self.server.log)
            assert device.replica.position == len(self.server.log)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=300, stateful_step_count=50)
