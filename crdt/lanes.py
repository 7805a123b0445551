"""The fast lane: a document that is one creation update is read and written here, without pycrdt.

Most documents are exactly that: made once, whole, by one device. Their bytes are a plain list of entries, so that
writing them is a join and reading them is `crdt.grammar`'s walk. Property tests hold both equal to pycrdt 0.14.13:
`write_creation` to the byte, `read_creation` in what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from crdt.grammar import ROOT_BYTES_MAX, client_marks, refuse, walk_update, write_varint
from crdt.limits import KEY_BYTES_MAX, UPDATE_BYTES_MAX

__all__ = ["Creation", "read_creation", "write_creation"]


class Creation(msgspec.Struct, frozen=True):
    """The content of a document that is one creation update of ``client``, clocks 0 to ``end`` (exclusive).

    Names are the roots' without their prefix. ``registers`` are values by register key, ``sets`` the keys of the
    elements, ``counts`` running totals by key, ``lists`` items, all as the bytes of their buffers.
    """

    client: int
    end: int
    registers: Mapping[str, bytes]
    sets: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, Mapping[str, bytes]]
    lists: Mapping[str, tuple[bytes, ...]]
    texts: Mapping[str, str]


def read_creation(update: bytes, *, client: int | None) -> Creation | None:
    """Read an update of ``client`` (of anyone when None) if it is a document's creation and nothing else.

    Returns None for an update that may be honest but has another shape: it continues something, names origins,
    deletes. Raises `UpdateRefused` by the rules of `crdt.updates`.
    """
    client, start, end, blocks, deletes = walk_update(update, client)
    if start or deletes:
        return None
    registers: dict[str, bytes] = {}
    maps: dict[str, dict[str, bytes]] = {"reg": registers}
    lists: dict[str, tuple[bytes, ...]] = {}
    texts: dict[str, str] = {}
    for _, _, _, root, key, _, _, values, text in blocks:
        if root is None:
            return None
        if text is not None:
            if root[5:] in texts:
                return None
            texts[root[5:]] = text
        elif values is None:
            return None
        elif key is None:
            if root[5:] in lists:
                return None
            lists[root[5:]] = values
        else:
            entries = maps.get(root)
            if entries is None:
                entries = maps[root] = {}
            elif key in entries:
                refuse("origin", f"{key!r} in {root!r} is written twice, as if for the first time")
            entries[key] = values[0]
    del maps["reg"]
    return Creation(
        client,
        end,
        registers,
        {root[4:]: tuple(entries) for root, entries in maps.items() if root[0] == "s"},
        {root[6:]: entries for root, entries in maps.items() if root[0] == "c"},
        lists,
        texts,
    )


_SMALL: Final = tuple(size.to_bytes() for size in range(0x80))  # varints of one byte
_REGISTER: Final = b"\x28\x01\x03reg"
_VALUE: Final = b"\x01\x74"  # one value, a buffer
_EMPTY: Final = b"\x01\x74\x00"


def write_creation(
    client: int,
    registers: Iterable[tuple[bytes, bytes]],
    sets: Iterable[tuple[bytes, Iterable[bytes]]] = (),
    counts: Iterable[tuple[bytes, Iterable[tuple[bytes, bytes]]]] = (),
    lists: Iterable[tuple[bytes, Sequence[bytes]]] = (),
    texts: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """Return the update that creates a document of ``client`` with this content, written in this order.

    ``registers`` are (key, value); ``sets`` (name, element keys); ``counts`` (name, (key, value)s); ``lists``
    (name, items); ``texts`` (name, text). Keys, names and texts are UTF-8, names without the root's prefix, and no key
    comes twice in one place. Raises `UpdateRefused` for what is too large ("key", "root", "size") and when there is
    nothing to write ("empty").
    """
    parts: list[bytes] = [b"\x01", b"", client_marks(client)[0], b"\x00"]
    small = _SMALL
    count = 0
    for key, value in registers:
        count += 1
        parts += (
            _REGISTER,
            small[len(key)] if len(key) < 0x80 else _key_size(key),
            key,
            _VALUE,
            small[len(value)] if len(value) < 0x80 else write_varint(len(value)),
            value,
        )
    for name, keys in sets:
        head = _head(b"\x28", b"set:", name)
        for key in keys:
            count += 1
            parts += (head, small[len(key)] if len(key) < 0x80 else _key_size(key), key, _EMPTY)
    for name, totals in counts:
        head = _head(b"\x28", b"count:", name)
        for key, value in totals:
            count += 1
            parts += (head, _key_size(key), key, _VALUE, write_varint(len(value)), value)
    for name, items in lists:
        if items:
            count += 1
            parts += (_head(b"\x08", b"list:", name), write_varint(len(items)))
            for item in items:
                parts += (b"\x74", small[len(item)] if len(item) < 0x80 else write_varint(len(item)), item)
    for name, text in texts:
        if text:
            count += 1
            parts += (_head(b"\x04", b"text:", name), write_varint(len(text)), text)
    if not count:
        refuse("empty", "an update without blocks")
    parts[1] = write_varint(count)
    parts.append(b"\x00")
    update = b"".join(parts)
    if len(update) > UPDATE_BYTES_MAX:
        refuse("size", f"{len(update):,} bytes are past UPDATE_BYTES_MAX ({UPDATE_BYTES_MAX:,})")
    return update


def _key_size(key: bytes) -> bytes:
    """Return a key's size as it is written."""
    if len(key) > KEY_BYTES_MAX:
        refuse("key", f"a key of {len(key):,} bytes is past KEY_BYTES_MAX ({KEY_BYTES_MAX:,})")
    return write_varint(len(key))


def _head(info: bytes, prefix: bytes, name: bytes) -> bytes:
    """Return how a block begins that stands in a root of this name."""
    root = prefix + name
    if len(root) > ROOT_BYTES_MAX:
        refuse("root", f"the root's name {root!r} is past ROOT_BYTES_MAX ({ROOT_BYTES_MAX})")
    return info + b"\x01" + write_varint(len(root)) + root
