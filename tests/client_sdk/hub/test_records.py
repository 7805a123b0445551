"""The Hub's records are what the product asked for: field by field, bound by bound, index by index."""

from __future__ import annotations

from typing import get_args

import pytest

from client_sdk.hub import Conversation, Memory, Message, Persona, Workflow
from client_sdk.hub.records import MemoryTier, MemoryType, Role, Sentiment
from crdt.fields import Kind
from crdt.schema import Record, schema_of

__all__: list[str] = []

REGISTER, COUNTER, SET, LIST = Kind.REGISTER, Kind.COUNTER, Kind.SET, Kind.LIST
MAP, TEXT, SEALED = Kind.MAP, Kind.TEXT, Kind.SEALED
TIMES = {"created_at": REGISTER, "updated_at": REGISTER}

ASKED_FOR: dict[type[Record], dict[str, Kind]] = {
    Persona: {
        "name": REGISTER,
        "description": TEXT,
        "avatar": REGISTER,
        "personality": MAP,
        "settings": MAP,
        "memory_config": MAP,
        "is_active": REGISTER,
        "private_memory": SEALED,
        "api_keys": SEALED,
        "last_used": REGISTER,
        "usage_count": COUNTER,
    },
    Memory: {
        "persona_id": REGISTER,
        "type": REGISTER,
        "name": REGISTER,
        "content": MAP,
        "summary": REGISTER,
        "tags": SET,
        "importance": REGISTER,
        "last_accessed": REGISTER,
        "embedding_model": REGISTER,
        "memory_tier": REGISTER,
        "compression_applied": REGISTER,
        "connection_count": COUNTER,
        "metadata": MAP,
    },
    Conversation: {
        "persona_id": REGISTER,
        "session_id": REGISTER,
        "messages": LIST,
        "summary": REGISTER,
        "sentiment": REGISTER,
        "topics": SET,
        "importance": REGISTER,
        "is_archived": REGISTER,
        "archived_at": REGISTER,
    },
    Workflow: {
        "name": REGISTER,
        "description": TEXT,
        "persona_id": REGISTER,
        "definition": MAP,
        "is_template": REGISTER,
        "is_public": REGISTER,
        "tags": SET,
        "execution_count": COUNTER,
        "last_executed": REGISTER,
    },
}


@pytest.mark.parametrize("record", ASKED_FOR, ids=lambda record: record.__name__)
def test_a_record_has_the_fields_that_were_asked_for_and_no_others(record: type[Record]) -> None:
    schema = schema_of(record)
    assert {field.name: field.kind for field in schema.fields} == TIMES | ASKED_FOR[record]


def test_only_what_must_be_given_is_required() -> None:
    required = {
        record.__name__: {field.name for field in schema_of(record).fields if field.required}
        for record in ASKED_FOR
    }
    assert required == {
        "Persona": {"name"},
        "Memory": {"type", "name"},
        "Conversation": set(),
        "Workflow": {"name", "definition"},
    }


def test_the_choices_are_those_of_the_product() -> None:
    assert get_args(MemoryType) == ("person", "concept", "event", "task", "conversation", "knowledge")
    assert get_args(MemoryTier) == ("hot", "warm", "cold")
    assert get_args(Sentiment) == ("positive", "neutral", "negative")
    assert get_args(Role) == ("user", "assistant", "system")


def test_what_is_left_out_has_the_products_defaults() -> None:
    assert Persona(name="n").is_active is False
    assert Memory(type="event", name="n").memory_tier == "hot"
    assert Memory(type="event", name="n").compression_applied is False
    assert Conversation().is_archived is False
    assert (Workflow(name="n", definition={}).is_template, Workflow(name="n", definition={}).is_public) == (
        False,
        False,
    )


def test_a_message_has_the_attributes_that_were_asked_for() -> None:
    assert Message.__struct_fields__ == ("id", "role", "content", "timestamp", "metadata")


def test_the_declared_indexes_are_those_asked_for_and_what_the_queries_need() -> None:
    indexes = {record.__name__: set(schema_of(record).indexes) for record in ASKED_FOR}
    assert indexes["Persona"] == {("is_active",), ("last_used",), ("created_at",), ("is_active", "last_used")}
    assert indexes["Workflow"] == {
        ("persona_id",),
        ("is_template",),
        ("is_public",),
        ("created_at",),
        ("last_executed",),
    }
    assert indexes["Conversation"] == {
        ("session_id",),
        ("created_at",),
        ("is_archived", "updated_at"),
        ("persona_id", "is_archived", "updated_at"),
    }
