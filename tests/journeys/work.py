"""What a writer does while processes die around it, and what must be there afterwards.

A `Work` is the records of one writer, as they must be: `choose` picks the next operation (all verbs of a collection,
and transactions of several), `perform` does it on a device, `Work.apply` says what it comes to. A process that is
killed leaves at most one operation of a writer in doubt: it happened as a whole, or not at all.

A record is known by its title, which never changes: half of them get their id from the device. Next to its own
records each writer meets the others in a shared one, ``SHARED``: a transaction adds one to a counter, a token to a set
and a line to a list, so that afterwards the three must agree, whoever died in between.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

from client_sdk import Client, Text
from tests.client_sdk.records import Line, Note

__all__ = ["SHARED", "Held", "Operation", "Work", "held_by_title", "ids_of", "perform", "tokens_of"]

Operation = dict[str, Any]

SHARED: Final = "shared"
_WORDS: Final = ["a", "é", "漢字", "😀", " and ", "👩\u200d👧", "end."]


@dataclass
class Held:
    """What a record holds. A deleted one holds it still, unseen."""

    id: str = ""
    tags: set[str] = field(default_factory=set)
    views: int = 0
    importance: int = 50
    settings: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    scores: list[int] = field(default_factory=list)
    body: str = ""
    is_deleted: bool = False

    @classmethod
    def of(cls, note: Note) -> Held:
        lines = [line.id for line in note.lines]
        return cls(
            note.id,
            set(note.tags),
            int(note.views),
            note.importance,
            note.settings,
            lines,
            note.scores,
            str(note.body),
        )


@dataclass
class Work:
    """The records of ``writer``, by title, and how many it has begun."""

    writer: str
    records: dict[str, Held] = field(default_factory=dict)
    begun: int = 0

    def apply(self, operation: Operation) -> None:
        """Do to the records what the operation does."""
        what, title = operation["do"], operation.get("title", "")
        if what == "block":
            for part in operation["parts"]:
                self.apply(part)
        elif what in {"insert", "many"}:
            for one in operation["records"]:
                self.begun = max(self.begun, int(one["title"].rpartition("/")[2]))
                self.records[one["title"]] = Held(one["id"], set(one["tags"]), importance=one["importance"])
        elif title != SHARED:
            self._change(self.records[title], what, operation)

    @staticmethod
    def _change(held: Held, what: str, operation: Operation) -> None:
        match what:
            case "update":
                held.importance = operation["importance"]
            case "leaf":
                held.settings[operation["leaf"]] = operation["value"]
            case "increment":
                held.views += operation["by"]
            case "add":
                held.tags.add(operation["tag"])
            case "remove":
                held.tags.discard(operation["tag"])
            case "append":
                held.lines.append(operation["line"])
                held.scores.append(operation["score"])
            case "remove items":
                del held.scores[operation["at"]]
            case "write":
                at = operation["at"]
                held.body = held.body[:at] + operation["text"] + held.body[at:]
            case "erase":
                at = operation["at"]
                held.body = held.body[:at] + held.body[at + operation["count"] :]
            case "delete":
                held.is_deleted = True
            case "restore":
                held.is_deleted = False

    def choose(self, chance: random.Random, *, is_part: bool = False) -> Operation:
        """Return the next operation."""
        alive = [title for title, held in self.records.items() if not held.is_deleted]
        roll = chance.random()
        if not is_part and roll < 0.08:
            parts, ahead = [], deepcopy(self)
            for _ in range(chance.randrange(2, 5)):
                parts.append(ahead.choose(chance, is_part=True))
                ahead.apply(parts[-1])
            self.begun = ahead.begun
            return {"do": "block", "parts": parts}
        if not is_part and roll < 0.12:
            self.begun += 1
            return {"do": "meet", "title": SHARED, "token": f"{self.writer}/{self.begun}"}
        if len(alive) < 3 or roll < 0.2:
            return {"do": "insert", "records": [self._fresh(chance)]}
        if roll < 0.23:
            return {"do": "many", "records": [self._fresh(chance) for _ in range(chance.randrange(2, 40))]}
        title = chance.choice(alive)
        return {"title": title, **self._edit(chance, title)}

    def _fresh(self, chance: random.Random) -> dict[str, Any]:
        self.begun += 1
        title = f"{self.writer}/{self.begun}"
        chosen = f"id of {title}" if chance.random() < 0.5 else ""
        tags = chance.sample(["x", "y", "z"], chance.randrange(3))
        return {"title": title, "id": chosen, "tags": tags, "importance": chance.randrange(100)}

    def _edit(self, chance: random.Random, title: str) -> Operation:
        held = self.records[title]
        deleted = [title for title, held in self.records.items() if held.is_deleted and held.id]
        at = chance.randrange(len(held.body) + 1)
        edits: list[Operation] = [
            {"do": "update", "importance": chance.randrange(100)},
            {"do": "leaf", "leaf": chance.choice(["theme", "size"]), "value": chance.randrange(100)},
            {"do": "increment", "by": chance.randrange(-5, 10)},
            {"do": "add", "tag": f"t{chance.randrange(8)}"},
            {"do": "append", "line": f"l{chance.randrange(10**6)}", "score": chance.randrange(100)},
            {"do": "write", "at": at, "text": chance.choice(_WORDS)},
        ]
        if held.tags:
            edits.append({"do": "remove", "tag": chance.choice(sorted(held.tags))})
        if held.scores:
            edits.append({"do": "remove items", "at": chance.randrange(len(held.scores))})
        if at < len(held.body):
            edits.append({"do": "erase", "at": at, "count": chance.randrange(1, len(held.body) - at + 1)})
        if chance.random() < 0.3:
            edits.append({"do": "delete"})
        if deleted and chance.random() < 0.5:
            edits.append({"do": "restore", "title": chance.choice(deleted)})
        return chance.choice(edits)

    def difference(self, found: dict[str, Held]) -> str:
        """Say where the records of this writer among ``found`` are not as they must be; "" if they are."""
        theirs = {title: held for title, held in found.items() if title.startswith(f"{self.writer}/")}
        ours = {title: held for title, held in self.records.items() if not held.is_deleted}
        for title in sorted(ours.keys() | theirs.keys()):
            mine, other = ours.get(title), theirs.get(title)
            if mine is None or other is None:
                return f"{title} is {'gone' if other is None else 'there'}: {mine or other}"
            if mine != (other if mine.id else Held(**{**vars(other), "id": ""})):
                return f"{title} is {other} and not {mine}"
        return ""

    def learn(self, ids: Mapping[str, str]) -> None:
        """Take over the ids, by title, that the device gave."""
        for title, held in self.records.items():
            held.id = ids.get(title, held.id)


async def perform(client: Client, operation: Operation, ids: dict[str, str]) -> None:
    """Do an operation on a device; it returns when it is durable. ``ids`` has those of the records, by title."""
    notes = client.collection(Note)
    record = ids.get(operation.get("title", ""), "")
    match operation["do"]:
        case "block":
            async with client.transaction():
                for part in operation["parts"]:
                    await perform(client, part, ids)
        case "insert":
            made = await notes.insert(_note(operation["records"][0]))
            ids[made.title] = made.id
        case "many":
            many = await notes.insert_many([_note(one) for one in operation["records"]])
            ids.update({made.title: made.id for made in many})
        case "meet":
            async with client.transaction():
                await notes.increment(record, views=1)
                await notes.add(record, tags={operation["token"]})
                await notes.append(record, lines=[Line(id=operation["token"])])
        case "update":
            await notes.update(record, importance=operation["importance"])
        case "leaf":
            await notes.update(record, **{f"settings.{operation['leaf']}": operation["value"]})
        case "increment":
            await notes.increment(record, views=operation["by"])
        case "add":
            await notes.add(record, tags={operation["tag"]})
        case "remove":
            await notes.remove(record, tags={operation["tag"]})
        case "append":
            line = Line(id=operation["line"], content="said in passing")
            await notes.append(record, lines=[line], scores=[operation["score"]])
        case "remove items":
            await notes.remove_items(record, "scores", operation["at"])
        case "write":
            await notes.edit_text(record, "body", insert=(operation["at"], operation["text"]))
        case "erase":
            await notes.edit_text(record, "body", delete=(operation["at"], operation["count"]))
        case "delete":
            await notes.delete(record)
        case "restore":
            await notes.restore(record)


def _note(one: dict[str, Any]) -> Note:
    fields = {
        "title": one["title"],
        "tags": set(one["tags"]),
        "importance": one["importance"],
        "body": Text(""),
    }
    return Note(id=one["id"], **fields) if one["id"] else Note(**fields)


async def held_by_title(client: Client) -> dict[str, Held]:
    """Return what a device shows, by title."""
    return {note.title: Held.of(note) for note in await client.collection(Note).all()}


def ids_of(found: Mapping[str, Held]) -> dict[str, str]:
    """Return ids by title."""
    return {title: held.id for title, held in found.items()}


def tokens_of(shared: Held) -> set[str]:
    """Return who met in the shared record; its counter, set and list must tell the same."""
    assert shared.tags == set(shared.lines), "a transaction was torn: the set and the list differ"
    assert shared.views == len(shared.lines) == len(shared.tags), "a transaction was torn, or came twice"
    return shared.tags
