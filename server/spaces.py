"""Spaces: what is shared, authorised and erased together; who is in one, and how another device gets in.

An invitation is made by a device of the space: a random id, the public half of a key whose secret half is in the code
that a person carries to the new device, and the space key sealed to that code. The server sees neither. It lets one
device in, once, within ten minutes, and gives it the sealed key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from crdt.limits import INVITATION_LIFETIME_S
from server.database import Connection
from server.errors import InvitationExpired, InvitationUsed, MalformedMessage

__all__ = [
    "INVITATION_BYTES_MAX",
    "INVITATION_BYTES_MIN",
    "SEALED_BYTES_MAX",
    "Invitation",
    "Member",
    "add_account",
    "add_member",
    "held",
    "invite",
    "member",
    "move_cursor",
    "move_documents_until",
    "owner_of_client",
    "use_invitation",
]

INVITATION_BYTES_MIN: Final = 16  # not to be guessed within ten minutes, nor ever
INVITATION_BYTES_MAX: Final = 64
#: The space key and what HPKE with ML-KEM-768 adds to it (about 1,200 bytes), with room for several epochs.
SEALED_BYTES_MAX: Final = 16 * 1024
#: Expired invitations are told from unknown ones by nobody; they go when the space makes the next one.
_KEEP_USED: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation that was used now, or before by the same key: then ``device`` is the one that joined."""

    device: UUID
    space: UUID
    account: UUID
    generation: UUID
    proof_key: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Member:
    """A space as one of its devices meets it. A cursor below ``documents_until`` may stand amid documents.

    ``vectors``: the position of its newest vector.
    """

    space: UUID
    generation: UUID
    head: int
    materialized: int
    documents_until: int
    vectors: int


async def add_account(connection: Connection, account: UUID, *, space: UUID, generation: UUID) -> None:
    """Add an account with its first space."""
    await connection.execute("INSERT INTO accounts (account_id) VALUES ($1)", account)
    await connection.execute(
        "INSERT INTO spaces (space_id, account_id, generation) VALUES ($1, $2, $3)",
        space,
        account,
        generation,
    )


async def add_member(connection: Connection, space: UUID, device: UUID) -> None:
    """Let a device into a space."""
    await connection.execute("INSERT INTO members (space_id, device_id) VALUES ($1, $2)", space, device)


async def member(connection: Connection, space: UUID, device: UUID) -> Member | None:
    """Return the space as this device meets it, or None if it is not in it."""
    row = await connection.fetchrow(
        "SELECT space_id, generation, spaces.head, coalesce(position, 0) AS materialized, documents_until, "
        "coalesce(vector_heads.head, 0) AS vectors "
        "FROM spaces JOIN members USING (space_id) LEFT JOIN materializations USING (space_id) "
        "LEFT JOIN vector_heads USING (space_id) WHERE space_id = $1 AND device_id = $2",
        space,
        device,
    )
    return None if row is None else Member(*row)


async def held(connection: Connection, space: UUID, device: UUID) -> dict[int, int]:
    """Return how far each incarnation of the device is held: incarnation → highest n."""
    rows = await connection.fetch(
        "SELECT incarnation, through FROM writers WHERE space_id = $1 AND device_id = $2", space, device
    )
    return {row["incarnation"]: row["through"] for row in rows}


async def owner_of_client(connection: Connection, space: UUID, client: int) -> tuple[UUID, int] | None:
    """Return which device, in which incarnation, writes under a client id in the space."""
    row = await connection.fetchrow(
        "SELECT device_id, incarnation FROM writers WHERE space_id = $1 AND client_id = $2", space, client
    )
    return None if row is None else (row["device_id"], row["incarnation"])


async def move_cursor(connection: Connection, space: UUID, device: UUID, cursor: int) -> None:
    """Remember how far the device has read."""
    await connection.execute(
        "UPDATE members SET cursor = $3 WHERE space_id = $1 AND device_id = $2", space, device, cursor
    )


async def move_documents_until(connection: Connection, space: UUID, device: UUID, position: int) -> None:
    """Remember up to where the device's cursor may stand amid documents (`server.rows.documents_after`)."""
    await connection.execute(
        "UPDATE members SET documents_until = $3 WHERE space_id = $1 AND device_id = $2",
        space,
        device,
        position,
    )


async def invite(
    connection: Connection,
    space: UUID,
    *,
    invitation: bytes,
    proof_key: bytes,
    sealed: bytes,
    created_by: UUID,
    expires_at: datetime | None,
    now: datetime,
) -> datetime:
    """Add an invitation and return its end: ``INVITATION_LIFETIME_S`` from now, or earlier if so asked.

    Raises:
        MalformedMessage: a size is out of bounds, or the id was used before.
    """
    if not INVITATION_BYTES_MIN <= len(invitation) <= INVITATION_BYTES_MAX:
        raise MalformedMessage(
            f"an invitation's id has {INVITATION_BYTES_MIN} to {INVITATION_BYTES_MAX} bytes"
        )
    if len(proof_key) != 32:  # noqa: PLR2004 - Ed25519
        raise MalformedMessage("an invitation's proof key is an Ed25519 public key: 32 bytes")
    if len(sealed) > SEALED_BYTES_MAX:
        raise MalformedMessage(f"what is sealed to an invitation has at most {SEALED_BYTES_MAX:,} bytes")
    end = now + timedelta(seconds=INVITATION_LIFETIME_S)
    if expires_at is not None:
        end = min(end, expires_at)
    await _forget_old(connection, space, now=now)
    added = await connection.execute(
        "INSERT INTO invitation_spaces (invitation_id, space_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        invitation,
        space,
    )
    if added != "INSERT 0 1":
        raise MalformedMessage("this invitation's id was used before; make a random one")
    await connection.execute(
        "INSERT INTO invitations (space_id, invitation_id, public_key, sealed, created_by, expires_at) "
        "VALUES ($1, $2, $3, $4, $5, $6)",
        space,
        invitation,
        proof_key,
        sealed,
        created_by,
        end,
    )
    return end


async def use_invitation(
    connection: Connection, invitation: bytes, *, device: UUID, public_key: bytes, now: datetime
) -> Invitation:
    """Use an invitation up and return it, inside a transaction: what fails later gives it back.

    A device that never got the answer asks again: its key is known as that of ``used_by``, and it gets the same answer.

    Raises:
        InvitationExpired: it is too old, or was never made; told alike.
        InvitationUsed: another device joined with it.
    """
    space = await connection.fetchval(
        "SELECT space_id FROM invitation_spaces WHERE invitation_id = $1", invitation
    )
    if space is None:
        raise InvitationExpired
    row = await connection.fetchrow(
        "SELECT invitations.public_key, sealed, expires_at, used_by, spaces.account_id, generation, "
        "devices.public_key AS used_by_key "
        "FROM invitations JOIN spaces USING (space_id) "
        "LEFT JOIN devices ON devices.device_id = used_by AND revoked_at IS NULL "
        "WHERE space_id = $1 AND invitation_id = $2 FOR UPDATE OF invitations",
        space,
        invitation,
    )
    if row is None or row["expires_at"] <= now:
        raise InvitationExpired
    if row["used_by"] is None:
        await connection.execute(
            "UPDATE invitations SET used_by = $3, used_at = $4 WHERE space_id = $1 AND invitation_id = $2",
            space,
            invitation,
            device,
            now,
        )
    elif row["used_by_key"] == public_key:
        device = row["used_by"]
    else:
        raise InvitationUsed
    return Invitation(device, space, row["account_id"], row["generation"], row["public_key"], row["sealed"])


async def _forget_old(connection: Connection, space: UUID, *, now: datetime) -> None:
    """Delete the space's invitations that ended long ago, so that a table of secrets does not grow."""
    rows = await connection.fetch(
        "DELETE FROM invitations WHERE space_id = $1 AND expires_at < $2 RETURNING invitation_id",
        space,
        now - _KEEP_USED,
    )
    await connection.execute(
        "DELETE FROM invitation_spaces WHERE invitation_id = ANY($1::bytea[])",
        [row["invitation_id"] for row in rows],
    )
