"""The vectors of what is gone, removed after the fold that listed them.

In transactions of their own, a few records each: whoever holds the vectors of a space, sending many or forgetting a
model, holds up neither its folding nor that of others. Nobody finds them meanwhile, since a hit needs a text. The list
is in Postgres (`server.vectors.list_gone`): what a process that died has left is taken up by the next.
"""

from __future__ import annotations

from functools import partial
from typing import Final
from uuid import UUID

import asyncpg

from server import vectors
from server.database import Connection, Database

__all__ = ["sweep"]

_SPACES_MAX: Final = 1_000
#: Longer than a push holds a space's vectors; what is held longer is left for the next time.
_LOCK_TIMEOUT_MS: Final = 200


async def sweep(database: Database) -> None:
    """Remove what is listed, in all spaces but those whose vectors somebody holds.

    Raises:
        DatabaseUnavailable, asyncpg.PostgresError: the rest is still listed.
    """
    async with database.connection() as connection:
        spaces = await vectors.spaces_with_gone(connection, at_most=_SPACES_MAX)
    for space in spaces:
        try:
            while await database.transaction(partial(_step, space)):
                pass
        except asyncpg.LockNotAvailableError:
            continue


async def _step(space: UUID, connection: Connection) -> bool:
    await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
    return await vectors.remove_gone(connection, space)
