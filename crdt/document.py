"""One record's document: a pycrdt `Doc` behind the check, with what it says beside it.

::

    reg          map    title → value at creation; title@<client> → [reading, value] an edit; @ → the creation's reading
    set:<name>   map    element (JSON), or element@<client> → nothing
    count:<name> map    "" or <client> → that client's running total
    list:<name>  array  items
    text:<name>  text   plain text

An edit writes under its own client id and deletes the entries that it has seen; so a concurrent one survives beside
it, and `crdt.contents` decides between them by clock. (Yjs itself picks a winner by client id: measured, the older edit
won in 109 of 300 random offline histories.)

A document that is one creation update (most are) needs no pycrdt: `crdt.lanes` reads it. The `Doc` is made when the
first edit or the second update comes. Foreign bytes pass `crdt.updates` first; what we write ourselves passes it too,
so an update that others would refuse is found before it is durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import pycrdt

from crdt.changes import (
    AddElements,
    DeleteText,
    Increment,
    InsertItems,
    InsertText,
    Operation,
    RemoveElements,
    RemoveItems,
    SetRegister,
)
from crdt.contents import Contents, to_int64, total_of
from crdt.errors import UpdateRefused
from crdt.updates import (
    CheckedUpdate,
    Creation,
    DocumentIndex,
    check_snapshot,
    check_update,
    read_creation,
)
from crdt.values import encode_edit, encode_value

__all__ = ["Document"]

Update: TypeAlias = bytes  # `Document.bytes` takes the word

_SHORT_LIST_ITEMS = 64


class Document:
    """One record's document.

    Attributes: ``client`` (the id that local edits are written under), ``snapshot_bytes`` and ``tail_bytes`` (of what
    it was made from: the snapshot, and the updates after it).
    """

    __slots__ = ("_contents", "_doc", "_index", "_only", "client", "snapshot_bytes", "tail_bytes")

    def __init__(self, *, client: int) -> None:
        self.client = client
        self.snapshot_bytes = 0
        self.tail_bytes = 0
        self._doc: pycrdt.Doc[Any] | None = None
        self._index: DocumentIndex | None = None
        self._only: tuple[bytes, Creation] | None = None
        self._contents: Contents | None = None

    @classmethod
    def from_creation(cls, update: Update, creation: Creation, *, client: int) -> Document:
        """Return the document that is one creation update, already read by `read_creation`."""
        document = cls(client=client)
        document._only = (update, creation)
        document.tail_bytes = len(update)
        return document

    @classmethod
    def load(cls, snapshot: Update | None, updates: Sequence[Update], *, client: int) -> Document:
        """Return the document of a snapshot and the updates after it, in order: all checked when they were stored."""
        document = cls(client=client)
        if snapshot is None and len(updates) == 1:
            creation = read_creation(updates[0], client=None)
            if creation is not None:
                return cls.from_creation(updates[0], creation, client=client)
        doc = document._doc = pycrdt.Doc(client_id=client)
        if snapshot is not None:
            doc.apply_update(snapshot)
            document.snapshot_bytes = len(snapshot)
        for update in updates:
            doc.apply_update(update)
            document.tail_bytes += len(update)
        return document

    @property
    def bytes(self) -> int:
        """What the document was made from, in bytes: a measure of its memory."""
        return self.snapshot_bytes + self.tail_bytes

    def compacted(self, snapshot_bytes: int) -> None:
        """Note that a snapshot of that size now stands for everything so far."""
        self.snapshot_bytes, self.tail_bytes = snapshot_bytes, 0

    @property
    def index(self) -> DocumentIndex:
        """What the check knows of the document."""
        if self._index is None:
            if self._only is not None:
                self._index = DocumentIndex()
                self._index.add(check_update(self._only[0], client=self._only[1].client, index=None))
            elif self._doc is not None:
                self._index = check_snapshot(self._doc.get_update())
            else:
                self._index = DocumentIndex()
        return self._index

    @property
    def contents(self) -> Contents:
        """What the document says now."""
        if self._contents is None:
            if self._doc is None and self._only is not None:
                self._contents = Contents.from_creation(self._only[1])
            else:
                self._contents = Contents({}, {}, {}, {}, {})
                self._reread(self._opened().keys())
        return self._contents

    def snapshot(self) -> Update:
        """Return one update that stands for the whole document."""
        if self._doc is None and self._only is not None:
            return self._only[0]
        return self._opened().get_update()

    def clocks(self) -> dict[int, int]:
        """Return the next clock by client: the state vector."""
        return dict(self.index.clocks)

    def apply(self, update: Update, *, client: int) -> CheckedUpdate:
        """Take another device's update, after the check.

        Raises:
            UpdateRefused: with code ``repeat`` when it is known already; nothing was changed.
            UpdateGap: an earlier update of that client is missing; nothing was changed.

        After a refusal with code ``panic`` the document in memory is not to be used any more.
        """
        index = self.index
        checked = check_update(update, client=client, index=index)
        contents = self.contents
        _apply(self._opened(), update)
        self._took(checked, update)
        for name, items in checked.appended.items():
            _append(contents, name.removeprefix("list:"), items)
        self._reread(root for root in checked.touched if root not in checked.appended)
        return checked

    def merge_snapshot(self, snapshot: Update) -> None:
        """Take a whole document from the server beside what is here, after the check.

        Raises:
            UpdateRefused: nothing was changed; but after the codes ``panic`` and ``pending`` the document in memory is
                not to be used any more.
        """
        index = check_snapshot(snapshot)
        if (client := self.index.contradicted_by(index)) is not None:
            raise UpdateRefused(
                "history", f"what client {client} wrote stands elsewhere in the document here"
            )
        doc = self._opened()
        _apply(doc, snapshot)
        self.tail_bytes += len(snapshot)
        merged = doc.get_update()
        self._index = check_snapshot(merged)
        missing = {
            client: clock for client, clock in index.clocks.items() if self._index.next_clock(client) < clock
        }
        if missing:
            raise UpdateRefused("pending", f"the document does not reach its own clocks {missing}")
        # Hostile parts may lie otherwise in memory than in the bytes: go on with what a later opening will read.
        self._doc = pycrdt.Doc(client_id=self.client)
        _apply(self._doc, merged)
        self._contents = None

    def edit(self, operations: Sequence[Operation], *, reading: int) -> tuple[Update, CheckedUpdate]:
        """Carry out some operations as one transaction; return its update and what it touched.

        The operations are valid and encoded; places in lists and texts are within bounds (the caller has looked). One
        of them at least sets a register, `updatedAt` as a rule: an update of deletes alone would move no clock.

        Raises:
            UpdateRefused: the edit is too large for one update; the document in memory is not to be used any more.
        """
        if not any(isinstance(operation, SetRegister) for operation in operations):
            raise ValueError("an edit sets at least one register, such as updatedAt")
        doc = self._opened()
        contents, index = self.contents, self.index
        updates: list[bytes] = []
        subscription = doc.observe(lambda event: updates.append(bytes(event.update)))
        try:
            with doc.transaction():
                for operation in operations:
                    self._carry_out(doc, contents, operation, reading)
        finally:
            doc.unobserve(subscription)
        (update,) = updates
        checked = check_update(update, client=self.client, index=index)
        self._took(checked, update)
        self._reread(root for root in checked.touched if not root.startswith("list:"))
        return update, checked

    def _opened(self) -> pycrdt.Doc[Any]:
        if self._doc is None:
            self._doc = pycrdt.Doc(client_id=self.client)
            if self._only is not None:
                index = self.index
                self._doc.apply_update(self._only[0])
                self._only = None
                self._index = index
        return self._doc

    def _took(self, checked: CheckedUpdate, update: Update) -> None:
        self.index.add(checked)
        self.tail_bytes += len(update)

    def _carry_out(
        self, doc: pycrdt.Doc[Any], contents: Contents, operation: Operation, reading: int
    ) -> None:
        match operation:
            case SetRegister(path, value, since):
                reg = doc.get("reg", type=pycrdt.Map)
                own = f"{path}@{self.client}"
                for key, _ in contents.entries(path):
                    if key != own and key in reg:
                        del reg[key]
                reg[own] = encode_edit(reading if since is None else since, value)
            case AddElements(name, elements):
                held = contents.elements(name)
                root = doc.get(f"set:{name}", type=pycrdt.Map)
                for element in elements:
                    own = f"{element}@{self.client}"
                    for key in held.get(element, ()):
                        if key != own and key in root:
                            del root[key]
                    root[own] = b""
            case RemoveElements(name, elements):
                held = contents.elements(name)
                root = doc.get(f"set:{name}", type=pycrdt.Map)
                for element in elements:
                    for key in {*held.get(element, ()), f"{element}@{self.client}"}:
                        if key in root:
                            del root[key]
            case Increment(name, by):
                root = doc.get(f"count:{name}", type=pycrdt.Map)
                own = str(self.client)
                total = to_int64((total_of(root[own]) if own in root else 0) + by)
                root[own] = encode_value(total)
            case InsertItems(name, index, items):
                root = doc.get(f"list:{name}", type=pycrdt.Array)
                if index is None:
                    root.extend(list(items))
                    _append(contents, name, items)
                else:
                    root[index:index] = list(items)
                    contents.lists.setdefault(name, [])[index:index] = items
                    contents.list_digests.pop(name, None)
            case RemoveItems(name, index, count):
                root = doc.get(f"list:{name}", type=pycrdt.Array)
                del root[index : index + count]
                del contents.lists.setdefault(name, [])[index : index + count]
                contents.list_digests.pop(name, None)
            case InsertText(name, index, text):
                root = doc.get(f"text:{name}", type=pycrdt.Text)
                root.insert(_byte_offset(str(root), index), text)
            case DeleteText(name, index, count):
                root = doc.get(f"text:{name}", type=pycrdt.Text)
                held_text = str(root)
                start = _byte_offset(held_text, index)
                del root[start : start + len(held_text[index : index + count].encode())]

    def _reread(self, roots: Iterable[str]) -> None:
        """Read some roots anew from the pycrdt document."""
        doc, contents = self._opened(), self.contents
        for root in roots:
            kind, _, name = root.partition(":")
            if kind == "reg":
                contents.reg = _entries(doc, root)
            elif kind == "set":
                contents.sets = {**contents.sets, name: tuple(doc.get(root, type=pycrdt.Map).keys())}
            elif kind == "count":
                contents.counts = {**contents.counts, name: _entries(doc, root)}
            elif kind == "list":
                contents.lists[name] = _items(doc, root)
                contents.list_digests.pop(name, None)
            elif kind == "text":
                contents.texts = {**contents.texts, name: str(doc.get(root, type=pycrdt.Text))}


def _append(contents: Contents, name: str, items: Sequence[bytes]) -> None:
    digest = contents.list_digest(name)
    contents.lists.setdefault(name, []).extend(items)
    contents.list_digests[name] = digest.extend(items)


def _apply(doc: pycrdt.Doc[Any], update: bytes) -> None:
    try:
        doc.apply_update(update)
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # pycrdt's, and not an Exception
            raise UpdateRefused("panic", str(error)) from None
        raise


def _entries(doc: pycrdt.Doc[Any], root: str) -> dict[str, bytes]:
    return {key: bytes(entry) for key, entry in doc.get(root, type=pycrdt.Map).items()}


def _items(doc: pycrdt.Doc[Any], root: str) -> list[bytes]:
    """Return a list's items.

    pycrdt reads an array by index, and each time walks there from its start: 10,000 messages took it 0.8 s. An
    event of a document that takes all of them at once holds them in order: 0.03 s.
    """
    items: pycrdt.Array[Any] = doc.get(root, type=pycrdt.Array)
    if len(items) <= _SHORT_LIST_ITEMS:
        return [bytes(item) for item in items]
    reader: pycrdt.Doc[Any] = pycrdt.Doc()
    items = reader.get(root, type=pycrdt.Array)
    found: list[bytes] = []

    def take(event: Any) -> None:
        for part in event.delta:
            found.extend(map(bytes, part["insert"]))

    subscription = items.observe(take)
    reader.apply_update(doc.get_update())
    items.unobserve(subscription)
    return found


def _byte_offset(text: str, index: int) -> int:
    """Return the place of a code point in UTF-8: what pycrdt counts in."""
    return len(text[:index].encode())
