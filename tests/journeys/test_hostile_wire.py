"""What no honest device says, said to a running server: each is answered with a code, and honest devices go on.

The long form is `tests.hostile_wire`; what a hostile server says to a device is in `test_hostile_server`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from crdt import wire
from crdt.limits import FRAME_BYTES_MAX, PUSH_EDITS_MAX, RECORD_ID_BYTES_MAX
from tests.hostile_wire import honest_pair, push
from tests.journeys.hazards import HAZARDS, NO_MESSAGES, pack
from tests.journeys.live import LiveServer
from tests.server.people import Device, creation, edits, hello
from tests.server.serving import Key, Running, opened, text

__all__: list[str] = []

SILENCE_S_MAX = 5.0
HELLO_BYTES_MAX = 64 * 1024  # who has not said who they are gets no more attention


async def ended(raw: Running, frames: list[bytes | str], device: Device | None) -> tuple[list[str], int]:
    """Send frames, after a Hello if there is a device; return the failures that came, and how the socket was closed."""
    codes: list[str] = []
    async with connect(raw.sync_url, max_size=None, compression=None, ping_interval=None) as socket:
        if device is not None:
            await socket.send(wire.encode(hello(device)))
            welcome = wire.decode_from_server(await received(socket))
            assert isinstance(welcome, wire.Welcome), welcome
        try:
            for frame in frames:
                await socket.send(frame)
            while True:
                message = wire.decode_from_server(await received(socket))
                if isinstance(message, wire.Failure):
                    assert message.message
                    codes.append(message.code)
        except TimeoutError:
            return codes, 0
        except ConnectionClosed as closed:
            return codes, closed.rcvd.code if closed.rcvd is not None else -1


async def surprises(
    raw: Running, messages: Sequence[tuple[str, wire.FromDevice]], device: Device | None
) -> dict[str, object]:
    """Return the messages that were not answered with their code, and how they were."""
    found: dict[str, object] = {}
    for code, message in messages:
        answer = await ended(raw, [wire.encode(message)], device)
        if answer != ([code], 1008):
            found[repr(message)[:300]] = answer
    return found


async def received(socket: ClientConnection) -> bytes:
    frame = await asyncio.wait_for(socket.recv(), SILENCE_S_MAX)
    assert isinstance(frame, bytes)
    return frame


async def test_what_is_no_message_ends_its_session_with_a_code(server: LiveServer, raw: Running) -> None:
    device = await raw.register(Key())
    for what, frame in NO_MESSAGES.items():
        for greeted in (None, device):
            codes, closed = await ended(raw, [frame], greeted)
            is_large = what.endswith(("past the limit", "says so"))
            is_large |= greeted is None and wire.declared_size(frame) > HELLO_BYTES_MAX
            assert (codes, closed) == (["too_large" if is_large else "malformed"], 1008), what
    assert await ended(raw, ["text"], device) == (["malformed"], 1008)
    assert await ended(raw, [bytes(FRAME_BYTES_MAX + 1)], device) == ([], 1009)
    of_a_server = wire.encode(wire.Ack("s", 1, 1))
    assert await ended(raw, [of_a_server], device) == (["malformed"], 1008)
    assert await ended(raw, [wire.encode(hello(device))], device) == (["malformed"], 1008)
    assert await ended(raw, [wire.encode(wire.Verify(str(device.space), 1))], None) == (["malformed"], 1008)


async def test_a_hello_that_cannot_be_is_refused_with_a_code(server: LiveServer, raw: Running) -> None:
    device, other = await raw.register(Key()), await raw.register(Key())
    good = hello(device)
    cursor = good.cursors[0]

    def having(**changes: Any) -> wire.Hello:
        return msgspec.structs.replace(good, **changes)

    def at(**changes: Any) -> wire.Hello:
        return having(cursors=[msgspec.structs.replace(cursor, **changes)])

    hellos: list[tuple[str, wire.Hello]] = [
        *(("protocol_mismatch", having(protocol=version)) for version in (0, -1, 2, 2**63, 2**64 - 1)),
        *(("unauthorized", having(token=token)) for token in ("", "x", "\0", "é" * 10_000, other.token)),
        ("unauthorized", having(device=str(other.device))),
        *(("malformed", having(device=name)) for name in ("", "x", "\0" * 36, "x" * 10_000)),
        *(("malformed", having(client=client)) for client in (0, -1, 2**53, 2**63, 2**64 - 1)),
        *(("malformed", having(incarnation=number)) for number in (0, -1, 2**63, 2**64 - 1)),
        *(("malformed", at(space=name)) for name in ("", "x", "\0", "x" * 10_000)),
        ("not_in_space", at(space=str(other.space))),
        ("malformed", having(cursors=[cursor, cursor])),
        ("too_large", having(cursors=[cursor] * 65)),
        ("malformed", at(position=-1)),
        *(("cursor_ahead", at(position=position)) for position in (1, 2**62, 2**63, 2**64 - 1)),
    ]
    assert await surprises(raw, hellos, None) == {}
    odd = [
        at(generation="\0"),
        at(generation="x" * 10_000),
        having(now_ms=-(2**63)),
        having(software="\0" * 10_000),
    ]
    for message in odd:  # no harm in these
        async with connect(raw.sync_url, compression=None) as socket:
            await socket.send(wire.encode(message))
            assert isinstance(wire.decode_from_server(await received(socket)), wire.Welcome)


async def test_a_push_that_cannot_be_is_refused_with_a_code(server: LiveServer, raw: Running) -> None:
    async with opened(raw) as (device, beside):
        space, one = str(device.space), edits(device.client, 1)
        taken = beside.push(1, edits(beside.client, 1))
        assert (await acknowledged(raw, beside, taken)).through == 1

        def having(**changes: Any) -> wire.Push:
            return msgspec.structs.replace(device.push(1, one), **changes)

        pushes: list[tuple[str, wire.Push]] = [
            *(("malformed", having(client=client)) for client in (0, -1, 2**53, 2**63, 2**64 - 1)),
            *(("malformed", having(incarnation=number)) for number in (0, -1, 2**63, 2**64 - 1)),
            *(("malformed", having(first=first)) for first in (0, -1, 2**63 - 1, 2**63, 2**64 - 1)),
            *(("out_of_order", having(first=first)) for first in (2, 5, 2**62)),
            *(("malformed", having(space=name)) for name in ("", "x", "\0", "x" * 10_000)),
            ("client_id_taken", having(client=beside.client, edits=edits(beside.client, 1))),
            ("too_large", having(edits=one * (PUSH_EDITS_MAX + 1))),
        ]
        assert await surprises(raw, pushes, device) == {}
        assert (await acknowledged(raw, device, device.push(1, one))).refusals == []
        renamed = wire.encode(device.push(2, edits(77, 1)))
        assert await ended(raw, [renamed.replace(pack(device.client), pack(device.client + 1))], device) == (
            ["malformed"],
            1008,
        ), "an incarnation has one client id"
        assert await ended(raw, [wire.encode(having(space=space.upper(), first=9))], device) == (
            ["out_of_order"],
            1008,
        )


async def acknowledged(raw: Running, device: Device, message: wire.Push) -> wire.Ack:
    """Push in a session of its own; return the acknowledgement."""
    async with connect(raw.sync_url, max_size=None, compression=None, ping_interval=None) as socket:
        await socket.send(wire.encode(hello(device)))
        await socket.send(wire.encode(message))
        while True:
            answer = wire.decode_from_server(await received(socket))
            assert not isinstance(answer, wire.Failure), answer
            if isinstance(answer, wire.Ack):
                return answer


async def test_an_update_or_a_name_that_cannot_be_is_refused_alone(server: LiveServer, raw: Running) -> None:
    device = await raw.register(Key())
    good = creation(device.client, title="x")
    named = [
        *(
            ("collection_name", name, "r")
            for name in ("", "Notes", "1", "x" * 64, "a\0", "é", "a b", "a;--", "../x")
        ),
        *(("record_id", "notes", name) for name in ("", "\0", "a\0b", "x" * 201, "é" * 101, "x" * 10_000)),
    ]
    pushed = [(code, wire.Edit(collection, record, good)) for code, collection, record in named]
    pushed += [
        ("", wire.Edit("notes", record, good))
        for record in ("x" * RECORD_ID_BYTES_MAX, "'; --", "%00", "\u202e")
    ]
    pushed += [("?", wire.Edit("notes", f"hazard {n}", update)) for n, update in enumerate(HAZARDS.values())]
    pushed += (
        [("gap", wire.Edit("notes", "new", good[:3] + b"\x05" + good[4:]))] if good[3:4] == b"\0" else []
    )
    ack = await acknowledged(raw, device, device.push(1, [edit for _, edit in pushed]))
    codes = {refusal.n: refusal.code for refusal in ack.refusals}
    for n, (code, edit) in enumerate(pushed, 1):
        if code == "?":
            assert codes[n].isidentifier(), edit
        else:
            assert codes.get(n, "") == code, edit
    again = await acknowledged(raw, device, device.push(1, [edit for _, edit in pushed]))
    assert again == ack


async def test_a_question_that_cannot_be_is_refused_with_a_code_or_waits(
    server: LiveServer, raw: Running
) -> None:
    device = await raw.register(Key())
    space = str(device.space)
    refused: list[tuple[str, wire.FromDevice]] = [
        *(("malformed", wire.Received(space, position)) for position in (1, 2**63, 2**64 - 1)),
        *(("malformed", wire.Fetch(space, name, "r")) for name in ("", "\0", "x" * 64, "x" * 1_000_000)),
        *(("malformed", wire.Fetch(space, "notes", name)) for name in ("", "\0", "x" * 201, "x" * 1_000_000)),
    ]
    assert await surprises(raw, refused, device) == {}
    flood = [wire.encode(wire.Fetch(space, "notes", f"r{n}")) for n in range(2_000)]
    codes, _ = await ended(raw, [*flood, b""], device)
    assert codes in (["too_large"], ["malformed"])
    async with connect(raw.sync_url, compression=None) as socket:
        await socket.send(wire.encode(hello(device)))
        await received(socket)
        for position in (-(2**63), -1, 10**12, 2**63, 2**64 - 1):  # there is no answer to these, and no harm
            await socket.send(wire.encode(wire.Verify(space, position)))
        await socket.send(wire.encode(wire.Received(space, -(2**63))))
        await socket.send(wire.encode(wire.Fetch(space, "notes", "no such")))
        assert wire.decode_from_server(await received(socket)) == wire.Documents(space, 0, 0, 0, [])


async def test_http_that_cannot_be_is_refused_with_a_code(server: LiveServer, raw: Running) -> None:
    device = await raw.register(Key())
    bearer = {"Authorization": f"Bearer {device.token}"}
    documents = f"/v1/spaces/{device.space}/documents"
    invitations = f"/v1/spaces/{device.space}/invitations"
    good = {"invitation": text(b"x" * 16), "proofKey": text(Key().public), "sealed": text(b"s")}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        *(
            ("GET", documents, {"params": {"collection": "notes", "limit": n}})
            for n in (0, -1, 501, 2**63, "x", "")
        ),
        ("GET", documents, {}),
        *(("GET", f"/v1/spaces/{name}/documents?collection=n", {}) for name in ("x", "%00", "..", "é" * 500)),
        *(("POST", invitations, {"json": {**good, "expiresAt": at}}) for at in (2**63, -(2**63), 1.5, "x")),
        *(("POST", invitations, {"json": {**good, name: text(b"")}}) for name in ("invitation", "proofKey")),
        ("POST", invitations, {"json": {**good, "sealed": text(bytes(20_000))}}),
        ("POST", invitations, {"content": b'{"invitation": "\\ud800", "proofKey": "", "sealed": ""}'}),
        ("POST", invitations, {"json": {**good, "invitation": "=====", "sealed": "\0"}}),
        (
            "POST",
            "/v1/join",
            {"json": {"invitation": "", "publicKey": "", "nonce": "", "signature": "", "proof": ""}},
        ),
        *(
            ("POST", "/v1/tokens", {"json": {"device": d, "nonce": "", "signature": ""}})
            for d in ("", "x", "\0", 1)
        ),
        *(
            ("POST", "/v1/register", {"content": body})
            for body in (b"", b"{", b"\xff", b"[" * 60_000, b"0" * 70_000)
        ),
        ("POST", "/v1/register", {"content": b"{}", "headers": {"Content-Encoding": "gzip"}}),
        (
            "POST",
            "/v1/register",
            {"content": b"{}", "headers": {"Content-Type": "text/plain; charset=nonsense"}},
        ),
        ("PUT", "/v1/challenges", {}),
        ("GET", "/v1/sync", {}),
        ("GET", "/" + "x" * 10_000, {}),
    ]
    found = {}
    for method, route, more in asked:
        answer = await raw.http.request(
            method, route, **{**more, "headers": {**bearer, **more.get("headers", {})}}
        )
        is_ours = answer.headers.get("content-type") == "application/json" and {"code", "message"} == set(
            answer.json()
        )
        if not (400 <= answer.status_code < 500 and is_ours):
            found[f"{method} {route} {more}"[:200]] = (answer.status_code, answer.text[:200])
    assert found == {}
    for token in ("x", "é" * 3_000, "x" * 10_000):
        headers = {b"Authorization": f"Bearer {token}".encode()}
        answer = await raw.http.get(f"{documents}?collection=notes", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    for name in ("\0", "x" * 10_000, "'; DROP TABLE documents; --"):  # no harm in these
        answer = await raw.http.get(documents, params={"collection": name, "after": name}, headers=bearer)
        assert (answer.status_code, answer.json()["records"]) == (200, [])


async def test_forged_updates_that_are_pushed_hold_up_nobody(
    server: LiveServer, raw: Running, tmp_path: Path
) -> None:
    async with honest_pair(tmp_path, server.url) as pair:
        pushed = await push(server, await raw.register(Key()), pair, count=1_000, seed=11)
        await pair.verify()
    assert pushed.forged >= 1_000
    assert sum(pushed.refused.values()) + pushed.admitted == pushed.forged + pushed.honest
    assert len(pushed.refused) > 10
    assert len(pushed.quarantined) > 2
    assert 0 < pushed.latency_max_ms < 10_000
    assert server.problems() == []
