"""Spaces and invitations: one device, once, within ten minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from crdt.limits import INVITATION_LIFETIME_S
from server import spaces
from server.database import Connection, Database
from server.errors import InvitationExpired, InvitationUsed, MalformedMessage
from server.settings import Settings
from tests.server.people import Device, edits, enrolled, meeting_of

__all__: list[str] = []

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ID = b"invitation-id-01"


async def invite(
    connection: Connection,
    device: Device,
    invitation: bytes = ID,
    *,
    proof_key: bytes = bytes(32),
    sealed: bytes = b"sealed",
    expires_at: datetime | None = None,
    now: datetime = NOW,
) -> datetime:
    return await spaces.invite(
        connection,
        device.space,
        invitation=invitation,
        proof_key=proof_key,
        sealed=sealed,
        created_by=device.device,
        expires_at=expires_at,
        now=now,
    )


async def use(
    connection: Connection, invitation: bytes = ID, *, device: UUID | None = None, now: datetime = NOW
) -> spaces.Invitation:
    return await spaces.use_invitation(
        connection, invitation, device=device or uuid4(), public_key=b"k" * 32, now=now
    )


async def test_an_invitation_is_used_once(database: Database) -> None:
    device, joining = await enrolled(database), uuid4()
    async with database.connection() as connection:
        assert await invite(connection, device) == NOW + timedelta(seconds=INVITATION_LIFETIME_S)
        used = await use(connection, device=joining)
        assert (used.device, used.space, used.account) == (joining, device.space, device.account)
        assert (used.proof_key, used.sealed) == (bytes(32), b"sealed")
        with pytest.raises(InvitationUsed):
            await use(connection)


async def test_an_invitation_that_has_ended_and_one_that_never_was_are_told_alike(database: Database) -> None:
    device = await enrolled(database)
    async with database.connection() as connection:
        end = await invite(connection, device, expires_at=NOW + timedelta(seconds=30))
        assert end == NOW + timedelta(seconds=30)
        for invitation, time in [(ID, end), (b"another-invitation", NOW)]:
            with pytest.raises(InvitationExpired) as caught:
                await use(connection, invitation, now=time)
            assert str(caught.value) == str(InvitationExpired())


async def test_sizes_are_bounded_and_an_id_is_used_once(database: Database) -> None:
    device, other = await enrolled(database), await enrolled(database)
    async with database.connection() as connection:
        for invitation in (b"short", b"x" * (spaces.INVITATION_BYTES_MAX + 1)):
            with pytest.raises(MalformedMessage):
                await invite(connection, device, invitation)
        with pytest.raises(MalformedMessage):
            await invite(connection, device, proof_key=bytes(31))
        with pytest.raises(MalformedMessage):
            await invite(connection, device, sealed=bytes(spaces.SEALED_BYTES_MAX + 1))
        await invite(connection, device)
        with pytest.raises(MalformedMessage):
            await invite(connection, other)
        assert (await use(connection)).space == device.space


async def test_invitations_of_long_ago_are_forgotten(database: Database) -> None:
    device = await enrolled(database)
    async with database.connection() as connection:
        await invite(connection, device)
        await invite(connection, device, b"invitation-id-02", now=NOW + timedelta(days=60))
        for table in ("invitations", "invitation_spaces"):
            left = await connection.fetch(f"SELECT invitation_id FROM {table}")
            assert [row["invitation_id"] for row in left] == [b"invitation-id-02"]


async def test_a_device_meets_its_space_with_what_is_held_and_who_owns_a_client_id(
    database: Database, server_settings: Settings
) -> None:
    device, stranger = await enrolled(database), await enrolled(database)
    async with meeting_of(database, server_settings) as meeting:
        await meeting.admit.push(device.device, device.push(1, edits(device.client, 2)))
    async with database.connection() as connection:
        member = await spaces.member(connection, device.space, device.device)
        assert member is not None
        assert (member.head, member.materialized, member.documents_until) == (2, 0, 0)
        assert await spaces.member(connection, device.space, stranger.device) is None
        assert await spaces.held(connection, device.space, device.device) == {device.incarnation: 2}
        owner = await spaces.owner_of_client(connection, device.space, device.client)
        assert owner == (device.device, device.incarnation)
        assert await spaces.owner_of_client(connection, stranger.space, device.client) is None
