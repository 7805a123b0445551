"""The gate: durable before acknowledged, idempotent by number, one bad update or push harms nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import asyncpg.transaction
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import wire
from crdt.limits import PUSH_EDITS_MAX
from crdt.updates import check_shape
from server.admit import Admit
from server.admit.commit import GroupCommit
from server.admit.decide import CheckedPush, check, decide
from server.admit.memory import Writer, WriterKey, Writers
from server.database import Connection, Database
from server.errors import (
    CannotAdmit,
    ClientIdTaken,
    DatabaseUnavailable,
    MalformedMessage,
    NotInSpace,
    OutOfOrder,
    TooLarge,
)
from server.session import Meeting
from server.settings import Settings
from tests.server.people import Device, Document, creation, edits, enrolled, eventually, meeting_of

__all__: list[str] = []


async def log_of(database: Database, device: Device) -> list[tuple[int, int, int]]:
    """The space's log as (position, incarnation, n)."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT position, incarnation, n FROM log WHERE space_id = $1 ORDER BY position", device.space
        )
    return [tuple(row) for row in rows]


def checked(device: Device, push: wire.Push) -> CheckedPush:
    *_, last = check(device.device, device.space, push)
    assert last is not None
    return last


# ------------------------------------------------------------------------------------------------------ deciding


def test_a_bad_update_is_refused_alone_and_its_number_is_consumed() -> None:
    device = Device(uuid4(), uuid4(), uuid4(), "")
    good = edits(device.client, 3)
    bad = wire.Edit("notes", "bad", b"\x01\x01\x03\x00\x00\x00\x00")
    push = checked(device, device.push(1, [good[0], bad, good[1], good[2]]))
    decision = decide(push, through=0, known={}, fresh={})
    assert [taken.n for taken in decision.taken] == [1, 3, 4]
    assert [refused.refusal.n for refused in decision.refused] == [2]


@pytest.mark.parametrize(
    ("collection", "record", "code"),
    [
        ("Notes", "r", "collection_name"),
        ("", "r", "collection_name"),
        ("n" * 64, "r", "collection_name"),
        ("notes; drop", "r", "collection_name"),
        ("notes", "", "record_id"),
        ("notes", "a\0b", "record_id"),
        ("notes", "é" * 101, "record_id"),
    ],
)
def test_names_that_could_not_be_stored_are_refused(collection: str, record: str, code: str) -> None:
    device = Device(uuid4(), uuid4(), uuid4(), "")
    push = checked(device, device.push(1, [wire.Edit(collection, record, creation(device.client))]))
    assert [clock.code for clock in push.clocks if isinstance(clock, wire.Refusal)] == [code]


def test_an_update_that_follows_a_missing_one_is_a_gap_and_one_that_repeats_is_named_so() -> None:
    device = Device(uuid4(), uuid4(), uuid4(), "")
    document = Document(device.client, "r")
    first, second, third = (document.edit(value) for value in "abc")
    push = checked(device, device.push(1, [first, third, second, second, third]))
    decision = decide(push, through=0, known={}, fresh={})
    assert [taken.n for taken in decision.taken] == [1, 3, 5]
    assert [(refused.refusal.n, refused.refusal.code) for refused in decision.refused] == [
        (2, "gap"),
        (4, "repeat"),
    ]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 30))
def test_clocks_go_on_wherever_the_push_is_cut(records: list[int], through: int) -> None:
    """Deciding a push in two parts, by number, is the same as deciding it at once."""
    device = Device(uuid4(), uuid4(), uuid4(), "", incarnation=1, client=77)
    documents = [Document(77, f"r{n}") for n in range(4)]
    push = checked(device, device.push(1, [documents[n].edit("x") for n in records]))
    through = min(through, len(records))
    known = {("notes", f"r{n}"): check_end for n, check_end in _ends(push, through).items()}
    decision = decide(push, through=through, known=known, fresh={})
    assert [taken.n for taken in decision.taken] == list(range(through + 1, len(records) + 1))
    assert not decision.refused


def _ends(push: CheckedPush, through: int) -> dict[int, int]:
    ends = {}
    for edit in push.push.edits[:through]:
        ends[int(edit.record[1:])] = check_shape(edit.update, client=77).end
    return ends


def test_a_push_of_too_many_edits_or_with_impossible_numbers_is_an_error() -> None:
    device = Device(uuid4(), uuid4(), uuid4(), "")
    with pytest.raises(TooLarge, match="PUSH_EDITS_MAX"):
        checked(device, device.push(1, edits(1, 1) * (PUSH_EDITS_MAX + 1)))
    for incarnation, client, first in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1 << 63, 1, 1), (1, 1 << 53, 1)]:
        with pytest.raises(MalformedMessage):
            checked(device, wire.Push(str(device.space), incarnation, client, first, []))


# ------------------------------------------------------------------------------------------------------- memory


def test_what_is_remembered_of_a_writer_holds_only_at_its_number() -> None:
    writers, key = Writers(), WriterKey(uuid4(), uuid4(), 1)
    writers.learn(key, Writer(5, is_complete=True), {("notes", "r"): 3})
    assert writers.recall(key, through=5).clocks == {("notes", "r"): 3}
    elsewhere = writers.recall(key, through=6)
    assert elsewhere.clocks == {}
    assert not elsewhere.is_complete


def test_the_memory_of_writers_is_bounded() -> None:
    writers = Writers(clocks_max=100)
    for number in range(1, 50):
        key = WriterKey(uuid4(), uuid4(), number)
        writers.learn(key, Writer(10, is_complete=True), {("notes", str(n)): 1 for n in range(30)})
        assert len(writers) <= 100
    writers.learn(key, Writer(11, is_complete=True), {("notes", str(n)): 1 for n in range(300)})
    assert len(writers) <= 100
    assert not writers.recall(key, through=11).is_complete


# ---------------------------------------------------------------------------------------------------- committing


async def test_a_push_is_in_the_log_when_it_is_acknowledged(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    ack = await meeting.admit.push(device.device, device.push(1, edits(device.client, 3)))
    assert ack == wire.Ack(str(device.space), device.incarnation, 3, [])
    assert await log_of(meeting.database, device) == [(n, device.incarnation, n) for n in (1, 2, 3)]


async def test_a_repeat_gets_the_same_answer_and_writes_nothing(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    bad = wire.Edit("notes", "bad", b"nonsense")
    push = device.push(1, [*edits(device.client, 2), bad, *edits(device.client, 2, start=2)])
    first = await meeting.admit.push(device.device, push)
    assert [refusal.n for refusal in first.refusals] == [3]
    assert await meeting.admit.push(device.device, push) == first
    assert [n for _, _, n in await log_of(meeting.database, device)] == [1, 2, 4, 5]


async def test_the_part_of_a_push_that_is_known_is_skipped_and_the_rest_taken(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    all_edits = edits(device.client, 5)
    await meeting.admit.push(device.device, device.push(1, all_edits[:3]))
    ack = await meeting.admit.push(device.device, device.push(2, all_edits[1:]))
    assert ack.through == 5
    assert [n for _, _, n in await log_of(meeting.database, device)] == [1, 2, 3, 4, 5]


async def test_a_push_and_its_repeat_in_one_commit_are_written_once(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    push = device.push(1, [*edits(device.client, 2), wire.Edit("notes", "bad", b"nonsense")])
    acks = await asyncio.gather(*(meeting.admit.push(device.device, push) for _ in range(4)))
    assert all(ack == acks[0] for ack in acks)
    assert [refusal.n for refusal in acks[0].refusals] == [3]
    assert len(await log_of(meeting.database, device)) == 2


async def test_a_push_that_leaves_a_gap_in_the_numbers_is_out_of_order(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    with pytest.raises(OutOfOrder) as caught:
        await meeting.admit.push(device.device, device.push(2, edits(device.client, 1)))
    assert caught.value.expected == 1


async def test_positions_are_without_gaps_whoever_pushes(meeting: Meeting, server_settings: Settings) -> None:
    """Two server processes, eight devices, one space."""
    first = await enrolled(meeting.database)
    writers = [first, *[await enrolled(meeting.database, beside=first) for _ in range(7)]]
    async with meeting_of(meeting.database, server_settings) as elsewhere:

        async def write(device: Device, rooms: Meeting) -> None:
            for number in range(10):
                push = device.push(number * 5 + 1, edits(device.client, 5, start=number * 5))
                assert not (await rooms.admit.push(device.device, push)).refusals

        await asyncio.gather(
            *(write(d, rooms) for d, rooms in zip(writers, [meeting, elsewhere] * 4, strict=True))
        )
    rows = await log_of(meeting.database, first)
    assert [position for position, _, _ in rows] == list(range(1, 401))
    for device in writers:
        numbers = [n for _, incarnation, n in rows if incarnation == device.incarnation]
        assert numbers == list(range(1, 51))


async def test_a_client_id_belongs_to_one_incarnation_of_one_device_in_a_space(meeting: Meeting) -> None:
    owner = await enrolled(meeting.database)
    other = await enrolled(meeting.database, beside=owner)
    stranger = await enrolled(meeting.database)
    await meeting.admit.push(owner.device, owner.push(1, edits(owner.client, 1)))
    for thief in (other, owner.reopened()):
        push = wire.Push(
            str(thief.space), thief.incarnation, owner.client, 1, edits(owner.client, 1, start=9)
        )
        with pytest.raises(ClientIdTaken):
            await meeting.admit.push(thief.device, push)
    in_another_space = wire.Push(
        str(stranger.space), stranger.incarnation, owner.client, 1, edits(owner.client, 1)
    )
    assert (await meeting.admit.push(stranger.device, in_another_space)).through == 1


async def test_two_devices_that_claim_one_client_id_in_one_commit_do_not_both_get_it(
    meeting: Meeting,
) -> None:
    owner = await enrolled(meeting.database)
    other = await enrolled(meeting.database, beside=owner)
    thief = wire.Push(str(other.space), other.incarnation, owner.client, 1, edits(owner.client, 1, start=9))
    results = await asyncio.gather(
        meeting.admit.push(owner.device, owner.push(1, edits(owner.client, 1))),
        meeting.admit.push(other.device, thief),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["Ack", "ClientIdTaken"]


async def test_an_incarnation_keeps_its_client_id(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    await meeting.admit.push(device.device, device.push(1, edits(device.client, 1)))
    changed = wire.Push(
        str(device.space), device.incarnation, device.client + 1, 2, edits(device.client + 1, 1)
    )
    with pytest.raises(MalformedMessage):
        await meeting.admit.push(device.device, changed)


async def test_pending_updates_of_an_earlier_incarnation_are_taken_under_its_own_client_id(
    meeting: Meeting,
) -> None:
    before = await enrolled(meeting.database)
    now = before.reopened()
    await meeting.admit.push(now.device, before.push(1, edits(before.client, 2)))
    await meeting.admit.push(now.device, now.push(1, edits(now.client, 2)))
    assert [n for _, _, n in await log_of(meeting.database, now)] == [1, 2, 1, 2]


async def test_who_is_no_member_or_was_revoked_writes_nothing(meeting: Meeting) -> None:
    device, stranger = await enrolled(meeting.database), await enrolled(meeting.database)
    crossing = wire.Push(
        str(device.space), stranger.incarnation, stranger.client, 1, edits(stranger.client, 1)
    )
    with pytest.raises(NotInSpace):
        await meeting.admit.push(stranger.device, crossing)
    with pytest.raises(NotInSpace):
        nowhere = wire.Push(str(uuid4()), device.incarnation, device.client, 1, edits(device.client, 1))
        await meeting.admit.push(device.device, nowhere)
    async with meeting.database.connection() as connection:
        await connection.execute("UPDATE devices SET revoked_at = now() WHERE device_id = $1", device.device)
    with pytest.raises(NotInSpace):
        await meeting.admit.push(device.device, device.push(1, edits(device.client, 1)))
    assert await log_of(meeting.database, device) == []


async def test_clocks_are_known_again_after_a_restart_and_after_writing_elsewhere(
    meeting: Meeting, server_settings: Settings
) -> None:
    device = await enrolled(meeting.database)
    document = Document(device.client, "r")
    async with meeting_of(meeting.database, server_settings) as elsewhere:
        for number, rooms in enumerate([meeting, elsewhere, elsewhere, meeting, elsewhere, meeting], 1):
            ack = await rooms.admit.push(device.device, device.push(number, [document.edit(f"{number}")]))
            assert ack.refusals == []
    document.edit("never pushed")
    ack = await meeting.admit.push(device.device, device.push(7, [document.edit("after a gap")]))
    assert [refusal.code for refusal in ack.refusals] == ["gap"]


async def test_heads_are_announced_after_their_commit(database: Database, server_settings: Settings) -> None:
    announced: list[tuple[UUID, int]] = []
    admit = Admit(database, lambda space, head: announced.append((space, head)), server_settings)
    running = asyncio.create_task(admit.run())
    device = await enrolled(database)
    await admit.push(device.device, device.push(1, edits(device.client, 2)))
    await admit.push(device.device, device.push(1, edits(device.client, 2)))
    assert announced == [(device.space, 2)]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# ------------------------------------------------------------------------------------------------- what goes wrong


async def test_a_lost_connection_fails_the_push_and_its_repeat_is_written_once(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server commits and then does not answer: nobody knows, until the repeat."""
    device = await enrolled(meeting.database)
    push = device.push(1, [*edits(device.client, 2), wire.Edit("notes", "bad", b"nonsense")])

    class Lost(asyncpg.transaction.Transaction):
        async def __aexit__(self, *error: object) -> None:
            await super().__aexit__(*error)
            raise ConnectionResetError("the answer to COMMIT was lost")

    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.transaction, "Transaction", Lost)
        with pytest.raises(DatabaseUnavailable) as caught:
            await meeting.admit.push(device.device, push)
    assert caught.value.retry_after_ms is not None
    assert len(await log_of(meeting.database, device)) == 2
    ack = await meeting.admit.push(device.device, push)
    assert (ack.through, [refusal.n for refusal in ack.refusals]) == (3, [3])
    assert len(await log_of(meeting.database, device)) == 2


async def test_a_killed_connection_fails_the_push_and_the_next_is_fine(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await enrolled(meeting.database)
    write = GroupCommit.write

    async def killed(self: GroupCommit, connection: Connection, *, wait_ms: int | None) -> None:
        await write(self, connection, wait_ms=wait_ms)
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with monkeypatch.context() as patched:
        patched.setattr(GroupCommit, "write", killed)
        with pytest.raises(DatabaseUnavailable):
            await meeting.admit.push(device.device, device.push(1, edits(device.client, 2)))
    assert await log_of(meeting.database, device) == []
    assert (await meeting.admit.push(device.device, device.push(1, edits(device.client, 2)))).through == 2


async def test_a_push_that_postgres_will_not_take_does_not_fail_the_others_in_its_commit(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [await enrolled(meeting.database) for _ in range(4)]
    write = GroupCommit.write

    async def poisoned(self: GroupCommit, connection: Connection, *, wait_ms: int | None) -> None:
        await write(self, connection, wait_ms=wait_ms)
        if any(push.device == devices[1].device for push in self._pushes):
            raise asyncpg.CheckViolationError("nobody foresaw this")

    monkeypatch.setattr(GroupCommit, "write", poisoned)
    results = await asyncio.gather(
        *(meeting.admit.push(device.device, device.push(1, edits(device.client, 1))) for device in devices),
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results] == ["Ack", "CannotAdmit", "Ack", "Ack"]
    assert isinstance(results[1], CannotAdmit)


@pytest.mark.parametrize("conflict", [asyncpg.SerializationError, asyncpg.DeadlockDetectedError])
async def test_a_conflict_is_tried_again(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch, conflict: type[asyncpg.PostgresError]
) -> None:
    device = await enrolled(meeting.database)
    write, times = GroupCommit.write, iter(range(10))

    async def conflicting(self: GroupCommit, connection: Connection, *, wait_ms: int | None) -> None:
        await write(self, connection, wait_ms=wait_ms)
        if next(times) < 2:
            raise conflict("at our cost")

    monkeypatch.setattr(GroupCommit, "write", conflicting)
    assert (await meeting.admit.push(device.device, device.push(1, edits(device.client, 2)))).through == 2
    assert len(await log_of(meeting.database, device)) == 2


async def test_a_space_that_is_held_elsewhere_does_not_stop_the_others(meeting: Meeting) -> None:
    held, free = await enrolled(meeting.database), await enrolled(meeting.database)
    async with meeting.database.connection() as connection:
        async with connection.transaction():
            await connection.execute("SELECT FROM spaces WHERE space_id = $1 FOR UPDATE", held.space)
            waiting = asyncio.create_task(
                meeting.admit.push(held.device, held.push(1, edits(held.client, 1)))
            )
            for number in range(1, 6):
                await meeting.admit.push(free.device, free.push(number, edits(free.client, 1, start=number)))
            assert not waiting.done()
        assert (await waiting).through == 1


async def test_what_waits_when_the_server_stops_is_told_to_come_again(
    database: Database, server_settings: Settings
) -> None:
    device = await enrolled(database)
    admit = Admit(database, lambda _space, _head: None, server_settings)
    running = asyncio.create_task(admit.run())
    async with database.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM spaces WHERE space_id = $1 FOR UPDATE", device.space)
        push = asyncio.create_task(admit.push(device.device, device.push(1, edits(device.client, 1))))
        await eventually(lambda: bool(admit._held_spaces))
        running.cancel()
        with pytest.raises(DatabaseUnavailable):
            await push
    with pytest.raises(DatabaseUnavailable):
        await admit.push(device.device, device.push(1, edits(device.client, 1)))
    await asyncio.gather(running, return_exceptions=True)


async def test_many_sessions_share_few_commits(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [await enrolled(meeting.database) for _ in range(20)]
    sizes: list[int] = []
    init = GroupCommit.__init__

    def counted(self: GroupCommit, pushes: Sequence[CheckedPush], writers: Writers) -> None:
        sizes.append(len(pushes))
        init(self, pushes, writers)

    monkeypatch.setattr(GroupCommit, "__init__", counted)

    async def write(device: Device) -> None:
        futures: list[asyncio.Future[Any]] = [
            await meeting.admit.submit(
                device.device, device.space, device.push(n, edits(device.client, 1, start=n))
            )
            for n in range(1, 11)
        ]
        await asyncio.gather(*futures)

    await asyncio.gather(*(write(device) for device in devices))
    assert sum(sizes) == 200
    assert len(sizes) < 20, "a commit takes whatever waits"
    for device in devices:
        assert [
            after - before for (before, *_), (after, *_) in pairwise(await log_of(meeting.database, device))
        ] == [1] * 9
