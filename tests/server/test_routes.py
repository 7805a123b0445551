"""The HTTP routes and the socket, as a device meets them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from crdt import wire
from server.database import Database
from server.routes import live
from server.routes.live import Socket
from server.settings import Settings
from tests.server.people import creation, edits, enrolled, eventually, hello, materialized
from tests.server.serving import Key, Running, opened, running_app, speaking, text

__all__: list[str] = []


class Clock:
    """A hand-turned clock."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time

    def turn(self, **span: float) -> None:
        self.time += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def running(database_url: str, server_settings: Settings, clock: Clock) -> AsyncIterator[Running]:
    async with running_app(database_url, server_settings, now=clock) as running:
        yield running


def code(answer: Any) -> tuple[int, str]:
    body = answer.json()
    assert set(body) == {"code", "message"}, body
    assert body["message"]
    return answer.status_code, body["code"]


# ------------------------------------------------------------------------------------------------------ accounts


async def test_a_device_registers_with_its_key_and_its_token_opens_its_space(running: Running) -> None:
    device = await running.register(Key())
    async with speaking(running, device) as line:
        assert isinstance(line.welcome, wire.Welcome)
        assert line.welcome.spaces[0].space == str(device.space)


async def test_a_challenge_is_used_once(running: Running) -> None:
    key, nonce = Key(), await running.challenge()
    body = {
        "publicKey": text(key.public),
        "nonce": text(nonce),
        "signature": key.sign(b"pjais register v1\0" + nonce + key.public),
    }
    assert (await running.http.post("/v1/register", json=body)).status_code == 201
    assert code(await running.http.post("/v1/register", json=body)) == (401, "unauthorized")


async def test_a_challenge_and_a_token_end(running: Running, clock: Clock) -> None:
    key = Key()
    nonce = await running.challenge()
    clock.turn(seconds=61)
    body = {
        "publicKey": text(key.public),
        "nonce": text(nonce),
        "signature": key.sign(b"pjais register v1\0" + nonce + key.public),
    }
    assert code(await running.http.post("/v1/register", json=body)) == (401, "unauthorized")
    device = await running.register(key)
    clock.turn(seconds=3_601)
    documents = f"/v1/spaces/{device.space}/documents?collection=notes"
    bearer = {"Authorization": f"Bearer {device.token}"}
    assert code(await running.http.get(documents, headers=bearer)) == (401, "unauthorized")
    nonce = await running.challenge()
    renewed = await running.http.post(
        "/v1/tokens",
        json={
            "device": str(device.device),
            "nonce": text(nonce),
            "signature": key.sign(b"pjais token v1\0" + nonce + device.device.bytes),
        },
    )
    bearer = {"Authorization": f"Bearer {renewed.json()['token']}"}
    assert (await running.http.get(documents, headers=bearer)).status_code == 200
    assert renewed.json()["expiresAt"] == pytest.approx(clock().timestamp() * 1000 + 3_600_000, abs=2)


async def test_a_signature_for_one_purpose_or_by_another_key_opens_nothing(running: Running) -> None:
    key, other = Key(), Key()
    device = await running.register(key)
    for signer, purpose in [(other, b"pjais token v1\0"), (key, b"pjais register v1\0")]:
        nonce = await running.challenge()
        body = {
            "device": str(device.device),
            "nonce": text(nonce),
            "signature": signer.sign(purpose + nonce + device.device.bytes),
        }
        assert code(await running.http.post("/v1/tokens", json=body)) == (401, "unknown_device")
    nonce = await running.challenge()
    body = {"device": str(uuid4()), "nonce": text(nonce), "signature": text(bytes(64))}
    assert code(await running.http.post("/v1/tokens", json=body)) == (401, "unknown_device")


async def test_tokens_are_stored_as_hashes(running: Running, database: Database) -> None:
    device = await running.register(Key())
    async with database.connection() as connection:
        stored = [row["token_hash"] for row in await connection.fetch("SELECT token_hash FROM tokens")]
    assert stored
    assert all(len(value) == 32 and device.token.encode() not in value for value in stored)


async def test_an_invitation_lets_one_device_in_and_gives_it_the_sealed_key(running: Running) -> None:
    first = await running.register(Key())
    invitation, proof, key = b"invitation-id-01", Key(), Key()
    assert (await running.invite(first, invitation, proof)).status_code == 201
    joined = await running.join(invitation, proof, key)
    assert joined.status_code == 201
    assert joined.json()["sealed"] == text(b"sealed key")
    device = running.device(joined)
    assert (device.space, device.account) == (first.space, first.account)
    assert code(await running.join(invitation, proof, Key())) == (409, "invitation_used")
    async with speaking(running, device) as line:
        assert isinstance(line.welcome, wire.Welcome)


async def test_a_device_whose_answer_was_lost_joins_again_as_the_same(running: Running) -> None:
    first = await running.register(Key())
    invitation, proof, key = b"invitation-id-01", Key(), Key()
    await running.invite(first, invitation, proof)
    once, again = [running.device(await running.join(invitation, proof, key)) for _ in range(2)]
    assert once.device == again.device


async def test_an_invitation_ends_after_ten_minutes_or_earlier_if_so_asked(
    running: Running, clock: Clock
) -> None:
    first = await running.register(Key())
    now_ms = int(clock().timestamp() * 1000)
    for number, asked, lasts_s in [(1, None, 600), (2, now_ms + 60_000, 60), (3, now_ms + 9_999_999, 600)]:
        made = await running.invite(first, b"invitation-id-%02d" % number, Key(), expiresAt=asked)
        assert made.json()["expiresAt"] == pytest.approx(now_ms + lasts_s * 1000, abs=2)
    proof = Key()
    await running.invite(first, b"invitation-id-04", proof)
    clock.turn(seconds=601)
    assert code(await running.join(b"invitation-id-04", proof, Key())) == (410, "invitation_expired")
    assert code(await running.join(b"never-made-at-all", proof, Key())) == (410, "invitation_expired")


async def test_who_does_not_hold_the_invitations_key_does_not_use_it_up(running: Running) -> None:
    first = await running.register(Key())
    invitation, proof = b"invitation-id-01", Key()
    await running.invite(first, invitation, proof)
    assert code(await running.join(invitation, Key(), Key())) == (401, "unauthorized")
    assert (await running.join(invitation, proof, Key())).status_code == 201


# ----------------------------------------------------------------------------------------------------- documents


async def test_records_are_read_as_json_page_by_page(running: Running, database: Database) -> None:
    device = await enrolled(database)
    await materialized(database, device, {f"r{n}": (n, b"snapshot") for n in range(1, 6)})
    route = f"/v1/spaces/{device.space}/documents"
    bearer = {"Authorization": f"Bearer {device.token}"}
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await running.http.get(
            route, params={"collection": "notes", "after": after, "limit": 2}, headers=bearer
        )
        assert page.status_code == 200, page.text
        found += [record["id"] for record in page.json()["records"]]
        assert page.json()["records"][0]["value"] == {"title": "x"}
        after = page.json()["next"]
    assert found == [f"r{n}" for n in range(1, 6)]


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v1/register", b"{", (400, "malformed")),
        ("POST", "/v1/register", b"{}", (400, "malformed")),
        ("POST", "/v1/register", b'{"publicKey": 1, "nonce": "", "signature": ""}', (400, "malformed")),
        ("POST", "/v1/register", b'{"publicKey": "!", "nonce": "", "signature": ""}', (400, "malformed")),
        (
            "POST",
            "/v1/register",
            b'{"publicKey": "AA", "nonce": "AA", "signature": "AA"}',
            (401, "unauthorized"),
        ),
        ("POST", "/v1/tokens", b'{"device": "x", "nonce": "", "signature": ""}', (400, "malformed")),
        ("POST", "/v1/register", b'"' + b"x" * 100_000 + b'"', (413, "too_large")),
        ("GET", "/v1/register", b"", (405, "no_such_method")),
        ("GET", "/v2", b"", (404, "no_such_path")),
        ("GET", "/v1/spaces/nonsense/documents?collection=notes", b"", (401, "unauthorized")),
    ],
)
async def test_every_error_has_a_code_and_a_message(
    running: Running, method: str, path: str, body: bytes, expected: tuple[int, str]
) -> None:
    answer = await running.http.request(
        method, path, content=body, headers={"Content-Type": "application/json"}
    )
    assert code(answer) == expected


async def test_the_schema_of_the_http_part_is_published(running: Running) -> None:
    schema = (await running.http.get("/schema/openapi.json")).json()
    assert {"/v1/register", "/v1/join", "/v1/tokens", "/v1/challenges", "/health", "/ready"} <= set(
        schema["paths"]
    )
    assert "publicKey" in str(schema["components"]["schemas"])


# ------------------------------------------------------------------------------------------------------- socket


async def test_a_push_is_acknowledged_and_reaches_the_other_device(running: Running) -> None:
    async with (
        opened(running) as (one, two),
        speaking(running, one) as first,
        speaking(running, two) as second,
    ):
        await first.send(one.push(1, edits(one.client, 3)))
        answers = {type(message): message for message in (await first.next(), await first.next())}
        assert answers[wire.Ack] == wire.Ack(str(one.space), one.incarnation, 3, [])
        page = await second.next()
        assert isinstance(page, wire.Page)
        assert [entry.position for entry in page.entries] == [1, 2, 3]


async def test_many_pushes_without_waiting_are_acknowledged_in_order(running: Running) -> None:
    device = await running.register(Key())
    async with speaking(running, device) as line:
        for number in range(1, 101):
            await line.send(device.push(number, edits(device.client, 1, start=number)))
        acks: list[int] = []
        while len(acks) < 100:
            message = await line.next()
            if isinstance(message, wire.Ack):
                acks.append(message.through)
            elif isinstance(message, wire.Page):
                await line.send(wire.Received(str(device.space), message.through))
        assert acks == list(range(1, 101))


@pytest.mark.parametrize("frame", [b"", b"\x00", b"\x07\x00", b"\x01nonsense", b"\x00\xc1", "text"])
async def test_a_bad_frame_gets_a_typed_failure_and_the_end_of_its_session_alone(
    running: Running, frame: bytes | str
) -> None:
    async with opened(running) as (one, two), speaking(running, two) as bystander:
        async with speaking(running, one) as line:
            await line.socket.send(frame)
            answer = await line.next()
            assert isinstance(answer, wire.Failure)
            assert answer.code == "malformed"
            with pytest.raises(ConnectionClosed):
                await line.next()
        await bystander.send(two.push(1, edits(two.client, 1)))
        assert isinstance(await bystander.next(), wire.Ack)


async def test_a_failure_comes_after_the_answers_to_earlier_frames(running: Running) -> None:
    device = await running.register(Key())
    async with speaking(running, device) as line:
        await line.send(device.push(1, edits(device.client, 2)))
        await line.send(device.push(99, edits(device.client, 1)))
        messages: list[wire.FromServer] = []
        with pytest.raises(ConnectionClosed):
            while True:
                messages.append(await line.next())
    kinds = [type(message) for message in messages if not isinstance(message, wire.Page)]
    assert kinds == [wire.Ack, wire.Failure]


async def test_who_says_no_hello_is_cut_off(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_HELLO_TIMEOUT_S", 0.05)
    async with connect(running.sync_url) as line:
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(line.recv(), 10)


async def test_a_device_that_does_not_read_is_cut_off_and_delays_nobody(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_WRITE_TIMEOUT_S", 0.2)
    ended = asyncio.Event()
    run = Socket.run

    async def watched(self: Socket) -> None:
        await run(self)
        if self._session._device == slow.device:
            ended.set()

    monkeypatch.setattr(Socket, "run", watched)
    async with opened(running) as (slow, quick), speaking(running, quick) as writer:
        narrow = socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])))
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck = await connect(running.sync_url, sock=narrow, compression=None, ping_interval=None)
        await stuck.send(wire.encode(hello(slow)))
        assert await stuck.recv()
        stuck.transport.pause_reading()
        for number in range(
            1, 4
        ):  # what does not compress, in pages of its own: more than the system buffers
            large = wire.Edit("notes", f"{number}", creation(quick.client, body=os.urandom(3_900_000)))
            await writer.send(quick.push(number, [large]))
            while not isinstance(message := await writer.next(), wire.Ack):
                assert isinstance(message, wire.Page)
                await writer.send(wire.Received(str(quick.space), message.through))
        await asyncio.wait_for(ended.wait(), 30)
        await writer.send(quick.push(4, edits(quick.client, 1)))
        stuck.transport.abort()
        await stuck.wait_closed()


async def test_sockets_that_vanish_leave_nothing_behind(running: Running) -> None:
    device = await running.register(Key())
    for _ in range(20):
        vanishing = await connect(running.sync_url, compression=None, ping_interval=None)
        await vanishing.send(wire.encode(hello(device)))
        vanishing.transport.abort()
        await vanishing.wait_closed()
    await eventually(
        lambda: not [task for task in asyncio.all_tasks() if (task.get_name() or "").startswith("sync:")]
    )
