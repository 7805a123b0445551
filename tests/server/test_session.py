"""A session without a socket: what it answers, what it sends of its own accord, how little it keeps."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt import wire
from crdt.limits import PAGE_BYTES_TARGET, PAGE_ENTRIES_MAX, PAGES_IN_FLIGHT, SESSION_SPACES_MAX
from server import rows, spaces
from server.database import Connection
from server.errors import MalformedMessage, TooLarge
from server.session import Meeting, Session, failure_of
from server.session import news as news_module
from server.session.feed import FETCHES_MAX, Feed
from tests.server.people import Device, creation, edits, enrolled, eventually, hello, materialized, received

__all__: list[str] = []


@asynccontextmanager
async def session_of(meeting: Meeting, device: Device, *, position: int = 0) -> AsyncIterator[Session]:
    """A session after its Hello."""
    session = Session(meeting)
    try:
        (welcome,) = await received(session, hello(device, position=position))
        assert isinstance(welcome, wire.Welcome), welcome
        yield session
    finally:
        await session.close()


async def news(session: Session) -> list[wire.FromServer]:
    async with asyncio.timeout(10):
        return [wire.decode_from_server(frame) for frame in await session.next_frames()]


async def has_no_news(session: Session) -> bool:
    """Whether the session waits, after everything else has had its turn."""
    waiting = asyncio.create_task(session.next_frames())
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return not done


async def read_all(session: Session, device: Device) -> list[wire.Page | wire.Documents]:
    """Follow the space to its head, telling what was received; check that no position is left out."""
    pages: list[wire.Page | wire.Documents] = []
    position = None
    while True:
        for message in await news(session):
            assert isinstance(message, wire.Page | wire.Documents)
            assert position is None or message.after == position
            position = message.through
            pages.append(message)
            await received(session, wire.Received(str(device.space), message.through))
            if message.through == message.head:
                return pages


async def fill(meeting: Meeting, device: Device, number: int, *, first: int = 1, size: int = 20) -> None:
    for start in range(0, number, PAGE_ENTRIES_MAX):
        some = edits(device.client, min(PAGE_ENTRIES_MAX, number - start), start=first + start, size=size)
        await meeting.admit.push(device.device, device.push(first + start, some))


def failure(messages: list[wire.FromServer]) -> wire.Failure:
    (message,) = messages
    assert isinstance(message, wire.Failure), message
    return message


# --------------------------------------------------------------------------------------------------------- Hello


async def test_welcome_tells_generation_head_and_what_is_held_of_each_incarnation(meeting: Meeting) -> None:
    before = await enrolled(meeting.database)
    await fill(meeting, before, 3)
    device = before.reopened()
    session = Session(meeting)
    (welcome,) = await received(session, hello(device))
    assert isinstance(welcome, wire.Welcome)
    (state,) = welcome.spaces
    assert (state.space, state.head, state.held) == (str(device.space), 3, {before.incarnation: 3})
    assert len(state.generation) == 36
    assert abs(welcome.now_ms / 1000 - datetime.now(UTC).timestamp()) < 60
    await session.close()


async def test_another_version_of_the_protocol_is_told_which_side_to_update(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    answer = failure(await received(Session(meeting), hello(device, protocol=99)))
    assert (answer.code, answer.retry_after_ms) == ("protocol_mismatch", None)


async def test_a_session_begins_with_one_hello(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    first = Session(meeting)
    assert failure(await received(first, wire.Received(str(device.space), 0))).code == "malformed"
    assert first.is_over
    async with session_of(meeting, device) as session:
        assert failure(await received(session, hello(device))).code == "malformed"


async def test_a_token_opens_sessions_of_its_own_device_until_it_expires(meeting: Meeting) -> None:
    device, other = await enrolled(meeting.database), await enrolled(meeting.database)
    for token in ("", "wrong", other.token):
        answer = failure(await received(Session(meeting), hello(replace(device, token=token))))
        assert answer.code == "unauthorized"
    later = replace(meeting, now=lambda: datetime.now(UTC) + timedelta(seconds=3_601))
    assert failure(await received(Session(later), hello(device))).code == "unauthorized"


async def test_too_many_spaces_or_one_twice_are_refused(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    once = hello(device)
    twice = msg_replace(once, once.cursors * 2)
    assert failure(await received(Session(meeting), twice)).code == "malformed"
    many = msg_replace(once, [wire.Cursor(str(uuid4()), "", 0)] * (SESSION_SPACES_MAX + 1))
    assert failure(await received(Session(meeting), many)).code == "too_large"


def msg_replace(message: wire.Hello, cursors: list[wire.Cursor]) -> wire.Hello:
    return wire.Hello(
        message.protocol,
        message.token,
        message.device,
        message.incarnation,
        message.client,
        cursors,
        message.now_ms,
    )


async def test_a_client_id_of_another_incarnation_is_told_at_hello(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    await fill(meeting, device, 1)
    again = replace(device.reopened(), client=device.client)
    assert failure(await received(Session(meeting), hello(again))).code == "client_id_taken"
    assert isinstance((await received(Session(meeting), hello(device)))[0], wire.Welcome)


async def test_a_cursor_of_another_generation_is_welcomed_and_sent_nothing(meeting: Meeting) -> None:
    """The device finds out from the generation in Welcome, and decides."""
    device, writer = await enrolled(meeting.database), None
    writer = await enrolled(meeting.database, beside=device)
    await fill(meeting, writer, 2)
    session = Session(meeting)
    (welcome,) = await received(session, hello(device, position=1, generation=str(uuid4())))
    assert isinstance(welcome, wire.Welcome)
    assert await has_no_news(session)
    await session.close()


async def test_a_cursor_beyond_the_log_says_that_the_server_lost_data(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    assert failure(await received(Session(meeting), hello(device, position=5))).code == "cursor_ahead"


# ---------------------------------------------------------------------------------------------------------- push


async def test_pushes_are_acknowledged_and_their_updates_not_sent_back(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    async with session_of(meeting, device) as session:
        assert await received(session, device.push(1, edits(device.client, 3))) == [
            wire.Ack(str(device.space), device.incarnation, 3, [])
        ]
        (page,) = await news(session)
        assert page == wire.Page(str(device.space), 0, 3, 3, [])


async def test_pushes_of_one_session_may_be_under_way_together_and_stay_in_order(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    async with session_of(meeting, device) as session:
        pushes = [device.push(n, edits(device.client, 1, start=n)) for n in range(1, 31)]
        answers = await asyncio.gather(*(received(session, push) for push in pushes))
        assert [answer[0].through for answer in answers if isinstance(answer[0], wire.Ack)] == list(
            range(1, 31)
        )


async def test_an_earlier_incarnations_updates_are_sent_to_the_device_itself(meeting: Meeting) -> None:
    before = await enrolled(meeting.database)
    device = before.reopened()
    async with session_of(meeting, device) as session:
        await received(session, before.push(1, edits(before.client, 2)))
        await received(session, device.push(1, edits(device.client, 2)))
        pages = await read_all(session, device)
        clients = [entry.client for page in pages if isinstance(page, wire.Page) for entry in page.entries]
        assert clients == [before.client] * 2


async def test_a_bad_push_ends_its_session_and_no_other(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    other = await enrolled(meeting.database, beside=device)
    async with session_of(meeting, device) as session, session_of(meeting, other) as bystander:
        assert (
            failure(await received(session, device.push(7, edits(device.client, 1)))).code == "out_of_order"
        )
        assert session.is_over
        assert await session.receive(wire.encode(device.push(1, []))) == []
        (ack,) = await received(bystander, other.push(1, edits(other.client, 1)))
        assert isinstance(ack, wire.Ack)


# ---------------------------------------------------------------------------------------------------------- pull


async def test_what_one_device_pushes_the_others_are_sent(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    async with session_of(meeting, device) as session:
        assert await has_no_news(session)
        some = edits(writer.client, 3)
        await meeting.admit.push(writer.device, writer.push(1, some))
        (page,) = await news(session)
        assert isinstance(page, wire.Page)
        assert (page.after, page.through, page.head) == (0, 3, 3)
        assert page.entries == [
            wire.Entry(position, edit.collection, edit.record, writer.client, edit.update)
            for position, edit in enumerate(some, 1)
        ]


async def test_a_pull_begins_after_the_cursor(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    await fill(meeting, writer, 5)
    async with session_of(meeting, device, position=3) as session:
        (page,) = await read_all(session, device)
        assert isinstance(page, wire.Page)
        assert [entry.position for entry in page.entries] == [4, 5]


async def test_pages_are_bounded_in_entries_and_in_bytes(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    await fill(meeting, writer, PAGE_ENTRIES_MAX + 10)
    large = [wire.Edit("notes", f"large{n}", creation(writer.client, body="x" * 400_000)) for n in range(7)]
    await meeting.admit.push(writer.device, writer.push(PAGE_ENTRIES_MAX + 11, large))
    async with session_of(meeting, device) as session:
        pages = [page for page in await read_all(session, device) if isinstance(page, wire.Page)]
        assert sum(len(page.entries) for page in pages) == PAGE_ENTRIES_MAX + 17
        for page in pages:
            assert len(page.entries) <= PAGE_ENTRIES_MAX
            assert sum(len(entry.update) for entry in page.entries[:-1]) < PAGE_BYTES_TARGET


async def test_no_more_pages_are_sent_than_the_device_has_made_durable_plus_the_window(
    meeting: Meeting,
) -> None:
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    async with session_of(meeting, device) as session:
        for number in range(1, PAGES_IN_FLIGHT + 1):
            await fill(meeting, writer, 1, first=number)
            assert len(await news(session)) == 1
        await fill(meeting, writer, 1, first=PAGES_IN_FLIGHT + 1)
        assert await has_no_news(session)
        await received(session, wire.Received(str(device.space), 1))
        (page,) = await news(session)
        assert isinstance(page, wire.Page)
        assert page.through == PAGES_IN_FLIGHT + 1


async def test_a_slow_device_costs_a_few_numbers(meeting: Meeting) -> None:
    """Whatever is pushed meanwhile waits in the log: the session holds no message."""
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    async with session_of(meeting, device) as session:
        for number in range(1, 101):
            await fill(meeting, writer, 1, first=number)
        (feed,) = session._feeds.values()
        assert (feed.head, feed.sent, len(feed.in_flight)) == (100, 0, 0)
        assert (
            sum(len(page.entries) for page in await read_all(session, device) if isinstance(page, wire.Page))
            == 100
        )


async def test_received_beyond_what_was_sent_is_malformed(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    async with session_of(meeting, device) as session:
        assert failure(await received(session, wire.Received(str(device.space), 1))).code == "malformed"


async def test_the_cursor_is_written_down_at_the_end_of_the_session(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    await fill(meeting, writer, 4)
    async with session_of(meeting, device) as session:
        await read_all(session, device)
    async with meeting.database.connection() as connection:
        assert (
            await connection.fetchval("SELECT cursor FROM members WHERE device_id = $1", device.device) == 4
        )


# ----------------------------------------------------------------------------------------------------- documents


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents from ten behind, three at a time."""
    monkeypatch.setattr(news_module, "_DOCUMENTS_FROM_BEHIND", 10)
    after = rows.documents_after

    async def few(connection: Connection, space: UUID, position: int) -> rows.DocumentsSlice:
        return await after(connection, space, position, entries_max=3)

    monkeypatch.setattr(rows, "documents_after", few)


@pytest.mark.usefixtures("small_steps")
async def test_a_device_far_behind_gets_documents_and_then_the_log(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    await fill(meeting, writer, 40)
    await materialized(meeting.database, device, {f"r{n}": (n * 5, b"snapshot") for n in range(1, 9)})
    await fill(meeting, writer, 2, first=41)
    async with session_of(meeting, device) as session:
        messages = await read_all(session, device)
    documents = [message for message in messages if isinstance(message, wire.Documents)]
    pages = [message for message in messages if isinstance(message, wire.Page)]
    assert messages == [*documents, *pages]
    assert [state.record for message in documents for state in message.states] == [
        f"r{n}" for n in range(1, 9)
    ]
    assert [entry.position for page in pages for entry in page.entries] == [41, 42]


@pytest.mark.usefixtures("small_steps")
async def test_documents_that_move_on_while_they_are_sent_are_not_missed_by_a_device_that_comes_back(
    meeting: Meeting,
) -> None:
    """A cursor amid documents goes on with documents: with the log it would lack what moved on."""
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    await fill(meeting, writer, 40)
    await materialized(meeting.database, device, {f"r{n}": (n * 5, b"snapshot") for n in range(1, 9)})
    async with session_of(meeting, device) as session:
        (first,) = await news(session)
        assert isinstance(first, wire.Documents)
    await fill(meeting, writer, 1, first=41)
    await materialized(
        meeting.database, device, {"r4": (41, b"moved on")}
    )  # from before the cursor's goal to after it
    device = device.reopened()
    async with session_of(meeting, device, position=35) as session:
        messages = await read_all(session, device)
    sent = {
        state.record: state.snapshot for m in messages if isinstance(m, wire.Documents) for state in m.states
    }
    assert sent == {"r8": b"snapshot", "r4": b"moved on"}
    async with session_of(meeting, device, position=41) as session:  # firm ground: the log again
        await fill(meeting, writer, 1, first=42)
        (page,) = await news(session)
        assert isinstance(page, wire.Page)


@pytest.mark.usefixtures("small_steps")
async def test_a_device_amid_documents_waits_while_they_are_folded_anew(meeting: Meeting) -> None:
    """The log would not do for it, and what is folded so far is not enough yet."""
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    await fill(meeting, writer, 40)
    documents = {f"r{n}": (n * 5, b"snapshot") for n in range(1, 9)}
    await materialized(meeting.database, device, documents)
    async with session_of(meeting, device) as session:
        assert isinstance((await news(session))[0], wire.Documents)
        async with meeting.database.connection() as connection:
            await connection.execute("DELETE FROM documents")
            await connection.execute("DELETE FROM materializations")
        assert failure(await news(session)).code == "documents_behind"
    again = failure(await received(Session(meeting), hello(device, position=15)))
    assert (again.code, again.retry_after_ms) == ("documents_behind", 2_000)
    await materialized(meeting.database, device, documents)
    async with session_of(meeting, device, position=15) as session:
        (message,) = await news(session)
        assert isinstance(message, wire.Documents)
        assert [state.record for state in message.states] == ["r4", "r5", "r6"]


@pytest.mark.usefixtures("small_steps")
async def test_a_space_of_as_many_documents_as_updates_is_sent_as_its_log(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    await fill(meeting, writer, 40)
    await materialized(meeting.database, device, {f"r{n}": (n, b"snapshot") for n in range(1, 41)})
    async with session_of(meeting, device) as session:
        assert all(isinstance(message, wire.Page) for message in await read_all(session, device))


async def test_fetch_brings_one_document_once_it_is_folded_and_moves_no_cursor(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    await fill(meeting, writer, 2)
    async with session_of(meeting, device, position=2) as session:
        await received(session, wire.Fetch(str(device.space), "notes", "r1"))
        await received(session, wire.Fetch(str(device.space), "notes", "unknown"))
        assert await has_no_news(session)
        await materialized(meeting.database, device, {"r1": (2, b"snapshot")})
        state = wire.DocumentState(2, "notes", "r1", b"snapshot")
        assert await news(session) == [wire.Documents(str(device.space), 0, 0, 2, [state])]
        assert await news(session) == [wire.Documents(str(device.space), 0, 0, 2, [])]


async def test_verify_is_answered_when_documents_stand_at_that_position(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    await fill(meeting, writer, 2)
    async with session_of(meeting, device, position=2) as session:
        await received(session, wire.Verify(str(device.space), 2))
        assert await has_no_news(session)
        await materialized(meeting.database, device, {"r1": (2, b"snapshot")})
        assert await news(session) == [wire.Verified(str(device.space), 2, bytes(16), 1)]


async def test_verify_is_dropped_when_the_log_has_moved_on(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    await fill(meeting, writer, 2)
    async with session_of(meeting, device, position=2) as session:
        await received(session, wire.Verify(str(device.space), 2))
        await fill(meeting, writer, 1, first=3)
        await materialized(meeting.database, device, {"r1": (2, b"snapshot")})
        (page,) = await news(session)
        assert isinstance(page, wire.Page)
        assert await has_no_news(session)


# -------------------------------------------------------------------------------------------------------- access


async def test_spaces_of_others_are_told_as_if_they_did_not_exist(meeting: Meeting) -> None:
    """Two accounts never meet: every message that names another's space is refused alike, and ends the session."""
    device, stranger = await enrolled(meeting.database), await enrolled(meeting.database)
    await fill(meeting, device, 2)
    crossing: list[wire.FromDevice] = [
        wire.Push(str(device.space), stranger.incarnation, stranger.client, 1, edits(stranger.client, 1)),
        wire.Received(str(device.space), 0),
        wire.Verify(str(device.space), 2),
        wire.Fetch(str(device.space), "notes", "r"),
    ]
    answers = [failure(await received(Session(meeting), hello(replace(stranger, space=device.space))))]
    answers.append(failure(await received(Session(meeting), hello(replace(stranger, space=uuid4())))))
    for message in crossing:
        async with session_of(meeting, stranger) as session:
            answers.append(failure(await received(session, message)))
    assert answers == [answers[0]] * len(answers)
    assert answers[0].code == "not_in_space"


async def test_a_revoked_device_is_cut_off_while_it_listens(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    writer = await enrolled(meeting.database, beside=device)
    time = 0.0
    async with session_of(replace(meeting, monotonic=lambda: time), device) as session:
        async with meeting.database.connection() as connection:
            await connection.execute(
                "UPDATE devices SET revoked_at = now() WHERE device_id = $1", device.device
            )
        time = 6.0
        await fill(meeting, writer, 1)
        assert failure(await news(session)).code == "not_in_space"
        assert session.is_over


# ------------------------------------------------------------------------------------------------------ bad bytes


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_that_are_no_message_get_a_typed_failure(frame: bytes) -> None:
    async def receive() -> list[bytes]:
        return await Session(Meeting(None, None, None)).receive(frame)  # type: ignore[arg-type]

    with asyncio.Runner() as runner:
        answer = failure([wire.decode_from_server(frame) for frame in runner.run(receive())])
    assert answer.code in {"malformed", "too_large", "unauthorized", "protocol_mismatch"}


async def test_who_is_not_known_yet_cannot_make_us_unpack_a_large_frame(meeting: Meeting) -> None:
    for update in (os.urandom(100_000), bytes(100_000)):  # large, and small that becomes so
        frame = wire.encode(wire.Push("", 1, 1, 1, [wire.Edit("notes", "r", update)]))
        answer = failure([wire.decode_from_server(frame) for frame in await Session(meeting).receive(frame)])
        assert answer.code == "too_large"


async def test_a_large_message_is_decoded_beside_the_event_loop(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await enrolled(meeting.database)
    threads: list[threading.Thread] = []
    decode = wire.decode_from_device

    def watched(frame: bytes) -> wire.FromDevice:
        threads.append(threading.current_thread())
        return decode(frame)

    async with session_of(meeting, device) as session:
        monkeypatch.setattr(wire, "decode_from_device", watched)
        await received(session, device.push(1, edits(device.client, 1)))
        await received(session, device.push(2, edits(device.client, 1, start=1, size=300_000)))
    small, large = (thread is threading.main_thread() for thread in threads)
    assert (small, large) == (True, False)


async def test_one_turn_of_news_is_bounded_over_all_spaces_and_leaves_none_out(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    writers = [await enrolled(meeting.database) for _ in range(8)]
    cursors = [wire.Cursor(str(writer.space), "", 0) for writer in writers]
    async with meeting.database.connection() as connection:
        for writer in writers:
            await spaces.add_member(connection, writer.space, device.device)
    for writer in writers:
        large = [wire.Edit("notes", "r", creation(writer.client, body=os.urandom(1_500_000)))]
        await meeting.admit.push(writer.device, writer.push(1, large))
    session = Session(meeting)
    await received(session, msg_replace(hello(device), cursors))
    seen: set[str] = set()
    while len(seen) < len(writers):
        frames = await asyncio.wait_for(session.next_frames(), 10)
        assert sum(map(len, frames[:-1])) < 4 * PAGE_BYTES_TARGET
        pages = [wire.decode_from_server(frame) for frame in frames]
        seen |= {page.space for page in pages if isinstance(page, wire.Page)}
    await session.close()


async def test_an_error_of_ours_is_told_without_its_details() -> None:
    answer = failure_of(RuntimeError("password=secret"))
    assert answer.code == "internal"
    assert "secret" not in answer.message
    assert answer.retry_after_ms


# ---------------------------------------------------------------------------------------------------------- feed


def feed(*, sent: int = 0, head: int = 0) -> Feed:
    return Feed(space=uuid4(), name="", head=head, materialized=0, sent=sent, received=0)


def test_own_pushes_need_no_reading_only_if_nothing_is_between() -> None:
    seamless = feed(sent=5)
    seamless.note_own(5, 8)
    seamless.note_own(8, 9)
    assert seamless.own_through == 9
    seamless.note_own(10, 12)  # another device's update is at 10
    assert seamless.own_through == 9


def test_the_window_counts_pages_whatever_their_size() -> None:
    one = feed(head=100)
    for through in (10, 20, 30):
        assert one.has_page
        one.note_sent(through)
    assert not one.has_page
    one.note_received(20)
    assert list(one.in_flight) == [30]
    with pytest.raises(MalformedMessage):
        one.note_received(31)


def test_fetches_under_way_are_bounded() -> None:
    one = feed()
    for number in range(FETCHES_MAX):
        one.want("notes", str(number))
    with pytest.raises(TooLarge, match="FETCHES_MAX"):
        one.want("notes", "one more")


async def test_a_closed_session_hears_nothing_more(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    async with session_of(meeting, device) as session:
        pass
    assert await session.next_frames() == []
    await eventually(lambda: not meeting.notify._listeners_by_space)
