"""Sealed fields on this device: the space's keys, and values sealed and opened under them.

What stands in a document, a row, on the wire and at the server for a value is::

    suite 1 byte | epoch varint | key 8 bytes | nonce 12 bytes | AES-256-GCM-SIV(padded value) and its tag of 16 bytes

- **Suite** 1 is all that follows here. Whoever meets another one leaves the bytes as they are.
- **Key** names the space key that sealed it (`SpaceKey.id`), so that nothing is opened by trial.
- A field's own key is HKDF-SHA256 (RFC 5869) of the space key, with suite, collection, field and epoch in its ``info``.
  AES-256-GCM-SIV (RFC 8452) authenticates suite, epoch, key, collection, record and field beside the value: bytes that
  were moved to another place do not open there. A nonce that comes twice, as from a machine's snapshot, would tell
  no more than that two equal values are equal.
- The **value** is MessagePack, padded as ISO/IEC 7816-4 does to a length by Padmé (Nikitin et al., "Reducing Metadata
  Leakage from Encrypted Files and Communication with PURBs", PoPETs 2019), of 32 bytes at least: at most 12 % more,
  and of a length of n bytes O(log log n) bits are seen.

That a field has a value, when it was set, and how long it is in that measure is not hidden. What does not open, for
whatever reason, reads as `SealedValue`.

Keys are kept in the encrypted file. A file makes its own when it is first opened: `register` lets it be the space's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from client_sdk import primitives
from client_sdk.database import Connection
from client_sdk.keys import KEY_BYTES
from crdt.fields import SealedValue
from crdt.schema import Field

__all__ = ["NONCE_BYTES", "SealedField", "Seals", "SpaceKey", "load_keys", "save_keys"]

NONCE_BYTES: Final = 12
_SUITE: Final = b"\x01"
_ID_BYTES: Final = 8
_TAG_BYTES: Final = 16
_PADDED_BYTES_MIN: Final = 32  # most API keys, codes and short phrases are of one length then
_PAD: Final = b"\x80"
_NAME: Final = "space_keys"

_FOREIGN = "it was sealed under a key that this device does not hold"
_UNKNOWN = "its bytes are of no form that this version knows"
_DAMAGED = "its bytes are damaged, or were sealed for another place"
_MISFIT = "it holds a value of another type than this version declares"
_MISSING = "it has no value, and this version declares one"


class SpaceKey(msgspec.Struct, frozen=True):
    """A key of a space (32 random bytes), and the epoch in which it is in force."""

    key: bytes
    epoch: int = 1

    @property
    def id(self) -> bytes:
        """The 8 bytes that name it where it has sealed something; they tell nothing of it."""
        return _derive(self.key, b"pjais space key id v1\0", _ID_BYTES)

    def __repr__(self) -> str:
        """Show the epoch alone."""
        return f"<SpaceKey of epoch {self.epoch}>"

    def __rich_repr__(self) -> list[tuple[str, int]]:
        """Return what `rich` shows: the same."""
        return [("epoch", self.epoch)]


class _Opener(msgspec.Struct, frozen=True):
    """One field under one key: how its sealed bytes begin, what is authenticated first, and its cipher."""

    head: bytes
    context: bytes
    cipher: primitives.AESGCMSIV


class Seals:
    """The keys that this device holds, the one in force first. Set on the writer's thread, read on any."""

    def __init__(self, keys: tuple[SpaceKey, ...] = ()) -> None:
        self.keys = keys


class SealedField:
    """One sealed field of a collection: seals its values, and opens them.

    Derived keys and their ciphers are kept for as many keys as the device holds, and no more.
    """

    def __init__(self, seals: Seals, collection: str, field: Field) -> None:
        self._seals = seals
        self.field = field
        self._place = _prefixed(collection.encode()) + _prefixed(field.key)
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(field.type.stored)
        self._made: tuple[tuple[SpaceKey, ...], tuple[_Opener, ...]] = ((), ())

    def seal(self, record: str, plain: bytes, nonce: bytes) -> bytes:
        """Return a value's MessagePack sealed under the key in force. ``nonce`` is 12 random bytes."""
        opener = self._openers()[0]
        sealed = opener.cipher.encrypt(nonce, _padded(plain), opener.context + record.encode())
        return opener.head + nonce + sealed

    def open(self, record: str, sealed: Any) -> Any:
        """Return the value of what a row holds; a `SealedValue` if it does not open, whatever it is."""
        if sealed is None:
            field = self.field
            if field.type.optional:
                return None
            return SealedValue(_MISSING, b"") if field.required else field.make_default()
        plain = self._plain(record, sealed)
        if isinstance(plain, SealedValue):
            return plain
        try:
            return self._decoder.decode(plain)
        except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
            return SealedValue(_MISFIT, sealed)

    def renew(self, record: str, sealed: bytes, nonce: bytes) -> bytes | None:
        """Return a value sealed anew under the key in force; None if it is so already, or does not open."""
        if sealed.startswith(self._openers()[0].head):
            return None
        plain = self._plain(record, sealed)
        return None if isinstance(plain, SealedValue) else self.seal(record, plain, nonce)

    def _plain(self, record: str, sealed: bytes) -> bytes | SealedValue:
        for opener in self._openers():
            start = len(opener.head)
            if sealed[:start] != opener.head:
                continue
            if len(sealed) < start + NONCE_BYTES + _TAG_BYTES:
                return SealedValue(_DAMAGED, sealed)
            nonce, body = sealed[start : start + NONCE_BYTES], sealed[start + NONCE_BYTES :]
            try:
                padded = opener.cipher.decrypt(nonce, body, opener.context + record.encode())
            except primitives.InvalidTag:
                return SealedValue(_DAMAGED, sealed)
            plain = padded.rstrip(b"\0")
            return plain[:-1] if plain[-1:] == _PAD else SealedValue(_DAMAGED, sealed)
        return SealedValue(_FOREIGN if sealed[:1] == _SUITE else _UNKNOWN, sealed)

    def _openers(self) -> tuple[_Opener, ...]:
        keys, openers = self._made
        if keys is not self._seals.keys:
            keys = self._seals.keys
            openers = tuple(map(self._opener, keys))
            self._made = (keys, openers)  # at once: another thread reads both
        return openers

    def _opener(self, key: SpaceKey) -> _Opener:
        head = _SUITE + _varint(key.epoch) + key.id
        info = b"pjais sealed field v1\0" + _SUITE + _varint(key.epoch) + self._place
        return _Opener(head, head + self._place, primitives.AESGCMSIV(_derive(key.key, info, KEY_BYTES)))


def load_keys(connection: Connection, random: Callable[[int], bytes]) -> tuple[SpaceKey, ...]:
    """Return the keys that the file holds, the one in force first; a file that has none makes one of its own."""
    held = dict(
        connection.execute(
            "SELECT name, value FROM pjais_meta WHERE name IN (?, 'membership')", (_NAME,)
        ).fetchall()
    )
    if _NAME in held:
        return msgspec.msgpack.decode(held[_NAME], type=tuple[SpaceKey, ...])
    # A file of an earlier version has the space's key with its membership.
    earlier = msgspec.msgpack.decode(held["membership"]).get("space_key") if held else None
    keys = (SpaceKey(earlier or random(KEY_BYTES)),)
    save_keys(connection, keys)
    return keys


def save_keys(connection: Connection, keys: tuple[SpaceKey, ...]) -> None:
    """Write the keys into the file, in the transaction that is open."""
    connection.execute(
        "INSERT INTO pjais_meta(name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_NAME, msgspec.msgpack.encode(keys)),
    )


def _derive(key: bytes, info: bytes, length: int) -> bytes:
    return primitives.HKDF(primitives.SHA256(), length, salt=None, info=info).derive(key)


def _padded(plain: bytes) -> bytes:
    """Return a value with its end marked, and zeros up to a length that many values share."""
    length = len(plain) + 1
    exponent = length.bit_length() - 1
    rest = (1 << max(0, exponent - exponent.bit_length())) - 1
    padded = max(_PADDED_BYTES_MIN, (length + rest) & ~rest)
    return (plain + _PAD).ljust(padded, b"\0")


def _prefixed(part: bytes) -> bytes:
    """Return a name with its length before it, so that no two lists of names are one text."""
    return len(part).to_bytes(2, "big") + part


def _varint(number: int) -> bytes:
    """Return a number in LEB128, as updates have theirs."""
    seven, rest = number & 0x7F, number >> 7
    return bytes([seven | 0x80]) + _varint(rest) if rest else bytes([seven])
