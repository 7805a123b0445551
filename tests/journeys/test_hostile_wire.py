"""What no honest device or server says, said over the wire: each is answered with a code, and honest devices go on.

The first half speaks to a running server, the second to a running device. The long form is `tests.hostile_wire`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from crdt import wire
from crdt.limits import DECOMPRESSED_BYTES_MAX, FRAME_BYTES_MAX, PUSH_EDITS_MAX, RECORD_ID_BYTES_MAX
from tests.journeys.live import LiveServer
from tests.server.people import Device, creation, edits, hello
from tests.server.serving import Key, Running, opened

if sys.version_info >= (3, 14):  # pragma: no cover
    from compression import zstd
else:
    from backports import zstd

__all__: list[str] = []

SILENCE_S_MAX = 5.0
HELLO_BYTES_MAX = 64 * 1024  # who has not said who they are gets no more attention

pack = msgspec.msgpack.encode

# From the notes on what breaks this stack: bytes that make pycrdt die, hang, panic, or mute another device.
HAZARDS = {
    "seven bytes that make the next read a segmentation fault": bytes.fromhex("01010300000000"),
    "accepted, then every snapshot panics": bytes.fromhex("010100010080808080000000000000"),
    "fourteen bytes that loop for ever": bytes.fromhex("0101070008010474656d700074022d31"),
    "a value nested 100,000 deep": b"\x01\x01\x07\x00\x28\x01\x03reg\x01a\x01"
    + b"\x75\x01" * 100_000
    + b"\x7e\x00",
    "an emoji as text in an array": b"\x01\x01\x07\x00\x04\x01\x06list:m\x04" + "😀".encode() + b"\x00",
    "a GC block over clocks of nobody": bytes.fromhex("01010700000500"),
    "a skip block": bytes.fromhex("010107000a0500"),
    "a count of 2^29 blocks": b"\x01\xff\xff\xff\xff\x01\x07\x00",
    "a count of 2^29 clients": b"\xff\xff\xff\xff\x01",
    "2^29 deletes": b"\x01\x01\x07\x00\x28\x01\x03reg\x01a\x01\x74\x01\x31\x01\x07\xff\xff\xff\xff\x01",
    "nothing": b"",
    "zero clients": b"\x00\x00",
    "the second encoding": bytes.fromhex("0000000000000000000000000000"),
}


def bomb(size: int, *, declares: bool = True) -> bytes:
    """A few kilobytes that decompress to ``size`` bytes."""
    options: dict[int, int] = {zstd.CompressionParameter.content_size_flag: int(declares)}
    compressor = zstd.ZstdCompressor(options=options)
    if declares:
        compressor.set_pledged_input_size(size)
    chunk = bytes(1 << 20)
    body = b"".join(compressor.compress(chunk) for _ in range(size >> 20))
    return b"\x01" + body + compressor.flush()


NESTED = b"\x00" + b"\x91" * 100_000 + b"\xc0"
NO_MESSAGES = {
    "nothing": b"",
    "an encoding that is none": b"\x02abc",
    "no MessagePack": b"\x00\xc1\xc1\xc1",
    "half a message": wire.encode(wire.Verify("s", 1))[:-1],
    "no array": b"\x00\x01",
    "an unknown number": b"\x00" + pack([99, 1, 2]),
    "a number of another sign": b"\x00" + pack([-1]),
    "a number that is text": b"\x00" + pack(["1", 1]),
    "wrong types": b"\x00" + pack([2, 1, "x", None, {}, 5]),
    "a number past 64 bits": b"\x00\x93\x04\xa1s\xcf" + b"\xff" * 8 + b"\xff",
    "text that is no UTF-8": b"\x00\x93\x04\xa1\xff\x01",
    "a lone surrogate": b"\x00\x94\x05\xa1s\xa5notes\xa3\xed\xa0\x80",
    "deep nesting": NESTED,
    "deep nesting where a newer version may add something": b"\x00\x94\x04\xa1s\x01" + NESTED[1:],
    "a billion elements": b"\x00\xdd\x3b\x9a\xca\x00",
    "a billion edits": b"\x00\x96\x02\xa1s\x01\x01\x01\xdd\x3b\x9a\xca\x00",
    "no zstd": b"\x01abcdefgh",
    "half a zstd frame": b"\x01" + zstd.compress(bytes(100_000))[:-3],
    "two zstd frames": b"\x01" + zstd.compress(bytes(10)) * 2,
    "a bomb that says so": bomb(200 << 20),
    "a bomb that does not": bomb(200 << 20, declares=False),
    "a bomb just past the limit": bomb(DECOMPRESSED_BYTES_MAX + (1 << 20)),
}


# ------------------------------------------------------------------------------------------------- to the server


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
            is_large |= greeted is None and len(frame) > HELLO_BYTES_MAX
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
