"""The engine, a step at a time: what it is told, and exactly what it answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from client_sdk.errors import (
    ClientError,
    ClientIdTaken,
    NotRegistered,
    ProtocolMismatch,
    ServerLostData,
    ServerRefused,
    ServerUnreachable,
)
from client_sdk.sync.engine import Engine
from client_sdk.sync.errors import ContentsDiffer, ServerMisbehaved, TransportClosed
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
    Failed,
    Instruction,
    LoadPending,
    Lost,
    ObserveTime,
    OutboxPlace,
    ReadDigest,
    Received,
    Rehome,
    RenewToken,
    Report,
    Send,
    SetGeneration,
    Stopped,
    Tick,
    Wanted,
)
from client_sdk.sync.status import Status
from crdt import wire
from crdt.limits import PAGE_ENTRIES_MAX, PAGES_IN_FLIGHT, PUSH_BYTES_TARGET, PUSH_EDITS_MAX, PUSHES_IN_FLIGHT
from tests.client_sdk.sync.model import DEVICE, GENERATION, SPACE, Batch

OTHER = "00000000-0000-7000-8000-0000000000ee"
MINE, MY_CLIENT = 7, 70  # this opening's incarnation and client id
EARLIER = 6
NOW = 1_000_000


class Desk:
    """Feeds an engine and shows what it answers, the status apart."""

    def __init__(self) -> None:
        self.engine = Engine(space=SPACE, device=DEVICE, software="test/1")

    @property
    def status(self) -> Status:
        return self.engine.status

    def feed(self, event: Event) -> list[Instruction]:
        return [one for one in self.engine.handle(event) if not isinstance(one, Report)]

    def hear(self, message: wire.FromServer) -> list[Instruction]:
        return self.feed(Received(message, NOW))

    def dial(self, *, pending: int = 0, position: int = 0, generation: str = "") -> list[Instruction]:
        self.feed(Dialling())
        return self.feed(Connected("token", MINE, MY_CLIENT, generation, position, pending, NOW - 20))

    def live(self, *, pending: int = 0, position: int = 0, head: int | None = None) -> list[Instruction]:
        """Go through Hello and Welcome with nothing to remark; return what follows."""
        self.dial(pending=pending, position=position, generation=GENERATION)
        answer = self.hear(welcome(head=position if head is None else head))
        assert isinstance(answer[0], ObserveTime)
        return answer[1:]

    def push(self, first: int = 1, size: int = 2, *, incarnation: int = MINE) -> list[Instruction]:
        """Answer the engine's LoadPending with a batch."""
        edits = [wire.Edit("notes", f"r{n}", b"u%d" % n) for n in range(first, first + size)]
        return self.feed(BatchLoaded(Batch(incarnation, incarnation * 10, first, edits)))

    def verified(self, position: int = 0) -> None:
        assert self.hear(digest(position)) == [ReadDigest()]
        self.feed(DigestRead(bytes(16), 0, 0))
        assert self.status.verified is True


def welcome(
    head: int = 0, *, held: dict[int, int] | None = None, generation: str = GENERATION
) -> wire.Welcome:
    return wire.Welcome(wire.PROTOCOL, NOW + 500, [wire.SpaceState(SPACE, generation, head, held or {})])


def page(
    after: int, through: int, *, head: int | None = None, positions: list[int] | None = None
) -> wire.Page:
    positions = list(range(after + 1, through + 1)) if positions is None else positions
    entries = [wire.Entry(position, "notes", f"r{position}", 9, b"u") for position in positions]
    return wire.Page(SPACE, after, through, through if head is None else head, entries)


def digest(position: int, value: bytes = bytes(16), records: int = 0) -> wire.Verified:
    return wire.Verified(SPACE, position, value, records)


def ack(through: int, refusals: list[wire.Refusal] | None = None, *, incarnation: int = MINE) -> wire.Ack:
    return wire.Ack(SPACE, incarnation, through, refusals or [])


def load(after: OutboxPlace | None = None) -> LoadPending:
    return LoadPending(after, PUSH_EDITS_MAX, PUSH_BYTES_TARGET)


def verify(position: int) -> Send:
    return Send(wire.Verify(SPACE, position))


@pytest.fixture
def desk() -> Desk:
    return Desk()


# -------------------------------------------------------------------------------------------- Hello and Welcome


def test_hello_says_who_writes_and_how_far_this_device_has_read(desk: Desk) -> None:
    hello = wire.Hello(
        protocol=wire.PROTOCOL,
        token="token",
        device=DEVICE,
        incarnation=MINE,
        client=MY_CLIENT,
        cursors=[wire.Cursor(SPACE, GENERATION, 5)],
        now_ms=NOW - 20,
        software="test/1",
    )
    assert desk.dial(position=5, generation=GENERATION) == [Send(hello)]
    assert desk.status == Status("connecting", cursor=5, head=5)


def test_the_first_welcome_sets_the_clock_and_the_generation(desk: Desk) -> None:
    desk.dial()
    answer = desk.hear(welcome(head=3))
    # Hello went at NOW - 20, the answer came at NOW: the server's time belongs to the middle.
    assert answer == [ObserveTime(510), SetGeneration(GENERATION)]
    assert desk.status == Status("syncing", head=3)


def test_a_welcome_with_nothing_to_do_leads_straight_to_verify(desk: Desk) -> None:
    assert desk.live(position=4) == [verify(4)]
    assert desk.status == Status("synced", cursor=4, head=4)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(welcome(head=5, generation=OTHER), id="another history"),
        pytest.param(welcome(head=4), id="the same history, shorter"),
        pytest.param(wire.Failure("cursor_ahead", "the log ends at 4"), id="said by the server"),
    ],
)
def test_a_server_that_lost_data_is_left_and_not_dialled_again(desk: Desk, answer: wire.FromServer) -> None:
    desk.dial(position=5, generation=GENERATION)
    (close,) = desk.hear(answer)
    assert isinstance(close, Close)
    assert isinstance(close.error, ServerLostData)
    assert not close.retry
    assert desk.status.state == "error"
    assert desk.status.cursor == 5


def test_another_protocol_is_named_with_both_versions(desk: Desk) -> None:
    desk.dial()
    (close,) = desk.hear(wire.Welcome(wire.PROTOCOL + 8, NOW, []))
    assert isinstance(close, Close)
    assert isinstance(close.error, ProtocolMismatch)
    assert (close.error.ours, close.error.theirs) == (wire.PROTOCOL, wire.PROTOCOL + 8)
    assert not close.retry


# ---------------------------------------------------------------------------------------------------- the outbox


def test_pushes_go_out_ahead_of_their_acknowledgements_up_to_the_limit(desk: Desk) -> None:
    assert desk.live(pending=100) == [load()]
    for number in range(PUSHES_IN_FLIGHT):
        answer = desk.push(first=1 + 2 * number)
        assert isinstance(answer[0], Send)
        assert isinstance(answer[0].message, wire.Push)
        following = [] if number == PUSHES_IN_FLIGHT - 1 else [load(OutboxPlace(MINE, 2 + 2 * number))]
        assert answer[1:] == following


def test_an_acknowledgement_makes_room_only_once_it_is_durable(desk: Desk) -> None:
    desk.live(pending=100)
    for number in range(PUSHES_IN_FLIGHT):
        desk.push(first=1 + 2 * number)
    assert desk.hear(ack(2)) == [Acknowledge(MINE, 2, [])]
    assert desk.feed(Acknowledged(98)) == [load(OutboxPlace(MINE, 8))]


def test_a_push_names_the_incarnation_that_made_its_updates(desk: Desk) -> None:
    desk.live(pending=3)
    (sent, following) = desk.push(first=4, size=2, incarnation=EARLIER)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, wire.Push)
    assert (sent.message.incarnation, sent.message.client, sent.message.first) == (EARLIER, EARLIER * 10, 4)
    assert following == load(OutboxPlace(EARLIER, 5))


def test_a_later_incarnation_is_sent_once_everything_before_it_is_acknowledged(desk: Desk) -> None:
    desk.live(pending=6)
    desk.push(size=2, incarnation=EARLIER)
    assert desk.push(first=3, size=2, incarnation=EARLIER)[1:] == [load(OutboxPlace(EARLIER, 4))]
    assert desk.push(size=2, incarnation=MINE) == [], (
        "a push that fails must not be overtaken by what builds on it"
    )
    desk.hear(ack(2, incarnation=EARLIER))
    assert desk.feed(Acknowledged(4)) == []
    desk.hear(ack(4, incarnation=EARLIER))
    assert desk.feed(Acknowledged(2)) == [load()]
    (sent,) = desk.push(size=2, incarnation=MINE)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, wire.Push)
    assert (sent.message.incarnation, sent.message.first) == (MINE, 1)


def test_a_commit_while_everything_is_in_flight_loads_once_more(desk: Desk) -> None:
    desk.live(pending=2)
    assert desk.push()[1:] == []
    assert desk.feed(Committed(3)) == [load(OutboxPlace(MINE, 2))]
    assert desk.feed(Committed(4)) == [], "one at a time"


def test_an_outbox_that_gives_nothing_is_not_asked_again_until_something_changes(desk: Desk) -> None:
    assert desk.live(pending=2) == [load()]
    assert desk.feed(BatchLoaded(None)) == []
    assert desk.feed(Confirm()) == []
    assert desk.feed(Committed(2)) == [load()]


def test_refusals_go_with_the_push_that_they_belong_to(desk: Desk) -> None:
    desk.live(pending=4)
    desk.push(1)
    desk.push(3)
    refusal = wire.Refusal(2, "bad", "why")
    later = wire.Refusal(3, "bad", "why")
    assert desk.hear(ack(4, [refusal, later])) == [Acknowledge(MINE, 2, [refusal])]
    desk.feed(Acknowledged(2))
    assert desk.hear(ack(4, [later])) == [Acknowledge(MINE, 4, [later])]


def test_what_was_not_acknowledged_is_sent_again_after_a_cut_whatever_the_server_holds(desk: Desk) -> None:
    desk.live(pending=2)
    desk.push()
    desk.feed(Lost(TransportClosed(1006)))
    desk.dial(pending=2, generation=GENERATION)
    assert desk.hear(welcome(head=2, held={MINE: 2}))[1:] == [load()]
    sent = desk.push()[0]
    assert isinstance(sent, Send)
    refusal = wire.Refusal(1, "bad", "why")
    assert desk.hear(ack(2, [refusal])) == [Acknowledge(MINE, 2, [refusal])]


def test_a_server_may_hold_more_of_an_earlier_incarnation_than_a_restored_file(desk: Desk) -> None:
    desk.dial(pending=2, generation=GENERATION)
    desk.hear(welcome(head=9, held={EARLIER: 9}))
    desk.push(4, incarnation=EARLIER)
    assert desk.hear(ack(9, incarnation=EARLIER)) == [Acknowledge(EARLIER, 5, [])]


# -------------------------------------------------------------------------------------------------------- the log


def test_pages_are_applied_one_at_a_time_and_received_once_durable(desk: Desk) -> None:
    desk.live(head=4)
    first, second = page(0, 2, head=4), page(2, 4)
    assert desk.hear(first) == [ApplyPage(first)]
    assert desk.hear(second) == []
    assert desk.feed(Applied(2)) == [Send(wire.Received(SPACE, 2)), ApplyPage(second)]
    assert desk.status.cursor == 2
    assert desk.feed(Applied(4)) == [Send(wire.Received(SPACE, 4)), verify(4)]


def test_a_page_of_only_our_own_updates_moves_the_cursor_too(desk: Desk) -> None:
    desk.live(head=3)
    empty = page(0, 3, positions=[])
    assert desk.hear(empty) == [ApplyPage(empty)]


def test_a_repeated_page_is_not_applied_but_its_room_is_given_back(desk: Desk) -> None:
    desk.live(position=4)
    assert desk.hear(page(2, 4)) == [Send(wire.Received(SPACE, 4))]
    desk.hear(page(4, 5))
    assert desk.hear(page(4, 5)) == [], "the one being applied will give it back"


def test_documents_are_a_page_like_any_other(desk: Desk) -> None:
    desk.live(head=8)
    state = wire.DocumentState(5, "notes", "r1", b"s")
    documents = wire.Documents(SPACE, 0, 7, 8, [state])
    assert desk.hear(documents) == [ApplyDocuments(documents)]
    assert desk.feed(Applied(7)) == [Send(wire.Received(SPACE, 7))]


def test_one_document_is_fetched_at_a_time_and_moves_no_cursor(desk: Desk) -> None:
    desk.live(position=4)
    assert desk.feed(Wanted("notes", "r1")) == [Send(wire.Fetch(SPACE, "notes", "r1"))]
    assert desk.feed(Wanted("notes", "r2")) == []
    answer = wire.Documents(SPACE, 0, 0, 4, [wire.DocumentState(3, "notes", "r1", b"s")])
    assert desk.hear(answer) == [ApplyDocuments(answer)]
    assert desk.feed(Applied(0)) == [Send(wire.Fetch(SPACE, "notes", "r2"))]
    nothing = wire.Documents(SPACE, 0, 0, 4, [])
    assert desk.hear(nothing) == [], "there is no such document; the question about digests is open still"
    assert desk.status.cursor == 4


def test_a_document_that_is_still_wanted_is_fetched_again_after_a_cut(desk: Desk) -> None:
    desk.live(position=4)
    desk.feed(Wanted("notes", "r1"))
    desk.feed(Lost(TransportClosed(1006)))
    assert Send(wire.Fetch(SPACE, "notes", "r1")) in desk.live(position=4)


# ------------------------------------------------------------------------------------------------- verification


def test_equal_digests_at_the_same_position_are_verified_until_something_changes(desk: Desk) -> None:
    desk.live(position=4)
    desk.verified(4)
    desk.feed(Committed(1))
    assert desk.status.verified is None
    assert desk.status.state == "syncing"


def test_a_difference_is_asked_for_once_more_and_then_shown(desk: Desk) -> None:
    desk.live(position=4)
    desk.hear(digest(4, records=3))
    assert desk.feed(DigestRead(b"x" * 16, 2, 0)) == [verify(4)]
    assert desk.status == Status("synced", cursor=4, head=4)
    desk.hear(digest(4, records=3))
    assert desk.feed(DigestRead(b"x" * 16, 2, 0)) == []
    assert isinstance(desk.status.last_error, ContentsDiffer)
    assert desk.status == Status("error", 0, 4, 4, verified=False, last_error=desk.status.last_error)
    desk.hear(page(4, 5))
    desk.feed(Applied(5))
    assert desk.status == Status("synced", cursor=5, head=5), "and asked for again"


def test_an_answer_to_a_question_from_before_a_local_write_counts_for_nothing(desk: Desk) -> None:
    desk.live(position=4)  # asked at 4
    desk.feed(Committed(1))
    desk.push(size=1)
    assert desk.hear(ack(1)) == [Acknowledge(MINE, 1, [])]
    assert desk.feed(Acknowledged(0)) == [], (
        "the first question is open, and a second would not be told apart"
    )
    assert desk.hear(digest(4)) == [verify(4)]
    assert desk.hear(digest(4)) == [ReadDigest()]


def test_a_write_between_the_two_digests_makes_the_comparison_void(desk: Desk) -> None:
    desk.live(position=4)
    assert desk.hear(digest(4)) == [ReadDigest()]
    assert desk.feed(DigestRead(b"x" * 16, 2, pending=1)) == [load()]
    assert desk.status.verified is None
    assert desk.status.pending == 1


def test_a_commit_while_the_digest_is_read_makes_the_comparison_void(desk: Desk) -> None:
    desk.live(position=4)
    desk.hear(digest(4))
    desk.feed(Committed(1))
    desk.feed(DigestRead(bytes(16), 0, 0))
    assert desk.status.verified is None


def test_confirming_asks_again_what_is_verified(desk: Desk) -> None:
    desk.live(position=4)
    desk.verified(4)
    assert desk.feed(Confirm()) == [verify(4)]
    assert desk.status.verified is None


def test_what_was_verified_stays_so_while_offline_and_unchanged(desk: Desk) -> None:
    desk.live(position=4)
    desk.verified(4)
    desk.feed(Stopped())
    assert desk.status == Status("offline", cursor=4, head=4, verified=True)


# --------------------------------------------------------------------------------------------- a hostile server

OFF_THE_PROTOCOL: dict[str, wire.FromServer] = {
    "a second Welcome": welcome(head=4),
    "an Ack of what was never sent": ack(1, incarnation=99),
    "an Ack past what was sent": ack(3),
    "an Ack short of what was sent": ack(1),
    "an Ack in another space": wire.Ack(OTHER, MINE, 2, []),
    "a refusal past the Ack": ack(2, [wire.Refusal(3, "bad", "")]),
    "a refusal of number 0": ack(2, [wire.Refusal(0, "bad", "")]),
    "the same refusal twice": ack(2, [wire.Refusal(1, "bad", ""), wire.Refusal(1, "bad", "")]),
    "a page that leaves a gap": page(5, 6),
    "a page that overlaps": page(3, 6),
    "a page that goes backwards": page(4, 3, head=9, positions=[]),
    "a page before the beginning": page(-1, 5),
    "a page past its head": page(4, 6, head=5),
    "a page past all integers": page(4, 2**63, head=2**63, positions=[]),
    "a page in another space": wire.Page(OTHER, 4, 5, 5, []),
    "positions that do not increase": page(4, 7, positions=[5, 5, 6]),
    "a position before its page": page(4, 7, positions=[4]),
    "a position past its page": page(4, 7, positions=[8], head=9),
    "too many entries": page(4, 5_000),
    "documents that leave a gap": wire.Documents(SPACE, 5, 6, 6, []),
    "a document past its page": wire.Documents(SPACE, 4, 6, 9, [wire.DocumentState(7, "c", "r", b"")]),
    "a document nobody fetched": wire.Documents(SPACE, 0, 0, 4, [wire.DocumentState(1, "c", "r", b"")]),
    "a digest of a later position": digest(5),
    "a digest before the beginning": digest(-1),
    "a digest of another length": digest(4, b"short"),
    "a digest of fewer than no records": digest(4, records=-1),
    "a digest in another space": wire.Verified(OTHER, 4, bytes(16), 0),
}


@pytest.mark.parametrize("message", OFF_THE_PROTOCOL.values(), ids=OFF_THE_PROTOCOL.keys())
def test_a_message_off_the_protocol_ends_the_session_and_changes_nothing(
    desk: Desk, message: wire.FromServer
) -> None:
    desk.live(pending=2, position=4, head=4)
    desk.push()
    before = desk.status
    (close,) = desk.hear(message)
    assert isinstance(close, Close)
    assert isinstance(close.error, ServerMisbehaved)
    assert (close.retry, close.delay_ms, close.healthy) == (True, None, False)
    assert desk.status == Status("error", before.pending, 4, 4, None, close.error)
    assert desk.hear(page(4, 5)) == [], "nothing more is heard of it"
    assert desk.live(pending=2, position=4) == [load()], "and the next session starts as if it had not been"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(page(4, 5), id="a page before Welcome"),
        pytest.param(ack(1), id="an Ack before Welcome"),
        pytest.param(wire.Welcome(wire.PROTOCOL, NOW, []), id="no space"),
        pytest.param(
            wire.Welcome(wire.PROTOCOL, NOW, [wire.SpaceState(OTHER, GENERATION, 9, {})]), id="other space"
        ),
        pytest.param(
            wire.Welcome(wire.PROTOCOL, NOW, [wire.SpaceState(SPACE, GENERATION, 9, {})] * 2), id="twice"
        ),
        pytest.param(
            wire.Welcome(wire.PROTOCOL, -1, [wire.SpaceState(SPACE, GENERATION, 9, {})]), id="before 1970"
        ),
        pytest.param(
            wire.Welcome(wire.PROTOCOL, 2**60, [wire.SpaceState(SPACE, GENERATION, 9, {})]), id="far future"
        ),
        pytest.param(welcome(head=-1), id="negative head"),
        pytest.param(welcome(head=2**63), id="head past all integers"),
        pytest.param(welcome(head=9, generation=""), id="no generation"),
        pytest.param(welcome(head=9, held={MINE: -1}), id="negative held"),
    ],
)
def test_a_first_answer_off_the_protocol_ends_the_session(desk: Desk, message: wire.FromServer) -> None:
    desk.dial(position=4, generation=GENERATION)
    (close,) = desk.hear(message)
    assert isinstance(close, Close)
    assert isinstance(close.error, ServerMisbehaved)
    assert close.retry


def test_more_pages_than_the_window_end_the_session(desk: Desk) -> None:
    desk.live(head=99)
    for number in range(PAGES_IN_FLIGHT + 1):  # one more than the window, where a fetched document may stand
        desk.hear(page(number, number + 1, head=99))
    (close,) = desk.hear(page(PAGES_IN_FLIGHT + 1, PAGES_IN_FLIGHT + 2, head=99))
    assert isinstance(close, Close)
    assert isinstance(close.error, ServerMisbehaved)


def test_the_largest_page_is_taken(desk: Desk) -> None:
    desk.live(head=PAGE_ENTRIES_MAX)
    largest = page(0, PAGE_ENTRIES_MAX)
    assert desk.hear(largest) == [ApplyPage(largest)]


def test_another_document_than_was_fetched_ends_the_session(desk: Desk) -> None:
    desk.live(position=4)
    desk.feed(Wanted("notes", "r1"))
    (close,) = desk.hear(wire.Documents(SPACE, 0, 0, 4, [wire.DocumentState(1, "notes", "r2", b"")]))
    assert isinstance(close, Close)
    assert isinstance(close.error, ServerMisbehaved)


# ------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("failure", "kind", "state", "expected"),
    [
        (wire.Failure("not_in_space", "no"), ServerRefused, "error", (False, None)),
        (wire.Failure("not_in_space", "no", 5), ServerRefused, "error", (False, 5)),
        (wire.Failure("unknown_device", "no"), ServerRefused, "error", (False, None)),
        (wire.Failure("overloaded", "later", 1500), ServerRefused, "offline", (True, 1500)),
        (wire.Failure("overloaded", "later", -4), ServerRefused, "offline", (True, 0)),
        (wire.Failure("overloaded", "never", 10**12), ServerRefused, "offline", (True, 600_000)),
        (wire.Failure("malformed", "what?"), ServerRefused, "error", (False, None)),
        (wire.Failure("out_of_order", "3 is next", 0), ServerRefused, "offline", (True, 0)),
        (wire.Failure("protocol_mismatch", "…, the server 3"), ProtocolMismatch, "error", (False, None)),
        (wire.Failure("protocol_mismatch", "no"), ServerRefused, "error", (False, None)),
    ],
)  # fmt: skip
def test_each_failure_has_its_error_and_its_way_on(
    desk: Desk, failure: wire.Failure, kind: type[ClientError], state: str, expected: tuple[bool, int | None]
) -> None:
    desk.live()
    (close,) = desk.hear(failure)
    assert isinstance(close, Close)
    assert type(close.error) is kind
    assert (close.retry, close.delay_ms) == expected
    assert (desk.status.state, desk.status.last_error) == (state, close.error)


def test_a_refused_token_is_renewed_at_once_and_then_after_a_while_as_an_error(desk: Desk) -> None:
    desk.dial()
    renew, close = desk.hear(wire.Failure("unauthorized", "expired"))
    assert (renew, close) == (RenewToken(), Close(desk.status.last_error, retry=True, delay_ms=0))
    desk.dial()
    renew, close = desk.hear(wire.Failure("unauthorized", "revoked"))
    assert isinstance(close, Close)
    assert close.retry, "the fresh one may have run out as well"
    assert close.delay_ms is None
    assert desk.status.state == "error"


def test_a_token_that_expires_again_after_a_welcome_is_renewed_again(desk: Desk) -> None:
    for _ in range(3):
        desk.live()
        _, close = desk.hear(wire.Failure("unauthorized", "expired"))
        assert isinstance(close, Close)
        assert close.retry


def test_a_taken_client_id_moves_the_pending_work_and_goes_on_at_once_the_first_time(desk: Desk) -> None:
    for expected_ms, state in ((0, "offline"), (None, "error"), (None, "error")):
        desk.live(pending=2)
        desk.push()
        rehome, close = desk.hear(wire.Failure("client_id_taken", "mint a new one"))
        assert rehome == Rehome(MINE)
        assert isinstance(close, Close)
        assert isinstance(close.error, ClientIdTaken)
        assert (close.retry, close.delay_ms, desk.status.state) == (True, expected_ms, state)


def test_pushes_that_are_too_large_become_smaller_until_single_updates_are(desk: Desk) -> None:
    sizes = []
    for _ in range(20):
        (loading,) = desk.live(pending=5_000)
        assert isinstance(loading, LoadPending)
        sizes.append(loading.edits_max)
        desk.push(size=1)
        close = desk.hear(wire.Failure("too_large", "less at a time"))[-1]
        assert isinstance(close, Close)
        if not close.retry:
            break
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert desk.status.state == "error"


def test_a_book_in_place_of_a_message_is_cut(desk: Desk) -> None:
    desk.live()
    (close,) = desk.hear(wire.Failure("x" * 10_000, "y" * 10_000_000))
    assert isinstance(close, Close)
    assert len(str(close.error)) < 2_000


@pytest.mark.parametrize(
    ("error", "state", "retry"),
    [
        (ServerUnreachable("http://127.0.0.1:1", "refused"), "offline", True),
        (TransportClosed(1001, "going away"), "offline", True),
        (ServerRefused("unauthorized", "no"), "error", True),
        (ServerRefused("unknown_device", "revoked"), "error", False),
        (NotRegistered(), "error", False),
        (ProtocolMismatch(ours=1, theirs=2), "error", False),
    ],
)
def test_a_connection_that_cannot_be_made_is_tried_again_unless_it_is_hopeless(
    desk: Desk, error: Exception, state: str, retry: bool
) -> None:
    desk.feed(Dialling())
    assert desk.feed(Lost(error)) == [Close(error, retry=retry)]
    assert (desk.status.state, desk.status.last_error) == (state, error)


def test_a_connection_that_breaks_after_a_welcome_was_healthy(desk: Desk) -> None:
    desk.live(position=4)
    broken = TransportClosed(1006)
    assert desk.feed(Lost(broken)) == [Close(broken, retry=True, healthy=True)]
    assert desk.feed(Lost(broken)) == [], "once"


def test_what_the_device_cannot_do_is_an_error_that_is_tried_again(desk: Desk) -> None:
    desk.live(head=2)
    desk.hear(page(0, 2))
    full = ClientError("no room left")
    assert desk.feed(Failed(full)) == [Close(full, retry=True)]
    assert (desk.status.state, desk.status.last_error, desk.status.cursor) == ("error", full, 0)


# --------------------------------------------------------------------------------------------------------- silence


def greeting(desk: Desk) -> None:
    desk.dial()


def pushing(desk: Desk) -> None:
    desk.live(pending=2)
    desk.push()


def behind(desk: Desk) -> None:
    desk.live(head=2)


def fetching(desk: Desk) -> None:
    desk.live()
    desk.feed(Wanted("notes", "r1"))


@pytest.mark.parametrize("begin", [greeting, pushing, behind, fetching])
def test_a_server_that_owes_an_answer_for_half_a_minute_is_left(
    desk: Desk, begin: Callable[[Desk], None]
) -> None:
    begin(desk)
    assert desk.feed(Tick(1_000)) == []
    assert desk.feed(Tick(30_999)) == []
    (close,) = desk.feed(Tick(31_000))
    assert isinstance(close, Close)
    assert isinstance(close.error, TransportClosed)
    assert close.retry


def test_a_server_that_owes_nothing_may_be_silent_for_ever(desk: Desk) -> None:
    desk.live(position=4)
    desk.verified(4)
    assert [desk.feed(Tick(now)) for now in (0, 10**6, 10**9)] == [[], [], []]


def test_any_word_of_the_server_ends_the_silence(desk: Desk) -> None:
    desk.live(pending=2, head=2)
    desk.push()
    desk.feed(Tick(0))
    desk.hear(page(0, 2))
    assert desk.feed(Tick(30_000)) == []


# ------------------------------------------------------------------------------------------------------- the status


def test_the_status_is_reported_first_and_only_when_it_changed() -> None:
    engine = Engine(space=SPACE, device=DEVICE)
    first = engine.handle(Committed(2))
    assert first == [Report(Status("offline", pending=2))]
    assert engine.handle(Committed(2)) == []


def test_a_welcome_clears_the_last_error(desk: Desk) -> None:
    desk.feed(Dialling())
    desk.feed(Lost(ServerUnreachable("http://127.0.0.1:1", "refused")))
    desk.dial()
    assert (desk.status.state, desk.status.last_error is None) == ("connecting", False)
    desk.hear(welcome())
    assert desk.status.last_error is None


def test_stopping_closes_quietly(desk: Desk) -> None:
    desk.live(position=4)
    assert desk.feed(Stopped()) == [Close(None, retry=False)]
    assert desk.status == Status("offline", cursor=4, head=4)
    assert desk.feed(Stopped()) == []
