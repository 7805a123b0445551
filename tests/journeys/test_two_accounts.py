"""Two accounts never meet, in a running server: every route and every message is tried across, with all ids known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from crdt import requests, wire
from crdt.vectors import packed_vector
from tests.client_sdk.records import Note
from tests.journeys.conftest import Opens
from tests.journeys.live import LiveServer, eventually
from tests.postgres import query
from tests.server.people import Device, creation, edits, hello
from tests.server.serving import Key, Running, speaking, text

__all__: list[str] = []

SECRET = "what only the owner's devices may read"
REVOKED_S_MAX = 6.0  # `server.session` asks again every five seconds


def told(answer: httpx.Response) -> tuple[int, Mapping[str, str], Any]:
    """Everything of an answer that could tell two apart."""
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    return answer.status_code, headers, answer.json()


def bearer(device: Device) -> dict[str, str]:
    return {"Authorization": f"Bearer {device.token}"}


async def owner_with_a_record(raw: Running) -> Device:
    """Return a device whose space holds one record, ``r1``, folded."""
    owner = await raw.register(Key())
    record = wire.Edit("notes", "r1", creation(owner.client, title=SECRET))
    async with speaking(raw, owner) as say:
        await say.send(owner.push(1, [record]))
        while not isinstance(await say.next(), wire.Ack):
            pass
    sent = await raw.http.post(
        f"/v1/spaces/{owner.space}/vectors", json={"vectors": [vector_of("r1")]}, headers=bearer(owner)
    )
    assert sent.json()["taken"] == 1
    await eventually(lambda: is_shown(raw, owner, SECRET))
    return owner


async def is_shown(raw: Running, device: Device, value: str, times: int = 1) -> bool:
    """Whether a value is to be read among the device's records, so often."""
    route = f"/v1/spaces/{device.space}/documents?collection=notes"
    return (await raw.http.get(route, headers=bearer(device))).text.count(value) == times


async def tried_by_http(raw: Running, stranger: Device, space: str) -> list[Any]:
    """What a stranger is told on each route that names a space."""
    invitation = {"invitation": text(b"i" * 16), "proofKey": text(Key().public), "sealed": text(b"s")}
    answers = []
    for headers in (bearer(stranger), {}, {"Authorization": "Bearer x"}):
        for params in (
            {"collection": "notes"},
            {"collection": "notes", "after": "r0", "limit": "1"},
            {"collection": "no_such"},
        ):
            route = f"/v1/spaces/{space}/documents"
            answers.append(told(await raw.http.get(route, params=params, headers=headers)))
        route = f"/v1/spaces/{space}/invitations"
        answers.append(told(await raw.http.post(route, json=invitation, headers=headers)))
        route = f"/v1/spaces/{space}/vectors"
        for model in ("small", "no such"):
            answers.append(told(await raw.http.get(route, params={"model": model}, headers=headers)))
            answers.append(told(await raw.http.delete(route, params={"model": model}, headers=headers)))
        for vectors in ([vector_of("r1")], [{"collection": "notes"} | vector_of("r2", b"no vector")], []):
            answers.append(told(await raw.http.post(route, json={"vectors": vectors}, headers=headers)))
        route = f"/v1/spaces/{space}/search"
        for question in (
            {"text": SECRET, "mode": "text"},
            {"text": SECRET, "vector": [1, 2], "model": "small"},
            {"vector": [1, 2, 3], "model": "no such", "mode": "meaning"},
            {"text": SECRET, "mode": "text", "collections": ["notes"], "limit": 1},
        ):
            answers.append(told(await raw.http.post(route, json=question, headers=headers)))
    return answers


def vector_of(record: str, data: bytes = packed_vector(0.4, [1, 2])) -> dict[str, Any]:
    """A part's vector, as it is sent."""
    return {
        "collection": "notes",
        "record": record,
        "model": "small",
        "hash": text(b"h"),
        "vector": text(data),
    }


async def tried_by_message(raw: Running, stranger: Device, space: str) -> list[object]:
    """What a stranger is told on each message that names a space: at Hello, and after one for its own."""
    answers: list[object] = []
    own, theirs = wire.Cursor(str(stranger.space), "", 0), wire.Cursor(space, "", 0)
    for cursors in ([theirs], [own, theirs], [theirs, own], [wire.Cursor(space, str(uuid4()), 7)]):
        async with speaking(raw, stranger, greet=False) as say:
            greeting = hello(stranger)
            await say.send(
                wire.Hello(
                    1, greeting.token, greeting.device, greeting.incarnation, greeting.client, cursors, 0
                )
            )
            answers.append(await say.next())
    crossing: list[wire.FromDevice] = [
        wire.Push(space, stranger.incarnation, stranger.client, 1, edits(stranger.client, 1)),
        wire.Push(space, stranger.incarnation, stranger.client, 1, []),
        wire.Push(space, stranger.incarnation, stranger.client, 99, edits(stranger.client, 1)),
        wire.Received(space, 0),
        wire.Received(space, 1),
        wire.Verify(space, 1),
        wire.Fetch(space, "notes", "r1"),
        wire.Fetch(space, "notes", "no such"),
        requests.PushVectors(space, 1, "small", []),
        requests.PullVectors(space, 1, "small", 0),
        requests.ForgetVectors(space, 1, "small"),
        requests.Search(space, 1, "text", SECRET),
    ]
    for message in crossing:
        async with speaking(raw, stranger) as say:
            assert isinstance(say.welcome, wire.Welcome)
            await say.send(message)
            answers.append(await say.next())
    return answers


async def test_a_strangers_space_is_told_as_one_that_does_not_exist(
    server: LiveServer, raw: Running, shared_url: str
) -> None:
    owner, stranger = await owner_with_a_record(raw), await raw.register(Key())
    theirs, nobodys = str(owner.space), str(uuid4())
    answers = await tried_by_http(raw, stranger, theirs)
    assert answers == await tried_by_http(raw, stranger, nobodys)
    once = len(answers) // 3
    assert [answer[2]["code"] for answer in answers] == ["not_in_space"] * once + ["unauthorized"] * 2 * once
    messages = await tried_by_message(raw, stranger, theirs)
    assert messages == await tried_by_message(raw, stranger, nobodys)
    assert {getattr(message, "code", message) for message in messages} == {"not_in_space"}
    assert SECRET not in repr(answers) + repr(messages)
    for table in ("log", "vectors", "models"):
        count = f"SELECT count(*) FROM {table} WHERE space_id = '{owner.space}'"
        assert await query(shared_url, count) == 1
    assert (
        await query(shared_url, f"SELECT count(*) FROM invitations WHERE created_by = '{stranger.device}'")
        == 0
    )
    assert await query(shared_url, f"SELECT count(*) FROM writers WHERE device_id = '{stranger.device}'") == 0


async def test_a_strangers_device_is_told_as_one_that_does_not_exist(
    server: LiveServer, raw: Running
) -> None:
    owner, key = await owner_with_a_record(raw), Key()
    stranger = await raw.register(key)
    answers: list[list[object]] = []
    for device in (owner.device, uuid4()):
        told_of_it: list[object] = []
        for signs in (device, stranger.device):
            nonce = await raw.challenge()
            body = {
                "device": str(device),
                "nonce": text(nonce),
                "signature": key.sign(b"pjais token v1\0" + nonce + signs.bytes),
            }
            told_of_it.append(told(await raw.http.post("/v1/tokens", json=body)))
        for posing in (replace(stranger, device=device), replace(stranger, device=device, token="x")):
            for space in (owner.space, stranger.space, uuid4()):
                async with speaking(raw, replace(posing, space=space)) as say:
                    told_of_it.append(say.welcome)
        answers.append(told_of_it)
    assert answers[0] == answers[1]
    codes = {one.code if isinstance(one, wire.Failure) else one[2]["code"] for one in answers[0]}  # type: ignore[index]
    assert codes == {"unauthorized", "unknown_device"}


async def test_what_two_accounts_call_alike_stays_apart(server: LiveServer, raw: Running) -> None:
    """The same record id, the same client id, the same incarnation, at the same time, each in two sessions."""
    first, second = await raw.register(Key()), await raw.register(Key())
    second = replace(second, incarnation=first.incarnation, client=first.client)
    seen: dict[UUID, list[str]] = {first.space: [], second.space: []}

    async def listen(device: Device, socket: speaking, until: int) -> None:
        position = 0
        while position < until:
            message = await socket.next()
            seen[device.space].append(repr(message))
            if isinstance(message, wire.Page):
                position = message.through
                await socket.send(wire.Received(str(device.space), position))

    async def push(device: Device, socket: speaking, mark: str) -> None:
        for n in range(1, 21):
            record = wire.Edit("notes", f"r{n}", creation(device.client, title=f"{mark} {n}"))
            await socket.send(device.push(n, [record]))

    async with (
        speaking(raw, first) as a,
        speaking(raw, second) as b,
        speaking(raw, replace(first, incarnation=7, client=7)) as also_a,
        speaking(raw, replace(second, incarnation=7, client=7)) as also_b,
    ):
        await asyncio.gather(
            push(first, a, "of the first"),
            push(second, b, "of the second"),
            *(listen(first, socket, 20) for socket in (a, also_a)),
            *(listen(second, socket, 20) for socket in (b, also_b)),
        )
    for device, mine, other in (
        (first, "of the first", "of the second"),
        (second, "of the second", "of the first"),
    ):
        everything = "".join(seen[device.space])
        assert mine in everything
        assert other not in everything
        await eventually(lambda device=device, mine=mine: is_shown(raw, device, mine, 20))  # type: ignore[misc]
        assert await is_shown(raw, device, other, 0)
        route, question = f"/v1/spaces/{device.space}/search", {"text": "first second", "mode": "text"}
        found = await raw.http.post(route, json=question | {"limit": 100}, headers=bearer(device))
        assert found.text.count(mine) == 20
        assert other not in found.text


async def test_an_invitation_lets_in_one_device_once_and_nobody_later(
    server: LiveServer, raw: Running, shared_url: str
) -> None:
    owner, proof, key = await raw.register(Key()), Key(), Key()
    for number in (1, 2):
        assert (await raw.invite(owner, b"invitation-id-%02d" % number, proof)).is_success
    nonce = await raw.challenge()
    signed = b"pjais join v1\0" + nonce + key.public
    body = {
        "invitation": text(b"invitation-id-01"),
        "publicKey": text(key.public),
        "nonce": text(nonce),
        "signature": key.sign(signed),
        "proof": proof.sign(signed),
        "name": "a phone",
    }
    assert (await raw.http.post("/v1/join", json=body)).status_code == 201
    replayed = await raw.http.post("/v1/join", json=body)
    assert (replayed.status_code, replayed.json()["code"]) == (401, "unauthorized")
    again = await raw.join(b"invitation-id-01", proof, Key())
    assert (again.status_code, again.json()["code"]) == (409, "invitation_used")
    await query(
        shared_url,
        f"UPDATE invitations SET expires_at = now() - interval '1 second' WHERE space_id = '{owner.space}'",
        "SELECT 1",
    )
    late = [told(await raw.join(name, proof, Key())) for name in (b"invitation-id-02", b"never made, ever")]
    assert late[0] == late[1]
    assert (late[0][0], late[0][2]["code"]) == (410, "invitation_expired")
    # an invitation of one space leaves nothing in another: a stranger can neither take over its id, nor learn of it
    stranger = await raw.register(Key())
    taken, odd = [await raw.invite(stranger, name, Key()) for name in (b"invitation-id-02", b"short")]
    assert taken.status_code == odd.status_code == 400


async def test_a_challenge_serves_once_and_one_purpose(server: LiveServer, raw: Running) -> None:
    key = Key()
    owner = await raw.register(key)
    nonce = await raw.challenge()
    body = {
        "device": str(owner.device),
        "nonce": text(nonce),
        "signature": key.sign(b"pjais token v1\0" + nonce + owner.device.bytes),
    }
    assert (await raw.http.post("/v1/tokens", json=body)).status_code == 201
    replayed = await raw.http.post("/v1/tokens", json=body)
    assert (replayed.status_code, replayed.json()["code"]) == (401, "unauthorized")
    registering = {
        "publicKey": text(key.public),
        "nonce": text(nonce),
        "signature": body["signature"],
        "name": "",
    }
    crossed = await raw.http.post("/v1/register", json=registering)
    assert (crossed.status_code, crossed.json()["code"]) == (401, "unauthorized")


@pytest.mark.slow
async def test_a_revoked_device_is_out_at_once_and_its_open_session_soon(
    server: LiveServer, raw: Running, shared_url: str, opens: Opens
) -> None:
    owner, client = await raw.register(Key()), await opens("revoked")
    await client.register(server.url)
    await client.collection(Note).insert(Note(title="before"))
    await client.synced(20)
    token = await client._account.token()
    assert client.space is not None
    beside = await raw.register(Key())  # becomes a device of the same space
    device, space = client._account.require().device, client.space
    await query(
        shared_url,
        f"INSERT INTO members (space_id, device_id) VALUES ('{space}', '{beside.device}')",
        "SELECT 1",
    )
    beside = replace(beside, space=UUID(space))
    async with speaking(raw, beside) as say:
        await query(
            shared_url, f"UPDATE devices SET revoked_at = now() WHERE device_id = '{device}'", "SELECT 1"
        )
        began = time.monotonic()
        # by HTTP at once
        answer = await raw.http.get(
            f"/v1/spaces/{space}/documents?collection=notes", headers={"Authorization": f"Bearer {token}"}
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        searched = await raw.http.post(
            f"/v1/spaces/{space}/search",
            json={"text": "before", "mode": "text"},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert (searched.status_code, searched.json()["code"]) == (401, "unauthorized")
        # what others write reaches it no more, soon
        n = 0
        while client.status.state != "error":
            n += 1
            await say.send(beside.push(n, edits(beside.client, 1, start=n)))
            await asyncio.sleep(0.1)
            assert time.monotonic() - began < REVOKED_S_MAX, client.status
        read = client.status.cursor
        for _ in range(10):
            n += 1
            await say.send(beside.push(n, edits(beside.client, 1, start=n)))
        while not (isinstance(message := await say.next(), wire.Ack) and message.through == n):
            pass
    assert client.status.cursor == read
    # and what it writes goes nowhere
    await client.collection(Note).insert(Note(title="after"))
    await client.connect()
    await eventually(
        lambda: getattr(client.status.last_error, "code", "") in {"unknown_device", "not_in_space"}
    )
    assert client.status.pending == 1
    written = f"SELECT count(*) FROM log WHERE device_id = '{device}'"
    assert await query(shared_url, written) == 1
    assert owner.space != client.space
