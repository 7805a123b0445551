"""The ledger: what was written, by whom, having seen what, and so what must be there in the end.

It knows nothing of how documents merge but the rules as they are promised: a register holds the latest write, by clock,
of those that no other write had seen; a counter is a sum; an element is in a set if it was added by somebody whom no
remover had seen; items and characters are there if they were put in and not taken out. Every item and every
character that is put in is the only one of its kind, so nothing is confused with anything else.

An `Edit` is one update. Those that a device made after the moment to which its disk was put back are *loose*: they
are owed only if they had reached the server's log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

__all__ = ["DELETED", "REMOVED", "Edit", "Expected", "Fact", "Intent", "Key", "Ledger", "expected_of"]

DELETED: Final = "$deleted"
REMOVED: Final = "<removed>"


class Key(NamedTuple):
    """A record."""

    collection: str
    record: str


class Fact(NamedTuple):
    """One thing that an edit does to one field; ``name`` is the field's, a map's leaf with a dot.

    ======== ============================ =========================
    kind     of                           value
    ======== ============================ =========================
    set      register, leaf, tombstone    the value, or `REMOVED`
    again    leaf                         the value that it has: written only if there is a conflict to clear
    add      set                          an element
    remove   set                          an element
    count    counter                      what was added
    put      list, text                   items or characters, each unique
    take     list, text                   the same
    ======== ============================ =========================
    """

    kind: str
    name: str
    value: Any


class Intent(NamedTuple):
    """An edit that was asked for. ``record`` is None where the device mints the id."""

    collection: str
    record: str | None
    facts: tuple[Fact, ...]


@dataclass(slots=True, kw_only=True, eq=False)
class Edit:
    """One update that became durable on a device. ``seen``: what its document held of other clients, by next clock."""

    device: str
    incarnation: int
    client: int
    n: int
    start: int
    end: int
    key: Key
    reading: int
    seen: dict[int, int]
    facts: tuple[Fact, ...]
    is_loose: bool = False

    @property
    def number(self) -> tuple[str, int, int]:
        """What the server knows it by."""
        return self.device, self.incarnation, self.n

    def has_seen(self, other: Edit) -> bool:
        """Whether the other was in the document when this one was made."""
        if other.client == self.client:
            return self.start >= other.end
        return self.seen.get(other.client, 0) >= other.end


@dataclass(slots=True)
class Expected:
    """What a record must hold. A register without a write is in none of them."""

    registers: dict[str, Any] = field(default_factory=dict)
    sets: dict[str, set[Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    pieces: dict[str, Counter[Any]] = field(default_factory=dict)
    orders: dict[str, list[Sequence[Any]]] = field(default_factory=dict)


class Ledger:
    """Every edit that returned. `edits` is in the order in which they did."""

    def __init__(self) -> None:
        self.edits: list[Edit] = []
        self.keys: dict[Key, None] = {}
        self._by_number: dict[tuple[str, int, int], Edit] = {}

    def add(self, edits: Iterable[Edit]) -> None:
        """Enter what has become durable."""
        for edit in edits:
            assert edit.number not in self._by_number, f"{edit.number} is in the ledger twice"
            self._by_number[edit.number] = edit
            self.edits.append(edit)
            self.keys.setdefault(edit.key)

    def rename(
        self, made: Iterable[Edit], device: str, renamed: dict[tuple[int, int], tuple[int, int]]
    ) -> None:
        """Follow a device that gave its pending edits another (incarnation, client)."""
        clients = {old[1]: new[1] for old, new in renamed.items()}
        for edit in made:
            edit.seen = {clients.get(client, client): clock for client, clock in edit.seen.items()}
            new = renamed.get((edit.incarnation, edit.client)) if edit.device == device else None
            if new is not None:
                del self._by_number[edit.number]
                edit.incarnation, edit.client = new
                self._by_number[edit.number] = edit

    def present(self, logged: Container[tuple[str, int, int]]) -> list[Edit]:
        """Return the edits that must be there, given the numbers of those that are in the server's log."""
        return [edit for edit in self.edits if not edit.is_loose or edit.number in logged]


def expected_of(edits: Sequence[Edit]) -> Expected:
    """Return what a record must hold after these edits of it."""
    made = Expected()
    writes: dict[str, list[tuple[Edit, int, Any]]] = {}
    adds: dict[tuple[str, Any], list[Edit]] = {}
    removes: dict[tuple[str, Any], list[Edit]] = {}
    for edit in edits:
        for place, (kind, name, value) in enumerate(edit.facts):
            if kind == "set":
                writes.setdefault(name, []).append((edit, place, value))
            elif kind == "add":
                adds.setdefault((name, value), []).append(edit)
                made.sets.setdefault(name, set())
            elif kind == "remove":
                removes.setdefault((name, value), []).append(edit)
            elif kind == "count":
                made.counts[name] = made.counts.get(name, 0) + value
            elif kind == "put":
                made.pieces.setdefault(name, Counter()).update(value)
                made.orders.setdefault(name, []).append(value)
            elif kind == "take":
                made.pieces.setdefault(name, Counter()).subtract(value)
    # Who takes out what two others put in, or the same thing as somebody else, takes it out once.
    made.pieces = {
        name: Counter({piece: 1 for piece, count in pieces.items() if count > 0})
        for name, pieces in made.pieces.items()
    }
    for (name, element), adders in adds.items():
        removers = removes.get((name, element), ())
        if any(not any(remover.has_seen(adder) for remover in removers) for adder in adders):
            made.sets[name].add(element)
    for name, all_writes in writes.items():
        open_writes = [
            write
            for write in all_writes
            if not any(other[0] is not write[0] and other[0].has_seen(write[0]) for other in all_writes)
        ]
        winner = max(open_writes, key=lambda write: (write[0].reading, write[0].client, write[0].n, write[1]))
        made.registers[name] = winner[2]
    return made
