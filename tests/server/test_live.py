"""The socket of a device: what waits for what, and what does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from crdt import requests, wire
from crdt.limits import PUSHES_IN_FLIGHT, REQUESTS_IN_FLIGHT
from server import search
from server.routes.live import Socket
from server.search import Answer
from server.session import Meeting, Session
from tests.server.people import Device, edits, enrolled, eventually, hello

__all__: list[str] = []


class Line:
    """The device's end of a socket, in memory."""

    def __init__(self) -> None:
        self.up: asyncio.Queue[bytes] = asyncio.Queue()
        self._down: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive_bytes(self) -> bytes:
        return await self.up.get()

    async def send_bytes(self, data: bytes) -> None:
        self._down.put_nowait(data)

    async def close(self, code: int) -> None:
        pass

    def say(self, message: wire.FromDevice) -> None:
        self.up.put_nowait(wire.encode(message))

    async def next(self) -> wire.FromServer:
        """The next answer: pages of what was pushed come when they come."""
        while True:
            message = wire.decode_from_server(await asyncio.wait_for(self._down.get(), 10))
            if not isinstance(message, wire.Page):
                return message


@asynccontextmanager
async def lined(meeting: Meeting, device: Device) -> AsyncIterator[Line]:
    """A device that was welcomed."""
    line, session = Line(), Session(meeting)
    serving = asyncio.create_task(Socket(cast("Any", line), session).run())
    try:
        line.say(hello(device))
        assert isinstance(await line.next(), wire.Welcome)
        yield line
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await session.close()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[str, asyncio.Event]:
    """Searches wait until their text's event is set."""
    events = {text: asyncio.Event() for text in "abcde"}

    async def found(*args: Any, **options: Any) -> Answer:
        await events[args[2].text].wait()
        return Answer([], 0, 0)

    monkeypatch.setattr(search, "search", found)
    return events


def asked(device: Device, n: int) -> requests.Search:
    return requests.Search(str(device.space), n, "text", "abcde"[n])


async def test_an_ack_does_not_wait_for_searches_and_these_are_answered_as_they_are_ready(
    meeting: Meeting, held: dict[str, asyncio.Event]
) -> None:
    device = await enrolled(meeting.database)
    async with lined(meeting, device) as line:
        for n in range(REQUESTS_IN_FLIGHT):
            line.say(asked(device, n))
        for n in range(1, PUSHES_IN_FLIGHT + 1):
            line.say(device.push(n, edits(device.client, 1, start=n)))
        acks = [await line.next() for _ in range(PUSHES_IN_FLIGHT)]
        assert [ack.through for ack in acks if isinstance(ack, wire.Ack)] == [1, 2, 3, 4]
        for text, n in (("c", 2), ("a", 0), ("d", 3), ("b", 1)):
            held[text].set()
            assert await line.next() == requests.Found(n, [], 0, 0)


async def test_past_so_many_requests_nothing_more_is_read(
    meeting: Meeting, held: dict[str, asyncio.Event]
) -> None:
    device = await enrolled(meeting.database)
    async with lined(meeting, device) as line:
        for n in range(REQUESTS_IN_FLIGHT + 1):
            line.say(asked(device, n))
        line.say(device.push(1, edits(device.client, 1)))
        await eventually(lambda: line.up.qsize() == 1)
        held["a"].set()
        assert await line.next() == requests.Found(0, [], 0, 0)
        assert isinstance(await line.next(), wire.Ack)
        assert line.up.empty()


async def test_a_frame_that_is_no_message_ends_the_session_after_the_answers_before_it(
    meeting: Meeting, held: dict[str, asyncio.Event]
) -> None:
    device = await enrolled(meeting.database)
    async with lined(meeting, device) as line:
        line.say(asked(device, 0))
        line.say(device.push(1, edits(device.client, 1)))
        line.up.put_nowait(b"no message")
        assert isinstance(await line.next(), wire.Ack)
        failure = await line.next()
        assert isinstance(failure, wire.Failure)
        assert failure.code == "malformed"
