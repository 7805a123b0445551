"""What the Hub keeps: personas, their memories and how these hang together, conversations and workflows, as records.

The product's bounds stand in the annotations. Which kind a field is follows from who edits it: prose that a person
works on is a `Text` and merges character by character (descriptions); prose that is replaced as a whole is a
register, where the later one wins and the other stays in ``conflicts`` (names, summaries). What only counts up is a
`Counter`; tags and topics are sets. What is private to the person's devices is `Sealed`.

Times carry a zone. Choices are literals, so that a type checker knows them too.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from msgspec import Meta

from crdt.fields import Counter, Item, Sealed, Text
from crdt.schema import Record

__all__ = [
    "SUMMARY_LENGTH_MAX",
    "Conversation",
    "Memory",
    "MemoryTier",
    "MemoryType",
    "Message",
    "Persona",
    "Relation",
    "Role",
    "Sentiment",
    "Time",
    "Workflow",
]

MemoryType: TypeAlias = Literal["person", "concept", "event", "task", "conversation", "knowledge"]
MemoryTier: TypeAlias = Literal["hot", "warm", "cold"]
Sentiment: TypeAlias = Literal["positive", "neutral", "negative"]
Role: TypeAlias = Literal["user", "assistant", "system"]
Time: TypeAlias = dt.datetime

Importance: TypeAlias = Annotated[int, Meta(ge=0, le=100)]

SUMMARY_LENGTH_MAX = (
    1000  # characters: what the product shows beside a memory, and gives to a model, in one piece
)

_IMPORTANCE = 50  # in the middle, until somebody says otherwise


class Persona(
    Record,
    collection="personas",
    indexes=["is_active", "last_used", "created_at", ("is_active", "last_used")],
    searchable=["name", "description"],
):
    """Somebody whom the person talks with: who they are, how they behave, and how much they are used."""

    name: Annotated[str, Meta(max_length=200)]
    description: Annotated[Text, Meta(max_length=1000)] = Text()
    avatar: str | None = None
    personality: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    memory_config: dict[str, Any] = {}
    is_active: bool = False
    private_memory: Sealed[dict[str, Any] | None] = None
    api_keys: Sealed[dict[str, str] | None] = None
    last_used: Time | None = None
    usage_count: Counter = Counter(0)


class Memory(
    Record,
    collection="memories",
    indexes=[
        "persona_id",
        "type",
        "importance",
        "last_accessed",
        "memory_tier",
        ("persona_id", "type"),
        ("persona_id", "importance"),
        ("type", "last_accessed"),
    ],
    searchable=["name", "summary", "tags"],
):
    """Something a persona knows: ``content`` is whatever its type needs, ``summary`` what is shown of it."""

    persona_id: str | None = None
    type: MemoryType
    name: Annotated[str, Meta(max_length=500)]
    content: dict[str, Any] = {}
    summary: Annotated[str, Meta(max_length=SUMMARY_LENGTH_MAX)] = ""
    tags: set[str] = set()
    importance: Importance = _IMPORTANCE
    last_accessed: Time | None = None
    embedding_model: str | None = None
    memory_tier: MemoryTier = "hot"
    compression_applied: bool = False
    connection_count: Counter = Counter(0)
    metadata: dict[str, Any] = {}


class Relation(
    Record, collection="relations", indexes=[("from_id", "is_connected"), ("to_id", "is_connected")]
):
    """That two memories hang together, and how: `client_sdk.hub.relations` writes them."""

    from_id: str
    to_id: str
    kind: Annotated[str, Meta(min_length=1, max_length=100)]
    is_connected: bool = True
    counted: Counter = Counter(0)


class Message(Item, kw_only=True):
    """One turn of a conversation. ``id`` and ``timestamp`` are given when it is added, if they are left out."""

    searchable: ClassVar[tuple[str, ...]] = ("content", "caption")

    id: str = ""
    role: Role
    content: str
    timestamp: Time | None = None
    metadata: dict[str, Any] = {}

    @property
    def speaker(self) -> str | None:
        """The name of who said it, where it is known: a question that names somebody prefers what they said."""
        name = self.metadata.get("speaker")
        return name if isinstance(name, str) else None

    @property
    def caption(self) -> str:
        """What a picture that was sent with it shows, in words: it is found by them as by its own."""
        caption = self.metadata.get("imageCaption")
        return caption if isinstance(caption, str) else ""


class Conversation(
    Record,
    collection="conversations",
    indexes=[
        "session_id",
        "created_at",
        ("is_archived", "updated_at"),
        ("persona_id", "is_archived", "updated_at"),
    ],
    searchable=["summary", "topics", "messages"],
    lazy=["messages"],
):
    """What was said in one sitting, or in one thread over many."""

    persona_id: str | None = None
    session_id: str | None = None
    messages: list[Message] = []
    summary: str = ""
    sentiment: Sentiment | None = None
    topics: set[str] = set()
    importance: Importance = _IMPORTANCE
    is_archived: bool = False
    archived_at: Time | None = None


class Workflow(
    Record,
    collection="workflows",
    indexes=["persona_id", "is_template", "is_public", "created_at", "last_executed"],
    searchable=["name", "description", "tags"],
):
    """Something that a persona does in steps: ``definition`` says which."""

    name: Annotated[str, Meta(max_length=200)]
    description: Text = Text()
    persona_id: str | None = None
    definition: dict[str, Any]
    is_template: bool = False
    is_public: bool = False
    tags: set[str] = set()
    execution_count: Counter = Counter(0)
    last_executed: Time | None = None
