"""Vectors and searches on a session: what is asked beside sync is answered, and what cannot be served ends nothing."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

import pytest

from crdt import requests, wire
from crdt.limits import PUSH_VECTORS_MAX, VECTOR_DIMENSIONS_MAX, VECTORS_PAGE_BYTES_TARGET
from crdt.vectors import SCALE_BYTES, packed_vector
from server import vectors
from server.database import Connection
from server.errors import DatabaseUnavailable, NotInSpace, Unauthorized, UnknownDevice
from server.session import Meeting, Session
from tests.server.people import Device, creation, edits, enrolled, eventually, hello, received

__all__: list[str] = []

EAST = array("f", [1, 0, 0]).tobytes()


@asynccontextmanager
async def session_of(meeting: Meeting, device: Device) -> AsyncIterator[Session]:
    session = Session(meeting)
    try:
        (welcome,) = await received(session, hello(device))
        assert isinstance(welcome, wire.Welcome), welcome
        yield session
    finally:
        await session.close()


def vector(record: str, *steps: int, part: int = -1) -> requests.PartVector:
    scale = sum(step * step for step in steps) ** -0.5
    return requests.PartVector("notes", record, part, b"h", packed_vector(scale, list(steps)))


def push(device: Device, n: int, *sent: requests.PartVector, model: str = "small") -> requests.PushVectors:
    return requests.PushVectors(str(device.space), n, model, list(sent))


def pull(device: Device, n: int, after: int, model: str = "small") -> requests.PullVectors:
    return requests.PullVectors(str(device.space), n, model, after)


async def brought(session: Session) -> requests.Vectors:
    async with asyncio.timeout(10):
        (frame,) = await session.next_frames()
    message = wire.decode_from_server(frame)
    assert isinstance(message, requests.Vectors), message
    return message


async def answered(session: Session, message: wire.FromDevice) -> wire.FromServer:
    (answer,) = await received(session, message)
    return answer


async def test_vectors_of_one_device_are_brought_to_another_that_waits_and_not_back(meeting: Meeting) -> None:
    first = await enrolled(meeting.database)
    second = await enrolled(meeting.database, beside=first)
    sent = [vector("a", 1, 2, 3), vector("b", 3, 2, 1, part=4)]
    async with session_of(meeting, first) as here, session_of(meeting, second) as there:
        assert await received(here, pull(first, 1, 0)) == []
        assert await received(there, pull(second, 7, 0)) == []
        waiting = asyncio.create_task(brought(there))
        own = asyncio.create_task(here.next_frames())
        assert await answered(here, push(first, 2, *sent)) == requests.VectorsTaken(2, 0, 2, 2)
        assert await waiting == requests.Vectors(7, 2, 0, 2, sent)
        assert await received(there, pull(second, 8, 2)) == []
        assert await answered(there, push(second, 9, vector("c", 0, 0, 1))) == requests.VectorsTaken(
            9, 2, 3, 3
        )
        assert [wire.decode_from_server(frame) for frame in await own] == [
            requests.Vectors(1, 3, 0, 3, [vector("c", 0, 0, 1)])
        ]


async def test_what_is_there_already_comes_at_once_in_pages(meeting: Meeting) -> None:
    first = await enrolled(meeting.database)
    sent = [vector(f"r{n:03}", 1, n % 100) for n in range(PUSH_VECTORS_MAX)]
    async with session_of(meeting, first) as session:
        await answered(session, push(first, 1, *sent))
        await answered(session, push(first, 2, vector("last", 1, 1)))
    async with session_of(meeting, first) as session:
        await received(session, pull(first, 3, 0))
        page = await brought(session)
        assert (page.n, page.through, page.vectors) == (3, PUSH_VECTORS_MAX, sent)
        await received(session, pull(first, 4, page.through))
        assert await brought(session) == requests.Vectors(
            4, PUSH_VECTORS_MAX + 1, 0, PUSH_VECTORS_MAX + 1, [vector("last", 1, 1)]
        )


def made(dimensions: int, bytes_target: int = VECTORS_PAGE_BYTES_TARGET) -> list[requests.PartVector]:
    """As many as one push may have."""
    count = min(PUSH_VECTORS_MAX, -(-bytes_target // (SCALE_BYTES + dimensions)))
    steps = [(-1) ** n * (n % 100 + 1) for n in range(dimensions)]
    return [vector(f"r{n:03}", *steps) for n in range(count)]


async def test_a_page_and_a_push_are_bounded_in_bytes(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    page = made(VECTOR_DIMENSIONS_MAX)
    assert len(page) == 66
    async with session_of(meeting, device) as session:
        refused = await answered(session, push(device, 1, *made(VECTOR_DIMENSIONS_MAX, 300_000)))
        assert isinstance(refused, requests.Refused)
        assert refused.code == "too_large"
        assert "VECTORS_PAGE_BYTES_TARGET" in refused.message
        await answered(session, push(device, 2, *page))
        last = vector("s", *([1] * VECTOR_DIMENSIONS_MAX))
        await answered(session, push(device, 3, last))
        await received(session, pull(device, 4, 0))
        assert await brought(session) == requests.Vectors(4, 66, 0, 67, page)
        await received(session, pull(device, 5, 66))
        assert await brought(session) == requests.Vectors(5, 67, 0, 67, [last])


@pytest.mark.parametrize("dimensions", [384, VECTOR_DIMENSIONS_MAX])
async def test_vectors_of_one_device_never_hold_up_the_others_for_long(
    meeting: Meeting, dimensions: int
) -> None:
    """The loop is held for 3 to 7 ms at the longest; where all of a push were made ready in one go it was 30."""
    device = await enrolled(meeting.database)
    frame = wire.encode(push(device, 1, *made(dimensions)))
    held: list[float] = []

    async def beat() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            held[-1] = max(held[-1], now - last)
            last = now

    async with session_of(meeting, device) as session:
        beating = asyncio.create_task(beat())
        for _ in range(5):  # somebody else may have the processor: the best of some
            held.append(0)
            await session.receive(frame)
            await received(session, pull(device, 2, 0))
            assert (await brought(session)).vectors
        beating.cancel()
    assert min(held) < 0.02


async def test_vectors_of_another_model_are_not_brought_and_not_gone_through_again(meeting: Meeting) -> None:
    first = await enrolled(meeting.database)
    second = await enrolled(meeting.database, beside=first)
    async with session_of(meeting, first) as here, session_of(meeting, second) as there:
        await answered(here, push(first, 1, vector("a", 1), model="other"))
        await received(there, pull(second, 1, 0))
        waiting = asyncio.create_task(brought(there))
        await answered(here, push(first, 2, vector("a", 1, 1)))
        assert await waiting == requests.Vectors(1, 2, 0, 1, [vector("a", 1, 1)])


async def test_a_model_that_is_no_longer_in_use_is_forgotten(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    async with session_of(meeting, device) as session:
        await answered(session, push(device, 1, vector("a", 1), model="old"))
        await answered(session, push(device, 2, vector("a", 1, 1)))
        answer = await answered(session, requests.ForgetVectors(str(device.space), 3, "old"))
        assert answer == requests.VectorsTaken(3, 2, 2, 0)
        await received(session, pull(device, 4, 0, model="old"))
        await received(session, pull(device, 5, 0))
        assert await brought(session) == requests.Vectors(5, 2, 0, 1, [vector("a", 1, 1)])


async def test_a_model_is_forgotten_in_steps_and_others_may_send_in_between(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "_FORGOTTEN_AT_ONCE", 2)
    device = await enrolled(meeting.database)
    forget, steps = vectors.forget, []

    async def watched(connection: Connection, space: UUID, model: str) -> bool:
        steps.append(await vectors.held(connection, space, model))
        return await forget(connection, space, model)

    monkeypatch.setattr(vectors, "forget", watched)
    async with session_of(meeting, device) as session:
        await answered(session, push(device, 1, *(vector(f"r{n}", 1) for n in range(5)), model="old"))
        await answered(session, push(device, 2, vector("a", 1, 1)))
        answer = await answered(session, requests.ForgetVectors(str(device.space), 3, "old"))
        assert answer == requests.VectorsTaken(3, 6, 6, 0)
    assert steps == [5, 3, 1]
    async with meeting.database.connection() as connection:
        assert [model.name for model in await vectors.models(connection, device.space)] == ["small"]
        assert len((await vectors.after(connection, device.space, 0)).vectors) == 1


async def test_a_search_is_answered_beside_sync(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    async with session_of(meeting, device) as session:
        empty = await answered(session, requests.Search(str(device.space), 5, "text", "anything"))
        assert empty == requests.Found(5, [], 0, 0)
        edit = wire.Edit("notes", "r1", creation(device.client, title="tea"))
        ack = await answered(session, device.push(1, [edit]))
        assert isinstance(ack, wire.Ack)


async def test_what_cannot_be_served_is_refused_by_itself(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    space = str(device.space)
    asked: list[tuple[requests.Request, str]] = [
        (
            requests.PushVectors(space, 1, "small", [requests.PartVector("n", "r", -1, b"h", b"no")]),
            "bad_vector",
        ),
        (push(device, 2, vector("a", 1), requests.PartVector("", "r", -1, b"h", EAST)), "malformed"),
        (push(device, 3, vector("a\0", 1)), "malformed"),
        (requests.Search(space, 8, "text", ""), "malformed"),
        (requests.Search(space, 9, "meaning", "", b"\0", "small"), "malformed"),
        (requests.Search(space, 10, "text", "tea", limit=1 << 40), "too_large"),
        (
            requests.Search(
                space, 11, "text", "tea", conditions=[requests.FieldCondition("a", "below", None)]
            ),
            "malformed",
        ),
    ]
    async with session_of(meeting, device) as session:
        for message, code in asked:
            answer = await answered(session, message)
            assert isinstance(answer, requests.Refused), answer
            assert (answer.n, answer.code) == (message.n, code)
        await answered(session, push(device, 12, vector("a", 1, 2, 3)))
        mismatch = await answered(session, requests.Search(space, 13, "meaning", "", EAST, "another"))
        assert isinstance(mismatch, requests.Refused)
        assert mismatch.code == "model_mismatch"
        assert "small" in mismatch.message
        assert await received(session, wire.Verify(space, 0)) == []  # and sync goes on
        assert not session.is_over


async def test_a_request_that_fails_in_postgres_is_refused_by_itself_and_may_be_asked_again(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await enrolled(meeting.database)

    async def fails(statement: str, connection: Connection, *args: object) -> None:
        await connection.execute("SET LOCAL statement_timeout = '20ms'; SET LOCAL lock_timeout = '20ms'")
        await connection.execute(statement)

    async with session_of(meeting, device) as session, meeting.database.connection() as other:
        async with other.transaction():
            await other.execute("LOCK TABLE models")
            for statement in ("SELECT pg_sleep(10)", "LOCK TABLE models", "SELECT 1 / 0"):
                monkeypatch.setattr(vectors, "put", partial(fails, statement))
                assert await answered(session, push(device, 1, vector("a", 1))) == requests.Refused(
                    1, "internal", "an error of the server ended this request; ask again later", 10_000
                )
        ack = await answered(session, device.push(1, edits(device.client, 1)))
        assert isinstance(ack, wire.Ack), "and sync goes on"


async def test_a_moment_without_postgres_is_a_refusal_and_a_device_put_out_ends_its_session(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await enrolled(meeting.database)

    async def fails(error: Exception, *args: object) -> None:
        raise error

    away = DatabaseUnavailable(address="db:5432", problem="away", action="start it")
    monkeypatch.setattr(vectors, "put", partial(fails, away))
    async with session_of(meeting, device) as session:
        assert await answered(session, push(device, 1, vector("a", 1))) == requests.Refused(
            1, "database_unavailable", "the server cannot do this now; try again later", 1_000
        )
        assert not session.is_over
    for error in (NotInSpace(), Unauthorized(), UnknownDevice()):
        monkeypatch.setattr(vectors, "put", partial(fails, error))
        async with session_of(meeting, device) as session:
            assert isinstance(await answered(session, push(device, 1, vector("a", 1))), wire.Failure)
            assert session.is_over


@pytest.mark.parametrize("is_running", [False, True])
async def test_a_push_finds_a_connection_however_many_searches_wait_for_the_fold_or_run(
    meeting: Meeting, is_running: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, other = await enrolled(meeting.database), await enrolled(meeting.database)
    running = 0

    async def runs(*args: object, **options: object) -> None:
        nonlocal running
        running += 1
        await asyncio.Event().wait()

    if is_running:
        monkeypatch.setattr("server.search._found", runs)
    monkeypatch.setattr("server.search._BEHIND_WAITED_S", 60)
    async with session_of(meeting, device) as session, session_of(meeting, other) as bystander:
        await answered(session, device.push(1, edits(device.client, 1)))  # and nobody folds here
        searches = [
            asyncio.create_task(received(session, requests.Search(str(device.space), n, "text", "tea")))
            for n in range(24)
        ]
        async with asyncio.timeout(5):
            await eventually(lambda: running == 4 or not is_running)
            ack = await answered(bystander, other.push(1, edits(other.client, 1)))
        assert isinstance(ack, wire.Ack)
        assert not any(search.done() for search in searches)
        assert running == (4 if is_running else 0), "half of the pool"
        for search in searches:
            search.cancel()
        await asyncio.gather(*searches, return_exceptions=True)


async def test_what_is_past_a_limit_is_no_message(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    space = str(device.space)
    tried: list[requests.Request] = [
        push(device, 1, *[vector("a", 1)] * (PUSH_VECTORS_MAX + 1)),
        push(device, 1, vector("a", 1), model="m" * 300),
        pull(device, 1, -1),
        pull(device, 1, 1 << 63),
        pull(device, 1, 0, model="m" * 300),
        requests.ForgetVectors(space, 1, "m" * 300),
        requests.Search(space, 1, "text", "tea", collections=["notes"] * 100_000),
        requests.Search(space, 1, "text", "tea", names=["Anna"] * 65),
        requests.Search(space, 1, "meaning", "", bytes(4 * 4_001), "small"),
    ]
    for message in tried:
        async with session_of(meeting, device) as session:
            failure = await answered(session, message)
            assert isinstance(failure, wire.Failure)
            assert failure.code == "malformed"


async def test_a_pull_that_does_not_wait_is_answered_as_it_stands(meeting: Meeting) -> None:
    device = await enrolled(meeting.database)
    async with session_of(meeting, device) as session:
        await received(session, requests.PullVectors(str(device.space), 1, "small", 0, waits=False))
        assert await brought(session) == requests.Vectors(1, 0, 0, 0, [])
        await answered(session, push(device, 2, vector("a", 1)))
        await received(session, requests.PullVectors(str(device.space), 3, "small", 1, waits=False))
        assert await brought(session) == requests.Vectors(3, 1, 0, 1, [])


async def test_a_stranger_is_told_as_if_the_space_did_not_exist(meeting: Meeting) -> None:
    owner, stranger = await enrolled(meeting.database), await enrolled(meeting.database)
    space = str(owner.space)
    tried: list[requests.Request] = [
        requests.PushVectors(space, 1, "small", [vector("a", 1)]),
        requests.PullVectors(space, 1, "small", 0),
        requests.ForgetVectors(space, 1, "small"),
        requests.Search(space, 1, "text", "tea"),
    ]
    for message in tried:
        async with session_of(meeting, stranger) as session:
            failure = await answered(session, message)
            assert isinstance(failure, wire.Failure)
            assert failure.code == "not_in_space"
