"""Records for tests: every field kind once."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Annotated, Any

from msgspec import Meta

from client_sdk import Counter, Item, Record, Sealed, Text


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Line(Item):
    id: str
    role: str = "user"
    content: Annotated[str, Meta(max_length=10_000)] = ""
    at: dt.datetime | None = None
    metadata: dict[str, Any] = {}


class Note(
    Record,
    collection="notes",
    indexes=["pinned", ("pinned", "created_at")],
    searchable=["title", "body", "tags", "lines"],
):
    title: Annotated[str, Meta(max_length=200)]
    body: Text = Text()
    summary: Annotated[Text, Meta(max_length=100)] = Text()
    tags: set[str] = set()
    views: Counter = Counter(0)
    pinned: bool = False
    rating: float | None = None
    due: dt.datetime | None = None
    mood: Mood = Mood.GOOD
    importance: Annotated[int, Meta(ge=0, le=100)] = 50
    settings: dict[str, Any] = {}
    lines: list[Line] = []
    scores: list[int] = []
    secret: Sealed[str | None] = None


class Tag(Record, collection="tags"):
    name: str = ""
