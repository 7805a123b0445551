"""How memories hang together: each relationship is a record of its own, counted on both memories.

A relationship is one for two memories and a kind, whichever is named first: its id is made of the three, so that two
devices that connect the same pair make the same record, and the two merge. It is never deleted: ``is_connected`` says
whether it holds, and of two devices that disagree the later one is right.

**Counted exactly.** A relation knows how often both memories count it (``counted``). Whoever changes the one changes
the others in the same transaction, so whatever merges, a memory's count is what its relations say. Two devices that
connect a pair, each before it has seen the other do so, count it twice, and ``counted`` is 2: the next `connect` or
`disconnect` of the pair, or `recount`, sets it right. `related` and ``connections`` read the records: right always.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from client_sdk.commit import Corridor
from client_sdk.database import Connection
from client_sdk.errors import QueryError, RecordNotFound
from client_sdk.hub.records import Memory, Relation
from client_sdk.rows import Table
from crdt.changes import Increment
from crdt.errors import ValidationError
from crdt.records import operations
from crdt.schema import check_record_id

__all__ = ["DEPTH_MAX", "Related", "connect", "disconnect", "recount", "related", "relation_id"]

DEPTH_MAX: Final = 8  # steps: past it nearly everything that hangs together is reached, and it only costs

# Breadth first. The walk is a set of (memory, distance): circles end at the depth at the latest, and each memory is
# shown at its least distance. CROSS JOIN keeps the tables in order: from the walk outward, never through all memories.
_WALK: Final = """
    WITH RECURSIVE walk(id, distance) AS (
        SELECT id, 0 FROM memories WHERE id = :start
        UNION
        SELECT m.id, w.distance + 1
        FROM walk w CROSS JOIN relations e ON e.from_id = w.id AND e.is_connected = 1 {only}
        CROSS JOIN memories m ON m.id = e.to_id WHERE w.distance < :depth
        UNION
        SELECT m.id, w.distance + 1
        FROM walk w CROSS JOIN relations e ON e.to_id = w.id AND e.is_connected = 1 {only}
        CROSS JOIN memories m ON m.id = e.from_id WHERE w.distance < :depth
    )
    SELECT m.doc, min(w.distance) AS distance FROM walk w CROSS JOIN memories m ON m.id = w.id WHERE w.id != :start
    GROUP BY m.doc ORDER BY distance, m.importance DESC, m.doc LIMIT :limit
"""


class Related(msgspec.Struct, frozen=True):
    """A memory that another leads to, and in how many steps (1: they are connected)."""

    memory: Memory
    distance: int


def relation_id(a: str, b: str, kind: str) -> str:
    """Return the id of a relationship: the same for (a, b) and (b, a), on every device."""
    named = msgspec.json.encode([*sorted((a, b)), kind])
    return hashlib.blake2b(named, digest_size=16).hexdigest()


def connect(corridor: Corridor, relations: Table, memories: Table, a: str, b: str, kind: str) -> Relation:
    """Let a relationship hold, and count it; return it. Raises `RecordNotFound`, `ValidationError`."""
    name = _checked(relations, a, b, kind)
    for memory in (a, b):
        if memories.find(corridor.connection, memory) is None:
            raise RecordNotFound(memories.name, memory)
    if corridor.documents.find(relations.name, name) is None:
        corridor.insert(relations, (Relation(id=name, from_id=a, to_id=b, kind=kind),))
    elif not _is_connected(corridor, relations, name):
        corridor.restore(relations, name)
        _set(corridor, relations, name, {"from_id": a, "to_id": b, "kind": kind, "is_connected": True})
    _settle(corridor, relations, memories, name)
    rows = corridor.connection.execute(f"{relations.select} WHERE id = ?", (name,)).fetchall()
    return relations.records(corridor.connection, rows)[0]  # type: ignore[return-value]


def disconnect(corridor: Corridor, relations: Table, memories: Table, a: str, b: str, kind: str) -> None:
    """Let a relationship hold no more, and uncount it. Raises `RecordNotFound`, `ValidationError`."""
    name = _checked(relations, a, b, kind)
    if relations.find(corridor.connection, name) is None:
        return
    if _is_connected(corridor, relations, name):
        _set(corridor, relations, name, {"is_connected": False})
    _settle(corridor, relations, memories, name)


def recount(corridor: Corridor, relations: Table, memories: Table) -> int:
    """Set right what devices counted that had not seen one another; return for how many relationships."""
    wrong = corridor.connection.execute(
        "SELECT id, from_id, to_id FROM relations WHERE counted != is_connected"
    ).fetchall()
    settled = 0
    for name, *both in wrong:
        if all(corridor.documents.find(memories.name, memory) is not None for memory in both):
            _settle(corridor, relations, memories, name)
            settled += 1
    return settled


def related(
    connection: Connection, memories: Table, memory: str, *, depth: int, kind: str | None, limit: int
) -> list[Related]:
    """Return the memories that one leads to, nearest first, then by importance; deleted ones lead nowhere.

    Raises:
        QueryError: ``depth`` is not from 1 to `DEPTH_MAX`, or ``limit`` is negative.
    """
    if type(depth) is not int or not 1 <= depth <= DEPTH_MAX:
        raise QueryError(f"related takes a depth from 1 to DEPTH_MAX ({DEPTH_MAX}), not {depth!r:.60}")
    if type(limit) is not int or limit < 0:
        raise QueryError(f"limit takes a whole number from 0 on, not {limit!r:.60}")
    reached = connection.execute(
        _WALK.format(only="" if kind is None else "AND e.kind = :kind"),
        {"start": memory, "depth": depth, "limit": limit} | ({} if kind is None else {"kind": kind}),
    ).fetchall()
    places = msgspec.json.encode([doc for doc, _ in reached]).decode()
    rows = connection.execute(
        f"{memories.select} WHERE doc IN (SELECT value FROM json_each(?))", (places,)
    ).fetchall()
    found = {row[0]: record for row, record in zip(rows, memories.records(connection, rows), strict=True)}
    return [Related(found[doc], distance) for doc, distance in reached]  # type: ignore[arg-type]


def _checked(relations: Table, a: str, b: str, kind: str) -> str:
    """Return the id of a relationship that can be."""
    for memory in (a, b):
        check_record_id("Memory", memory)
    relations.schema.validate_value("kind", kind)
    if a == b:
        raise ValidationError(
            record="Relation", field="to_id", problem=f"got {b!r} twice", expected="two different memories"
        )
    return relation_id(a, b, kind)


def _is_connected(corridor: Corridor, relations: Table, name: str) -> bool:
    found = corridor.connection.execute(
        f'SELECT is_connected FROM "{relations.name}" WHERE id = ?', (name,)
    ).fetchone()
    return bool(found and found[0])


def _set(corridor: Corridor, relations: Table, name: str, values: dict[str, Any]) -> None:
    corridor.edit(relations, name, lambda contents: operations(relations.schema, contents, values))


def _settle(corridor: Corridor, relations: Table, memories: Table, name: str) -> None:
    """Count a relationship on both memories as often as it holds, once or not at all."""
    from_id, to_id, is_connected, counted = corridor.connection.execute(
        f'SELECT from_id, to_id, is_connected, counted FROM "{relations.name}" WHERE id = ?', (name,)
    ).fetchone()
    by = is_connected - counted
    if not by:
        return
    for memory in (from_id, to_id):  # a deleted one too: it may be restored
        corridor.edit(memories, memory, lambda _: [Increment("connectionCount", by)], is_deleted_too=True)
    corridor.edit(relations, name, lambda _: [Increment("counted", by)])
