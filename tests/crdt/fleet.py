"""A fleet: devices that hold one record as real documents, edit it apart, and meet through a server's log.

It works as the client does: a local edit is applied at once and pushed later, in order; what others pushed is pulled in
the server's order, as updates or as a snapshot; a device may be opened anew, under a new client id, from what it had
stored. Each edit is remembered with what its device knew then; what must come out follows from that alone.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from crdt.changes import Operation, SetRegister
from crdt.clock import HybridClock
from crdt.contents import Contents
from crdt.document import Document
from crdt.errors import UpdateRefused
from crdt.records import create, read
from crdt.schema import Record, Schema, schema_of
from crdt.updates import check_shape, read_creation
from crdt.values import encode_value, split_edit

__all__ = ["NOW", "NOW_MS", "Device", "Edit", "Fleet", "plain"]

NOW_MS = 1_790_000_000_000
NOW = dt.datetime.fromtimestamp(NOW_MS / 1000, tz=dt.UTC)
RECORD_ID = "the record"
SERVER_CLIENT = 1


def plain(contents: Contents) -> dict[str, Any]:
    """Return every entry of a document, in no order but the lists' own; empty roots are as good as none."""
    parts: dict[str, dict[str, Any]] = {
        "reg": dict(contents.reg),
        "sets": {name: frozenset(keys) for name, keys in contents.sets.items()},
        "counts": {name: dict(totals) for name, totals in contents.counts.items()},
        "lists": {name: tuple(items) for name, items in contents.lists.items()},
        "texts": dict(contents.texts),
    }
    return {part: {name: held for name, held in roots.items() if held} for part, roots in parts.items()}


@dataclass(eq=False)
class Edit:
    """One transaction: who wrote it, when, what it did, and which edits its device knew."""

    client: int
    reading: int
    update: bytes
    operations: Sequence[Operation]
    known: frozenset[Edit]


@dataclass
class Device:
    """One device's copy. ``skew_ms`` is how wrong its clock is."""

    client: int
    skew_ms: int = 0
    document: Document | None = None
    clock: HybridClock = field(default_factory=HybridClock)
    pending: list[Edit] = field(default_factory=list)
    cursor: int = 0
    known: set[Edit] = field(default_factory=set)
    stored: tuple[bytes | None, list[bytes]] = field(default_factory=lambda: (None, []))

    @property
    def contents(self) -> Contents:
        assert self.document is not None
        return self.document.contents


class Fleet:
    """Devices around one log."""

    def __init__(
        self, record: type[Record], clients: Iterable[int], *, skews_ms: Sequence[int] = (0,)
    ) -> None:
        self.schema: Schema = schema_of(record)
        self.devices = [
            Device(client, skew_ms=skews_ms[place % len(skews_ms)]) for place, client in enumerate(clients)
        ]
        self.log: list[Edit] = []
        self.edits: list[Edit] = []
        self.now_ms = NOW_MS
        self.clients = {SERVER_CLIENT, *(device.client for device in self.devices)}

    def create(self, device: Device, record: Record, *, is_chosen: bool = False) -> None:
        reading = self._tick(device)
        update, values, contents = create(
            self.schema,
            record,
            record_id=RECORD_ID,
            client=device.client,
            reading=reading,
            now=NOW,
            is_chosen=is_chosen,
        )
        creation = read_creation(update, client=device.client)
        assert creation is not None
        device.document = Document.from_creation(update, creation, client=device.client)
        assert plain(device.contents) == plain(contents)
        assert {"id": RECORD_ID, **read(self.schema, device.contents)} == values
        # Where another device may create the same id, a creation's values compete like an edit's.
        entries = [(key.rpartition("@")[0], split_edit(entry)) for key, entry in contents.reg.items()]
        settings = [SetRegister(path, edit[1]) for path, edit in entries if path and edit]
        self._made(device, Edit(device.client, reading, update, settings, frozenset()))

    def edit(self, device: Device, operations: Sequence[Operation]) -> Edit:
        assert device.document is not None
        reading = self._tick(device)
        operations = [*operations, SetRegister("updatedAt", encode_value(NOW))]
        update, checked = device.document.edit(operations, reading=reading)
        shape = check_shape(update, client=device.client)
        assert (shape.start, shape.end) == (checked.start, checked.end)
        made = Edit(device.client, reading, update, operations, frozenset(device.known))
        self._made(device, made)
        return made

    def push(self, device: Device, most: int = 1_000_000) -> None:
        self.log += device.pending[:most]
        del device.pending[:most]

    def pull(self, device: Device, most: int = 1_000_000) -> None:
        """Apply the log's next entries; the device's own come back as repeats."""
        for edit in self.log[device.cursor : device.cursor + most]:
            device.cursor += 1
            if device.document is None:
                device.document = Document(client=device.client)
            if edit in device.known:
                if edit.client != device.client:  # written before the device was opened anew
                    with pytest.raises(UpdateRefused, match=r"\(repeat\)"):
                        device.document.apply(edit.update, client=edit.client)
                continue
            device.document.apply(edit.update, client=edit.client)
            device.stored[1].append(edit.update)
            device.known.add(edit)
        self._observe(device)

    def pull_snapshot(self, device: Device) -> None:
        """Take the document that the server has folded, in place of its log."""
        if not self.log:
            return
        snapshot = self.folded().snapshot()
        if device.document is None:
            device.document = Document(client=device.client)
        device.document.merge_snapshot(snapshot)
        device.stored[1].append(snapshot)
        device.known |= set(self.log)
        device.cursor = len(self.log)
        self._observe(device)

    def reopen(self, device: Device, chance: random.Random) -> None:
        """Open the device's file anew: another client id, and the document as it was stored."""
        if device.document is None:
            return
        snapshot, tail = device.stored
        device.client = self.new_client(chance)
        device.document = Document.load(snapshot, tail, client=device.client)

    def compact(self, device: Device) -> None:
        if device.document is not None:
            device.stored = (device.document.snapshot(), [])

    def new_client(self, chance: random.Random) -> int:
        while (client := chance.randrange(1, 2 ** chance.choice([4, 14, 32, 53]))) in self.clients:
            pass
        self.clients.add(client)
        return client

    def settle(self) -> None:
        """Let everyone push all, then pull all."""
        for device in self.devices:
            self.push(device)
        for device in self.devices:
            self.pull(device)

    def folded(self) -> Document:
        """Return the document that a server makes of its log."""
        document = Document(client=SERVER_CLIENT)
        for edit in self.log:
            document.apply(edit.update, client=edit.client)
        return document

    def assert_equal(self) -> Contents:
        """Hold all documents equal, also when loaded from what is stored; return what they say."""
        first = self.devices[0].contents
        values = read(self.schema, first)
        digest = first.digest(self.schema.collection, RECORD_ID)
        documents = [self.folded()]
        for device in self.devices:
            assert device.document is not None
            documents.append(device.document)
            documents.append(Document.load(*device.stored, client=SERVER_CLIENT))
            documents.append(Document.load(device.document.snapshot(), [], client=SERVER_CLIENT))
        for document in documents:
            assert plain(document.contents) == plain(first)
            assert read(self.schema, document.contents) == values
            assert document.contents.digest(self.schema.collection, RECORD_ID) == digest
            assert document.contents.value() == first.value()
        return first

    def _tick(self, device: Device) -> int:
        self.now_ms += 1
        return device.clock.tick(self.now_ms + device.skew_ms)

    def _made(self, device: Device, edit: Edit) -> None:
        device.known.add(edit)
        device.pending.append(edit)
        device.stored[1].append(edit.update)
        self.edits.append(edit)

    def _observe(self, device: Device) -> None:
        if device.document is not None:
            device.clock.observe(device.contents.reading_max(), self.now_ms + device.skew_ms)
