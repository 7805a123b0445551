"""The records of a space as JSON, for people and tests: devices sync instead."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import get
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery

from server import access, rows
from server.access import Caller
from server.errors import MalformedMessage
from server.routes.common import Body, caller_of, rooms_of, space_of

__all__ = ["RecordJson", "RecordsPage", "list_documents"]

Limit = Annotated[int, msgspec.Meta(ge=1, le=rows.JSON_ROWS_MAX)]


class RecordJson(Body, frozen=True):
    """One record. ``value`` is null when it is not to be shown; ``position`` is that of its last update."""

    collection: str
    id: str
    position: int
    deleted: bool
    value: Any


class RecordsPage(Body, frozen=True):
    """Records in order of id, folded up to ``materialized`` of ``head``. ``next``: ask with it as ``after``."""

    head: int
    materialized: int
    records: list[RecordJson]
    next: str | None


@get(
    "/v1/spaces/{space:str}/documents",
    dependencies={"caller": Provide(caller_of)},
    security=[{"token": []}],
    tags=["documents"],
)
async def list_documents(
    space: FromPath[str],
    state: State,
    caller: NamedDependency[Caller],
    collection: FromQuery[str],
    after: FromQuery[str] = "",
    limit: FromQuery[Limit] = 100,
) -> RecordsPage:
    """List the records of a collection."""
    if not 1 <= limit <= rows.JSON_ROWS_MAX:
        raise MalformedMessage(f"limit is a number from 1 to {rows.JSON_ROWS_MAX}")
    space_id = space_of(space)
    async with rooms_of(state).meeting.database.connection() as connection:
        await access.require_spaces(connection, caller.device, [space_id])
        stands = await rows.standing(connection, space_id)
        found = await rows.json_page(
            connection,
            space_id,
            collection=collection.replace("\0", ""),
            after=after.replace("\0", ""),
            limit=limit,
        )
    return RecordsPage(
        head=stands.head,
        materialized=stands.materialized,
        records=[
            RecordJson(
                collection=row.collection,
                id=row.record_id,
                position=row.position,
                deleted=row.deleted,
                value=row.value,
            )
            for row in found
        ],
        next=found[-1].record_id if len(found) == limit else None,
    )
