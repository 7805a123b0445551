"""Vectors of a space, as devices made them: taken in, given to other devices, told by model.

A space's vectors have positions of their own, in the order of commits: each request that changes some locks the space's
row of ``vector_heads`` first, so whoever has read up to a position has missed nothing before it. A vector that
comes again as it stands keeps its position; a changed one moves to the end. The last that comes counts: devices
compare the ``hash`` of the text that a vector stands for, the server cannot.

A vector may come before its record, or stay after its deletion: `server.search` shows neither.
"""

from __future__ import annotations

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
)
from crdt.vectors import SCALE_BYTES, packed_vector, unpacked_vector
from server.database import Connection, storable
from server.errors import MalformedMessage, ModelMismatch, TooLarge

__all__ = [
    "Model",
    "Placed",
    "StoredVector",
    "Vector",
    "VectorsSlice",
    "after",
    "checked",
    "forget",
    "models",
    "put",
]

_PLACE_MAX: Final = 2**31 - 1  # Postgres' integer


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


_LOCK: Final = """
INSERT INTO vector_heads (space_id) VALUES ($1)
ON CONFLICT (space_id) DO UPDATE SET head = vector_heads.head RETURNING head
"""
_PUT: Final = """
WITH sent AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::integer[], $5::text[], $6::integer[], $7::bytea[], $8::real[],
                         $9::text[]) WITH ORDINALITY
        AS sent (collection, record_id, part, model, dimensions, hash, scale, vector, place)
), stored AS (
    INSERT INTO vectors (space_id, collection, record_id, part, model, dimensions, hash, scale, vector, position)
    SELECT $1, collection, record_id, part, model, dimensions, hash, scale, vector::halfvec, $10 + place
    FROM sent ORDER BY place
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
_AFTER: Final = """
SELECT position, collection, record_id, part, model, hash, scale, vector::text AS vector FROM vectors
WHERE space_id = $1 AND position > $2 AND ($3::text IS NULL OR model = $3) ORDER BY position LIMIT $4
"""


async def put(connection: Connection, space: UUID, sent: Sequence[Vector]) -> Placed:
    """Store vectors, in a transaction of the caller's.

    Of several for one part and model the last counts.

    Raises:
        ModelMismatch: the space has vectors of this model with other dimensions.
        TooLarge: it would have vectors of too many models.
    """
    head: int = await connection.fetchval(_LOCK, space)
    dimensions = {model.name: model.dimensions for model in await models(connection, space)}
    for vector in sent:
        if dimensions.setdefault(vector.model, vector.dimensions) != vector.dimensions:
            raise ModelMismatch(vector.model, vector.dimensions, await models(connection, space))
    if len(dimensions) > VECTORS_MODELS_MAX:
        raise TooLarge("VECTORS_MODELS_MAX", size=len(dimensions), allowed=VECTORS_MODELS_MAX)
    last = {vector[:4]: vector for vector in sent}
    rows = [
        (*vector[:4], vector.dimensions, vector.hash, scale, str(components))
        for vector in last.values()
        for scale, components in [unpacked_vector(vector.data)]
    ]
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
) -> VectorsSlice:
    """Return the next vectors at positions > ``position``, of one model or of all."""
    rows = await connection.fetch(_AFTER, space, position, model, limit)
    found = [
        StoredVector(row[0], Vector._make((*row[1:6], packed_vector(row[6], _components(row[7])))))
        for row in map(tuple, rows)
    ]
    return VectorsSlice(found, found[-1].position if found else position, len(found) < limit)


async def models(connection: Connection, space: UUID) -> list[Model]:
    """Return the models that the space has vectors of, the one with most first."""
    rows = await connection.fetch(
        "SELECT model, dimensions, vectors FROM models WHERE space_id = $1 ORDER BY vectors DESC, model",
        space,
    )
    return [Model(*row) for row in rows]


async def forget(connection: Connection, space: UUID, model: str) -> None:
    """Forget the vectors of a model, in a transaction of the caller's: another has taken its place."""
    await connection.fetchval(_LOCK, space)
    await connection.execute("DELETE FROM vectors WHERE space_id = $1 AND model = $2", space, model)
    await connection.execute("DELETE FROM models WHERE space_id = $1 AND model = $2", space, model)


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
    unpacked_vector(vector.data)
    return vector


def _components(text: str) -> list[int]:
    """Whole numbers from pgvector's ``[1,-2]``."""
    return [int(number) for number in text[1:-1].split(",")]
