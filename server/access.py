"""Who may do what: every route and every message asks here before it touches a space.

A token says which device speaks; membership says which spaces it may read and write. An unknown space and somebody
else's are told alike, so nobody can find out which spaces exist. A revoked device has no token and no membership that
counts, from the moment of its revocation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from server import devices
from server.database import Connection, Database
from server.errors import NotInSpace, Unauthorized

__all__ = ["Caller", "caller_of", "require_spaces", "searching"]


@dataclass(frozen=True, slots=True)
class Caller:
    """A device that has proved itself, and the account that it belongs to."""

    account: UUID
    device: UUID


async def caller_of(connection: Connection, token: str, *, now: datetime) -> Caller:
    """Return whose token this is.

    Raises:
        Unauthorized: it is unknown, expired, or its device is revoked.
    """
    row = await connection.fetchrow(
        "SELECT devices.account_id, devices.device_id FROM tokens JOIN devices USING (device_id) "
        "WHERE token_hash = $1 AND expires_at > $2 AND revoked_at IS NULL",
        devices.token_hash(token),
        now,
    )
    if row is None:
        raise Unauthorized
    return Caller(row["account_id"], row["device_id"])


async def require_spaces(connection: Connection, device: UUID, spaces: Collection[UUID]) -> None:
    """Return if the device is a member of each of the spaces, and not revoked.

    Raises:
        NotInSpace: it is not, or there is no such space.
    """
    found = await connection.fetchval(
        "SELECT count(*) FROM members JOIN devices USING (device_id) JOIN spaces USING (space_id) "
        "WHERE members.space_id = ANY($1::uuid[]) AND members.device_id = $2 AND revoked_at IS NULL",
        list(spaces),
        device,
    )
    if found != len(set(spaces)):
        raise NotInSpace


@asynccontextmanager
async def searching(database: Database, device: UUID, space: UUID) -> AsyncIterator[Connection]:
    """Lend a connection to a search in a space, if the device is in it. Raises as `require_spaces`."""
    async with database.connection_for_search() as connection:
        await require_spaces(connection, device, [space])
        yield connection
