"""Vectors of a space, as devices made them: taken in, given to other devices, told by model.

A space's vectors have positions of their own, in the order of commits: each request that changes some locks the space's
row of ``vector_heads`` first, so whoever has read up to a position has missed nothing before it. A vector that
comes again as it stands keeps its position; a changed one moves to the end. The last that comes counts: devices
compare the ``hash`` of the text that a vector stands for, the server cannot.

A vector may come before its record: it is kept, and `server.search` does not show it yet. Of a record that was folded
as deleted none is taken in, and those that are there are listed in the transaction that folds it so, as are those of a
part that loses its text; nobody finds them any more, and soon after they are removed (`server.materialize.sweep`).
Where the record has updates that are not folded yet nothing is decided: they may restore it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

from crdt.limits import (
    COLLECTION_NAME_BYTES_MAX,
    PUSH_VECTORS_MAX,
    RECORD_ID_BYTES_MAX,
    VECTOR_HASH_BYTES_MAX,
    VECTOR_MODEL_BYTES_MAX,
    VECTORS_MODELS_MAX,
    VECTORS_PAGE_BYTES_TARGET,
)
from crdt.vectors import SCALE_BYTES, check_vector, packed_vector
from server.database import Connection, storable
from server.errors import MalformedMessage, ModelMismatch, TooLarge

__all__ = [
    "ALL_PARTS",
    "SLICE_VECTORS",
    "Gone",
    "Model",
    "Placed",
    "StoredVector",
    "Vector",
    "VectorsSlice",
    "after",
    "check_size",
    "checked",
    "forget",
    "held",
    "list_gone",
    "models",
    "put",
    "remove_gone",
    "spaces_with_gone",
]

_PLACE_MAX: Final = 2**31 - 1  # Postgres' integer
#: Vectors made ready in one go before others get the event loop: 1 ms at 4,000 dimensions.
SLICE_VECTORS: Final = 8
#: What one transaction removes: 5,000 vectors take 0.1 s, and a record has a hundred where people talk.
_FORGOTTEN_AT_ONCE: Final = 5_000
_GONE_AT_ONCE: Final = 50
#: In place of a part: all of the record.
ALL_PARTS: Final = -2

_TEXT_BY_BYTE: Final = tuple(str(byte - 256 if byte > 127 else byte) for byte in range(256))  # noqa: PLR2004
#: From here to 2,047 a float16 ends in a byte that counts in ones: what is moved here is read byte by byte.
_READABLE: Final = 1_024 + 128
_SIGNED: Final = bytes(byte ^ 0x80 for byte in range(256))


class Model(NamedTuple):
    """A model that the space has vectors of."""

    name: str
    dimensions: int
    vectors: int


class Vector(NamedTuple):
    """What a device made of a record's part (-1: the record itself). ``data`` as in `crdt.vectors`, checked."""

    collection: str
    record_id: str
    part: int
    model: str
    hash: bytes
    data: bytes

    @property
    def dimensions(self) -> int:
        """How many components it has."""
        return len(self.data) - SCALE_BYTES


class StoredVector(NamedTuple):
    """A vector at its position."""

    position: int
    vector: Vector


class Placed(NamedTuple):
    """Where the space's newest vector was, and is now."""

    before: int
    head: int


class VectorsSlice(NamedTuple):
    """Vectors in order of position. ``is_last``: there were no more."""

    vectors: list[StoredVector]
    through: int
    is_last: bool


class Gone(NamedTuple):
    """What has no text any more: a part of a record, or `ALL_PARTS`."""

    space: UUID
    collection: str
    record_id: str
    part: int


_LOCK: Final = """
INSERT INTO vector_heads (space_id) VALUES ($1)
ON CONFLICT (space_id) DO UPDATE SET head = vector_heads.head RETURNING head
"""
_UNFOLDED: Final = """EXISTS (
        SELECT FROM log WHERE log.space_id = {0}.space_id AND log.collection = {0}.collection
          AND log.record_id = {0}.record_id AND log.position > coalesce(
            (SELECT position FROM materializations WHERE materializations.space_id = {0}.space_id), 0)
    )"""
_PUT: Final = f"""
WITH sent AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::integer[], $5::text[], $6::integer[], $7::bytea[], $8::real[],
                         $9::text[]) WITH ORDINALITY
        AS sent (collection, record_id, part, model, dimensions, hash, scale, vector, place)
), stored AS (
    INSERT INTO vectors (space_id, collection, record_id, part, model, dimensions, hash, scale, vector, position)
    SELECT $1, collection, record_id, part, model, dimensions, hash, scale, vector::halfvec, $10 + place
    FROM sent WHERE NOT EXISTS (
        SELECT FROM documents WHERE documents.space_id = $1 AND documents.collection = sent.collection
          AND documents.record_id = sent.record_id AND documents.deleted AND NOT {_UNFOLDED.format("documents")}
    )
    ORDER BY place
    ON CONFLICT (space_id, collection, record_id, part, model) DO UPDATE
    SET hash = excluded.hash, scale = excluded.scale, vector = excluded.vector, position = excluded.position
    WHERE (vectors.hash, vectors.scale, vectors.vector) <> (excluded.hash, excluded.scale, excluded.vector)
    RETURNING model, dimensions, position, xmax = 0 AS is_new
), counted AS (
    INSERT INTO models (space_id, model, dimensions, vectors)
    SELECT $1, model, min(dimensions), count(*) FILTER (WHERE is_new) FROM stored GROUP BY model
    ON CONFLICT (space_id, model) DO UPDATE SET vectors = models.vectors + excluded.vectors
)
UPDATE vector_heads SET head = (SELECT max(position) FROM stored)
WHERE space_id = $1 AND EXISTS (SELECT FROM stored) RETURNING head
"""
# Locks what is listed already, so that whoever removes it meanwhile leaves it listed.
_LIST_GONE: Final = """
INSERT INTO vectors_gone (space_id, collection, record_id, part)
SELECT DISTINCT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[])
ON CONFLICT (space_id, collection, record_id, part) DO UPDATE SET part = excluded.part
"""
# A record that was restored since, or a part that has a text again, keeps its vectors.
_REMOVE_GONE: Final = f"""
WITH decided AS (
    DELETE FROM vectors_gone WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM vectors_gone WHERE space_id = $1 AND NOT {_UNFOLDED.format("vectors_gone")} LIMIT $2
    )) RETURNING collection, record_id, part
), removed AS (
    DELETE FROM vectors USING decided
    WHERE vectors.space_id = $1 AND vectors.collection = decided.collection
      AND vectors.record_id = decided.record_id AND decided.part IN ({ALL_PARTS}, vectors.part)
      AND CASE WHEN decided.part = {ALL_PARTS} THEN EXISTS (
        SELECT FROM documents WHERE documents.space_id = $1 AND documents.collection = decided.collection
          AND documents.record_id = decided.record_id AND documents.deleted
      ) ELSE NOT EXISTS (
        SELECT FROM texts WHERE texts.space_id = $1 AND texts.collection = decided.collection
          AND texts.record_id = decided.record_id AND texts.part = decided.part
      ) END
    RETURNING vectors.model
), counted AS (
    UPDATE models SET vectors = models.vectors - gone.vectors
    FROM (SELECT model, count(*) AS vectors FROM removed GROUP BY model) AS gone
    WHERE models.space_id = $1 AND models.model = gone.model
)
SELECT count(*) FROM decided
"""
_FORGET: Final = """
WITH removed AS (
    DELETE FROM vectors WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM vectors WHERE space_id = $1 AND model = $2 LIMIT $3
    )) RETURNING 1
), counted AS (
    UPDATE models SET vectors = vectors - (SELECT count(*) FROM removed) WHERE space_id = $1 AND model = $2
)
SELECT count(*) FROM removed
"""
# As in `server.log`: the running sum ends the page at the vector that reaches the target.
_AFTER: Final = f"""
SELECT position, collection, record_id, part, model, hash, scale,
       halfvec_send(vector + array_fill({_READABLE}, ARRAY[dimensions])::halfvec) AS readable
FROM (
    SELECT *, sum({SCALE_BYTES} + dimensions) OVER (ORDER BY position) - {SCALE_BYTES} - dimensions AS bytes_before
    FROM (
        SELECT position, collection, record_id, part, model, hash, scale, dimensions, vector FROM vectors
        WHERE space_id = $1 AND position > $2 AND ($3::text IS NULL OR model = $3) ORDER BY position LIMIT $4
    ) AS next
) AS sized
WHERE bytes_before < $5 ORDER BY position
"""


async def put(connection: Connection, space: UUID, sent: Sequence[Vector]) -> Placed:
    """Store vectors, in a transaction of the caller's.

    They are `checked`. Of several for one part and model the last counts. Those of records that were folded as deleted
    are not kept.

    Raises:
        ModelMismatch: the space has vectors of this model with other dimensions.
        TooLarge: it would have vectors of too many models.
    """
    rows = []
    for place, vector in enumerate({vector[:4]: vector for vector in sent}.values()):
        if place % SLICE_VECTORS == 0:
            await asyncio.sleep(0)
        rows.append(
            (*vector[:4], vector.dimensions, vector.hash, check_vector(vector.data), _text(vector.data))
        )
    head: int = await connection.fetchval(_LOCK, space)
    dimensions = {model.name: model.dimensions for model in await models(connection, space)}
    for vector in sent:
        if dimensions.setdefault(vector.model, vector.dimensions) != vector.dimensions:
            raise ModelMismatch(vector.model, vector.dimensions, await models(connection, space))
    if len(dimensions) > VECTORS_MODELS_MAX:
        raise TooLarge("VECTORS_MODELS_MAX", size=len(dimensions), allowed=VECTORS_MODELS_MAX)
    columns = [[row[column] for row in rows] for column in range(8)]
    moved: int | None = await connection.fetchval(_PUT, space, *columns, head)
    return Placed(head, head if moved is None else moved)


async def after(
    connection: Connection,
    space: UUID,
    position: int,
    *,
    model: str | None = None,
    limit: int = PUSH_VECTORS_MAX,
    bytes_target: int = VECTORS_PAGE_BYTES_TARGET,
) -> VectorsSlice:
    """Return the next vectors at positions > ``position``, of one model or of all."""
    rows = await connection.fetch(_AFTER, space, position, model, limit, bytes_target)
    found = [
        StoredVector(row[0], Vector._make((*row[1:6], _data(row[6], row[7])))) for row in map(tuple, rows)
    ]
    is_cut = len(found) == limit or sum(len(one.vector.data) for one in found) >= bytes_target
    return VectorsSlice(found, found[-1].position if found else position, not is_cut)


async def models(connection: Connection, space: UUID) -> list[Model]:
    """Return the models that the space has vectors of, the one with most first."""
    rows = await connection.fetch(
        "SELECT model, dimensions, vectors FROM models WHERE space_id = $1 ORDER BY vectors DESC, model",
        space,
    )
    return [Model(*row) for row in rows]


async def held(connection: Connection, space: UUID, model: str) -> int:
    """Return how many vectors of a model the space has."""
    found = await connection.fetchval(
        "SELECT vectors FROM models WHERE space_id = $1 AND model = $2", space, model
    )
    return found or 0


async def forget(connection: Connection, space: UUID, model: str) -> bool:
    """Forget vectors of a model, in a transaction of the caller's: another has taken its place.

    So many at a time that the space's vectors are not held for long. True: there are more.
    """
    await connection.fetchval(_LOCK, space)
    removed: int = await connection.fetchval(_FORGET, space, model, _FORGOTTEN_AT_ONCE)
    if removed == _FORGOTTEN_AT_ONCE:
        return True
    await connection.execute("DELETE FROM models WHERE space_id = $1 AND model = $2", space, model)
    return False


def check_size(sizes: Sequence[int]) -> None:
    """Raise `TooLarge` if so many vectors, of so many bytes each, do not go into one push."""
    if len(sizes) > PUSH_VECTORS_MAX:
        raise TooLarge("PUSH_VECTORS_MAX", size=len(sizes), allowed=PUSH_VECTORS_MAX)
    if sum(sizes[:-1]) >= VECTORS_PAGE_BYTES_TARGET:
        raise TooLarge("VECTORS_PAGE_BYTES_TARGET", size=sum(sizes), allowed=VECTORS_PAGE_BYTES_TARGET)


def checked(vector: Vector) -> Vector:
    """Return a vector that came from a device, once it is one.

    Raises:
        MalformedMessage: there can be no such record, part, model or hash.
        BadVector: its data is no vector.
    """
    for what, text, most in (
        ("collection", vector.collection, COLLECTION_NAME_BYTES_MAX),
        ("record", vector.record_id, RECORD_ID_BYTES_MAX),
        ("model", vector.model, VECTOR_MODEL_BYTES_MAX),
    ):
        if text != storable(text) or not 1 <= len(text.encode()) <= most:
            raise MalformedMessage(f"{what} is a text of 1 to {most} bytes")
    if not -1 <= vector.part <= _PLACE_MAX:
        raise MalformedMessage("part is -1 for the record itself, or the place of an item")
    if not 1 <= len(vector.hash) <= VECTOR_HASH_BYTES_MAX:
        raise MalformedMessage(f"hash has 1 to {VECTOR_HASH_BYTES_MAX} bytes")
    check_vector(vector.data)
    return vector


async def list_gone(connection: Connection, gone: Sequence[Gone]) -> None:
    """List what is gone, of several spaces, in the transaction that folds it so. `remove_gone` does the rest."""
    if gone:
        await connection.execute(_LIST_GONE, *([row[column] for row in gone] for column in range(4)))


async def spaces_with_gone(connection: Connection, *, at_most: int) -> list[UUID]:
    """Return spaces where something is listed as gone."""
    rows = await connection.fetch("SELECT DISTINCT space_id FROM vectors_gone LIMIT $1", at_most)
    return [row[0] for row in rows]


async def remove_gone(connection: Connection, space: UUID) -> bool:
    """Remove vectors of what is listed as gone, in a transaction of the caller's, of a few records at a time.

    Whoever is sending vectors to the space is waited for: either it sees the record deleted, or its vectors are seen
    here. A model that nothing is left of is forgotten. Positions are not given again. True: there may be more.
    """
    await connection.fetchval(_LOCK, space)
    decided: int = await connection.fetchval(_REMOVE_GONE, space, _GONE_AT_ONCE)
    await connection.execute("DELETE FROM models WHERE space_id = $1 AND vectors <= 0", space)
    return decided == _GONE_AT_ONCE


def _text(data: bytes) -> str:
    """A vector's components as pgvector reads them: ``[1,-2]``."""
    return f"[{','.join(map(_TEXT_BY_BYTE.__getitem__, data[SCALE_BYTES:]))}]"


def _data(scale: float, readable: bytes) -> bytes:
    """A vector as it came, from what `_AFTER` has: two numbers of 16 bits, then components as float16, big-endian."""
    return packed_vector(scale, readable[5::2].translate(_SIGNED))
