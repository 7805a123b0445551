"""Move a client's history to another client id, byte for byte the same otherwise.

A device whose client id turns out to be taken (a cloned machine with the same random numbers, say) has
written nothing that others know under it, so everything it wrote can simply bear another name: its blocks,
what points at them, and the keys that it owns. Sections of a snapshot are put back in order, the largest
client first, as Yjs writes them.
"""

from __future__ import annotations

from crdt.grammar import (
    IN_MAP,
    Block,
    Id,
    is_owner,
    read_varint,
    walk_deletes,
    walk_section,
    write_varint,
)
from crdt.ids import CLIENT_ID_BITS

__all__ = ["rename_client"]

_CLIENT_MAX = (1 << CLIENT_ID_BITS) - 1
_CONTENT = 0x1F
_DELETED, _TEXT = 0x01, 0x04


def rename_client(update: bytes, old: int, new: int) -> bytes:
    """Return an update or a snapshot of ours in which client ``old`` is called ``new``, which must not occur in it.

    Raises `UpdateRefused` if the bytes are none of ours.
    """
    count, pos = read_varint(update, 0)
    sections: list[tuple[int, bytes]] = []
    for _ in range(count):
        blocks_count, pos = read_varint(update, pos)
        client, pos = read_varint(update, pos, _CLIENT_MAX)
        clock, pos = read_varint(update, pos)
        pos, _, blocks = walk_section(update, pos, blocks_count, client, clock)
        renamed = new if client == old else client
        head = write_varint(blocks_count) + write_varint(renamed) + write_varint(clock)
        sections.append((renamed, head + b"".join(_block(block, old, new) for block in blocks)))
    _, ranges = walk_deletes(update, pos)
    sections.sort(key=lambda section: -section[0])
    return write_varint(count) + b"".join(data for _, data in sections) + _deletes(ranges, old, new)


def _block(block: Block, old: int, new: int) -> bytes:
    info, _, length, root, key, origin, right, values, text = block
    parts = [info.to_bytes()]
    if origin is not None:
        parts.append(_id(origin, old, new))
    if right is not None:
        parts.append(_id(right, old, new))
    if origin is None and right is None and root is not None:
        parts.append(b"\x01" + _string(root))
        if info & IN_MAP and key is not None:
            parts.append(_string(_key(root, key, old, new)))
    if info & _CONTENT == _DELETED:
        parts.append(write_varint(length))
    elif info & _CONTENT == _TEXT:
        parts.append(_string(text or ""))
    else:
        parts.append(write_varint(len(values or ())))
        parts += [b"\x74" + write_varint(len(value)) + value for value in values or ()]
    return b"".join(parts)


def _key(root: str, key: str, old: int, new: int) -> str:
    if not is_owner(root, key, f"@{old}"):
        return key
    return key[: len(key) - len(str(old))] + str(new)


def _id(item: Id, old: int, new: int) -> bytes:
    client, clock = item
    return write_varint(new if client == old else client) + write_varint(clock)


def _string(text: str) -> bytes:
    data = text.encode()
    return write_varint(len(data)) + data


def _deletes(ranges: list[tuple[int, int, int]], old: int, new: int) -> bytes:
    by_client: dict[int, list[tuple[int, int]]] = {}
    for client, start, end in ranges:
        by_client.setdefault(new if client == old else client, []).append((start, end - start))
    parts = [write_varint(len(by_client))]
    for client, held in by_client.items():
        parts += [write_varint(client), write_varint(len(held))]
        parts += [write_varint(number) for one in held for number in one]
    return b"".join(parts)
