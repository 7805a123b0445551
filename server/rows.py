"""What `server.materialize` folded from the log, read: documents by position, one record's document, records as JSON.

The folding process commits documents and the space's position in ``materializations`` in one transaction, so
whoever reads both in one statement sees them as of the same position: every update up to it is in the
documents, but for what is in quarantine. A document's own ``position`` is that of the last update in it. A
space that is folded anew begins at 0.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from crdt.limits import PAGE_BYTES_TARGET, PAGE_ENTRIES_MAX
from crdt.wire import DocumentState
from server.database import Connection
from server.errors import DocumentsBehind

__all__ = [
    "JSON_ROWS_MAX",
    "DocumentsSlice",
    "JsonRow",
    "Standing",
    "count_after",
    "document_of",
    "documents_after",
    "json_page",
    "standing",
]

#: Records in one answer of the JSON route: people and tests read it, devices do not.
JSON_ROWS_MAX: Final = 500


class Standing(NamedTuple):
    """Where a space stands. ``digest`` and ``records`` are those at ``materialized``."""

    head: int
    materialized: int
    digest: bytes
    records: int


class DocumentsSlice(NamedTuple):
    """Documents in order of position. ``is_last``: there are no more up to ``through``, which is then
    ``materialized``.
    """

    states: list[DocumentState]
    through: int
    is_last: bool


class JsonRow(NamedTuple):
    """A record as JSON. ``value`` is None when it is not to be shown."""

    collection: str
    record_id: str
    position: int
    deleted: bool
    value: Any


# As in `server.log`: the running sum ends the page at the document that reaches the target.
_DOCUMENTS_AFTER: Final = """
SELECT coalesce(materializations.position, 0) AS materialized, page.*
FROM spaces
LEFT JOIN materializations ON materializations.space_id = spaces.space_id
LEFT JOIN LATERAL (
    SELECT position, collection, record_id, snapshot
    FROM (
        SELECT *, sum(octet_length(snapshot)) OVER (ORDER BY position) - octet_length(snapshot) AS bytes_before
        FROM (
            SELECT position, collection, record_id, snapshot FROM documents
            WHERE documents.space_id = $1 AND position > $2 ORDER BY position LIMIT $3
        ) AS next
    ) AS sized
    WHERE bytes_before < $4
) AS page ON true
WHERE spaces.space_id = $1
ORDER BY page.position
"""
_JSON_PAGE: Final = """
SELECT collection, record_id, position, deleted, value::text AS value FROM documents
WHERE space_id = $1 AND collection = $2 AND record_id > $3
ORDER BY record_id LIMIT $4
"""


async def standing(connection: Connection, space: UUID) -> Standing:
    """Return where the space stands; it must exist."""
    row = await connection.fetchrow(
        "SELECT head, position, digest, records FROM spaces LEFT JOIN materializations USING (space_id) "
        "WHERE space_id = $1",
        space,
    )
    assert row is not None
    if row["position"] is None:
        return Standing(row["head"], 0, bytes(16), 0)
    return Standing(*row)


async def documents_after(
    connection: Connection,
    space: UUID,
    after: int,
    *,
    entries_max: int = PAGE_ENTRIES_MAX,
    bytes_target: int = PAGE_BYTES_TARGET,
) -> DocumentsSlice:
    """Return the next documents whose last update is at a position > ``after``; the space must exist.

    While a device reads slice after slice, documents move on: one that gets a new update appears later instead of
    earlier, never twice in vain and never not at all. Until the last slice the device's cursor stands amid documents,
    though: it may lack earlier updates of a record that has moved on, so it must go on here, not with the log.

    Raises:
        DocumentsBehind: documents stand before ``after``: the space is being folded anew.
    """
    rows = await connection.fetch(_DOCUMENTS_AFTER, space, after, entries_max, bytes_target)
    materialized: int = rows[0]["materialized"]
    if materialized < after:
        raise DocumentsBehind
    states = [DocumentState(*row[1:]) for row in map(tuple, rows) if row[1] is not None]
    is_cut = len(states) == entries_max or sum(len(state.snapshot) for state in states) >= bytes_target
    return DocumentsSlice(states, states[-1].position if is_cut else materialized, not is_cut)


async def count_after(connection: Connection, space: UUID, after: int, *, at_most: int) -> int:
    """Count documents whose last update is at a position > ``after``, but not beyond ``at_most``."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM (SELECT FROM documents WHERE space_id = $1 AND position > $2 LIMIT $3) AS counted",
        space,
        after,
        at_most,
    )
    return count


async def document_of(
    connection: Connection, space: UUID, collection: str, record: str
) -> DocumentState | None:
    """Return one record's document, or None."""
    row = await connection.fetchrow(
        "SELECT position, collection, record_id, snapshot FROM documents "
        "WHERE space_id = $1 AND collection = $2 AND record_id = $3",
        space,
        collection,
        record,
    )
    return None if row is None else DocumentState(*row)


async def json_page(
    connection: Connection, space: UUID, *, collection: str, after: str, limit: int
) -> list[JsonRow]:
    """Return the collection's records after this id, at most ``limit`` of them."""
    rows = await connection.fetch(_JSON_PAGE, space, collection, after, limit)
    return [
        JsonRow(
            row["collection"],
            row["record_id"],
            row["position"],
            row["deleted"],
            None if row["value"] is None else msgspec.json.decode(row["value"]),
        )
        for row in rows
    ]
