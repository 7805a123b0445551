"""Personas in use and recent conversations are found through an index; long conversations are read page by page."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from client_sdk import NotLoaded
from client_sdk.errors import QueryError
from client_sdk.hub import Conversation, Hub, Message, Persona
from crdt.errors import ItemsNotLoaded, ValidationError
from tests.client_sdk.hub.test_memories import NOW, plan_of

__all__: list[str] = []

HOUR = dt.timedelta(hours=1)


def said(*texts: str) -> list[Message]:
    return [Message(id=text, role="user", content=text, timestamp=NOW) for text in texts]


def is_bare(talk: Conversation) -> bool:
    messages: object = talk.messages
    return isinstance(messages, NotLoaded)


# ------------------------------------------------------------------------------------------- product queries


async def test_active_personas_come_by_last_use(hub: Hub) -> None:
    await hub.personas.insert_many(
        [
            Persona(id="idle", name="n", last_used=NOW),
            Persona(id="never", name="n", is_active=True),
            Persona(id="old", name="n", is_active=True, last_used=NOW - HOUR),
            Persona(id="new", name="n", is_active=True, last_used=NOW),
        ]
    )
    assert [persona.id for persona in await hub.personas.active().all()] == ["new", "old", "never"]
    assert await hub.personas.active().count() == 3
    told = hub.personas.active().watch()
    assert [persona.id for persona in await anext(told)] == ["new", "old", "never"]
    await hub.personas.increment_usage("old")
    assert [persona.id for persona in await anext(told)] == ["old", "new", "never"]
    await hub.personas.deactivate("new")
    assert [persona.id for persona in await anext(told)] == ["old", "never"]


async def test_recent_conversations_come_page_by_page_without_the_archived(hub: Hub) -> None:
    await hub.conversations.insert_many(
        [
            Conversation(
                id=f"c{n:03}", persona_id="ab"[n % 2], updated_at=NOW + n * HOUR, is_archived=n >= 120
            )
            for n in range(130)
        ]
    )
    recent = hub.conversations.recent
    newest = [f"c{n:03}" for n in reversed(range(120))]
    assert [talk.id for talk in await recent().all()] == newest[:50]
    assert [talk.id for talk in await recent(page=2).all()] == newest[100:]
    assert [talk.id for talk in await recent("a", page=1).all()] == newest[1::2][50:]
    assert [talk.id for talk in await recent("b", size=3).all()] == newest[:6:2]
    assert await recent(page=9).all() == []
    with pytest.raises(QueryError):
        recent(page=-1)
    with pytest.raises(QueryError):
        recent(size=-1)


async def test_recent_conversations_are_a_live_query(hub: Hub) -> None:
    await hub.conversations.insert_many([Conversation(id="a"), Conversation(id="b")])
    told = hub.conversations.recent().watch()
    await anext(told)
    await hub.conversations.add_message("a", Message(role="user", content="x"))
    assert [talk.id for talk in await anext(told)] == ["a", "b"]
    await hub.conversations.archive("a")
    assert [talk.id for talk in await anext(told)] == ["b"]


async def test_an_index_serves_them_in_their_order(hub: Hub) -> None:
    for query, index in (
        (hub.personas.active(), "personas_by_is_active_and_last_used"),
        (hub.conversations.recent(), "conversations_by_is_archived_and_updated_at"),
        (hub.conversations.recent("p"), "conversations_by_persona_id_and_is_archived_and_updated_at"),
    ):
        plan = await plan_of(hub, query)
        assert f"USING INDEX {index} " in plan
        assert "SCAN" not in plan
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan


# ------------------------------------------------------------------------------------------------- not loaded


async def test_a_list_of_conversations_comes_without_messages_unless_asked_for(hub: Hub) -> None:
    talk = await hub.conversations.insert(Conversation(messages=said("a", "b")))
    (bare,) = await hub.conversations.all()
    assert is_bare(bare)
    first = await hub.conversations.where(id=talk.id).first()
    watched = await anext(hub.conversations.watch())
    assert first == bare == watched[0]
    assert await hub.conversations.recent().include("messages").all() == [talk]
    assert await hub.conversations.where(id=talk.id).include("messages").first() == talk
    assert await anext(hub.conversations.recent().include("messages").watch()) == [talk]
    assert await hub.conversations.get(talk.id) == talk
    assert await hub.conversations.get(talk.id, include=["messages"]) == talk
    assert await hub.conversations.get(talk.id, include=()) == bare


async def test_a_verb_returns_the_list_only_if_it_named_it(hub: Hub) -> None:
    talk = await hub.conversations.insert(Conversation(messages=said("a", "b")))
    assert talk.messages == said("a", "b")
    for bare in (
        await hub.conversations.archive(talk.id),
        await hub.conversations.update(talk.id, summary="s"),
        await hub.conversations.add(talk.id, topics={"t"}),
    ):
        assert is_bare(bare)
    assert (await hub.conversations.update(talk.id, messages=said("c"))).messages == said("c")
    assert (await hub.conversations.remove_items(talk.id, "messages", 0)).messages == []


async def test_what_was_not_loaded_is_never_written(hub: Hub) -> None:
    talk = await hub.conversations.insert(Conversation(id="c", messages=said("a", "b")))
    (bare,) = await hub.conversations.all()
    for write in (
        hub.conversations.insert(msgspec.structs.replace(bare, id="copy")),
        hub.conversations.insert_missing([msgspec.structs.replace(bare, id="copy")]),
        hub.conversations.update("c", messages=bare.messages),
    ):
        with pytest.raises(
            ValidationError, match=r"Conversation\.messages: got <.* not loaded>; expected its items"
        ):
            await write
    with pytest.raises(ValidationError):
        hub.conversations.check(bare)
    with pytest.raises((ValidationError, ItemsNotLoaded)):
        await hub.conversations.append("c", messages=bare.messages)
    assert await hub.conversations.get("c") == talk
    assert await hub.conversations.count() == 1


@pytest.mark.parametrize("names", ["messages", ["summary"], ["nothing"]])
async def test_only_lists_are_included(hub: Hub, names: Any) -> None:
    with pytest.raises(QueryError, match="include"):
        await hub.conversations.get("c", include=names)
    with pytest.raises(QueryError, match="include"):
        hub.conversations.recent().include("summary")


# ------------------------------------------------------------------------------------------------------ pages


async def test_messages_are_read_from_any_place_in_both_directions(hub: Hub) -> None:
    made = said(*(str(n) for n in range(10)))
    await hub.conversations.insert_many(
        [
            Conversation(id="c", messages=made),
            Conversation(id="empty"),
            Conversation(id="d", messages=made[:3]),
        ]
    )
    page = hub.conversations.messages
    assert await page("c", before=10, limit=4) == made[6:]
    assert await page("c", before=6, limit=4) == made[2:6]
    assert await page("c", before=2, limit=4) == made[:2]
    assert await page("c", before=99, limit=2) == made[8:]
    assert await page("c", after=7) == made[8:]
    assert await page("c", after=2, limit=3) == made[3:6]
    assert await page("c", after=-1, limit=2) == made[:2]
    assert await page("c", -3) == made[7:]
    for nothing in (
        page("c", before=0),
        page("c", after=9),
        page("empty", before=5),
        page("empty", -5),
        page("nobody", -5),
    ):
        assert await nothing == []
    assert [await hub.conversations.message_count(name) for name in ("c", "empty", "d")] == [10, 0, 3]
    with pytest.raises(QueryError, match="before or after"):
        await page("c", before=1, after=2)


async def test_places_stay_whole_when_messages_are_removed(hub: Hub) -> None:
    talk = await hub.conversations.insert(Conversation(messages=said(*"abcd")))
    await hub.conversations.remove_items(talk.id, "messages", 1, 2)
    await hub.conversations.add_message(talk.id, said("e")[0])
    assert await hub.conversations.message_count(talk.id) == 3
    assert [message.content for message in await hub.conversations.messages(talk.id, -2)] == ["d", "e"]


async def test_a_page_and_the_count_cost_what_they_show(hub: Hub) -> None:
    """None of them walks the conversation: each is a search by (doc, position)."""
    plans: list[str] = []

    def explain(connection: Any, sql: str) -> None:
        plans.extend(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall())

    def explained(connection: Any) -> None:
        child = "conversations__messages"
        explain(connection, f"SELECT max(position) FROM {child} WHERE doc = 1")
        for order in ("ASC", "DESC"):
            page = f"SELECT m.* FROM conversations d JOIN {child} m ON m.doc = d.doc AND m.position > 5"
            explain(connection, f"{page} WHERE d.id = 'c' ORDER BY m.position {order} LIMIT 5")

    await hub.client._writer.read(explained)
    assert not [plan for plan in plans if "SCAN" in plan or "TEMP" in plan]


async def test_a_live_list_of_conversations_is_patched_without_reading_any_messages(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hub.conversations.insert_many([Conversation(id="a", messages=said("x")), Conversation(id="b")])
    told = hub.conversations.recent().watch()
    await anext(told)
    read: list[str] = []
    table = hub.conversations.table
    original = table._lists

    def listen(connection: Any, child: Any, docs: Any) -> Any:
        read.append(child.name)
        return original(connection, child, docs)

    monkeypatch.setattr(table, "_lists", listen)
    await hub.conversations.add_message("a", said("y")[0])
    (newest, *_) = await anext(told)
    assert (newest.id, is_bare(newest), read) == ("a", True, [])
