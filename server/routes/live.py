"""The socket of one device: bytes to its session, bytes from it. All decisions are the session's.

Four tasks: one reads; one sends the answers of sync, in the order of their frames; one those to requests
(`crdt.requests`), as they are ready, since a search may take longer than the push after it; one sends news. The first
to end ends the others. At most ``PUSHES_IN_FLIGHT`` frames and ``REQUESTS_IN_FLIGHT`` requests wait for their answers;
then nothing more is read, and the device's own socket makes it wait. A device that cannot be written to for
``SESSION_WRITE_TIMEOUT_S`` is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Final

import structlog
from litestar import WebSocket, websocket
from litestar.datastructures import State
from litestar.exceptions import WebSocketDisconnect

from crdt import requests
from crdt.limits import PUSHES_IN_FLIGHT, REQUESTS_IN_FLIGHT, SESSION_WRITE_TIMEOUT_S
from server.routes.common import rooms_of
from server.session import Session

__all__ = ["Socket", "sync"]

#: A socket on which nobody says Hello is closed after this.
_HELLO_TIMEOUT_S: Final = 10.0
_WRITE_TIMEOUT_S: Final = SESSION_WRITE_TIMEOUT_S
#: RFC 6455, section 7.4.1.
_NORMAL, _POLICY = 1000, 1008

_log = structlog.get_logger(__name__)


@websocket("/v1/sync")
async def sync(socket: WebSocket[Any, Any, State], state: State) -> None:
    """Keep a device in sync (the protocol is in `crdt.wire`)."""
    await socket.accept()
    session = Session(rooms_of(state).meeting)
    try:
        await Socket(socket, session).run()
    finally:
        await session.close()


class _Lane:
    """Tasks that become answers, in the order in which these are to be sent. Each holds a slot until it is sent."""

    def __init__(self, slots: int) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.tasks: asyncio.Queue[asyncio.Task[list[bytes]]] = asyncio.Queue()


class Socket:
    """A socket and its session, until one of them ends."""

    def __init__(self, socket: WebSocket[Any, Any, State], session: Session) -> None:
        self._socket = socket
        self._session = session
        self._sync = _Lane(PUSHES_IN_FLIGHT)
        self._requests = _Lane(REQUESTS_IN_FLIGHT)
        self._answering: set[asyncio.Task[list[bytes]]] = set()
        self._has_answered = asyncio.Event()

    async def run(self) -> None:
        """Serve until the device goes, or may not stay."""
        tasks = [
            asyncio.create_task(self._read(), name="sync: read"),
            asyncio.create_task(self._answer(self._sync), name="sync: answer"),
            asyncio.create_task(self._answer(self._requests), name="sync: answer requests"),
            asyncio.create_task(self._send_news(), name="sync: news"),
        ]
        code = _NORMAL
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (WebSocketDisconnect, OSError):  # it went away: `OSError` is uvicorn's for a send into nothing
            return
        except TimeoutError:
            code = _POLICY
        finally:
            await _cancelled([*tasks, *self._answering])
        # What stands in a socket that does not drain is not waited for.
        with contextlib.suppress(WebSocketDisconnect, OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._socket.close(_POLICY if self._session.failure else code)

    async def _read(self) -> None:
        async with asyncio.timeout(_HELLO_TIMEOUT_S):
            frame = await self._socket.receive_bytes()
        while True:
            message = await self._session.read(frame)
            lane = self._requests if isinstance(message, requests.Request) else self._sync
            await lane.slots.acquire()
            task = asyncio.create_task(self._session.answer(message))
            self._answering.add(task)
            if lane is self._sync:
                lane.tasks.put_nowait(task)
            else:
                task.add_done_callback(lane.tasks.put_nowait)
            await self._has_answered.wait()  # nothing is read before the Welcome: it settles how much may be
            frame = await self._socket.receive_bytes()

    async def _answer(self, lane: _Lane) -> None:
        while True:
            task = await lane.tasks.get()
            frames = await task
            await self._send(frames)
            self._has_answered.set()
            self._answering.discard(task)
            lane.slots.release()
            if self._session.failure in frames:
                return

    async def _send_news(self) -> None:
        await self._has_answered.wait()  # nothing comes before the Welcome
        while frames := await self._session.next_frames():
            await self._send(frames)
            if self._session.failure in frames:
                return
        await asyncio.Event().wait()  # the answer that ended the session is still to be sent

    async def _send(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await self._socket.send_bytes(frame)


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    everything = tuple(tasks)
    for task in everything:
        task.cancel()
    await asyncio.gather(*everything, return_exceptions=True)
