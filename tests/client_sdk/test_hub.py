"""The Hub: its records hold what the product needs and refuse the rest, and its verbs do what they say."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from client_sdk.errors import RecordNotFound
from client_sdk.hub import Conversation, Hub, Memory, Message, Persona, Workflow, sample_path
from client_sdk.transfer import import_file
from crdt.errors import ValidationError
from crdt.fields import Kind
from crdt.schema import schema_of

__all__: list[str] = []

LONG_AGO = dt.datetime(2020, 2, 29, 12, 30, tzinfo=dt.UTC)


@pytest.fixture
async def hub(path: Path, key: bytes) -> AsyncIterator[Hub]:
    async with Hub.open(path, key=key) as hub:
        yield hub


# ------------------------------------------------------------------------------------------------ the records


def test_a_field_merges_as_what_is_done_to_it_asks_for() -> None:
    kinds = {
        f"{record.__name__}.{field.name}": field.kind
        for record in (Persona, Memory, Conversation, Workflow)
        for field in schema_of(record).fields
    }
    assert [name for name, kind in kinds.items() if kind is Kind.COUNTER] == [
        "Persona.usage_count",
        "Memory.connection_count",
        "Workflow.execution_count",
    ]
    assert [name for name, kind in kinds.items() if kind is Kind.SET] == [
        "Memory.tags",
        "Conversation.topics",
        "Workflow.tags",
    ]
    assert [name for name, kind in kinds.items() if kind is Kind.TEXT] == [
        "Persona.description",
        "Workflow.description",
    ]
    assert [name for name, kind in kinds.items() if kind is Kind.LIST] == ["Conversation.messages"]
    assert [name for name, kind in kinds.items() if kind is Kind.SEALED] == [
        "Persona.private_memory",
        "Persona.api_keys",
    ]


def test_what_the_product_asks_for_is_indexed() -> None:
    assert {("is_active",), ("last_used",), ("created_at",)} <= set(schema_of(Persona).indexes)
    assert set(schema_of(Memory).indexes) == {
        ("persona_id",),
        ("type",),
        ("importance",),
        ("last_accessed",),
        ("memory_tier",),
        ("persona_id", "type"),
        ("persona_id", "importance"),
        ("type", "last_accessed"),
    }
    assert ("persona_id", "is_archived", "updated_at") in schema_of(Conversation).indexes
    assert {("persona_id",), ("is_template",), ("is_public",), ("created_at",), ("last_executed",)} <= set(
        schema_of(Workflow).indexes
    )


@pytest.mark.parametrize(
    ("collection", "record", "field"),
    [
        ("personas", Persona(name="n" * 201), "name"),
        ("personas", Persona(name="n", description="d" * 1001), "description"),
        ("memories", Memory(type="event", name="n" * 501), "name"),
        ("memories", Memory(type="event", name="n", summary="s" * 1001), "summary"),
        ("memories", Memory(type="event", name="n", importance=101), "importance"),
        ("memories", Memory(type="event", name="n", importance=-1), "importance"),
        ("memories", Memory(type="dream", name="n"), "type"),  # type: ignore[arg-type]
        ("memories", Memory(type="event", name="n", memory_tier="tepid"), "memory_tier"),  # type: ignore[arg-type]
        ("conversations", Conversation(sentiment="mixed"), "sentiment"),  # type: ignore[arg-type]
        ("conversations", Conversation(messages=[Message(role="tool", content="")]), "messages"),  # type: ignore[arg-type]
        ("workflows", Workflow(name="n" * 201, definition={}), "name"),
    ],
)
async def test_a_value_out_of_bounds_is_refused_and_the_field_is_named(
    hub: Hub, collection: str, record: Any, field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        await hub.collections[collection].insert(record)
    assert refused.value.record == type(record).__name__
    assert refused.value.field.split(".")[0].split("[")[0] == field
    assert await hub.collections[collection].count() == 0


async def test_a_record_at_its_bounds_is_kept_as_it_is(hub: Hub) -> None:
    persona = await hub.personas.insert(Persona(name="n" * 200, description="ß" * 1000, last_used=LONG_AGO))
    memory = await hub.memories.insert(
        Memory(type="person", name="n" * 500, summary="s" * 1000, importance=100, tags={"a", "ü"})
    )
    assert await hub.personas.get(persona.id) == persona
    assert await hub.memories.get(memory.id) == memory
    assert (memory.memory_tier, memory.connection_count) == ("hot", 0)


async def test_a_persona_keeps_its_secrets(hub: Hub) -> None:
    persona = await hub.personas.insert(Persona(name="Wren", private_memory={"mood": ["shy", 1]}))
    persona = await hub.personas.update(persona.id, api_keys={"models": "sk-1"})
    persona = await hub.personas.increment_usage(persona.id)
    assert persona == await hub.personas.get(persona.id)
    assert (persona.private_memory, persona.api_keys) == ({"mood": ["shy", 1]}, {"models": "sk-1"})
    (row,) = await hub.client.sql("SELECT api_keys FROM personas")
    assert b"sk-1" not in row["api_keys"]
    with pytest.raises(ValidationError, match=r"Persona\.api_keys\[\.\.\.\]: got int"):
        await hub.personas.update(persona.id, api_keys={"models": 5})


def test_a_persona_needs_a_name_and_a_workflow_a_definition() -> None:
    with pytest.raises(TypeError, match="name"):
        Persona()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="definition"):
        Workflow(name="n")  # type: ignore[call-arg]


# -------------------------------------------------------------------------------------------------- the verbs


async def test_a_use_is_counted_with_its_time_in_one_update(hub: Hub) -> None:
    persona = await hub.personas.insert(Persona(name="Wren", usage_count=2))
    before = hub.client.status.pending
    used = await hub.personas.increment_usage(persona.id)
    assert used.usage_count == 3
    assert used.last_used == used.updated_at >= persona.created_at
    assert hub.client.status.pending == before + 1


async def test_a_persona_is_activated_and_deactivated(hub: Hub) -> None:
    persona = await hub.personas.insert(Persona(name="Wren"))
    assert (await hub.personas.activate(persona.id)).is_active
    assert not (await hub.personas.deactivate(persona.id)).is_active


async def test_a_touched_memory_knows_when(hub: Hub) -> None:
    memory = await hub.memories.insert(Memory(type="concept", name="bog", last_accessed=LONG_AGO))
    touched = await hub.memories.touch(memory.id)
    assert touched.last_accessed is not None
    assert touched.last_accessed > LONG_AGO


async def test_an_importance_is_set_within_its_bounds(hub: Hub) -> None:
    memory = await hub.memories.insert(Memory(type="concept", name="bog"))
    assert (await hub.memories.set_importance(memory.id, 0)).importance == 0
    with pytest.raises(ValidationError, match="importance"):
        await hub.memories.set_importance(memory.id, 101)
    held = await hub.memories.get(memory.id)
    assert held is not None
    assert held.importance == 0


async def test_an_execution_is_counted_with_its_time(hub: Hub) -> None:
    workflow = await hub.workflows.insert(Workflow(name="After a field day", definition={"steps": []}))
    run = await hub.workflows.record_execution(workflow.id)
    assert run.execution_count == 1
    assert run.last_executed == run.updated_at


async def test_a_verb_on_a_record_that_is_not_there_says_so(hub: Hub) -> None:
    for verb in (
        hub.personas.increment_usage,
        hub.memories.touch,
        hub.conversations.archive,
        hub.workflows.record_execution,
    ):
        with pytest.raises(RecordNotFound):
            await verb("nobody")


# ------------------------------------------------------------------------------------------------ conversations


async def test_an_added_message_gets_an_id_and_a_time_and_stands_at_the_end(hub: Hub) -> None:
    talk = await hub.conversations.insert(
        Conversation(messages=[Message(id="m1", role="user", content="Hello", timestamp=LONG_AGO)])
    )
    added = await hub.conversations.add_message(talk.id, Message(role="assistant", content="Hello yourself"))
    assert added.id
    assert added.timestamp is not None
    held = await hub.conversations.get(talk.id)
    assert held is not None
    assert held.messages == [*talk.messages, added]


async def test_messages_that_are_inserted_or_appended_without_an_id_get_one(hub: Hub) -> None:
    talk = await hub.conversations.insert(Conversation(messages=[Message(role="user", content="a")]))
    await hub.conversations.append(talk.id, messages=[Message(role="user", content=text) for text in "bc"])
    held = await hub.conversations.messages(talk.id)
    assert [message.content for message in held] == ["a", "b", "c"]
    assert len({message.id for message in held}) == 3
    assert "" not in {message.id for message in held}
    assert None not in {message.timestamp for message in held}


async def test_a_refused_message_leaves_the_conversation_as_it_was(hub: Hub) -> None:
    talk = await hub.conversations.insert(Conversation())
    with pytest.raises(ValidationError):
        await hub.conversations.add_message(talk.id, Message(role="wizard", content="x"))  # type: ignore[arg-type]
    assert await hub.conversations.message_count(talk.id) == 0


async def test_a_page_of_messages_is_what_was_asked_for(hub: Hub) -> None:
    made = [Message(id=f"m{n}", role="user", content=str(n), timestamp=LONG_AGO) for n in range(10)]
    other = [Message(id=f"o{n}", role="user", content="other", timestamp=LONG_AGO) for n in range(3)]
    talk, _ = await hub.conversations.insert_many([Conversation(messages=made), Conversation(messages=other)])
    page = hub.conversations.messages
    assert await page(talk.id) == made
    assert await page(talk.id, 2, 3) == made[2:5]
    assert await page(talk.id, 8, 5) == made[8:]
    assert await page(talk.id, -4, 2) == made[-4:-2]
    assert await page(talk.id, -99, 2) == made[:2]
    assert await page(talk.id, 10) == await page(talk.id, 0, 0) == await page("nobody") == []
    assert await hub.conversations.message_count(talk.id) == 10
    assert await hub.conversations.message_count("nobody") == 0


async def test_a_conversation_is_archived_and_brought_back(hub: Hub) -> None:
    talk = await hub.conversations.insert(Conversation(summary="knots"))
    archived = await hub.conversations.archive(talk.id)
    assert archived.is_archived
    assert archived.archived_at == archived.updated_at
    back = await hub.conversations.unarchive(talk.id)
    assert (back.is_archived, back.archived_at) == (False, None)


async def test_a_conversation_longer_than_one_update_is_stored_whole_with_its_times(hub: Hub) -> None:
    messages = [Message(id=f"m{n}", role="user", content="x" * 5000, timestamp=LONG_AGO) for n in range(1000)]
    talk = Conversation(id="long", created_at=LONG_AGO, updated_at=LONG_AGO, messages=messages)
    stored = await hub.conversations.insert(talk)
    assert stored == talk
    assert await hub.conversations.get("long") == talk


# ------------------------------------------------------------------------------------------- all four together


async def test_what_is_missing_is_inserted_and_what_is_there_stays(hub: Hub) -> None:
    await hub.memories.insert(Memory(id="kept", type="event", name="kept"))
    await hub.memories.insert(Memory(id="deleted", type="event", name="deleted"))
    await hub.memories.delete("deleted")
    offered = [Memory(id=name, type="event", name="offered") for name in ("kept", "deleted", "new", "new")]
    written, present = await hub.memories.insert_missing(offered)
    assert ([memory.id for memory in written], present) == (["new"], 3)
    assert sorted((memory.id, memory.name) for memory in await hub.memories.all()) == [
        ("kept", "kept"),
        ("new", "offered"),
    ]


async def test_changes_are_told_from_the_call_on_and_the_newest_of_each_record(hub: Hub) -> None:
    changes = hub.memories.changes()
    memory = await hub.memories.insert(Memory(type="event", name="a"))
    await hub.personas.insert(Persona(name="nobody asked"))
    await hub.memories.update(memory.id, name="b")
    first = await anext(changes)
    assert [(change.record, change.kind) for change in first] == [(memory.id, "updated")]
    await hub.memories.delete(memory.id)
    assert [change.kind for change in await anext(changes)] == ["deleted"]
    await changes.aclose()


async def test_the_hub_opens_by_await_too(path: Path, key: bytes) -> None:
    hub = await Hub.open(path, key=key)
    await hub.personas.insert(Persona(name="Wren"))
    await hub.close()
    async with Hub.open(path, key=key) as hub:
        assert [persona.name for persona in await hub.personas.all()] == ["Wren"]


async def test_the_sample_is_a_hub_of_a_size_that_shows_something(hub: Hub) -> None:
    imported = await import_file(hub, sample_path())
    assert imported.added["personas"] >= 8
    assert imported.added["memories"] >= 60
    assert imported.added["conversations"] >= 6
    assert imported.messages >= 300


# ------------------------------------------------------------------------------------------ several at once


async def test_a_hub_that_several_have_open_is_one_hub(path: Path, key: bytes) -> None:
    async with Hub.open(path, key=key, multi_instance=True) as one:
        async with Hub.open(path, key=key, multi_instance=True) as other:
            wren = await one.personas.insert(Persona(name="Wren"))
            await other.personas.increment_usage(wren.id)
            await one.personas.increment_usage(wren.id)
            found = await other.personas.get(wren.id)
            assert found is not None
            assert found.usage_count == 2


# ---------------------------------------------------------------------------------------------------------- search


async def test_a_message_is_found_with_the_turns_around_it(hub: Hub) -> None:
    said = [Message(role="user", content=f"turn {word}") for word in ("zero", "one", "two", "three", "four")]
    await hub.conversations.insert(Conversation(summary="counting", messages=said))
    (hit,) = await hub.conversations.search("two")
    assert hit.message is not None
    assert (hit.message.content, hit.position) == ("turn two", 2)
    assert [turn.content for turn in hit.around] == ["turn one", "turn three"]
    (hit,) = await hub.conversations.search("zero", around=2)
    assert (hit.before, [turn.content for turn in hit.after]) == ((), ["turn one", "turn two"])
    (hit,) = await hub.conversations.search("counting")
    assert (hit.message, hit.around) == (None, ())


async def test_memories_and_conversations_are_searched_as_one(hub: Hub) -> None:
    wren = await hub.personas.insert(Persona(name="Wren"))
    await hub.memories.insert(Memory(type="event", name="tea in the garden", persona_id=wren.id))
    await hub.memories.insert(Memory(type="event", name="tea at sea"))
    await hub.conversations.insert(
        Conversation(messages=[Message(role="user", content="more tea?")], persona_id=wren.id)
    )
    assert {type(hit.record) for hit in await hub.search("tea")} == {Memory, Conversation}
    assert len(await hub.search("tea")) == 3
    assert len(await hub.search("tea", persona_id=wren.id)) == 2
    assert len(await hub.search("tea", limit=1)) == 1
    (hit,) = await hub.search(
        "garden tea"
    )  # one memory has both, and so no conversation with one of them is shown
    assert hit.record.name == "tea in the garden"


async def test_a_watched_search_of_both_is_told_of_either(hub: Hub) -> None:
    async with contextlib.aclosing(hub.search("tea").watch()) as results:
        assert await anext(results) == []
        await hub.memories.insert(Memory(type="event", name="tea"))
        assert len(await anext(results)) == 1
        await hub.conversations.insert(Conversation(summary="tea"))
        assert len(await anext(results)) == 2


async def test_personas_and_workflows_are_searched(hub: Hub) -> None:
    await hub.personas.insert(Persona(name="Wren", description="keeps bees"))
    await hub.workflows.insert(Workflow(name="Harvest honey", definition={}))
    assert [hit.record.name for hit in await hub.personas.search("bee")] == ["Wren"]
    assert [hit.record.name for hit in await hub.workflows.search("honey")] == ["Harvest honey"]
