"""What people do on a device, at random: every verb on every kind of field; and what they are owed for it.

Each verb states its `Intent`s before it runs. The `Pen` strikes those out that turned out to need no edit, or were
refused; what is left when the operation has returned is owed (`tests.simulation.ledger`).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

from client_sdk import Record
from client_sdk.client import Client
from client_sdk.collection import Collection
from client_sdk.errors import DuplicateRecord, RecordNotFound
from crdt.errors import ValidationError
from crdt.fields import Kind
from crdt.schema import Field, schema_of
from tests.simulation.ledger import DELETED, REMOVED, Fact, Intent, Ledger
from tests.simulation.records import Line
from tests.simulation.values import COLOURS, LEAVES, Values, flat, is_same, nested

__all__ = ["ChangeOfMind", "Pen", "Person"]

_CHOSEN: Final = 8  # ids that applications choose, the same on every device
_STAMPS: Final = ("id", "created_at", "updated_at")
_TRIES: Final = 4


class ChangeOfMind(Exception):
    """The application raises this in the middle of its transaction."""


class Pen:
    """The edits that one operation asks for."""

    def __init__(self, client: Client) -> None:
        corridor = client._writer.corridor
        self.client = client
        self.incarnation = corridor.incarnation
        self.before_n = corridor.outbox.next_n
        self.intents: list[Intent] = []

    async def write(self, intents: Sequence[Intent], verb: Callable[[], Awaitable[Any]]) -> Any:
        """Carry out one verb. Raises what it raises."""
        outbox = self.client._writer.corridor.outbox
        before, kept = outbox.next_n, len(self.intents)
        self.intents += intents
        try:
            result = await verb()
        except Exception:
            del self.intents[kept:]
            raise
        if outbox.next_n == before:
            del self.intents[kept:]
        return result


class Person:
    """Whoever writes on the devices; what they write comes from one supply, so no two items are alike."""

    def __init__(self, chance: random.Random, ledger: Ledger) -> None:
        self._chance = chance
        self._ledger = ledger
        self._values = Values(chance)
        self._verbs: list[tuple[int, Callable[[Pen, type[Record]], Awaitable[str]]]] = [
            (10, self._insert),
            (6, self._insert_chosen),
            (4, self._insert_many),
            (16, self._update),
            (6, self._update_whole),
            (8, self._increment),
            (6, self._add),
            (6, self._remove),
            (8, self._append),
            (3, self._remove_items),
            (10, self._edit_text),
            (4, self._delete),
            (4, self._restore),
            (2, self._blunder),
        ]

    async def act(self, pen: Pen, classes: Sequence[type[Record]]) -> str:
        """Do something; return what. Raises `ChangeOfMind`, and what verbs raise where it is not expected."""
        chance = self._chance
        if chance.random() < 0.15:
            done = []
            async with pen.client.transaction():
                for _ in range(chance.randint(2, 5)):
                    done.append(await self._one(pen, classes))
                if chance.random() < 0.25:
                    raise ChangeOfMind
            return f"transaction({', '.join(done)})"
        return await self._one(pen, classes)

    async def _one(self, pen: Pen, classes: Sequence[type[Record]]) -> str:
        weights = [weight for weight, _ in self._verbs]
        (_, verb), *_ = self._chance.choices(self._verbs, weights)
        record = (
            classes[0] if len(classes) == 1 or self._chance.random() < 0.8 else self._chance.choice(classes)
        )
        try:
            return await verb(pen, record)
        except DuplicateRecord:
            return "duplicate"

    # -- Creating

    async def _insert(self, pen: Pen, record: type[Record]) -> str:
        value, facts = self._drafted(record, "")
        made = await pen.write([_created(value, None, facts)], lambda: _of(pen, record).insert(value))
        return f"insert {made.id[:23]}"

    async def _insert_chosen(self, pen: Pen, record: type[Record]) -> str:
        value, facts = self._drafted(record, f"chosen-{self._chance.randrange(_CHOSEN)}")
        await pen.write([_created(value, value.id, facts)], lambda: _of(pen, record).insert(value))
        return f"insert {value.id}"

    async def _insert_many(self, pen: Pen, record: type[Record]) -> str:
        ids = ["" for _ in range(self._chance.randint(2, 8))]
        if self._chance.random() < 0.2:
            ids[0] = f"chosen-{self._chance.randrange(_CHOSEN)}"
        drafts = [self._drafted(record, one) for one in ids]
        intents = [_created(value, value.id or None, facts) for value, facts in drafts]
        await pen.write(intents, lambda: _of(pen, record).insert_many([value for value, _ in drafts]))
        return f"insert_many {len(ids)}"

    def _drafted(self, record: type[Record], chosen: str) -> tuple[Any, tuple[Fact, ...]]:
        """Return a new record and what it says. Fields that are left out say their default."""
        values: dict[str, Any] = {}
        for field in _fields(record):
            if field.required or self._chance.random() < 0.4:
                values[field.name] = self._values.of(field)
        made: Any = record(id=chosen, **values)
        facts = [fact for field in _fields(record) for fact in _put_in(field, getattr(made, field.name))]
        return made, tuple(facts)

    # -- Changing

    async def _update(self, pen: Pen, record: type[Record]) -> str:
        held = await self._pick(pen, record)
        registers = _fields(record, Kind.REGISTER)
        if held is None:
            return "nothing to update"
        values = {
            field.name: self._values.of(field)
            for field in self._chance.sample(registers, self._chance.randint(1, min(3, len(registers))))
        }
        if _fields(record, Kind.MAP) and self._chance.random() < 0.4:
            leaf = self._chance.choice(LEAVES)
            values[f"settings.{leaf}"] = self._values.leaf()
        facts = tuple(
            Fact(
                "again" if "." in name and is_same(flat(held.settings), name[9:], value) else "set",
                name,
                value,
            )
            for name, value in values.items()
        )
        stored = await pen.write(
            [Intent(_name(record), held.id, facts)], lambda: _of(pen, record).update(held.id, **values)
        )
        for name, value in values.items():
            if "." not in name:
                found = getattr(stored, name)
                assert found == value, f"{held.id}.{name} was set to {value!r}, and reads {found!r}"
        return f"update {held.id[:23]} {' '.join(sorted(values))}"

    async def _update_whole(self, pen: Pen, record: type[Record]) -> str:
        """Set a set, a map, a list or a text as a whole: what differs is what is written."""
        held = await self._pick(pen, record)
        fields = [field for field in _fields(record) if field.kind not in (Kind.REGISTER, Kind.COUNTER)]
        if held is None or not fields:
            return "nothing to set"
        field = self._chance.choice(fields)
        old = getattr(held, field.name)
        new, facts = self._changed(field, old)
        await pen.write(
            [Intent(_name(record), held.id, facts)],
            lambda: _of(pen, record).update(held.id, **{field.name: new}),
        )
        return f"set {held.id[:23]} {field.name}"

    def _changed(self, field: Field, old: Any) -> tuple[Any, tuple[Fact, ...]]:
        chance, name = self._chance, field.name
        if field.kind is Kind.SET:
            new = set(chance.sample(COLOURS, chance.randint(0, 3)))
            return new, (
                *(Fact("add", name, one) for one in sorted(new - old)),
                *(Fact("remove", name, one) for one in sorted(old - new)),
            )
        if field.kind is Kind.MAP:
            leaves = {leaf: self._values.leaf() for leaf in chance.sample(LEAVES, chance.randint(0, 3))}
            gone = [leaf for leaf in flat(old) if leaf not in leaves]
            return nested(leaves), (
                *(
                    Fact("again" if is_same(flat(old), leaf, value) else "set", f"{name}.{leaf}", value)
                    for leaf, value in leaves.items()
                ),
                *(Fact("set", f"{name}.{leaf}", REMOVED) for leaf in gone),
            )
        start = chance.randint(0, len(old))
        end = chance.randint(start, min(len(old), start + 3))
        fresh = self._values.of(field)
        new_value = old[:start] + fresh + old[end:]
        return new_value, (Fact("put", name, _pieces(fresh)), Fact("take", name, _pieces(old[start:end])))

    async def _increment(self, pen: Pen, record: type[Record]) -> str:
        held, field = await self._pick(pen, record), self._field(record, Kind.COUNTER)
        if held is None or field is None:
            return "nothing to increment"
        by = self._chance.choice((1, 1, 2, 5, -3, 1000))
        intent = Intent(_name(record), held.id, (Fact("count", field.name, by),))
        await pen.write([intent], lambda: _of(pen, record).increment(held.id, **{field.name: by}))
        return f"increment {held.id[:23]} {by}"

    async def _add(self, pen: Pen, record: type[Record]) -> str:
        held, field = await self._pick(pen, record), self._field(record, Kind.SET)
        if held is None or field is None:
            return "nothing to add to"
        added = self._chance.sample(COLOURS, self._chance.randint(1, 2))
        intent = Intent(_name(record), held.id, tuple(Fact("add", field.name, one) for one in added))
        await pen.write([intent], lambda: _of(pen, record).add(held.id, **{field.name: set(added)}))
        return f"add {held.id[:23]} {added}"

    async def _remove(self, pen: Pen, record: type[Record]) -> str:
        held, field = await self._pick(pen, record), self._field(record, Kind.SET)
        if held is None or field is None:
            return "nothing to remove from"
        removed = self._chance.sample(COLOURS, self._chance.randint(1, 2))
        intent = Intent(_name(record), held.id, tuple(Fact("remove", field.name, one) for one in removed))
        await pen.write([intent], lambda: _of(pen, record).remove(held.id, **{field.name: set(removed)}))
        return f"remove {held.id[:23]} {removed}"

    async def _append(self, pen: Pen, record: type[Record]) -> str:
        held, field = await self._pick(pen, record), self._field(record, Kind.LIST)
        if held is None or field is None:
            return "nothing to append to"
        items = self._values.of(field)
        intent = Intent(_name(record), held.id, (Fact("put", field.name, _pieces(items)),))
        await pen.write([intent], lambda: _of(pen, record).append(held.id, **{field.name: items}))
        return f"append {held.id[:23]} {field.name} {len(items)}"

    async def _remove_items(self, pen: Pen, record: type[Record]) -> str:
        held, field = await self._pick(pen, record), self._field(record, Kind.LIST)
        if held is None or field is None or not getattr(held, field.name):
            return "nothing to remove"
        items = getattr(held, field.name)
        start = self._chance.randrange(len(items))
        count = self._chance.randint(1, min(3, len(items) - start))
        intent = Intent(
            _name(record), held.id, (Fact("take", field.name, _pieces(items[start : start + count])),)
        )
        await pen.write([intent], lambda: _of(pen, record).remove_items(held.id, field.name, start, count))
        return f"remove_items {held.id[:23]} {field.name} {count}"

    async def _edit_text(self, pen: Pen, record: type[Record]) -> str:
        held, field = await self._pick(pen, record), self._field(record, Kind.TEXT)
        if held is None or field is None:
            return "nothing to edit"
        text = getattr(held, field.name)
        options: dict[str, Any] = {}
        facts = []
        if text and self._chance.random() < 0.4:
            start = self._chance.randrange(len(text))
            count = self._chance.randint(1, min(4, len(text) - start))
            options["delete"] = (start, count)
            facts.append(Fact("take", field.name, tuple(text[start : start + count])))
            text = text[:start] + text[start + count :]
        if not options or self._chance.random() < 0.7:
            fresh = self._values.of(field)
            options["insert"] = (self._chance.randint(0, len(text)), fresh)
            facts.append(Fact("put", field.name, tuple(fresh)))
        intent = Intent(_name(record), held.id, tuple(facts))
        await pen.write([intent], lambda: _of(pen, record).edit_text(held.id, field.name, **options))
        return f"edit_text {held.id[:23]} {' '.join(options)}"

    async def _delete(self, pen: Pen, record: type[Record]) -> str:
        held = await self._pick(pen, record)
        if held is None:
            return "nothing to delete"
        intent = Intent(_name(record), held.id, (Fact("set", DELETED, True),))
        await pen.write([intent], lambda: _of(pen, record).delete(held.id))
        return f"delete {held.id[:23]}"

    async def _restore(self, pen: Pen, record: type[Record]) -> str:
        deleted = {
            edit.key.record: None
            for edit in self._ledger.edits
            if edit.key.collection == _name(record) and Fact("set", DELETED, True) in edit.facts
        }
        if not deleted:
            return "nothing to restore"
        chosen = self._chance.choice(list(deleted))
        intent = Intent(_name(record), chosen, (Fact("set", DELETED, False),))
        try:
            await pen.write([intent], lambda: _of(pen, record).restore(chosen))
        except RecordNotFound:
            return f"restore {chosen[:23]}: it is not here"
        return f"restore {chosen[:23]}"

    async def _blunder(self, pen: Pen, record: type[Record]) -> str:
        """Ask for what is refused: nothing may come of it."""
        held = await self._pick(pen, record)
        if held is None:
            return "nothing to spoil"
        field = _fields(record, Kind.REGISTER)[0].name
        try:
            await pen.write([], lambda: _of(pen, record).update(held.id, **{field: object()}))
        except ValidationError:
            return f"blunder {held.id[:23]}"
        raise AssertionError("an object became a value")

    # -- Choosing

    async def _pick(self, pen: Pen, record: type[Record]) -> Any:
        """Return a record that is on the device now, or None."""
        keys = [key.record for key in self._ledger.keys if key.collection == _name(record)]
        for chosen in self._chance.choices(keys[-40:], k=_TRIES) if keys else ():
            held = await _of(pen, record).get(chosen)
            if held is not None:
                return held
        return None

    def _field(self, record: type[Record], kind: Kind) -> Field | None:
        fields = _fields(record, kind)
        return self._chance.choice(fields) if fields else None


def _put_in(field: Field, value: Any) -> Iterator[Fact]:
    """What a creation says of a field."""
    if field.kind is Kind.REGISTER:
        yield Fact("set", field.name, value)
    elif field.kind is Kind.MAP:
        yield from (Fact("set", f"{field.name}.{leaf}", inner) for leaf, inner in flat(value).items())
    elif field.kind is Kind.SET:
        yield from (Fact("add", field.name, element) for element in sorted(value))
    elif field.kind is Kind.COUNTER:
        yield Fact("count", field.name, int(value))
    else:
        yield Fact("put", field.name, _pieces(value))


def _pieces(value: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(item.id if isinstance(item, Line) else item for item in value)


def _created(value: Any, record: str | None, facts: tuple[Fact, ...]) -> Intent:
    return Intent(_name(type(value)), record, facts)


def _of(pen: Pen, record: type[Record]) -> Collection[Any]:
    return pen.client.collection(record)


def _name(record: type[Record]) -> str:
    return schema_of(record).collection


def _fields(record: type[Record], kind: Kind | None = None) -> list[Field]:
    return [
        field
        for field in schema_of(record).fields
        if field.name not in _STAMPS and (kind is None or field.kind is kind)
    ]
