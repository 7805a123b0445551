"""The way to the server, with a switch in it: devices keep one address, and a test decides what answers there.

HTTP always goes to the real server. Sockets go where ``sockets_to`` says: to the real server, to a stand-in of the
test's, or nowhere.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

__all__ = ["Switch"]

_HEAD_BYTES_MAX: Final = 64 * 1024
_CHUNK_BYTES: Final = 256 * 1024


class Switch:
    """Listens on a port of its own (``url``) and passes bytes on."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sockets_to: int | None = port
        self.sockets = 0  # connections that wanted a socket, so far
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_HEAD_BYTES_MAX)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    async def turn(self, sockets_to: int | None) -> None:
        """Let sockets go somewhere else from now on, and cut those that are open."""
        self.sockets_to = sockets_to
        await self.cut()

    async def cut(self) -> None:
        """Break every connection."""
        links = tuple(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            with suppress(OSError, EOFError, asyncio.CancelledError):
                await self._link(reader, writer)
        finally:
            self._links.discard(task)
            writer.transport.abort()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        port: int | None = self.port
        if head.startswith(b"GET /v1/sync "):
            self.sockets += 1
            port = self.sockets_to
        if port is None:
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            far_writer.write(head)
            ways = [
                asyncio.create_task(_pass_on(reader, far_writer)),
                asyncio.create_task(_pass_on(far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            far_writer.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    await writer.drain()
    writer.close()
    await writer.wait_closed()
