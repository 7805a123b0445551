"""The protocol between a device and the server: version 1.

A frame is one WebSocket binary message: one byte of encoding, then the body.

========  ==========================================================
byte      body
========  ==========================================================
``0x00``  a message, as MessagePack
``0x01``  the same, compressed with zstd (RFC 8878), its size declared
========  ==========================================================

A message is a MessagePack array whose first element is its number (the tag of its class below). Elements that a newer
side appends are ignored by an older one; elements that it lacks take their defaults. Before anything is
decompressed the declared size is compared with ``DECOMPRESSED_BYTES_MAX`` (``DEVICE_MESSAGE_BYTES_MAX`` for what a
device sends), and the stream is bounded by it once more.

A session
---------

1. The device opens the socket and sends `Hello`: protocol version, token, device, its incarnation and the client id
   that it writes under, and for each space its cursor and the generation that the cursor belongs to.
2. The server answers `Welcome`: its time, and for each space its generation, its head and how far it holds each
   incarnation of this device (`held`: incarnation → highest n). Or it answers `Failure` and closes.
3. The device sends `Push`: consecutive updates of one incarnation, from number ``first`` on. The server answers `Ack`
   once they are durable: everything up to ``through`` needs no sending again. Updates that it will not take are named
   in ``refusals``; they are consumed all the same. A repeat gets the same answer; a push that leaves a gap gets
   ``Failure("out_of_order")`` and the device starts again from Hello.
4. The server sends `Page` (updates) or `Documents` (snapshots), each for positions ``after`` < p ≤ ``through``, in
   order, without gaps, ahead of the device's cursor by at most ``PAGES_IN_FLIGHT``. The device makes a page durable,
   then sends `Received`. Updates that this incarnation pushed itself are left out of its pages. A snapshot stands for
   every update of its record up to its position.
5. When nothing is pending and cursor = head, the device sends `Verify`; `Verified` carries the server's digest of the
   space at exactly that position, as soon as the server has one. Equal digests prove equal contents.
6. `Fetch` asks for one record's document when an update could not be applied; the answer is a `Documents` with
   ``after`` = ``through`` = 0, which moves no cursor.

Vectors and searches travel beside all this: `crdt.requests`.

Frames of one session are handled in order. A frame that is not understood ends the session, and only the session.

The shapes are the classes below; names of fields do not travel. Strings are UTF-8; times are milliseconds since 1970;
spaces and devices are UUIDs as 36 characters; updates are Yjs updates, V1 (`crdt.updates` says which of them are
accepted). Whether numbers and names are plausible is for the side that uses them to check.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from crdt.errors import FrameTooLarge, MalformedFrame, ProtocolMismatch
from crdt.limits import (
    COMPRESS_FROM_BYTES,
    DECOMPRESSED_BYTES_MAX,
    DEVICE_MESSAGE_BYTES_MAX,
    FRAME_BYTES_MAX,
    PAGE_ENTRIES_MAX,
    PUSH_EDITS_MAX,
)
from crdt.requests import Answer, Request

if sys.version_info >= (3, 14):  # pragma: no cover
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "PROTOCOL",
    "Ack",
    "Cursor",
    "DocumentState",
    "Documents",
    "Edit",
    "Entry",
    "Failure",
    "Fetch",
    "FromDevice",
    "FromServer",
    "Hello",
    "Page",
    "Push",
    "Received",
    "Refusal",
    "SpaceState",
    "Verified",
    "Verify",
    "Welcome",
    "check_protocol",
    "declared_size",
    "decode_from_device",
    "decode_from_server",
    "encode",
]

PROTOCOL: Final = 1

_RAW: Final = 0x00
_ZSTD: Final = 0x01
# Pages of 200 records (LoCoMo's turns, the Hub's sample) become 4.2 and 3.9 times smaller at level 1, at 740 and
# 640 MB/s on one core; level 3 makes them another 4 and 2 % smaller, at two thirds and less of the speed.
_LEVEL: Final = 1


class _Part(msgspec.Struct, array_like=True, frozen=True):
    """A value inside a message. Those that hold only text, numbers and bytes are none of the garbage collector's
    business: thousands of them wait in a page, and each full collection would walk them.
    """


class Cursor(_Part, frozen=True, gc=False):
    """How far the device has read a space, and in which history (``generation`` is "" before the first Welcome)."""

    space: str
    generation: str
    position: int


class SpaceState(_Part, frozen=True):
    """What the server has of a space. ``held`` says, by incarnation of this device, the highest n it has."""

    space: str
    generation: str
    head: int
    held: dict[int, int]


class Edit(_Part, frozen=True, gc=False):
    """One update to one record, as its device made it."""

    collection: str
    record: str
    update: bytes


class Refusal(_Part, frozen=True, gc=False):
    """An update, by its number, that the server will not take, and why."""

    n: int
    code: str
    detail: str


class Entry(_Part, frozen=True, gc=False):
    """One update in the log of a space. ``client`` is the client id that the update must come from."""

    position: int
    collection: str
    record: str
    client: int
    update: bytes


class DocumentState(_Part, frozen=True, gc=False):
    """One record's document, standing for all of its updates up to ``position``."""

    position: int
    collection: str
    record: str
    snapshot: bytes


class Hello(_Part, frozen=True, tag=1):
    """Device → server, first. ``client`` is the client id of this incarnation."""

    protocol: int
    token: str
    device: str
    incarnation: int
    client: int
    cursors: list[Cursor]
    now_ms: int
    software: str = ""


class Push(_Part, frozen=True, tag=2):
    """Device → server: updates number ``first``, ``first`` + 1, … of ``incarnation``, all written under ``client``.

    More than ``PUSH_EDITS_MAX`` are refused by that name; far more are no message, and cost nothing.
    """

    space: str
    incarnation: int
    client: int
    first: int
    edits: Annotated[list[Edit], Meta(max_length=2 * PUSH_EDITS_MAX)]


class Received(_Part, frozen=True, tag=3):
    """Device → server: everything up to ``position`` is durable on the device."""

    space: str
    position: int


class Verify(_Part, frozen=True, tag=4):
    """Device → server: what is your digest at ``position``?"""

    space: str
    position: int


class Fetch(_Part, frozen=True, tag=5):
    """Device → server: send me this record's document."""

    space: str
    collection: str
    record: str


class Welcome(_Part, frozen=True, tag=16):
    """Server → device, in answer to Hello."""

    protocol: int
    now_ms: int
    spaces: list[SpaceState]


class Ack(_Part, frozen=True, tag=17):
    """Server → device: updates of ``incarnation`` up to number ``through`` are durable, but for the refusals."""

    space: str
    incarnation: int
    through: int
    refusals: list[Refusal] = []


class Page(_Part, frozen=True, tag=18):
    """Server → device: the log for positions ``after`` < p ≤ ``through``; ``head`` is the newest position now."""

    space: str
    after: int
    through: int
    head: int
    entries: Annotated[list[Entry], Meta(max_length=2 * PAGE_ENTRIES_MAX)]


class Documents(_Part, frozen=True, tag=19):
    """Server → device: snapshots of the records that changed in ``after`` < p ≤ ``through``."""

    space: str
    after: int
    through: int
    head: int
    states: Annotated[list[DocumentState], Meta(max_length=2 * PAGE_ENTRIES_MAX)]


class Verified(_Part, frozen=True, tag=20):
    """Server → device: the digest (16 bytes) and number of records of the space at ``position``."""

    space: str
    position: int
    digest: bytes
    records: int


class Failure(_Part, frozen=True, tag=21):
    """Server → device: the session ends. ``retry_after_ms`` is None when trying again cannot help."""

    code: str
    message: str
    retry_after_ms: int | None = None


FromDevice = Hello | Push | Received | Verify | Fetch | Request
FromServer = Welcome | Ack | Page | Documents | Verified | Failure | Answer

_encoder = msgspec.msgpack.Encoder()
_device_decoder: msgspec.msgpack.Decoder[FromDevice] = msgspec.msgpack.Decoder(FromDevice)
_server_decoder: msgspec.msgpack.Decoder[FromServer] = msgspec.msgpack.Decoder(FromServer)


def encode(message: FromDevice | FromServer) -> bytes:
    """Return the message as one frame.

    Raises:
        FrameTooLarge: the frame would be past ``FRAME_BYTES_MAX``, or its body past ``DECOMPRESSED_BYTES_MAX``.
    """
    body = _encoder.encode(message)
    if len(body) > DECOMPRESSED_BYTES_MAX:
        raise FrameTooLarge(limit="DECOMPRESSED_BYTES_MAX", size=len(body), allowed=DECOMPRESSED_BYTES_MAX)
    if len(body) < COMPRESS_FROM_BYTES:
        return b"\x00" + body
    frame = b"\x01" + zstd.compress(body, level=_LEVEL)
    if len(frame) > FRAME_BYTES_MAX:
        raise FrameTooLarge(limit="FRAME_BYTES_MAX", size=len(frame), allowed=FRAME_BYTES_MAX)
    return frame


def decode_from_device(frame: bytes) -> FromDevice:
    """Return the device's message in a frame.

    Raises:
        FrameTooLarge: the frame, or what it decompresses to, is past its limit.
        MalformedFrame: it is not a message of a device.
    """
    message: FromDevice = _decode(
        _device_decoder, frame, "DEVICE_MESSAGE_BYTES_MAX", DEVICE_MESSAGE_BYTES_MAX
    )
    return message


def decode_from_server(frame: bytes) -> FromServer:
    """Return the server's message in a frame. Raises as `decode_from_device`."""
    message: FromServer = _decode(_server_decoder, frame, "DECOMPRESSED_BYTES_MAX", DECOMPRESSED_BYTES_MAX)
    return message


def declared_size(frame: bytes) -> int:
    """Return how many bytes a frame's message has, as far as it declares that: 0 where it is none.

    Whoever decodes on an event loop asks first: a frame of 2 KB may stand for 64 MB.
    """
    if frame[:1] != b"\x01":
        return len(frame)
    try:
        return zstd.get_frame_info(memoryview(frame)[1:]).decompressed_size or 0
    except zstd.ZstdError:
        return 0


def check_protocol(theirs: int) -> None:
    """Raise `ProtocolMismatch` if the other side's version is not ours."""
    if theirs != PROTOCOL:
        raise ProtocolMismatch(ours=PROTOCOL, theirs=theirs)


def _decode(decoder: msgspec.msgpack.Decoder[Any], frame: bytes, limit: str, allowed: int) -> Any:
    body = _body(frame, limit, allowed)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise MalformedFrame(f"not a message of protocol {PROTOCOL}: {error}") from error


def _body(frame: bytes, limit: str, allowed: int) -> bytes | memoryview:
    if len(frame) > FRAME_BYTES_MAX:
        raise FrameTooLarge(limit="FRAME_BYTES_MAX", size=len(frame), allowed=FRAME_BYTES_MAX)
    if not frame:
        raise MalformedFrame("an empty frame")
    encoding, body = frame[0], memoryview(frame)[1:]
    if encoding == _RAW:
        if len(body) > allowed:
            raise FrameTooLarge(limit=limit, size=len(body), allowed=allowed)
        return body
    if encoding != _ZSTD:
        raise MalformedFrame(f"encoding {encoding} is neither raw (0) nor zstd (1)")
    try:
        declared = zstd.get_frame_info(body).decompressed_size
        if declared is None:
            raise MalformedFrame("a compressed frame must declare its size")
        if declared > allowed:
            raise FrameTooLarge(limit=limit, size=declared, allowed=allowed)
        stream = zstd.ZstdDecompressor()
        plain = stream.decompress(body, max_length=declared + 1)
    except zstd.ZstdError as error:
        raise MalformedFrame(f"not a zstd frame: {error}") from error
    if len(plain) != declared or not stream.eof or stream.unused_data:
        raise MalformedFrame("a compressed frame must hold exactly the bytes that it declares")
    return plain
