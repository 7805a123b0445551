"""The Hub's memories: the verbs on one, the query for a persona's, and how they hang together.

Relationships are records of their own, in a collection beside the four that only these verbs write
(`client_sdk.hub.relations` says how they are counted).
"""

from __future__ import annotations

from client_sdk.collection import Collection
from client_sdk.hub import relations
from client_sdk.hub.collections import HubCollection
from client_sdk.hub.records import Memory, MemoryTier, MemoryType, Relation, Time
from client_sdk.hub.relations import Related
from client_sdk.query import Query

__all__ = ["Memories"]


class Memories(HubCollection[Memory]):
    """The memories of all personas, and the relations between them (`client_sdk.hub.relations`)."""

    def __init__(self, base: Collection[Memory], relations: Collection[Relation]) -> None:
        super().__init__(base)
        self.relations = HubCollection(relations)

    def of(
        self,
        persona: str,
        *,
        type: MemoryType | None = None,
        importance_min: int | None = None,
        tier: MemoryTier | None = None,
        since: Time | None = None,
        until: Time | None = None,
        limit: int = 100,
    ) -> Query[Memory]:
        """Return the query for a persona's memories, the most important first, of those the last accessed.

        ``since`` and ``until`` (exclusive) bound when they were created. Raises `QueryError`.
        """
        # The least importance is always asked for: it leads SQLite, which has no statistics, to the index that gives
        # the memories in their order. Without it, it took the one on the tier, and read a third of all memories.
        query = self.where(persona_id=persona).where("importance", ">=", importance_min or 0)
        asked = (
            ("type", "=", type),
            ("memory_tier", "=", tier),
            ("created_at", ">=", since),
            ("created_at", "<", until),
        )
        for condition in asked:
            if condition[2] is not None:
                query = query.where(*condition)
        return query.order_by("importance", "desc").order_by("last_accessed", "desc").limit(limit)

    async def touch(self, memory: str) -> Memory:
        """Note that a memory was used now; return it. Raises `RecordNotFound`."""
        return await self._set(memory, None, last_accessed=...)

    async def set_importance(self, memory: str, importance: int) -> Memory:
        """Set a memory's importance, 0 to 100; return it. Raises `RecordNotFound`, `ValidationError`."""
        return await self._set(memory, None, importance=importance)

    async def connect(self, a: str, b: str, kind: str = "related") -> Relation:
        """Let two memories hang together, counted on both; return the relation. Once it holds, it changes nothing.

        Which is named first is kept, and makes no other relation.

        Raises:
            RecordNotFound: one of the memories is not there.
            ValidationError: they are one memory, or the kind has not 1 to 100 characters.
        """
        table = self.relations.table
        return await self._writer.run(
            lambda corridor: relations.connect(corridor, table, self._table, a, b, kind), brief=True
        )

    async def disconnect(self, a: str, b: str, kind: str = "related") -> None:
        """Let two memories hang together no more, uncounted on both. Where they do not, it changes nothing.

        Raises `ValidationError` as `connect`.
        """
        table = self.relations.table
        await self._writer.run(
            lambda corridor: relations.disconnect(corridor, table, self._table, a, b, kind), brief=True
        )

    def connections(self, memory: str, kind: str | None = None) -> Query[Relation]:
        """Return the query for the relations that a memory counts, also those to a deleted one."""
        query = self.relations.where(is_connected=True)
        if kind is not None:
            query = query.where(kind=kind)
        return query.or_(("from_id", "=", memory), ("to_id", "=", memory))

    async def related(
        self, memory: str, *, depth: int = 1, kind: str | None = None, limit: int = 100
    ) -> list[Related]:
        """Return the memories that one leads to in at most ``depth`` steps (1 to 8), nearest first, then by importance.

        Deleted ones are left out, and lead nowhere. Empty where there is no such memory. Raises `QueryError`.
        """
        return await self._writer.read(
            lambda connection: relations.related(
                connection, self._table, memory, depth=depth, kind=kind, limit=limit
            )
        )

    async def recount(self) -> int:
        """Set right what devices counted twice that connected one pair at once; return for how many relations.

        Run it on one device: two that do so at once correct twice, and are set right by the next one.
        """
        return await self._writer.run(
            lambda corridor: relations.recount(corridor, self.relations.table, self._table)
        )
