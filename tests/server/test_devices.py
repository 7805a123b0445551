"""Devices prove themselves: what is stored of a token, what a challenge and a signature are good for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import devices
from server.database import Database
from server.errors import MalformedMessage, Unauthorized, UnknownDevice
from tests.server.people import enrolled
from tests.server.serving import Key, data

__all__: list[str] = []

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.text())
def test_every_text_has_a_hash_and_none_shows_in_it(token: str) -> None:
    assert len(devices.token_hash(token)) == 32


async def test_a_challenge_is_good_once_and_until_its_end(database: Database) -> None:
    async with database.connection() as connection:
        nonces = [await devices.challenge(connection, now=NOW, lifetime_s=60) for _ in range(2)]
        assert len({*nonces}) == 2
        await devices.use_challenge(connection, nonces[0], now=NOW + timedelta(seconds=59))
        for nonce, time in [
            (nonces[0], NOW),
            (nonces[1], NOW + timedelta(seconds=60)),
            (nonces[1], NOW),
            (b"never given", NOW),
        ]:
            with pytest.raises(Unauthorized):
                await devices.use_challenge(connection, nonce, now=time)


def test_a_signature_is_of_one_message_by_one_key() -> None:
    key, other = Key(), Key()
    signature = data(key.sign(b"message"))
    devices.check_signature(key.public, signature, signed=b"message")
    for public, signed in [(key.public, b"another"), (other.public, b"message")]:
        with pytest.raises(Unauthorized):
            devices.check_signature(public, signature, signed=signed)
    with pytest.raises(MalformedMessage):
        devices.check_signature(key.public[:31], signature, signed=b"message")


@given(public=st.binary(min_size=32, max_size=32), signature=st.binary(max_size=70))
def test_bytes_that_are_no_key_or_no_signature_get_a_typed_error(public: bytes, signature: bytes) -> None:
    with pytest.raises((Unauthorized, MalformedMessage)):
        devices.check_signature(public, signature, signed=b"message")


async def test_a_revoked_device_has_no_key_here(database: Database) -> None:
    device = await enrolled(database)
    async with database.connection() as connection:
        assert await devices.key_of(connection, device.device) == device.device.bytes * 2
        await connection.execute("UPDATE devices SET revoked_at = now()")
        for unknown in (device.device, uuid4()):
            with pytest.raises(UnknownDevice):
                await devices.key_of(connection, unknown)


async def test_only_what_has_expired_is_swept(database: Database) -> None:
    device = await enrolled(database)
    async with database.connection() as connection:
        await devices.sweep(connection, now=NOW + timedelta(days=9_999))
        for lifetime_s in (10, 20):
            await devices.challenge(connection, now=NOW, lifetime_s=lifetime_s)
            await devices.token_issued(connection, device.device, now=NOW, lifetime_s=lifetime_s)
        assert await devices.sweep(connection, now=NOW + timedelta(seconds=10)) == 2
        assert await devices.sweep(connection, now=NOW + timedelta(seconds=10)) == 0
