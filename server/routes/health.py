"""Whether the process lives, and whether it can serve: two questions, since the first decides about a restart."""

from __future__ import annotations

import asyncpg
from litestar import Response, get
from litestar.datastructures import State
from litestar.status_codes import HTTP_200_OK, HTTP_503_SERVICE_UNAVAILABLE

from server.database import released_migrations
from server.errors import CannotServe
from server.routes.common import Body, rooms_of

__all__ = ["Health", "health", "ready"]


class Health(Body, frozen=True):
    """``status`` is "ok", or what stands in the way."""

    status: str


@get("/health", tags=["health"])
async def health() -> Health:
    """Answer as long as the process lives."""
    return Health(status="ok")


@get("/ready", tags=["health"])
async def ready(state: State) -> Response[Health]:
    """Answer 200 if the database is reachable and has this release's tables, else 503."""
    problem = ""
    try:
        async with rooms_of(state).meeting.database.connection() as connection:
            applied = await connection.fetchval("SELECT count(*) FROM schema_migrations")
            if applied < len(released_migrations()):
                problem = "migrations are missing"
    except CannotServe as error:
        problem = error.message_for_device
    except asyncpg.PostgresError as error:
        problem = f"the database does not answer as it should: {type(error).__name__}"
    if problem:
        return Response(Health(status=problem), status_code=HTTP_503_SERVICE_UNAVAILABLE)
    return Response(Health(status="ok"), status_code=HTTP_200_OK)
