"""Honest histories: devices that edit one document, in our format, on real pycrdt, and meet through a log.

A `Device` holds a pycrdt document and writes as `crdt.document` does: one writer for each map key, buffers as values,
`updatedAt` in every transaction. A `History` is devices, a log and random steps: edit, push what is pending, pull some
of the log. The chance comes in by the door, so that Hypothesis or a seed can bring it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pycrdt import Array, Doc, Map, Text

__all__ = ["ALPHABET", "LISTS", "ROOTS", "TEXTS", "Device", "History", "contents", "pack", "state_of"]

pack = msgspec.msgpack.encode

# One to four bytes of UTF-8, one and two units of UTF-16, joiners, a flag, and what Python and SQL trip over.
ALPHABET = ["a", "b", " ", "é", "漢", "😀", "👩\u200d👧", "🇩🇪", "𝒳", "\x00", "\u2028", "~@/"]
FIELDS = ["title", "name", "settings/theme", "pinned"]
ELEMENTS = ["a", "b@1", 5, "é😀"]
LISTS = ["list:messages", "list:topics"]
TEXTS = ["text:body", "text:notes"]
ROOTS = ["reg", "set:tags", "count:views", *LISTS, *TEXTS]


def state_of(doc: Doc[Any]) -> dict[int, int]:
    """Return pycrdt's state vector as next clock by client."""
    numbers: list[int] = []
    value = shift = 0
    for byte in doc.get_state():
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
    return dict(zip(numbers[1::2], numbers[2::2], strict=True))


def contents(doc: Doc[Any], roots: Iterable[str] = ROOTS) -> dict[str, Any]:
    """Return what pycrdt reads in some roots."""
    found: dict[str, Any] = {}
    for root in roots:
        if root[0] in "rsc":
            found[root] = doc.get(root, type=Map).to_py()
        elif root[0] == "l":
            found[root] = doc.get(root, type=Array).to_py()
        else:
            found[root] = str(doc.get(root, type=Text))
    return found


class Device:
    """One incarnation of one device, and its copy of the document."""

    def __init__(self, client: int) -> None:
        self.client = client
        self.doc: Doc[Any] = Doc(client_id=client)
        self.made: list[bytes] = []
        self.reading = 0
        self._subscription = self.doc.observe(self._keep)
        self._is_writing = False

    def _keep(self, event: Any) -> None:
        if self._is_writing:
            self.made.append(bytes(event.update))

    def close(self) -> None:
        """Let go of the document: pycrdt never collects one with an observer."""
        self.doc.unobserve(self._subscription)

    def map(self, root: str) -> Map[Any]:
        held: Map[Any] = self.doc.get(root, type=Map)
        return held

    def array(self, root: str) -> Array[Any]:
        held: Array[Any] = self.doc.get(root, type=Array)
        return held

    def text(self, root: str) -> Text:
        held: Text = self.doc.get(root, type=Text)
        return held

    def create(self, chance: random.Random, *, is_minted: bool = True) -> bytes:
        """Write a new record; its id was chosen by the application unless it ``is_minted``."""
        self._is_writing = True
        mark = "" if is_minted else f"@{self.client}"
        with self.doc.transaction():
            registers = self.map("reg")
            registers["@"] = pack(1)
            for path in [*FIELDS, "createdAt", "updatedAt"]:
                if chance.random() < 0.8 or path == "updatedAt":
                    value = _value(chance)
                    registers[path + mark] = pack(value if is_minted else [1, value])
            for element in ELEMENTS:
                if chance.random() < 0.3:
                    self.map("set:tags")[_json(element) + mark] = b""
            if chance.random() < 0.5:
                self.map("count:views")[mark[1:]] = pack(chance.randrange(10**6))
            for root in LISTS:
                if items := _items(chance, least=0):
                    self.array(root).extend(items)
            for root in TEXTS:
                if text := _text(chance, least=0):
                    self.text(root).insert(0, text)
        self._is_writing = False
        return self.made[-1]

    def edit(self, chance: random.Random, *, operations: int | None = None) -> bytes:
        """Change some of the record in one transaction."""
        self._is_writing = True
        kinds = [
            self.set_register,
            self.remove_register,
            self.change_set,
            self.increment,
            self.change_list,
            self.append,
            self.change_text,
        ]
        with self.doc.transaction():
            for _ in range(operations or chance.randrange(1, 5)):
                chance.choice(kinds)(chance)
            self._write_register("updatedAt", [self.reading, _value(chance)])
        self._is_writing = False
        return self.made[-1]

    def append_only(self, chance: random.Random, root: str = LISTS[0]) -> bytes:
        """Append to one list, as a conversation does."""
        self._is_writing = True
        with self.doc.transaction():
            self.array(root).extend(_items(chance))
            self._write_register("updatedAt", [self.reading, 0])
        self._is_writing = False
        return self.made[-1]

    def apply(self, update: bytes) -> None:
        self.doc.apply_update(update)

    def _write_register(self, path: str, value: list[Any]) -> None:
        self.reading += 1
        registers = self.map("reg")
        own = f"{path}@{self.client}"
        for key in list(registers.keys()):
            if key != own and (key == path or key.startswith(path + "@")):
                del registers[key]
        registers[own] = pack(value)

    def set_register(self, chance: random.Random) -> None:
        self._write_register(chance.choice(FIELDS), [self.reading, _value(chance)])

    def remove_register(self, chance: random.Random) -> None:
        self._write_register(chance.choice(FIELDS), [self.reading])

    def change_set(self, chance: random.Random) -> None:
        tags = self.map("set:tags")
        element = _json(chance.choice(ELEMENTS))
        if chance.random() < 0.5:
            tags[f"{element}@{self.client}"] = b""
        else:
            for key in list(tags.keys()):
                if key == element or key.startswith(element + "@"):
                    del tags[key]

    def increment(self, chance: random.Random) -> None:
        self.map("count:views")[str(self.client)] = pack(chance.randrange(10**6))

    def append(self, chance: random.Random) -> None:
        self.array(chance.choice(LISTS)).extend(_items(chance))

    def change_list(self, chance: random.Random) -> None:
        items = self.array(chance.choice(LISTS))
        size = len(items)
        if size and chance.random() < 0.4:
            start = chance.randrange(size)
            del items[start : chance.randrange(start, size) + 1]
        else:
            place = chance.randrange(size + 1)
            items[place:place] = _items(chance)
            if chance.random() < 0.2:
                del items[place]  # inserted and deleted in one transaction

    def change_text(self, chance: random.Random) -> None:
        text = self.text(chance.choice(TEXTS))
        written = str(text)
        start = chance.randrange(len(written) + 1)
        begin = len(written[:start].encode())  # pycrdt counts bytes of UTF-8
        if written and chance.random() < 0.4:
            stop = chance.randrange(start, len(written) + 1)
            if stop > start:
                del text[begin : len(written[:stop].encode())]
        else:
            added = _text(chance)
            text.insert(begin, added)
            if chance.random() < 0.2:
                del text[begin : begin + len(added.encode())]


@dataclass
class History:
    """Devices around one log. ``log`` holds (client, update) in the server's order."""

    chance: random.Random
    devices: list[Device] = field(default_factory=list)
    log: list[tuple[int, bytes]] = field(default_factory=list)
    _pushed: dict[int, int] = field(default_factory=dict)
    _cursor: dict[int, int] = field(default_factory=dict)

    @classmethod
    def random(
        cls, chance: random.Random, *, devices: int | None = None, steps: int | None = None
    ) -> History:
        """Return a history of random steps, at the end of which every device holds everything."""
        history = cls(chance)
        clients: set[int] = set()
        while len(clients) < (devices or chance.randrange(1, 5)):
            clients.add(chance.randrange(1, 2 ** chance.choice([4, 14, 32, 53])))
        history.devices = [Device(client) for client in sorted(clients, key=lambda client: chance.random())]
        is_minted = chance.random() < 0.6
        history.devices[0].create(chance, is_minted=is_minted)
        if is_minted:
            history.push(history.devices[0])
            for device in history.devices:
                history.pull(device)
        else:
            for device in history.devices[1:]:
                device.create(chance, is_minted=False)
        for _ in range(steps if steps is not None else chance.randrange(12)):
            device = chance.choice(history.devices)
            step = chance.random()
            if step < 0.6:
                device.edit(chance)
            elif step < 0.8:
                history.push(device, chance.randrange(1, 4))
            else:
                history.pull(device, chance.randrange(1, 6))
        for device in history.devices:
            history.push(device)
        for device in history.devices:
            history.pull(device)
        return history

    def close(self) -> None:
        """Let go of the devices' documents."""
        for device in self.devices:
            device.close()

    def push(self, device: Device, most: int = 1_000_000) -> None:
        """Move a device's oldest pending updates to the log."""
        begin = self._pushed.get(device.client, 0)
        updates = device.made[begin : begin + most]
        self._pushed[device.client] = begin + len(updates)
        self.log.extend((device.client, update) for update in updates)

    def pull(self, device: Device, most: int = 1_000_000) -> None:
        """Apply the next entries of the log that are others'."""
        begin = self._cursor.get(device.client, 0)
        entries = self.log[begin : begin + most]
        self._cursor[device.client] = begin + len(entries)
        for client, update in entries:
            if client != device.client:
                device.apply(update)


def _json(element: Any) -> str:
    return json.dumps(element, ensure_ascii=False, separators=(",", ":"))


def _value(chance: random.Random) -> Any:
    return chance.choice(
        [None, True, chance.randrange(2**40), -1.5, _text(chance), "x" * chance.randrange(300)]
    )


def _text(chance: random.Random, least: int = 1) -> str:
    return "".join(chance.choice(ALPHABET) for _ in range(chance.randrange(least, 6)))


def _items(chance: random.Random, least: int = 1) -> list[bytes]:
    return [pack(_value(chance)) for _ in range(chance.randrange(least, 4))]
