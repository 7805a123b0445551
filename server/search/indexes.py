"""What a space gets once it is large: an HNSW index of its own for each of its models, and one of its words.

A shared HNSW index would list the neighbours from all spaces and be filtered after, so a small space would find nothing
(recall 0.01 to 0.65 was measured); a small space is compared whole, through the covering index of `vectors`. From
``PJAIS_SEARCH_INDEX_FROM`` vectors on that takes longer than an index that holds the space alone: ``WHERE space_id =
…``. Postgres finds it by itself, since searches are planned for their very values.

One process at a time tends all indexes, beside the requests: it makes what is missing (``CONCURRENTLY``: nobody who
writes waits), drops what is broken or no longer needed, and leaves alone what is not named as these are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import structlog

__all__ = ["Index", "Listener", "needed", "tend"]

#: A connection outside the pool: an index takes longer to build than any statement of a request may.
Listener: TypeAlias = Callable[[], Coroutine[Any, Any, "asyncpg.Connection[asyncpg.Record]"]]

_PREFIX: Final = "large_"
_LOCK: Final = int.from_bytes(b"pjais-ix", "big")
#: An index goes when its space has shrunk to half of what made it: spaces at the edge must not build again and again.
_KEPT_SHARE: Final = 0.5
#: pgvector's own defaults, with more care while building: recall comes before the time that a build takes.
_BUILD: Final = "m = 16, ef_construction = 100"
#: A build that fits into this is made in memory, which is many times faster: 200,000 vectors of 384 take 0.4 GB.
_BUILD_MEMORY: Final = "512MB"

_LARGE: Final = """
SELECT space_id, model, dimensions FROM models WHERE vectors >= $1 AND dimensions <= 4000 ORDER BY space_id, model
"""
_WORDY: Final = """
SELECT space_id FROM models WHERE vectors >= $1
UNION SELECT space_id FROM materializations WHERE records >= $1 ORDER BY space_id
"""
_PRESENT: Final = """
SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE relname LIKE 'large\\_%' AND relnamespace = current_schema()::regnamespace
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Index:
    """An index of one space: of a model's vectors, or (model "") of its words."""

    space: UUID
    model: str = ""
    dimensions: int = 0

    @property
    def name(self) -> str:
        """A name that no other has."""
        kind = f"{self.dimensions} {self.model}" if self.model else "words"
        mark = hashlib.blake2b(f"{self.space} {kind}".encode(), digest_size=16).hexdigest()
        return f"{_PREFIX}{'vectors' if self.model else 'texts'}_{mark}"

    @property
    def sql(self) -> str:
        """What makes it. Utility statements take no parameters: a space is a UUID, a model is quoted here."""
        create = f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {self.name} ON"
        if not self.model:
            return f"{create} texts USING gin (words) WHERE space_id = '{self.space}'"
        model = self.model.replace("'", "''")
        return (
            f"{create} vectors USING hnsw ((vector::halfvec({self.dimensions})) halfvec_cosine_ops) WITH ({_BUILD}) "
            f"WHERE space_id = '{self.space}' AND model = '{model}'"
        )


async def needed(connection: asyncpg.Connection[asyncpg.Record], size_min: int) -> list[Index]:
    """Return the indexes of spaces with at least so many vectors of a model, or records.

    Reads every space: ask slowly.
    """
    vectors = [Index(*row) for row in await connection.fetch(_LARGE, size_min)]
    return vectors + [Index(row[0]) for row in await connection.fetch(_WORDY, size_min)]


async def tend(listener: Listener, size_min: int) -> None:
    """Make what is missing and drop what is not needed, unless another process is at it.

    Raises:
        DatabaseUnavailable: nothing answers.
        asyncpg.PostgresError: an index could not be made; what is broken is dropped the next time.
    """
    connection = await listener()
    try:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            return
        wanted = {index.name: index for index in await needed(connection, size_min)}
        kept = {index.name for index in await needed(connection, max(1, int(size_min * _KEPT_SHARE)))}
        present = {row["relname"]: row["indisvalid"] for row in await connection.fetch(_PRESENT)}
        for name, is_valid in present.items():
            if not is_valid or name not in kept:
                await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
                _log.info("an index of a space was dropped", name=name, was_broken=not is_valid)
        await connection.execute(f"SET maintenance_work_mem = '{_BUILD_MEMORY}'")
        for name, index in wanted.items():
            if not present.get(name):
                await connection.execute(index.sql)
                _log.info("a large space got an index of its own", name=name, space=str(index.space))
    finally:
        await connection.close()
