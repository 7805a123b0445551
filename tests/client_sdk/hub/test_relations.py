"""Memories hang together: once for a pair and a kind, counted on both, walked in circles without end."""

from __future__ import annotations

import asyncio
import io
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client_sdk.errors import QueryError, RecordNotFound
from client_sdk.hub import Hub, Memory
from client_sdk.hub.relations import _WALK, DEPTH_MAX, relation_id
from client_sdk.transfer import export_to, import_file
from crdt.errors import ValidationError
from tests.client_sdk.hub.conftest import Pair
from tests.client_sdk.hub.test_memories import NOW, plan_of

__all__: list[str] = []


async def remember(hub: Hub, *names: str) -> None:
    await hub.memories.insert_many([Memory(id=name, type="concept", name=name) for name in names])


async def counts(hub: Hub) -> dict[str, int]:
    return {memory.id: memory.connection_count for memory in await hub.memories.all()}


async def reached(hub: Hub, start: str, depth: int) -> dict[str, int]:
    found = await hub.memories.related(start, depth=depth, limit=1_000)
    assert len({one.memory.id for one in found}) == len(found)
    return {one.memory.id: one.distance for one in found}


# ------------------------------------------------------------------------------------------ one relationship


async def test_a_connection_is_a_record_counted_on_both_in_one_commit(hub: Hub) -> None:
    await remember(hub, "a", "b", "c")
    heard: list[int] = []
    hub.client._writer.listeners.append(lambda committed: heard.append(len(committed.changes)))
    relation = await hub.memories.connect("a", "b", "explains")
    assert (relation.from_id, relation.to_id, relation.kind) == ("a", "b", "explains")
    assert len(heard) == 1
    assert await counts(hub) == {"a": 1, "b": 1, "c": 0}
    assert [one.id for one in await hub.memories.connections("a").all()] == [relation.id]
    assert [one.id for one in await hub.memories.connections("b", "explains").all()] == [relation.id]
    assert await hub.memories.connections("b", "refutes").count() == 0
    assert await hub.memories.connections("c").all() == []


async def test_connecting_twice_counts_once_whichever_is_named_first(hub: Hub) -> None:
    await remember(hub, "a", "b")
    first = await hub.memories.connect("a", "b", "k")
    assert await hub.memories.connect("b", "a", "k") == await hub.memories.connect("a", "b", "k") == first
    assert await counts(hub) == {"a": 1, "b": 1}
    await hub.memories.connect("a", "b", "another kind")
    assert await counts(hub) == {"a": 2, "b": 2}


async def test_disconnecting_twice_uncounts_once_and_connecting_again_counts_again(hub: Hub) -> None:
    await remember(hub, "a", "b")
    await hub.memories.disconnect("a", "b", "k")
    await hub.memories.connect("a", "b", "k")
    await hub.memories.disconnect("b", "a", "k")
    await hub.memories.disconnect("a", "b", "k")
    assert await counts(hub) == {"a": 0, "b": 0}
    assert await hub.memories.connections("a").all() == []
    assert await reached(hub, "a", 1) == {}
    again = await hub.memories.connect("b", "a", "k")
    assert (again.from_id, again.to_id) == ("b", "a")
    assert await counts(hub) == {"a": 1, "b": 1}


async def test_what_cannot_be_connected_is_refused_and_nothing_is_written(hub: Hub) -> None:
    await remember(hub, "a", "b")
    pending = hub.client.status.pending
    with pytest.raises(RecordNotFound):
        await hub.memories.connect("a", "nobody", "k")
    with pytest.raises(ValidationError, match="two different memories"):
        await hub.memories.connect("a", "a", "k")
    for kind in ("", "k" * 101, 7):
        with pytest.raises(ValidationError, match="kind"):
            await hub.memories.connect("a", "b", kind)  # type: ignore[arg-type]
    assert hub.client.status.pending == pending
    assert await hub.memories.relations.count() == 0


async def test_a_count_that_was_given_goes_on_from_there(hub: Hub) -> None:
    await hub.memories.insert(Memory(id="a", type="concept", name="a", connection_count=5))
    await remember(hub, "b")
    await hub.memories.connect("a", "b")
    assert await counts(hub) == {"a": 6, "b": 1}
    assert await hub.memories.recount() == 0


async def test_connections_are_a_live_query(hub: Hub) -> None:
    await remember(hub, "a", "b")
    told = hub.memories.connections("a").watch()
    assert await anext(told) == []
    relation = await hub.memories.connect("b", "a", "k")
    assert await anext(told) == [relation]
    await hub.memories.disconnect("a", "b", "k")
    assert await anext(told) == []


def test_the_id_is_that_of_the_pair_and_the_kind() -> None:
    assert relation_id("a", "b", "k") == relation_id("b", "a", "k")
    ids = {
        relation_id(*named) for named in [("a", "b", "k"), ("a", "bk", ""), ("ab", "k", ""), ("a", "b", "c")]
    }
    assert len(ids) == 4


# ------------------------------------------------------------------------------------------------ two devices


async def test_two_devices_that_connect_one_pair_make_one_relation_and_a_recount_sets_it_right(
    pair: Pair,
) -> None:
    await remember(pair.laptop, "a", "b")
    await pair.meet()
    await pair.laptop.memories.connect("a", "b", "k")
    await pair.phone.memories.connect("b", "a", "k")
    await pair.meet()
    for hub in (pair.laptop, pair.phone):
        (relation,) = await hub.memories.connections("a").all()
        assert (relation.from_id, relation.to_id) == ("b", "a")  # the later one's
        assert await reached(hub, "a", 1) == {"b": 1}
        assert await counts(hub) == {"a": 2, "b": 2}  # each counted what it did
    assert await pair.phone.memories.recount() == 1
    await pair.meet()
    assert await counts(pair.laptop) == await counts(pair.phone) == {"a": 1, "b": 1}
    assert await pair.laptop.memories.recount() == 0


async def test_two_devices_that_disconnect_one_pair_are_set_right_by_the_next_verb_on_it(pair: Pair) -> None:
    await remember(pair.laptop, "a", "b")
    await pair.laptop.memories.connect("a", "b", "k")
    await pair.meet()
    await pair.laptop.memories.disconnect("a", "b", "k")
    await pair.phone.memories.disconnect("a", "b", "k")
    await pair.meet()
    assert await counts(pair.phone) == {"a": -1, "b": -1}
    await pair.phone.memories.connect("a", "b", "k")
    await pair.meet()
    assert await counts(pair.laptop) == {"a": 1, "b": 1}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["laptop", "phone"]),
        st.sampled_from(["connect", "disconnect", "meet", "delete", "restore"]),
        st.sampled_from([("a", "b"), ("b", "a"), ("b", "c"), ("a", "c")]),
    ),
    max_size=14,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=STEPS)
async def test_after_any_history_a_recount_makes_counts_what_the_relations_say(
    tmp_path_factory: pytest.TempPathFactory, key: bytes, steps: list[tuple[str, str, tuple[str, str]]]
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    async with Hub.open(folder / "l.db", key=key) as laptop, Hub.open(folder / "p.db", key=key) as phone:
        pair = Pair(laptop, phone)
        await remember(laptop, "a", "b", "c")
        await pair.meet()
        for who, what, both in steps:
            hub: Hub = getattr(pair, who)
            if what == "meet":
                await pair.meet()
            elif what in ("delete", "restore"):
                if (await hub.memories.get(both[0]) is None) == (what == "restore"):
                    await getattr(hub.memories, what)(both[0])
            elif what == "disconnect" or None not in [await hub.memories.get(one) for one in both]:
                await getattr(hub.memories, what)(*both, "k")
        await pair.meet()
        await laptop.memories.recount()
        for memory in ("a", "b", "c"):
            if await laptop.memories.get(memory) is None:
                await laptop.memories.restore(memory)
        await pair.meet()
        for hub in (laptop, phone):
            assert await phone.memories.recount() == 0
            told = {name: await hub.memories.connections(name).count() for name in ("a", "b", "c")}
            assert await counts(hub) == told


# ---------------------------------------------------------------------------------------------------- walking


async def test_a_walk_goes_breadth_first_through_circles(hub: Hub) -> None:
    await remember(hub, *"abcdef")
    for one, other in ("ab", "bc", "ca", "cd", "de"):
        await hub.memories.connect(one, other, "k")
    assert await reached(hub, "a", 1) == {"b": 1, "c": 1}
    assert await reached(hub, "a", 2) == {"b": 1, "c": 1, "d": 2}
    assert await reached(hub, "a", DEPTH_MAX) == {"b": 1, "c": 1, "d": 2, "e": 3}
    assert await reached(hub, "f", 3) == await reached(hub, "nobody", 3) == {}
    await hub.memories.set_importance("c", 90)
    nearest = await hub.memories.related("a", depth=2, limit=2)
    assert [one.memory.id for one in nearest] == ["c", "b"]


async def test_a_walk_keeps_to_a_kind(hub: Hub) -> None:
    await remember(hub, *"abc")
    await hub.memories.connect("a", "b", "explains")
    await hub.memories.connect("b", "c", "refutes")
    found = await hub.memories.related("a", depth=2, kind="explains")
    assert [one.memory.id for one in found] == ["b"]


async def test_a_deleted_memory_is_left_out_and_leads_nowhere_until_it_is_restored(hub: Hub) -> None:
    await remember(hub, *"abc")
    await hub.memories.connect("a", "b")
    await hub.memories.connect("b", "c")
    await hub.memories.delete("b")
    assert await reached(hub, "a", 3) == await reached(hub, "b", 3) == {}
    assert await counts(hub) == {"a": 1, "c": 1}
    assert await hub.memories.connections("a").count() == 1
    await hub.memories.restore("b")
    assert await reached(hub, "a", 3) == {"b": 1, "c": 2}


async def test_what_a_deleted_memory_counts_is_right_when_it_is_back(hub: Hub) -> None:
    await remember(hub, "a", "b")
    await hub.memories.connect("a", "b", "k")
    await hub.memories.delete("b")
    await hub.memories.disconnect("a", "b", "k")
    assert (await hub.memories.restore("b")).connection_count == 0
    assert await counts(hub) == {"a": 0, "b": 0}


@pytest.mark.parametrize("depth", [0, DEPTH_MAX + 1, True, "2"])
async def test_a_depth_out_of_bounds_is_refused(hub: Hub, depth: int) -> None:
    with pytest.raises(QueryError, match="DEPTH_MAX"):
        await hub.memories.related("a", depth=depth)


async def test_a_walk_over_a_random_graph_is_that_of_the_textbook(hub: Hub) -> None:
    chance = random.Random(5)
    names = [f"m{n}" for n in range(40)]
    await remember(hub, *names)
    near: dict[str, set[str]] = {name: set() for name in names}
    async with hub.client.transaction():
        for _ in range(60):
            one, other = chance.sample(names, 2)
            await hub.memories.connect(one, other, chance.choice("kl"))
            near[one].add(other)
            near[other].add(one)
    for depth in (1, 2, 4):
        distances, edge = {"m0": 0}, ["m0"]
        for step in range(1, depth + 1):
            edge = [found for name in edge for found in near[name] if found not in distances]
            distances |= dict.fromkeys(edge, step)
            edge = list(dict.fromkeys(edge))
        del distances["m0"]
        assert await reached(hub, "m0", depth) == distances


async def test_listing_and_walking_use_the_indexes(hub: Hub) -> None:
    plan = await plan_of(hub, hub.memories.connections("a"))
    assert "relations_by_from_id_and_is_connected" in plan
    assert "relations_by_to_id_and_is_connected" in plan
    assert "SCAN relations" not in plan
    bound = {"start": "a", "depth": 2, "limit": 9}
    rows = await hub.client._writer.read(
        lambda connection: connection.execute(f"EXPLAIN QUERY PLAN {_WALK.format(only='')}", bound).fetchall()
    )
    plans = [row[3] for row in rows]
    assert {plan for plan in plans if plan.startswith("SCAN")} <= {"SCAN w"}
    assert sum("relations_by_" in plan for plan in plans) == 2


# -------------------------------------------------------------------------------------------------- all around


async def test_an_export_carries_the_relations_and_an_import_brings_them(
    hub: Hub, tmp_path: Path, key: bytes
) -> None:
    await remember(hub, "a", "b")
    relation = await hub.memories.connect("a", "b", "k")
    out = io.BytesIO()
    assert await export_to(hub, out, now=NOW) == 3
    file = tmp_path / "export.json"
    await asyncio.to_thread(file.write_bytes, out.getvalue())
    async with Hub.open(tmp_path / "other.db", key=key) as other:
        assert (await import_file(other, file)).added == {"memories": 2, "relations": 1}
        assert await other.memories.connections("b").all() == [relation]
        assert await counts(other) == {"a": 1, "b": 1}
        await other.memories.disconnect("a", "b", "k")
        assert await counts(other) == {"a": 0, "b": 0}
        assert (await import_file(other, file)).added == {"memories": 0, "relations": 0}


async def test_the_hub_still_has_four_collections(hub: Hub) -> None:
    assert list(hub.collections) == ["personas", "memories", "conversations", "workflows"]
    assert list(hub.everything) == ["personas", "memories", "relations", "conversations", "workflows"]
