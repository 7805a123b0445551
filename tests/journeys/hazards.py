"""Bytes that no honest device or server sends: updates that break pycrdt, and frames that are no messages."""

from __future__ import annotations

import sys

import msgspec

from crdt import wire
from crdt.limits import DECOMPRESSED_BYTES_MAX

if sys.version_info >= (3, 14):  # pragma: no cover
    from compression import zstd
else:
    from backports import zstd

__all__ = ["HAZARDS", "NO_MESSAGES", "pack"]

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
