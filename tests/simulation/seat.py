"""A session and its end of the socket, in events: what `server.routes.live.Socket` does with tasks.

Frames are read one after the other, as long as few enough wait for their answers; answers go out in the order of the
frames, and news when the session has some.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from crdt import wire
from crdt.limits import PUSHES_IN_FLIGHT
from server.session import Meeting, Session

if TYPE_CHECKING:
    from tests.simulation.network import Link
    from tests.simulation.server import Process

__all__ = ["Seat"]


class _Quiet(BaseException):
    """A session has nothing to say."""


class _Bell(asyncio.Event):
    """A session's signal that there is news: tells the world, and never makes anybody wait."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def set(self) -> None:
        super().set()
        self._ring()

    async def wait(self) -> Literal[True]:
        if not self.is_set():
            raise _Quiet
        return True


class _Session(Session):
    """A session with a place of its own in a set: those that listen are told in the same order in every run."""

    def __init__(self, meeting: Meeting, number: int) -> None:
        super().__init__(meeting)
        self._number = number

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class Seat:
    """A session and its end of the socket: what `server.routes.live.Socket` is, in events."""

    link: Link

    def __init__(self, process: Process) -> None:
        self.process = process
        self.is_gone = False
        self.session = _Session(process.meeting, next(process.server.numbers))
        self.session._news = _Bell(self._ring)
        self._answers: deque[asyncio.Task[list[bytes]]] = deque()
        self._unread: deque[bytes] = deque()
        self._is_rung = False

    def _ring(self) -> None:
        if not self._is_rung and not self.is_gone:
            self._is_rung = True
            self.process.soon(f"{self.link.name} news", self._say)

    async def arrive(self, frame: bytes) -> None:
        """A frame of the device is there."""
        if self.is_gone:
            return
        self._unread.append(frame)
        await self._read()

    async def _read(self) -> None:
        while self._unread and len(self._answers) < PUSHES_IN_FLIGHT and not self.is_gone:
            gate = self.process.gate
            gate.submitted.clear()
            task = asyncio.create_task(self.session.receive(self._unread.popleft()))
            queued = asyncio.create_task(gate.submitted.wait())
            await asyncio.wait([task, queued], return_when=asyncio.FIRST_COMPLETED)
            queued.cancel()
            self._answers.append(task)
            if not task.done():
                self.process.commit_soon()
            await self.answer()

    async def answer(self) -> None:
        """Send the answers that are there, in the order of the frames."""
        while self._answers and self._answers[0].done():
            for frame in self._answers.popleft().result():
                self._send(frame)
            await self._read()

    async def settle(self) -> None:
        """Let what a commit has answered come to its end."""
        if self._answers:
            await asyncio.wait(list(self._answers))

    async def _say(self) -> None:
        self._is_rung = False
        if self.is_gone:
            return
        try:
            frames = await self.session.next_frames()
        except _Quiet:
            return
        for frame in frames:
            self._send(frame)

    def _send(self, frame: bytes) -> None:
        if self.is_gone:
            return
        self.link.down(frame)
        if frame == self.session.failure:
            message = wire.decode_from_server(frame)
            assert isinstance(message, wire.Failure)
            self.process.server.world.note(f"{self.link.name} Failure {message.code}")
            self.link.cut_by_server(message.code)
            self._forget()

    async def end(self, reason: str) -> None:
        """The socket is closed: the session writes down how far it was read."""
        if not self.is_gone:
            self._forget()
            await self.session.close()

    def die(self) -> None:
        """The process is gone: nothing is written down."""
        if not self.is_gone:
            self.link.cut_by_server("the server died")
            self._forget()

    def _forget(self) -> None:
        self.is_gone = True
        self.process.seats.discard(self)
        self.process.left += [task for task in self._answers if not task.done()]
        for task in self._answers:
            task.cancel()
        self._answers.clear()
