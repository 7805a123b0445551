"""The tip of a long document: what it takes to go on writing at its end, without the document.

A conversation of 100,000 messages is 24 MB of updates, and half a second until pycrdt, the check and the digest have
read them; what one more message needs of them is the last item's id, the registers, and the list's digest so far. That
is the tip. It is kept beside the document, follows each update that only appends to lists and sets registers, and
writes such an edit as pycrdt would, byte for byte (property test).

**What it takes, the check takes.** The tip knows a part of what `crdt.index` knows, and takes an update only where that
part decides: items that continue a list's very last one, a client's first entry under a key or one that names its own
last entry there, deletes of entries that it knows. For all else it answers None, and the document is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NoReturn

import msgspec

from crdt.changes import InsertItems, Operation, SetRegister
from crdt.contents import DELETED, Contents, ListDigest
from crdt.errors import CrdtError
from crdt.grammar import IN_MAP, Block, Id, Range, client_marks, is_owner, walk_update, write_varint
from crdt.index import CheckedUpdate, DocumentIndex
from crdt.values import encode_edit

__all__ = ["TIP_BYTES_MAX", "ItemsUnread", "Tip"]

TIP_BYTES_MAX: Final = (
    64 * 1024
)  # a tip grows with the sessions that edited; past it, reading it stops being cheap
_DELETES_MAX: Final = 1_000
_REG_ENTRY: Final = b"\x28\x01\x03reg"


class ItemsUnread(CrdtError):
    """A tip was asked for what only the document knows; nothing was changed."""


class _Unread(dict[str, Any]):
    """The lists of a document by name, whose items were not read."""

    def get(self, name: str, default: Any = None) -> Any:
        """Return the default of a list that there is not."""
        if name in self:
            self._refuse()
        return default

    def _refuse(self, *_: Any) -> NoReturn:
        raise ItemsUnread("the items of lists are not read")

    __getitem__ = __setitem__ = setdefault = pop = items = values = _refuse


class _Stored(msgspec.Struct, array_like=True, gc=False):
    """A tip as bytes."""

    clocks: dict[int, int]
    entries: dict[str, Id]
    tails: dict[str, Id]
    reg: dict[str, bytes]
    sets: dict[str, list[str]]
    counts: dict[str, dict[str, bytes]]
    digests: dict[str, tuple[int, bytes]]
    snapshot_bytes: int
    tail_bytes: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


class Tip:
    """The tip of one document.

    Attributes: ``contents`` (what the document says, its lists' items excepted: those raise `ItemsUnread`),
    ``snapshot_bytes`` and ``tail_bytes`` (of the document, as `crdt.document` counts them).
    """

    __slots__ = ("_clocks", "_entries", "_keys", "_tails", "contents", "snapshot_bytes", "tail_bytes")

    def __init__(self, stored: _Stored) -> None:
        self._clocks = stored.clocks
        self._entries = stored.entries  # the last entry under a key of the registers, deleted or not
        self._keys = {entry: key for key, entry in stored.entries.items()}
        self._tails = stored.tails  # the last item, by root
        self.contents = contents = Contents(stored.reg, stored.sets, stored.counts, {}, {})
        contents.lists = _Unread(dict.fromkeys(stored.digests))
        contents.list_digests = {
            name: ListDigest(count, int.from_bytes(value, "big"))
            for name, (count, value) in stored.digests.items()
        }
        self.snapshot_bytes = stored.snapshot_bytes
        self.tail_bytes = stored.tail_bytes

    @classmethod
    def of(
        cls, index: DocumentIndex, contents: Contents, *, snapshot_bytes: int = 0, tail_bytes: int = 0
    ) -> Tip | None:
        """Return the tip of a document, None if it is not plain enough to have one."""
        if contents.texts:
            return None
        digests = {name: contents.list_digest(name) for name in contents.lists}
        entries = index.last_entries("reg")
        if entries is None:
            return None
        roots = [f"list:{name}" for name in digests]
        tip = cls(
            _Stored(
                index.clocks,
                entries,
                {root: tail for root in roots if (tail := index.tail(root)) is not None},
                dict(contents.reg),
                {name: list(keys) for name, keys in contents.sets.items()},
                {name: dict(totals) for name, totals in contents.counts.items()},
                {name: (digest.count, digest.value.to_bytes(16, "big")) for name, digest in digests.items()},
                snapshot_bytes,
                tail_bytes,
            )
        )
        return tip if len(tip.to_bytes()) <= TIP_BYTES_MAX else None

    @classmethod
    def from_bytes(cls, data: bytes) -> Tip:
        """Return the tip that `to_bytes` wrote."""
        return cls(_decode(data))

    def to_bytes(self) -> bytes:
        """Return the tip as bytes."""
        contents = self.contents
        return _encode(
            _Stored(
                self._clocks,
                self._entries,
                self._tails,
                dict(contents.reg),
                {name: list(keys) for name, keys in contents.sets.items()},
                {name: dict(totals) for name, totals in contents.counts.items()},
                {
                    name: (digest.count, digest.value.to_bytes(16, "big"))
                    for name, digest in contents.list_digests.items()
                    if name in contents.lists
                },
                self.snapshot_bytes,
                self.tail_bytes,
            )
        )

    # -- Going on

    def edit(
        self, operations: Sequence[Operation], *, client: int, reading: int
    ) -> tuple[bytes, CheckedUpdate]:
        """Carry out appends and new values of registers as one transaction; return its update and what it touched.

        Raises:
            ItemsUnread: the operations need the document.
            UpdateRefused: the edit is too large for one update; nothing was changed.
        """
        update = self._write(operations, client, reading)
        checked = self.take(update, client=client)
        if checked is None:
            raise ItemsUnread("the edit needs the document")
        return update, checked

    def take(self, update: bytes, *, client: int) -> CheckedUpdate | None:
        """Take an update of ``client`` that goes on at the end; None for one that needs the document.

        Its `CheckedUpdate` names no items: it is to be told from its ``touched`` and ``appended``. Raises
        `UpdateRefused` for bytes that are no update.
        """
        _, start, end, blocks, deletes = walk_update(update, client)
        if start != self._clocks.get(client, 0):
            return None
        followed = self._follow(client, blocks, deletes)
        if followed is None:
            return None
        entries, tails, appended, removed = followed
        contents = self.contents
        reg = {key: value for key, value in contents.reg.items() if key not in removed}
        reg |= {key: value for key, (_, value) in entries.items()}
        contents.reg = reg
        for key, (entry, _) in entries.items():
            self._keys.pop(self._entries.get(key, entry), None)
            self._entries[key] = entry
            self._keys[entry] = key
        self._tails |= tails
        for root, items in appended.items():
            name = root[5:]
            contents.list_digests[name] = contents.list_digest(name).extend(items)
        self._clocks[client] = end
        self.tail_bytes += len(update)
        touched = {root: frozenset[str]() for root in appended}
        if entries or removed:
            touched["reg"] = frozenset({*entries, *removed})
        return CheckedUpdate(
            client,
            start,
            end,
            (),
            tuple(sorted(deletes)),
            touched,
            {root: tuple(items) for root, items in appended.items()},
            is_creation=False,
        )

    def _follow(
        self, client: int, blocks: Iterable[Block], deletes: Iterable[Range]
    ) -> tuple[dict[str, tuple[Id, bytes]], dict[str, Id], dict[str, list[bytes]], set[str]] | None:
        """Return what an update comes to: new entries by key, tails by root, items by root, and keys removed."""
        owned = client_marks(client)[1]
        roots = {tail: root for root, tail in self._tails.items()}
        entries: dict[str, tuple[Id, bytes]] = {}
        tails: dict[str, Id] = {}
        appended: dict[str, list[bytes]] = {}
        replaced: set[Id] = set()
        for info, clock, length, root, key, origin, right, values, _ in blocks:
            if right is not None or values is None:
                return None
            if root == "reg" and key is not None:
                if key in self._entries or key in entries:
                    return None
                entries[key] = (client, clock), values[0]
            elif root is not None or origin is None:
                return None
            elif info & IN_MAP:
                held = self._keys.get(origin)
                if held is None or held in entries or not is_owner("reg", held, owned):
                    return None
                replaced.add(origin)
                entries[held] = (client, clock), values[0]
            else:
                place = roots.pop(origin, None)
                if place is None:
                    return None
                tails[place] = last = (client, clock + length - 1)
                roots[last] = place
                appended.setdefault(place, []).extend(values)
        removed: set[str] = set()
        for entry in _each(deletes):
            key = self._keys.get(entry)
            if key is None:
                return None
            if entry not in replaced:
                removed.add(key)
        return entries, tails, appended, removed

    # -- Writing

    def _write(self, operations: Sequence[Operation], client: int, reading: int) -> bytes:
        clock = self._clocks.get(client, 0)
        mark = client_marks(client)[0]
        tails = dict(self._tails)
        parts: list[bytes] = [b"\x01", b"", mark, write_varint(clock)]
        deleted: list[Id] = []
        written: set[str] = set()
        count = 0
        for operation in operations:
            match operation:
                case InsertItems(name, None, items) if items and f"list:{name}" in tails:
                    other, last = tails[f"list:{name}"]
                    parts += (b"\x88", write_varint(other), write_varint(last), write_varint(len(items)))
                    for item in items:
                        parts += (b"\x74", write_varint(len(item)), item)
                    clock += len(items)
                    tails[f"list:{name}"] = client, clock - 1
                case SetRegister(path, value) if path not in written and path != DELETED:
                    written.add(path)
                    own = f"{path}@{client}"
                    for key, _ in self.contents.entries(path):
                        deleted.append(self._entry(key))
                    held = self._entries.get(own)
                    if held is None:
                        named = own.encode()
                        parts += (_REG_ENTRY, write_varint(len(named)), named)
                    else:
                        parts += (b"\xa8", mark, write_varint(held[1]))
                    data = encode_edit(reading, value)
                    parts += (b"\x01\x74", write_varint(len(data)), data)
                    clock += 1
                case _:
                    raise ItemsUnread("the edit needs the document")
            count += 1
        parts[1] = write_varint(count)
        return b"".join([*parts, *_deletes(deleted)])

    def _entry(self, key: str) -> Id:
        entry = self._entries.get(key)
        if entry is None:
            raise ItemsUnread(f"who wrote {key} is not known")
        return entry


def _each(deletes: Iterable[Range]) -> Iterator[Id]:
    """Yield the items of deleted ranges, as many as an edit of registers may delete."""
    left = _DELETES_MAX
    for client, start, end in deletes:
        left -= end - start
        if left < 0:
            yield -1, -1  # known to nobody
            return
        for clock in range(start, end):
            yield client, clock


def _deletes(deleted: Iterable[Id]) -> Iterator[bytes]:
    """Yield the end of an update: the deleted items by client, those that follow one another as one range."""
    by_client: dict[int, list[int]] = {}
    for client, clock in deleted:
        by_client.setdefault(client, []).append(clock)
    yield write_varint(len(by_client))
    for client, clocks in sorted(by_client.items(), reverse=True):
        ranges: list[list[int]] = []
        for clock in sorted(clocks):
            if ranges and ranges[-1][0] + ranges[-1][1] == clock:
                ranges[-1][1] += 1
            else:
                ranges.append([clock, 1])
        yield write_varint(client) + write_varint(len(ranges))
        for start, length in ranges:
            yield write_varint(start) + write_varint(length)
