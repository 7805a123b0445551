"""Messages come back as they were; what is no message is refused by type, and costs no more than its limit."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import requests, wire
from crdt.errors import FrameTooLarge, MalformedFrame, ProtocolMismatch, WireError
from crdt.limits import (
    COLLECTION_NAME_BYTES_MAX,
    COMPRESS_FROM_BYTES,
    DECOMPRESSED_BYTES_MAX,
    DEVICE_MESSAGE_BYTES_MAX,
    FRAME_BYTES_MAX,
    PUSH_BYTES_TARGET,
    PUSH_EDITS_MAX,
    RECORD_ID_BYTES_MAX,
    UPDATE_BYTES_MAX,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__: list[str] = []

DEVICE_MESSAGES = (
    *(wire.Hello, wire.Push, wire.Received, wire.Verify, wire.Fetch),
    *(requests.PushVectors, requests.PullVectors, requests.Search, requests.ForgetVectors),
)
SERVER_MESSAGES = (
    *(wire.Welcome, wire.Ack, wire.Page, wire.Documents, wire.Verified, wire.Failure),
    *(requests.VectorsTaken, requests.Vectors, requests.Found, requests.Refused),
)

texts = st.text(max_size=12)
numbers = st.integers(-(2**63), 2**64 - 1)
data = st.binary(max_size=12) | st.binary(min_size=600, max_size=700)
cursors = st.builds(wire.Cursor, texts, texts, numbers)
states = st.builds(wire.SpaceState, texts, texts, numbers, st.dictionaries(numbers, numbers, max_size=2))
edits = st.builds(wire.Edit, texts, texts, data)
refusals = st.builds(wire.Refusal, numbers, texts, texts)
entries = st.builds(wire.Entry, numbers, texts, texts, numbers, data)
documents = st.builds(wire.DocumentState, numbers, texts, texts, data)
positions = st.integers(0, 2**63 - 1)
parts = st.integers(-1, 2**31 - 1)
vectors = st.builds(requests.PartVector, texts, texts, parts, st.binary(max_size=64), data)
scalars = st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | texts
conditions = st.builds(
    requests.FieldCondition, texts, st.sampled_from(["in", "has", "at least"]), scalars | st.lists(scalars)
)
found = st.builds(
    requests.FoundPart,
    *(texts, texts, parts, st.floats(allow_nan=False)),
    st.lists(st.sampled_from(["text", "meaning"]), min_size=1, max_size=2),
)


def some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, max_size=3)


from_device: st.SearchStrategy[Any] = st.one_of(
    st.builds(wire.Hello, numbers, texts, texts, numbers, numbers, some(cursors), numbers, texts),
    st.builds(wire.Push, texts, numbers, numbers, numbers, some(edits)),
    st.builds(wire.Received, texts, numbers),
    st.builds(wire.Verify, texts, numbers),
    st.builds(wire.Fetch, texts, texts, texts),
    st.builds(requests.PushVectors, texts, numbers, texts, some(vectors)),
    st.builds(requests.PullVectors, texts, numbers, texts, positions, st.booleans()),
    st.builds(requests.ForgetVectors, texts, numbers, texts),
    st.builds(
        requests.Search,
        *(texts, numbers, st.sampled_from(["hybrid", "text", "meaning"]), texts, data, texts),
        *(some(texts), some(texts), some(conditions), numbers),
    ),
)
from_server: st.SearchStrategy[Any] = st.one_of(
    st.builds(wire.Welcome, numbers, numbers, some(states)),
    st.builds(wire.Ack, texts, numbers, numbers, some(refusals)),
    st.builds(wire.Page, texts, numbers, numbers, numbers, some(entries)),
    st.builds(wire.Documents, texts, numbers, numbers, numbers, some(documents)),
    st.builds(wire.Verified, texts, numbers, data, numbers),
    st.builds(wire.Failure, texts, texts, st.none() | numbers),
    st.builds(requests.VectorsTaken, numbers, positions, positions, numbers),
    st.builds(requests.Vectors, numbers, positions, positions, numbers, some(vectors)),
    st.builds(requests.Found, numbers, some(found), positions, positions),
    st.builds(requests.Refused, numbers, texts, texts, st.none() | numbers),
)


@given(from_device)
def test_a_devices_message_comes_back_as_it_was(message: Any) -> None:
    assert wire.decode_from_device(wire.encode(message)) == message


@given(from_server)
def test_a_servers_message_comes_back_as_it_was(message: Any) -> None:
    assert wire.decode_from_server(wire.encode(message)) == message


@given(from_device, from_server)
def test_neither_side_takes_the_others_messages(mine: Any, theirs: Any) -> None:
    with pytest.raises(MalformedFrame):
        wire.decode_from_server(wire.encode(mine))
    with pytest.raises(MalformedFrame):
        wire.decode_from_device(wire.encode(theirs))


def refused_or_taken(frame: bytes) -> None:
    for decode in (wire.decode_from_device, wire.decode_from_server):
        try:
            message = decode(frame)
        except WireError:
            continue
        assert decode(wire.encode(message)) == message


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_by_type_or_are_a_message(frame: bytes) -> None:
    for head in (b"", b"\x00", b"\x01", b"\x01\x28\xb5\x2f\xfd"):
        refused_or_taken(head + frame)


@given(from_device | from_server, st.integers(0, 10**6), st.binary(max_size=3), st.integers(0, 3))
def test_mutated_frames_are_refused_by_type_or_are_a_message(
    message: Any, at: int, put: bytes, cut: int
) -> None:
    frame = wire.encode(message)
    at %= len(frame)
    refused_or_taken(frame[:at] + put + frame[at + cut :])
    refused_or_taken(frame[:at])


@given(from_device | from_server, st.lists(numbers | texts | data, min_size=1, max_size=3))
def test_what_a_newer_side_appends_is_ignored(message: Any, added: list[Any]) -> None:
    decode = wire.decode_from_device if isinstance(message, DEVICE_MESSAGES) else wire.decode_from_server
    parts = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    assert decode(b"\x00" + msgspec.msgpack.encode([*parts, *added])) == message


def test_what_an_older_side_leaves_out_takes_its_default() -> None:
    short = b"\x00" + msgspec.msgpack.encode([2 + 15, "space", 5, 7])
    assert wire.decode_from_server(short) == wire.Ack("space", 5, 7)
    hello = msgspec.msgpack.encode([1, 1, "token", "device", 5, 6, [], 7])
    assert wire.decode_from_device(b"\x00" + hello) == wire.Hello(1, "token", "device", 5, 6, [], 7)
    with pytest.raises(MalformedFrame, match="of at least length"):
        wire.decode_from_device(b"\x00" + msgspec.msgpack.encode([1, 1, "token"]))


def test_each_message_has_a_number_of_its_own() -> None:
    """They are the protocol: a number never changes its meaning."""
    numbers = {cls.__struct_config__.tag: cls.__name__ for cls in (*DEVICE_MESSAGES, *SERVER_MESSAGES)}
    assert numbers == {
        1: "Hello", 2: "Push", 3: "Received", 4: "Verify", 5: "Fetch",
        6: "PushVectors", 7: "PullVectors", 8: "Search", 9: "ForgetVectors",
        16: "Welcome", 17: "Ack", 18: "Page", 19: "Documents", 20: "Verified", 21: "Failure",
        22: "VectorsTaken", 23: "Vectors", 24: "Found", 25: "Refused",
    }  # fmt: skip


def test_a_frame_of_this_version_has_these_bytes() -> None:
    assert wire.encode(wire.Received("s", 5)) == b"\x00\x93\x03\xa1s\x05"
    assert wire.encode(wire.Ack("s", 1, 2, [wire.Refusal(2, "kind", "d")])) == (
        b"\x00\x95\x11\xa1s\x01\x02\x91\x93\x02\xa4kind\xa1d"
    )


def test_small_bodies_travel_as_they_are_and_large_ones_compressed_with_their_size() -> None:
    def of_size(size: int) -> bytes:
        body = len(msgspec.msgpack.encode(wire.Fetch("", "", "x" * 300)))
        return wire.encode(wire.Fetch("", "", "x" * (300 + size - body)))

    assert of_size(COMPRESS_FROM_BYTES - 1)[0] == 0
    assert of_size(COMPRESS_FROM_BYTES)[0] == 1
    assert zstd.get_frame_info(of_size(COMPRESS_FROM_BYTES)[1:]).decompressed_size == COMPRESS_FROM_BYTES


def test_a_frame_past_a_limit_names_it() -> None:
    noise = random.Random(5).randbytes(FRAME_BYTES_MAX)  # does not compress
    with pytest.raises(FrameTooLarge, match="FRAME_BYTES_MAX") as caught:
        wire.encode(wire.Verified("s", 1, noise, 1))
    assert caught.value.limit == "FRAME_BYTES_MAX"
    assert caught.value.size > caught.value.allowed == FRAME_BYTES_MAX
    with pytest.raises(FrameTooLarge, match="DECOMPRESSED_BYTES_MAX"):
        wire.encode(wire.Verified("s", 1, bytes(DECOMPRESSED_BYTES_MAX), 1))
    with pytest.raises(FrameTooLarge, match="FRAME_BYTES_MAX"):
        wire.decode_from_device(bytes(FRAME_BYTES_MAX + 1))
    largest = wire.Verified("s", 1, bytes(DECOMPRESSED_BYTES_MAX - 100), 1)
    assert wire.decode_from_server(wire.encode(largest)) == largest


def test_a_devices_message_holds_the_largest_push_and_what_is_larger_costs_nothing() -> None:
    noise = random.Random(6).randbytes
    small = (PUSH_BYTES_TARGET - 1) // (PUSH_EDITS_MAX - 1)
    longest = "c" * COLLECTION_NAME_BYTES_MAX, "r" * RECORD_ID_BYTES_MAX
    edits = [wire.Edit(*longest, noise(small)) for _ in range(PUSH_EDITS_MAX - 1)]
    push = wire.Push("s" * 36, 1, 1, 1, [*edits, wire.Edit(*longest, noise(UPDATE_BYTES_MAX))])
    frame = wire.encode(push)
    assert wire.decode_from_device(frame) == push
    assert wire.declared_size(frame) == len(msgspec.msgpack.encode(push))

    count = 4_000_000
    many = b"\x96\x02\xa1s\x01\x01\x01\xdd" + count.to_bytes(4, "big") + b"\x93\xa0\xa0\xc4\x00" * count
    bomb = b"\x01" + zstd.compress(many, level=1)
    assert len(bomb) < 2_000
    assert wire.declared_size(bomb) == len(many)
    for frame in (bomb, b"\x00" + many[: DEVICE_MESSAGE_BYTES_MAX + 1]):
        with pytest.raises(FrameTooLarge, match="DEVICE_MESSAGE_BYTES_MAX"):
            wire.decode_from_device(frame)
    with pytest.raises(MalformedFrame, match="of length <="):
        wire.decode_from_device(b"\x00" + many[:DEVICE_MESSAGE_BYTES_MAX])


@given(st.binary(max_size=60))
def test_what_declares_no_size_has_none(body: bytes) -> None:
    assert wire.declared_size(b"\x00" + body) == 1 + len(body)
    assert wire.declared_size(b"\x01" + body) >= 0
    assert wire.declared_size(b"") == 0


def zeros(size: int, *, is_declared: bool) -> bytes:
    """Compress that many zeros without ever holding them."""
    compressor = zstd.ZstdCompressor(level=1)
    if is_declared:
        compressor.set_pledged_input_size(size)
    chunk = bytes(2**20)
    parts = [compressor.compress(chunk) for _ in range(size >> 20)]
    return b"".join([*parts, compressor.flush()])


def bombs() -> dict[str, bytes]:
    size = 4 * DECOMPRESSED_BYTES_MAX
    declared = zeros(size, is_declared=True)
    # A frame whose header declares 10 bytes and whose window is 2 GiB.
    wide = b"\x28\xb5\x2f\xfd\x80\xa8" + (10).to_bytes(4, "little") + b"\x51\x00\x00" + bytes(10)
    huge = b"\x28\xb5\x2f\xfd\xe0" + (2**62).to_bytes(8, "little") + b"\x01\x00\x00"
    lies = bytearray(declared)
    assert lies[4] >> 6 == 2  # the size has 4 bytes; here after flags and window
    lies[6:10] = (100).to_bytes(4, "little")
    return {
        "declared": declared,
        "undeclared": zeros(size, is_declared=False),
        "wide": wide,
        "huge": huge,
        "lies": bytes(lies),
        "two": zstd.compress(b"\x93") + declared,
        "trailing": zstd.compress(b"\x93\x03\xa1s\x05") + b"\x00",
        "skippable": b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd",
        "cut": declared[:-3],
        "empty": b"",
    }


DECODE_IN_LITTLE_MEMORY = """
import resource, sys, msgspec
from crdt import errors, wire
frames = msgspec.msgpack.decode(sys.stdin.buffer.read())
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 48 * 2**20, used + 48 * 2**20))
for name, frame in frames.items():
    for decode in (wire.decode_from_device, wire.decode_from_server):
        try:
            print(name, decode(b"\\x01" + frame))
        except errors.WireError as error:
            print(name, type(error).__name__)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_a_zstd_bomb_is_refused_and_takes_no_memory() -> None:
    """Declared, undeclared or lied about, where 48 MiB more may be taken: 6,418 bytes could become 200 MiB."""
    frames = bombs()
    run = subprocess.run(
        [sys.executable, "-c", DECODE_IN_LITTLE_MEMORY],
        input=msgspec.msgpack.encode(frames),
        capture_output=True,
        check=True,
    )
    expected = [
        f"{name} {'FrameTooLarge' if name in {'declared', 'huge', 'cut'} else 'MalformedFrame'}"
        for name in frames
        for _ in range(2)
    ]
    assert run.stdout.decode().splitlines() == expected


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\x93", b"\xdd\xff\xff\xff\xff", b"\x96\x02\xa1a\x01\x02\x03\xdd\xff\xff\xff\xff",
        b"\x96\x02\xdb\xff\xff\xff\xff",
        b"\x94\x10\x01\x02\xdd\x7f\xff\xff\xff\x94\xa1a\xa1b\x01\xdf\xff\xff\xff\xff", b"\x93\x03\xa1\xff\x05",
        b"\x80", b"\xc0",
        b"\x93\xcf" + b"\xff" * 8 + b"\xa1s\x05", b"\x93\x03\xa1s\xcb" + b"\x7f" * 8, b"\x91" * 100_000,
        b"\x93\x03\xa1s\x05\x00",
    ],
    ids=lambda body: body[:12].hex(),
)  # fmt: skip
def test_a_body_that_is_no_message_is_malformed(body: bytes) -> None:
    """Whatever lengths it claims."""
    for decode in (wire.decode_from_device, wire.decode_from_server):
        with pytest.raises(MalformedFrame):
            decode(b"\x00" + body)


def test_another_encoding_is_malformed() -> None:
    for frame in (b"", b"\x02abc", b"\xff"):
        with pytest.raises(MalformedFrame):
            wire.decode_from_device(frame)


def test_another_version_says_which_side_to_update() -> None:
    wire.check_protocol(wire.PROTOCOL)
    with pytest.raises(ProtocolMismatch, match="update this program"):
        wire.check_protocol(wire.PROTOCOL + 1)
    with pytest.raises(ProtocolMismatch, match="update the other side"):
        wire.check_protocol(wire.PROTOCOL - 1)
