"""Records for the simulation: every kind of field once, and an older version of the same class that knows fewer."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Annotated, Any

from msgspec import Meta

from client_sdk import Counter, Item, Record, Text

__all__ = ["CLASSES", "KINDS", "Line", "Mood", "Note", "OldNote", "Tag"]


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"
    SO_SO = "so-so"


class Line(Item):
    id: str
    content: str = ""


class Note(Record, collection="notes", indexes=["pinned", ("mood", "importance")]):
    title: Annotated[str, Meta(max_length=200)]
    body: Text = Text()
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


class OldNote(Record, collection="notes"):
    title: str
    tags: set[str] = set()
    views: Counter = Counter(0)
    lines: list[Line] = []


class Tag(Record, collection="tags"):
    name: str = ""
    uses: Counter = Counter(0)


KINDS: tuple[type[Record], ...] = (Note, Tag)
"""What a device of the newest version opens; the laws read every document with these."""

CLASSES: tuple[tuple[type[Record], ...], ...] = (KINDS, (OldNote,))
"""The versions of the application that a device may run: an older one has fewer fields and fewer collections."""
