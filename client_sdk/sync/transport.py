"""How frames travel: a seam of three verbs, with a WebSocket behind it, or a pair in memory for tests.

A transport carries whole frames (`crdt.wire`), in order, until it is closed by either side or breaks; then every
call raises `TransportClosed`. It never carries part of a frame, and it says nothing about whether the other side has
dealt with one: acknowledgements are the protocol's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import connect as websocket_connect
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from client_sdk.errors import ServerUnreachable
from client_sdk.sync.errors import TransportClosed
from crdt.limits import FRAME_BYTES_MAX, PAGES_IN_FLIGHT

__all__ = ["MemoryTransport", "Transport", "WebSocketTransport", "memory_pair", "websocket_url"]

_OPEN_TIMEOUT_S: Final = 10.0
# A ping shows a dead network, which TCP alone may not notice for hours.
_PING_INTERVAL_S: Final = 20.0
# While a large page is being committed nothing is read from the socket, and so no pong: leave time for a slow disk.
_PING_TIMEOUT_S: Final = 60.0
# The other side may be gone: say goodbye, and do not wait long for an answer.
_CLOSE_TIMEOUT_S: Final = 2.0
_NORMAL: Final = 1000
_ABNORMAL: Final = 1006
_UNSUPPORTED: Final = 1003


class Transport(Protocol):
    """One connection to the server."""

    async def send(self, frame: bytes) -> None:
        """Hand over one frame; waits while the other side is too slow. Raises `TransportClosed`."""

    async def receive(self) -> bytes:
        """Return the next frame. Raises `TransportClosed` once nothing more can come."""
        ...

    async def close(self) -> None:
        """End the connection, whatever state it is in; a second time does nothing."""


class WebSocketTransport:
    """Frames as binary WebSocket messages (RFC 6455), not compressed again: the wire compresses."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, url: str) -> WebSocketTransport:
        """Return a connection to the server at ``url`` (http:// or https://, as people write it).

        Raises:
            ServerUnreachable: nothing there speaks the protocol.
        """
        try:
            connection = await websocket_connect(
                websocket_url(url),
                compression=None,
                max_size=FRAME_BYTES_MAX,
                max_queue=PAGES_IN_FLIGHT + 1,
                open_timeout=_OPEN_TIMEOUT_S,
                ping_interval=_PING_INTERVAL_S,
                ping_timeout=_PING_TIMEOUT_S,
                close_timeout=_CLOSE_TIMEOUT_S,
            )
        except InvalidStatus as error:
            problem = f"it answered with HTTP status {error.response.status_code}"
            raise ServerUnreachable(url, problem) from error
        except TimeoutError as error:
            raise ServerUnreachable(url, f"no answer within {_OPEN_TIMEOUT_S:g} s") from error
        except (OSError, InvalidHandshake, InvalidURI, EOFError) as error:
            raise ServerUnreachable(url, _sentence(error)) from error
        return cls(connection)

    async def send(self, frame: bytes) -> None:
        """Send one binary message."""
        try:
            await self._connection.send(frame)
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def receive(self) -> bytes:
        """Receive one binary message; a text message is none of ours and ends the connection."""
        try:
            frame = await self._connection.recv()
        except ConnectionClosed as error:
            raise _closed(error) from error
        if isinstance(frame, str):
            await self._connection.close(_UNSUPPORTED, "frames are binary")
            raise TransportClosed(_UNSUPPORTED, "the server sent a text message")
        return frame

    async def close(self) -> None:
        """Close with the closing handshake, or without when there is no answer."""
        await self._connection.close()


class MemoryTransport:
    """One end of a pair in memory: what is sent here is received there."""

    def __init__(self, inward: _Pipe, outward: _Pipe) -> None:
        self._inward = inward
        self._outward = outward

    async def send(self, frame: bytes) -> None:
        """Put one frame where the other end receives."""
        await self._outward.put(bytes(frame))

    async def receive(self) -> bytes:
        """Take the oldest frame; what came before the end is still given out."""
        return await self._inward.take()

    async def close(self) -> None:
        """Close both ends; what is on its way to this one is not listened to any more."""
        await self._inward.end(TransportClosed(_NORMAL), is_emptied=True)
        await self._outward.end(TransportClosed(_NORMAL), is_emptied=False)

    async def cut(self) -> None:
        """Break the connection, as a network does: what was on its way is lost."""
        broken = TransportClosed(_ABNORMAL, "the connection broke")
        await self._inward.end(broken, is_emptied=True)
        await self._outward.end(broken, is_emptied=True)


def memory_pair(*, frames_max: int = 64) -> tuple[MemoryTransport, MemoryTransport]:
    """Return the two ends of a connection in memory, with room for ``frames_max`` frames each way."""
    there, back = _Pipe(frames_max), _Pipe(frames_max)
    return MemoryTransport(there, back), MemoryTransport(back, there)


class _Pipe:
    """Frames on their way in one direction, and how that ended."""

    def __init__(self, frames_max: int) -> None:
        self._frames_max = frames_max
        self._frames: deque[bytes] = deque()
        self._ended: TransportClosed | None = None
        self._turned = asyncio.Condition()

    async def put(self, frame: bytes) -> None:
        async with self._turned:
            await self._turned.wait_for(lambda: self._ended or len(self._frames) < self._frames_max)
            if self._ended:
                raise self._ended
            self._frames.append(frame)
            self._turned.notify_all()

    async def take(self) -> bytes:
        async with self._turned:
            await self._turned.wait_for(lambda: self._ended or self._frames)
            if self._ended and not self._frames:
                raise self._ended
            self._turned.notify_all()
            return self._frames.popleft()

    async def end(self, ended: TransportClosed, *, is_emptied: bool) -> None:
        async with self._turned:
            self._ended = self._ended or ended
            if is_emptied:
                self._frames.clear()
            self._turned.notify_all()


def websocket_url(url: str) -> str:
    """Return where the server's socket is, from the address that people write.

    Raises:
        ServerUnreachable: it is no http:// or https:// address.
    """
    try:
        parts = urlsplit(url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme) if parts.hostname else None
    except ValueError:
        scheme = None
    if scheme is None:
        raise ServerUnreachable(url, "it is not an address such as http://127.0.0.1:8787")
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/v1/sync", "", ""))


def _closed(error: ConnectionClosed) -> TransportClosed:
    close = error.rcvd or error.sent
    return TransportClosed(close.code, close.reason) if close else TransportClosed(_ABNORMAL)


def _sentence(error: BaseException) -> str:
    return str(error) or type(error).__name__
