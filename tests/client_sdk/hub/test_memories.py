"""A persona's memories are found by what they are, through an index, as a value and live."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from client_sdk.errors import QueryError
from client_sdk.hub import Hub, Memory
from client_sdk.query import Query

__all__: list[str] = []

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


async def plan_of(hub: Hub, query: Query[Any]) -> str:
    """Return how SQLite goes about a query."""
    sql, parameters = query.plan.sql(query._table.select)
    rows = await hub.client._writer.read(
        lambda connection: connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    )
    return "\n".join(row[3] for row in rows)


def memory(name: str, **values: Any) -> Memory:
    return Memory(**({"id": name, "persona_id": "wren", "type": "event", "name": name} | values))


async def test_a_personas_memories_come_by_importance_then_by_last_access(hub: Hub) -> None:
    await hub.memories.insert_many(
        [
            memory("low", importance=10, last_accessed=NOW),
            memory("old", importance=80, last_accessed=NOW - DAY),
            memory("new", importance=80, last_accessed=NOW),
            memory("never", importance=80),
            memory("other", importance=99, persona_id="heron"),
        ]
    )
    assert [one.id for one in await hub.memories.of("wren").all()] == ["new", "old", "never", "low"]
    assert [one.id for one in await hub.memories.of("wren", limit=2).all()] == ["new", "old"]
    assert await hub.memories.of("nobody").count() == 0


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"type": "task"}, {"task"}),
        ({"importance_min": 60}, {"task", "cold"}),
        ({"importance_min": 0}, {"task", "cold", "plain"}),
        ({"tier": "cold"}, {"cold"}),
        ({"since": NOW}, {"cold", "plain"}),
        ({"until": NOW}, {"task"}),
        ({"since": NOW, "until": NOW + DAY}, {"cold"}),
        ({"type": "event", "importance_min": 50, "tier": "hot", "since": NOW - DAY}, {"plain"}),
    ],
)
async def test_each_bound_keeps_what_fits(hub: Hub, asked: dict[str, Any], found: set[str]) -> None:
    await hub.memories.insert_many(
        [
            memory("task", type="task", importance=60, created_at=NOW - DAY),
            memory("cold", memory_tier="cold", importance=90, created_at=NOW),
            memory("plain", created_at=NOW + DAY),
        ]
    )
    assert {one.id for one in await hub.memories.of("wren", **asked).all()} == found


async def test_at_most_a_hundred_come_unless_more_are_asked_for(hub: Hub) -> None:
    await hub.memories.insert_many([memory(f"m{n}") for n in range(120)])
    assert len(await hub.memories.of("wren").all()) == 100
    assert await hub.memories.of("wren", limit=1_000).count() == 120


async def test_a_wrong_bound_is_refused_before_anything_runs(hub: Hub) -> None:
    with pytest.raises(QueryError):
        hub.memories.of("wren", importance_min="high")  # type: ignore[arg-type]
    with pytest.raises(QueryError):
        hub.memories.of("wren", limit=-1)


async def test_a_personas_memories_are_a_live_query(hub: Hub) -> None:
    told = hub.memories.of("wren", importance_min=60).watch()
    assert await anext(told) == []
    await hub.memories.insert(memory("a", importance=50))
    await hub.memories.set_importance("a", 70)
    assert [one.id for one in await anext(told)] == ["a"]
    await hub.memories.set_importance("a", 10)
    assert await anext(told) == []


@pytest.mark.parametrize(
    "asked", [{}, {"importance_min": 60}, {"tier": "hot"}, {"since": NOW}, {"type": "event", "tier": "warm"}]
)
async def test_an_index_serves_a_personas_memories(hub: Hub, asked: dict[str, Any]) -> None:
    plan = await plan_of(hub, hub.memories.of("wren", **asked))
    assert "SEARCH memories USING INDEX memories_by_persona_id" in plan
    assert "SCAN" not in plan
    if "type" not in asked:  # in the order of importance: only those of one importance are sorted
        assert "memories_by_persona_id_and_importance" in plan
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan
