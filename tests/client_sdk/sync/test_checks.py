"""Whatever a server says, the engine stands: it acts on what continues from here, and leaves over anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.sync.checks import Flight, check_ack, check_page
from client_sdk.sync.engine import Engine
from client_sdk.sync.errors import ServerMisbehaved
from client_sdk.sync.events import (
    Acknowledge,
    Acknowledged,
    Applied,
    ApplyDocuments,
    ApplyPage,
    BatchLoaded,
    Close,
    Connected,
    Dialling,
    DigestRead,
    LoadPending,
    ReadDigest,
    Received,
    Send,
    Wanted,
)
from crdt import wire
from tests.client_sdk.sync.model import DEVICE, GENERATION, SPACE, Batch

NUMBERS = st.integers(-2, 12) | st.sampled_from([2**53, 2**63 - 1, 2**63, 2**64 - 1])
SPACES = st.sampled_from([SPACE, SPACE, SPACE, SPACE, "another", ""])
NAMES = st.sampled_from(["r1", "r2", ""])
ENTRIES = st.lists(st.builds(wire.Entry, NUMBERS, NAMES, NAMES, NUMBERS, st.binary(max_size=3)), max_size=4)
STATES = st.lists(st.builds(wire.DocumentState, NUMBERS, NAMES, NAMES, st.binary(max_size=3)), max_size=4)
HELD = st.dictionaries(NUMBERS, NUMBERS, max_size=2)
REFUSALS = st.lists(st.builds(wire.Refusal, NUMBERS, NAMES, NAMES), max_size=3)
CODES = st.sampled_from(
    ["unauthorized", "client_id_taken", "out_of_order", "too_large", "overloaded", "protocol_mismatch"]
)
DIGESTS = st.sampled_from([bytes(16), b"x" * 16, b""])

HONEST_PAGES = st.integers(1, 3).map(lambda size: ("next page", size))
MESSAGES: st.SearchStrategy[object] = st.one_of(
    HONEST_PAGES,
    st.just(("next ack", 0)),
    st.builds(
        wire.Welcome,
        NUMBERS,
        NUMBERS,
        st.lists(
            st.builds(wire.SpaceState, SPACES, st.sampled_from([GENERATION, ""]), NUMBERS, HELD), max_size=2
        ),
    ),
    st.builds(wire.Ack, SPACES, NUMBERS, NUMBERS, REFUSALS),
    st.builds(wire.Page, SPACES, NUMBERS, NUMBERS, NUMBERS, ENTRIES),
    st.builds(wire.Documents, SPACES, NUMBERS, NUMBERS, NUMBERS, STATES),
    st.builds(wire.Verified, SPACES, NUMBERS, DIGESTS, NUMBERS),
    st.builds(wire.Failure, CODES, NAMES, st.none() | NUMBERS),
)


class Watched:
    """An engine whose every instruction is carried out at once, and judged."""

    def __init__(self) -> None:
        self.engine = Engine(space=SPACE, device=DEVICE)
        self.cursor = 0
        self.acknowledged = 0
        self.is_open = False

    def connect(self) -> None:
        self.feed(Dialling())
        self.is_open = True
        self.feed(Connected("t", 7, 8, GENERATION, self.cursor, 20 - self.acknowledged, 0))
        self.feed(Received(wire.Welcome(wire.PROTOCOL, 0, [wire.SpaceState(SPACE, GENERATION, 12, {})]), 0))
        self.feed(Wanted("r1", "r2"))

    def feed(self, event: object) -> None:
        events = [event]
        while events:
            for instruction in self.engine.handle(events.pop(0)):  # type: ignore[arg-type]
                match instruction:
                    case ApplyPage(page) | ApplyDocuments(page):
                        if not (isinstance(page, wire.Documents) and page.through == page.after == 0):
                            assert page.after == self.cursor < page.through
                            self.cursor = page.through
                        events.append(Applied(page.through))
                    case Acknowledge(incarnation, through):
                        assert incarnation == 7
                        assert self.acknowledged < through <= 20
                        self.acknowledged = through
                        events.append(Acknowledged(20 - through))
                    case LoadPending(after):
                        first = (after.n if after is not None else self.acknowledged) + 1
                        edits = [wire.Edit("c", "r", b"")] * min(2, 21 - first)
                        events.append(BatchLoaded(Batch(7, 8, first, edits) if edits else None))
                    case ReadDigest():
                        events.append(DigestRead(bytes(16), 0, 20 - self.acknowledged))
                    case Send(wire.Received(position=position)):
                        assert position == self.cursor
                    case Close():
                        self.is_open = False
        assert self.engine.status.cursor == self.cursor


@given(st.lists(MESSAGES, max_size=25))
def test_no_message_moves_the_engine_off_its_way(messages: list[object]) -> None:
    watched = Watched()
    for message in messages:
        if not watched.is_open:
            watched.connect()
        match message:
            case ("next page", int(size)):
                through = watched.cursor + size
                message = wire.Page(SPACE, watched.cursor, through, max(through, 12), [])
            case ("next ack", _):
                message = wire.Ack(SPACE, 7, min(watched.acknowledged + 2, 20), [])
        watched.feed(Received(message, 0))  # type: ignore[arg-type]


def test_the_refusals_of_an_ack_are_those_of_the_oldest_push() -> None:
    refusals = [wire.Refusal(n, "bad", "why") for n in (1, 3, 5, 6)]
    flights = [Flight(7, 3, 5), Flight(7, 6, 6)]
    found = check_ack(wire.Ack(SPACE, 7, 6, refusals), space=SPACE, flights=flights, held=0)
    assert found == refusals[1:3]


def test_a_problem_is_named_in_the_error() -> None:
    with pytest.raises(ServerMisbehaved, match="from 4 to 3 with its head at 9"):
        check_page(wire.Page(SPACE, 4, 3, 9, []), space=SPACE)
