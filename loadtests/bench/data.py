"""Invented records of realistic size and shape: memories of about 400 bytes, from a seed."""

from __future__ import annotations

import datetime as dt
import itertools
import random
from typing import Annotated, Any

from msgspec import Meta

from client_sdk import Counter, Item, Record

__all__ = [
    "Memory",
    "Message",
    "SearchableMemory",
    "Talk",
    "memories",
    "message",
    "searchable_memories",
    "vocabulary",
]

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


_VOCABULARY_WORDS = 20_000
_ONSETS = (
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "st",
    "tr",
    "br",
    "sh",
    "ch",
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")


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


class SearchableMemory(
    Memory,
    collection="memories",
    indexes=["persona_id", "type", "importance", "last_accessed", ("persona_id", "importance")],
    searchable=["name", "summary", "tags"],
):
    """The same, searchable as the Hub's are."""


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


def searchable_memories(count: int, seed: int = 1) -> list[SearchableMemory]:
    """Return memories of the same size whose words are as often as those of a language (Zipf), 20,000 of them."""
    chance = random.Random(seed)
    words = vocabulary()
    often = list(itertools.accumulate(1 / (place + 5) for place in range(len(words))))
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return [
        SearchableMemory(
            persona_id=f"persona-{chance.randrange(100)}",
            name=" ".join(chance.choices(words, cum_weights=often, k=5)),
            type=chance.choice(["person", "concept", "event", "task", "conversation", "knowledge"]),
            summary=" ".join(chance.choices(words, cum_weights=often, k=28)),
            content={"source": chance.choice(words), "score": chance.random()},
            tags=set(chance.choices(words[100:400], k=3)),
            importance=chance.randrange(101),
            last_accessed=start + dt.timedelta(seconds=chance.randrange(10_000_000)),
        )
        for _ in range(count)
    ]


def vocabulary() -> list[str]:
    """Return 20,000 invented words with English endings, the commonest first; the same ones every time."""
    chance = random.Random(7)
    made: dict[str, None] = {}
    while len(made) < _VOCABULARY_WORDS:
        stem = "".join(
            chance.choice(_ONSETS) + chance.choice(_VOWELS) for _ in range(chance.choice((1, 2, 2, 3, 3, 4)))
        )
        made[stem + chance.choice(("", "", "n", "r", "s", "ing", "ed", "ly"))] = None
    return list(made)


def message(number: int) -> Message:
    """Return a message of about 150 bytes."""
    chance = random.Random(number)
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=number)
    text = " ".join(chance.choices(_WORDS, k=14))
    return Message(id=f"m{number}", role="user", content=text, timestamp=at)
