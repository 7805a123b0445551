"""Invented records of realistic size and shape: memories of about 400 bytes, from a seed."""

from __future__ import annotations

import datetime as dt
import random
from typing import Annotated, Any

from msgspec import Meta

from client_sdk import Counter, Item, Record

__all__ = ["Memory", "Message", "Talk", "memories", "message"]

_WORDS = (
    "river",
    "morning",
    "letter",
    "garden",
    "window",
    "market",
    "piano",
    "winter",
    "bicycle",
    "bakery",
    "harbour",
    "sister",
    "notebook",
    "lantern",
    "orchard",
    "train",
    "recipe",
    "festival",
    "museum",
    "mountain",
    "promise",
    "question",
    "painting",
    "violin",
    "storm",
    "candle",
    "teacher",
    "journey",
    "blanket",
    "doctor",
    "kitchen",
    "autumn",
    "neighbour",
    "telephone",
    "cinema",
    "island",
    "coffee",
    "library",
    "photograph",
    "birthday",
)


class Memory(
    Record,
    collection="memories",
    indexes=["persona_id", "type", "importance", "last_accessed", ("persona_id", "importance")],
):
    """What the Hub keeps of one thing, with its indexes."""

    persona_id: str
    name: Annotated[str, Meta(max_length=500)]
    type: str = "knowledge"
    summary: Annotated[str, Meta(max_length=1000)] = ""
    content: dict[str, Any] = {}
    tags: set[str] = set()
    importance: Annotated[int, Meta(ge=0, le=100)] = 50
    last_accessed: dt.datetime | None = None
    memory_tier: str = "hot"
    connection_count: Counter = Counter(0)


class Message(Item):
    """One message of a talk."""

    id: str
    role: str
    content: str
    timestamp: dt.datetime


class Talk(Record, collection="talks"):
    """A conversation."""

    name: str = ""
    messages: list[Message] = []


def memories(count: int, seed: int = 1) -> list[Memory]:
    """Return memories of about 400 bytes."""
    chance = random.Random(seed)
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return [
        Memory(
            persona_id=f"persona-{chance.randrange(100)}",
            name=" ".join(chance.choices(_WORDS, k=5)),
            type=chance.choice(["person", "concept", "event", "task", "conversation", "knowledge"]),
            summary=" ".join(chance.choices(_WORDS, k=28)),
            content={"source": chance.choice(_WORDS), "score": chance.random()},
            tags=set(chance.choices(_WORDS, k=3)),
            importance=chance.randrange(101),
            last_accessed=start + dt.timedelta(seconds=chance.randrange(10_000_000)),
        )
        for _ in range(count)
    ]


def message(number: int) -> Message:
    """Return a message of about 150 bytes."""
    chance = random.Random(number)
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=number)
    text = " ".join(chance.choices(_WORDS, k=14))
    return Message(id=f"m{number}", role="user", content=text, timestamp=at)
