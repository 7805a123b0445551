"""Identities: record ids, client ids and incarnations, each made from random bytes that the caller brings.

Record ids are UUIDv7 (RFC 9562, section 5.7): they sort by time of creation, so an index on them grows at its
end. Nothing here reads a clock or a source of randomness.
"""

from __future__ import annotations

__all__ = ["CLIENT_ID_BITS", "client_id", "incarnation", "record_id"]

CLIENT_ID_BITS = 53  # what a JavaScript number holds exactly, and the most that Yjs accepts


def record_id(now_ms: int, random: bytes) -> str:
    """Return a UUIDv7 as its 36 characters, from milliseconds since 1970 and 10 random bytes."""
    tail = bytearray(random[:10])
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    text = (now_ms & 0xFFFF_FFFF_FFFF).to_bytes(6, "big").hex() + tail.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def client_id(random: bytes) -> int:
    """Return a client id, 1 to 2**53 - 1, from 7 random bytes."""
    return int.from_bytes(random[:7], "big") % ((1 << CLIENT_ID_BITS) - 1) + 1


def incarnation(random: bytes) -> int:
    """Return an incarnation, 1 to 2**63 - 1 (a Postgres ``bigint``), from 8 random bytes."""
    return int.from_bytes(random[:8], "big") % ((1 << 63) - 1) + 1
