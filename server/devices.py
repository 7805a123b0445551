"""Devices and how they prove themselves: no passwords, an Ed25519 key for each device, made on it.

A device asks for a challenge, signs it, and gets an opaque token that lives for an hour. The server keeps the
token's hash alone, so a copy of the database lets nobody in. A challenge is random, is used once, and lasts a
minute. What is signed begins with what it is for (``pjais register v1`` …) and a zero byte, so a signature
for one purpose is worthless for another.

Times are passed in: ``now`` is the caller's clock.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from server.database import Connection
from server.errors import MalformedMessage, Unauthorized, UnknownDevice

__all__ = [
    "DEVICE_NAME_CHARACTERS_MAX",
    "JOIN_PURPOSE",
    "REGISTER_PURPOSE",
    "TOKEN_PURPOSE",
    "Token",
    "challenge",
    "check_signature",
    "enrol",
    "key_of",
    "sweep",
    "token_hash",
    "token_issued",
    "use_challenge",
]

REGISTER_PURPOSE: Final = b"pjais register v1\0"
TOKEN_PURPOSE: Final = b"pjais token v1\0"
JOIN_PURPOSE: Final = b"pjais join v1\0"

#: A name is shown in a list of devices.
DEVICE_NAME_CHARACTERS_MAX: Final = 100
_NONCE_BYTES: Final = 32
_TOKEN_BYTES: Final = 32
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is told to its device, once, and the end of its life."""

    text: str
    expires_at: datetime


def token_hash(token: str) -> bytes:
    """Return what is stored of a token: its SHA-256. 256 random bits need neither salt nor stretching."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


async def challenge(connection: Connection, *, now: datetime, lifetime_s: int) -> bytes:
    """Return a fresh nonce to sign."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    await connection.execute(
        "INSERT INTO challenges (nonce, expires_at) VALUES ($1, $2)",
        nonce,
        now + timedelta(seconds=lifetime_s),
    )
    return nonce


async def use_challenge(connection: Connection, nonce: bytes, *, now: datetime) -> None:
    """Use a challenge up, whatever comes of it: call it outside the transaction that may fail later.

    Raises:
        Unauthorized: it was never given, is too old, or was used.
    """
    found = await connection.fetchval(
        "DELETE FROM challenges WHERE nonce = $1 RETURNING expires_at > $2", nonce, now
    )
    if not found:
        raise Unauthorized("the challenge is unknown, expired or used")


def check_signature(public_key: bytes, signature: bytes, *, signed: bytes) -> None:
    """Return if the signature is by this key (Ed25519, RFC 8032).

    Raises:
        MalformedMessage: the key is none.
        Unauthorized: it is by another, or of something else.
    """
    if len(public_key) != _KEY_BYTES:
        raise MalformedMessage(f"an Ed25519 public key has {_KEY_BYTES} bytes")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except InvalidSignature:
        raise Unauthorized("the signature does not verify") from None
    except ValueError as error:
        raise MalformedMessage(f"not an Ed25519 public key: {error}") from error


async def enrol(connection: Connection, device: UUID, *, account: UUID, public_key: bytes, name: str) -> None:
    """Add a device to an account."""
    await connection.execute(
        "INSERT INTO devices (device_id, account_id, public_key, name) VALUES ($1, $2, $3, $4)",
        device,
        account,
        public_key,
        name,
    )


async def key_of(connection: Connection, device: UUID) -> bytes:
    """Return the device's public key.

    Raises:
        UnknownDevice: there is no such device, or it is revoked.
    """
    key: bytes | None = await connection.fetchval(
        "SELECT public_key FROM devices WHERE device_id = $1 AND revoked_at IS NULL", device
    )
    if key is None:
        raise UnknownDevice
    return key


async def token_issued(connection: Connection, device: UUID, *, now: datetime, lifetime_s: int) -> Token:
    """Return a new token for a device that has just proved itself; earlier ones live on to their end."""
    text = base64.urlsafe_b64encode(secrets.token_bytes(_TOKEN_BYTES)).rstrip(b"=").decode()
    expires_at = now + timedelta(seconds=lifetime_s)
    await connection.execute(
        "INSERT INTO tokens (token_hash, device_id, expires_at) VALUES ($1, $2, $3)",
        token_hash(text),
        device,
        expires_at,
    )
    return Token(text, expires_at)


async def sweep(connection: Connection, *, now: datetime) -> int:
    """Delete tokens and challenges whose time is over; return how many."""
    swept = 0
    for table in ("challenges", "tokens"):
        done = await connection.execute(f"DELETE FROM {table} WHERE expires_at <= $1", now)
        swept += int(done.removeprefix("DELETE "))
    return swept
