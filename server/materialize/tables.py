"""The statements of materialization. Each names the spaces that it is about, but for the slow look for spaces that lag.

Who folds which space is settled twice. An advisory lock, held by the connection for one turn, keeps two
processes from doing the same work. What makes it safe is `move`: it moves a space on only from the position
that the turn began at, so a turn that was overtaken all the same commits nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from server import vectors
from server.database import Connection
from server.materialize.fold import Folded
from server.vectors import Gone

__all__ = [
    "Held",
    "Key",
    "Standing",
    "clear",
    "held",
    "lagging",
    "lock",
    "move",
    "quarantine",
    "snapshots",
    "standings",
    "store",
    "try_lock",
]

#: Advisory locks share one number space: the seed of the hash keeps ours apart.
_LOCK_SEED: Final = int.from_bytes(b"pjais-mt", "big")

_LAGGING: Final = """
SELECT space_id FROM spaces LEFT JOIN materializations USING (space_id)
WHERE head > coalesce(position, 0) ORDER BY coalesce(position, 0) - head LIMIT $1
"""
_STANDINGS: Final = """
SELECT space_id, head, coalesce(position, 0), coalesce(digest, '\\x00'), coalesce(records, 0)
FROM spaces LEFT JOIN materializations USING (space_id) WHERE space_id = ANY($1::uuid[])
"""
_ASKED: Final = """
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS asked (space_id, collection, record_id)
JOIN documents USING (space_id, collection, record_id)
"""
_HELD: Final = f"SELECT space_id, collection, record_id, octet_length(snapshot), digest {_ASKED}"
_SNAPSHOTS: Final = f"SELECT space_id, collection, record_id, snapshot {_ASKED}"
_MOVE: Final = """
INSERT INTO materializations AS held (space_id, position, digest, records)
SELECT space_id, position, digest, records
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bigint[])
     AS moved (space_id, base, position, digest, records)
ON CONFLICT (space_id) DO UPDATE SET position = excluded.position, digest = excluded.digest, records = excluded.records
WHERE held.position = (SELECT base FROM unnest($1::uuid[], $2::bigint[]) AS moved (space_id, base)
                       WHERE moved.space_id = held.space_id)
RETURNING space_id
"""
_UPDATE: Final = """
UPDATE documents
SET position = new.position, snapshot = new.snapshot, clocks = new.clocks, digest = new.digest,
    deleted = new.deleted, value = new.value
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::boolean[],
            $9::jsonb[]) AS new (space_id, collection, record_id, position, snapshot, clocks, digest, deleted, value)
WHERE documents.space_id = new.space_id AND documents.collection = new.collection
  AND documents.record_id = new.record_id
"""
_QUARANTINE: Final = """
INSERT INTO quarantine (space_id, position, collection, record_id, reason)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[])
ON CONFLICT (space_id, position) DO NOTHING
"""
# Of a conversation one text is new, and those before it stand: only what differs is written.
_STORE_TEXTS: Final = """
INSERT INTO texts (space_id, collection, record_id, part, body, speaker, folded)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::text[])
ON CONFLICT (space_id, collection, record_id, part) DO UPDATE
SET body = excluded.body, speaker = excluded.speaker, folded = excluded.folded
WHERE (texts.body, texts.speaker) IS DISTINCT FROM (excluded.body, excluded.speaker)
"""
_DROP_TEXTS: Final = """
DELETE FROM texts USING unnest($1::uuid[], $2::text[], $3::text[]) AS folded (space_id, collection, record_id)
WHERE texts.space_id = folded.space_id AND texts.collection = folded.collection
  AND texts.record_id = folded.record_id AND NOT EXISTS (
    SELECT FROM unnest($4::uuid[], $5::text[], $6::text[], $7::integer[])
                AS kept (space_id, collection, record_id, part)
    WHERE kept.space_id = texts.space_id AND kept.collection = texts.collection
      AND kept.record_id = texts.record_id AND kept.part = texts.part
  )
RETURNING texts.space_id, texts.collection, texts.record_id, texts.part
"""
_COLUMNS: Final = [
    "space_id",
    "collection",
    "record_id",
    "position",
    "snapshot",
    "clocks",
    "digest",
    "deleted",
    "value",
]
_TEXT_COLUMNS: Final = ["space_id", "collection", "record_id", "part", "body", "speaker", "folded"]


class Key(NamedTuple):
    """A record of a space."""

    space: UUID
    collection: str
    record: str


class Standing(NamedTuple):
    """Where a space stands: its log ends at ``head``; ``digest`` and ``records`` are those at ``position``."""

    space: UUID
    head: int
    position: int
    digest: int
    records: int


class Held(NamedTuple):
    """A document that exists: bytes of its snapshot, and its digest."""

    size: int
    digest: int


async def lagging(connection: Connection, *, at_most: int) -> list[UUID]:
    """Return spaces whose log has more than was folded, those that lag most first. Reads every space: ask slowly."""
    return [row[0] for row in await connection.fetch(_LAGGING, at_most)]


async def try_lock(connection: Connection, spaces: Sequence[UUID]) -> list[UUID]:
    """Return those of the spaces that nobody else folds now; they are this connection's until it is given back."""
    rows = await connection.fetch(
        "SELECT space FROM unnest($1::uuid[]) AS space WHERE pg_try_advisory_lock(hashtextextended(space::text, $2))",
        spaces,
        _LOCK_SEED,
    )
    return [row[0] for row in rows]


async def lock(connection: Connection, space: UUID) -> None:
    """Wait until nobody else folds the space; it is this connection's until it is given back."""
    await connection.execute("SELECT pg_advisory_lock(hashtextextended($1, $2))", str(space), _LOCK_SEED)


async def standings(connection: Connection, spaces: Sequence[UUID]) -> list[Standing]:
    """Return where the spaces stand, those that exist, in the order asked."""
    rows = {row[0]: row for row in await connection.fetch(_STANDINGS, spaces)}
    return [
        Standing(space, row[1], row[2], int.from_bytes(row[3], "big"), row[4])
        for space in spaces
        if (row := rows.get(space)) is not None
    ]


async def held(connection: Connection, keys: Collection[Key]) -> dict[Key, Held]:
    """Return what is there of these documents, without the snapshots."""
    rows = await connection.fetch(_HELD, *_columns(keys, 3))
    return {Key(*row[:3]): Held(row[3], int.from_bytes(row[4], "big")) for row in map(tuple, rows)}


async def snapshots(connection: Connection, keys: Collection[Key]) -> dict[Key, bytes]:
    """Return the snapshots of documents that exist."""
    if not keys:
        return {}
    return {
        Key(*row[:3]): row[3] for row in map(tuple, await connection.fetch(_SNAPSHOTS, *_columns(keys, 3)))
    }


async def move(connection: Connection, moves: Sequence[tuple[Standing, Standing]]) -> bool:
    """Move spaces on, each (from, to). False if one of them has been moved by others meanwhile: then roll back."""
    rows = await connection.fetch(
        _MOVE,
        [old.space for old, _ in moves],
        [old.position for old, _ in moves],
        [new.position for _, new in moves],
        [new.digest.to_bytes(16, "big") for _, new in moves],
        [new.records for _, new in moves],
    )
    return len(rows) == len(moves)


async def store(
    connection: Connection, new: Sequence[tuple[Key, Folded]], known: Sequence[tuple[Key, Folded]]
) -> None:
    """Store documents with their texts: those that were not there, and those that were.

    Listed as gone are the vectors of deleted records, and those of parts that had a text and have none any more.
    """
    parts: list[Gone] = []
    gone = {key: Gone(*key, vectors.ALL_PARTS) for key, made in (*new, *known) if made.deleted}
    if new:
        await connection.copy_records_to_table("documents", records=_records(new), columns=_COLUMNS)
        await connection.copy_records_to_table("texts", records=_texts(new), columns=_TEXT_COLUMNS)
    if known:
        await connection.execute(_UPDATE, *_columns(_records(known), len(_COLUMNS)))
        texts = _columns(_texts(known), len(_TEXT_COLUMNS))
        await connection.execute(_STORE_TEXTS, *texts)
        dropped = await connection.fetch(_DROP_TEXTS, *_columns([key for key, _ in known], 3), *texts[:4])
        parts = [Gone(*row) for row in dropped if Key(*row[:3]) not in gone]
    await vectors.list_gone(connection, [*gone.values(), *parts])


async def quarantine(connection: Connection, refused: Sequence[tuple[Key, int, str]]) -> None:
    """Note updates (record, position, reason) that are not in their documents."""
    if refused:
        rows = [
            (key.space, position, key.collection, key.record, reason.replace("\0", "\N{SYMBOL FOR NULL}"))
            for key, position, reason in refused
        ]
        await connection.execute(_QUARANTINE, *_columns(rows, 5))


async def clear(connection: Connection, space: UUID) -> None:
    """Forget everything that was folded of a space."""
    for table in ("documents", "texts", "quarantine", "materializations"):
        await connection.execute(f"DELETE FROM {table} WHERE space_id = $1", space)


def _records(documents: Sequence[tuple[Key, Folded]]) -> list[tuple[object, ...]]:
    return [
        (*key, made.position, made.snapshot, made.clocks, made.digest, made.deleted, made.value)
        for key, made in documents
    ]


def _texts(documents: Sequence[tuple[Key, Folded]]) -> list[tuple[object, ...]]:
    return [(*key, *text) for key, made in documents for text in made.texts]


def _columns(rows: Collection[tuple[object, ...]], width: int) -> list[list[object]]:
    return [[row[column] for row in rows] for column in range(width)]
