"""A server in this process, on a real port; and a device that speaks to it, over HTTP and the socket."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect

from crdt import wire
from server.app import create_app
from server.settings import Settings
from tests.server.people import Device, eventually, hello

__all__ = ["Key", "Running", "opened", "running_app", "speaking", "text"]


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def data(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


class Key:
    """An Ed25519 key."""

    def __init__(self) -> None:
        self._private = Ed25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> str:
        return text(self._private.sign(message))


@dataclass(frozen=True)
class Running:
    """A server that runs, and HTTP to it."""

    url: str
    http: httpx.AsyncClient

    @property
    def sync_url(self) -> str:
        return self.url.replace("http://", "ws://") + "/v1/sync"

    async def challenge(self) -> bytes:
        answer = await self.http.post("/v1/challenges", json={})
        assert answer.is_success, answer.text
        return data(answer.json()["nonce"])

    async def register(self, key: Key) -> Device:
        nonce = await self.challenge()
        body = {
            "publicKey": text(key.public),
            "nonce": text(nonce),
            "signature": key.sign(b"pjais register v1\0" + nonce + key.public),
            "name": "a laptop",
        }
        answer = await self.http.post("/v1/register", json=body)
        assert answer.is_success, answer.text
        return self.device(answer)

    async def invite(self, device: Device, invitation: bytes, proof: Key, **more: object) -> httpx.Response:
        body = {
            "invitation": text(invitation),
            "proofKey": text(proof.public),
            "sealed": text(b"sealed key"),
            **more,
        }
        return await self.http.post(
            f"/v1/spaces/{device.space}/invitations",
            json=body,
            headers={"Authorization": f"Bearer {device.token}"},
        )

    async def join(self, invitation: bytes, proof: Key, key: Key) -> httpx.Response:
        nonce = await self.challenge()
        signed = b"pjais join v1\0" + nonce + key.public
        body = {
            "invitation": text(invitation),
            "publicKey": text(key.public),
            "nonce": text(nonce),
            "signature": key.sign(signed),
            "proof": proof.sign(signed),
            "name": "a phone",
        }
        return await self.http.post("/v1/join", json=body)

    @staticmethod
    def device(answer: httpx.Response) -> Device:
        body = answer.json()
        return Device(UUID(body["account"]), UUID(body["space"]), UUID(body["device"]), body["token"])


@asynccontextmanager
async def running_app(
    database_url: str,
    settings: Settings,
    *,
    folds: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncIterator[Running]:
    """Serve the application with uvicorn, in this loop."""
    app = create_app(
        settings.model_copy(update={"database_url": SecretStr(database_url)}), folds=folds, now=now
    )
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="websockets-sansio",
        log_config=None,
        timeout_graceful_shutdown=2,
        ws_ping_interval=None,
    )
    server = uvicorn.Server(config)
    is_open = asyncio.Event()

    async def serve() -> None:
        """The application opens and closes in one task, and a fixture's two halves run in two."""
        async with app.lifespan():
            serving = asyncio.create_task(server._serve(sockets=[listener]))
            await eventually(lambda: server.started or serving.done())
            is_open.set()
            await serving

    serving = asyncio.create_task(serve())
    opening = asyncio.create_task(is_open.wait())
    await asyncio.wait([serving, opening], return_when=asyncio.FIRST_COMPLETED)
    opening.cancel()
    try:
        if not serving.done():
            url = "http://{}:{}".format(*listener.getsockname())
            async with httpx.AsyncClient(base_url=url, timeout=20) as http:
                yield Running(url, http)
    finally:
        server.should_exit = True
        try:
            await serving
        finally:
            listener.close()


class speaking:  # noqa: N801 - reads as a verb: `async with speaking(running, device) as say`
    """A device's socket: says Hello, then speaks in messages."""

    def __init__(self, running: Running, device: Device, *, position: int = 0, greet: bool = True) -> None:
        self._running, self._device, self._position, self._greet = running, device, position, greet
        self.socket: ClientConnection
        self.welcome: wire.FromServer | None = None

    async def __aenter__(self) -> Self:
        self.socket = await connect(
            self._running.sync_url, max_size=None, compression=None, ping_interval=None
        )
        if self._greet:
            await self.send(hello(self._device, position=self._position))
            self.welcome = await self.next()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    async def send(self, message: wire.FromDevice) -> None:
        await self.socket.send(wire.encode(message))

    async def next(self) -> wire.FromServer:
        frame = await asyncio.wait_for(self.socket.recv(), 20)
        assert isinstance(frame, bytes)
        return wire.decode_from_server(frame)


@asynccontextmanager
async def opened(running: Running) -> AsyncIterator[tuple[Device, Device]]:
    """Two devices of one space."""
    first = await running.register(Key())
    invitation, proof = b"i" * 16, Key()
    assert (await running.invite(first, invitation, proof)).is_success
    yield first, running.device(await running.join(invitation, proof, Key()))
