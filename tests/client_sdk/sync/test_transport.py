"""Both transports keep the same promises: one suite, run over memory and over a real WebSocket on this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from client_sdk.errors import ServerUnreachable
from client_sdk.sync.errors import TransportClosed
from client_sdk.sync.transport import Transport, WebSocketTransport, memory_pair, websocket_url
from crdt.limits import FRAME_BYTES_MAX


@asynccontextmanager
async def memory() -> AsyncIterator[tuple[Transport, Transport]]:
    near, far = memory_pair()
    yield near, far
    await near.close()


@asynccontextmanager
async def websocket() -> AsyncIterator[tuple[Transport, Transport]]:
    """The device's end, and the same class around the server's end of the connection."""
    arrived: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

    async def on_connection(connection: ServerConnection) -> None:
        arrived.set_result(connection)
        await connection.wait_closed()

    async with serve(on_connection, "127.0.0.1", 0, max_size=FRAME_BYTES_MAX, compression=None) as server:
        near = await WebSocketTransport.connect(address(server.sockets))
        far = WebSocketTransport(await arrived)
        yield near, far
        await near.close()


def address(sockets: Iterable[socket.socket]) -> str:
    return f"http://127.0.0.1:{next(iter(sockets)).getsockname()[1]}"


@pytest.fixture(params=[memory, websocket], ids=["memory", "websocket"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Transport, Transport]]:
    async with request.param() as pair:
        yield pair


async def test_frames_arrive_whole_in_order_and_in_both_directions(ends: tuple[Transport, Transport]) -> None:
    near, far = ends
    frames = [b"", b"\x00", bytes(range(256)), b"x" * 1_000_000]
    for there, here in ((near, far), (far, near)):
        for frame in frames:
            await there.send(frame)
        assert [await here.receive() for _ in frames] == frames


async def test_the_largest_frame_passes(ends: tuple[Transport, Transport]) -> None:
    near, far = ends
    frame = b"\x07" * FRAME_BYTES_MAX
    sending = asyncio.create_task(far.send(frame))
    assert await near.receive() == frame
    await sending


async def test_closing_ends_both_sides_and_may_be_done_twice(ends: tuple[Transport, Transport]) -> None:
    near, far = ends
    await near.close()
    await near.close()
    for end in (near, far):
        with pytest.raises(TransportClosed) as closed:
            await end.receive()
        assert closed.value.code == 1000
        with pytest.raises(TransportClosed):
            await end.send(b"x")


async def test_what_was_sent_before_the_end_still_arrives(ends: tuple[Transport, Transport]) -> None:
    near, far = ends
    await far.send(b"last words")
    closing = asyncio.create_task(far.close())
    assert await near.receive() == b"last words"
    with pytest.raises(TransportClosed):
        await near.receive()
    await closing


async def test_a_receiver_that_waits_hears_of_the_end(ends: tuple[Transport, Transport]) -> None:
    near, far = ends
    waiting = asyncio.create_task(near.receive())
    await far.close()
    with pytest.raises(TransportClosed):
        await waiting


async def test_a_receive_that_is_cancelled_loses_no_frame(ends: tuple[Transport, Transport]) -> None:
    near, far = ends
    waiting = asyncio.create_task(near.receive())
    await asyncio.wait({waiting}, timeout=0.01)
    waiting.cancel()
    await asyncio.wait({waiting})
    await far.send(b"x")
    assert await near.receive() == b"x"


async def test_a_sender_waits_while_the_other_side_does_not_listen(ends: tuple[Transport, Transport]) -> None:
    near, far = ends
    frame, sent = b"x" * 100_000, 0

    async def flood() -> None:
        nonlocal sent
        for _ in range(1_000):
            await near.send(frame)
            sent += 1

    flooding = asyncio.create_task(flood())
    done, _ = await asyncio.wait({flooding}, timeout=0.3)
    assert not done, "100 MB went nowhere"
    was = sent
    for _ in range(was + 1):
        await far.receive()
    assert was < 1_000
    flooding.cancel()
    await asyncio.wait({flooding})
    closing = asyncio.create_task(near.close())
    with pytest.raises(TransportClosed):  # the goodbye comes after all that was sent
        while True:
            await far.receive()
    await closing


# ---------------------------------------------------------------------------------------------- memory alone


async def test_a_cut_loses_what_was_on_its_way() -> None:
    near, far = memory_pair()
    await far.send(b"lost")
    await near.cut()
    for end in (near, far):
        with pytest.raises(TransportClosed) as closed:
            await end.receive()
        assert closed.value.code == 1006


# ------------------------------------------------------------------------------------------- the socket alone


async def test_a_server_that_is_not_there_is_named_with_its_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ServerUnreachable, match=url):
        await WebSocketTransport.connect(url)


async def test_another_program_at_that_address_is_not_taken_for_the_server() -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus.NOT_FOUND, "no such page\n")

    async with serve(_ignore, "127.0.0.1", 0, process_request=refuse) as server:
        with pytest.raises(ServerUnreachable, match="HTTP status 404"):
            await WebSocketTransport.connect(address(server.sockets))


async def test_a_program_that_speaks_no_http_is_not_taken_for_the_server() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        with pytest.raises(ServerUnreachable):
            await WebSocketTransport.connect(address(server.sockets))


@pytest.mark.parametrize(
    ("say", "code"),
    [
        (lambda connection: connection.send("text"), 1003),
        (lambda connection: connection.send(b"x" * (FRAME_BYTES_MAX + 1)), 1009),
        (lambda connection: connection.close(1012, "restarting"), 1012),
    ],
    ids=["a text message", "a frame past the limit", "a goodbye"],
)
async def test_what_is_no_frame_ends_the_connection(
    say: Callable[[ServerConnection], Awaitable[None]], code: int
) -> None:
    async def on_connection(connection: ServerConnection) -> None:
        await say(connection)
        await connection.wait_closed()

    async with serve(on_connection, "127.0.0.1", 0, compression=None) as server:
        transport = await WebSocketTransport.connect(address(server.sockets))
        with pytest.raises(TransportClosed) as closed:
            await transport.receive()
        assert closed.value.code == code
        await transport.close()


@pytest.mark.parametrize(
    ("url", "socket_url"),
    [
        ("http://127.0.0.1:8787", "ws://127.0.0.1:8787/v1/sync"),
        ("https://sync.example/", "wss://sync.example/v1/sync"),
        ("https://example.org/pjais/", "wss://example.org/pjais/v1/sync"),
        ("http://[::1]:8787", "ws://[::1]:8787/v1/sync"),
    ],
)
def test_the_socket_is_under_the_address_that_people_write(url: str, socket_url: str) -> None:
    assert websocket_url(url) == socket_url


@pytest.mark.parametrize("url", ["", "127.0.0.1:8787", "ftp://x", "http://", "localhost", "http://[::1"])
def test_what_is_no_address_is_refused_by_name(url: str) -> None:
    with pytest.raises(ServerUnreachable):
        websocket_url(url)


async def _ignore(connection: ServerConnection) -> None:
    await connection.wait_closed()
