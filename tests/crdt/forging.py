"""Forged updates: honest ones, changed with or without regard to what their bytes mean."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from crdt.grammar import IN_MAP, Block, Id, Range, walk_update, write_varint
from crdt.index import Place
from tests.crdt.histories import ALPHABET, ROOTS

__all__ = ["Forger", "encode"]

# What `Forger` changes, by number: other origins and deletes come oftenest, for they get furthest.
_KINDS: Final = (*range(16), *(2, 2, 3, 3, 4, 5, 6), *(7, 8, 9) * 5, 10, 11, 12, 12)


@dataclass
class Forger:
    """Changes honest bytes. ``ids`` are the document's known items by place."""

    chance: random.Random
    corpus: list[bytes]
    ids: dict[Place, list[Id]] = field(default_factory=dict)
    clients: list[int] = field(default_factory=list)

    def forge(self, update: bytes, start: int) -> bytes:
        """Return hostile bytes made from an honest update, most of which continue at ``start``."""
        chance = self.chance
        if chance.random() < 0.7:
            client, _, _, blocks, deletes = walk_update(update, None)
            for _ in range(chance.choice([1, 1, 1, 2, 3])):
                client, start = self._change(client, start, blocks, deletes)
            return encode(client, start, blocks, deletes, chance)
        return self.scramble(update)

    def scramble(self, data: bytes) -> bytes:
        """Return the bytes, changed without regard to what they mean."""
        chance = self.chance
        changed = bytearray(data)
        kind = chance.randrange(8)
        at = chance.randrange(len(changed))
        if kind == 0:
            return chance.randbytes(chance.randrange(40))
        if kind == 1:
            for _ in range(chance.randrange(1, 4)):
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        elif kind == 2:
            changed[at] = chance.choice([0, 1, 2, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        elif kind == 3:
            other = chance.choice(self.corpus)
            changed[at:] = other[chance.randrange(len(other)) :]
        elif kind == 4:
            size = chance.randrange(1, 12)
            changed[at : at + size] = changed[chance.randrange(len(changed)) :][:size]
        elif kind == 5:
            changed[at : at + 1] = chance.choice(
                [
                    bytes([changed[at] | 0x80, 0]),
                    write_varint(chance.randrange(2**64)),
                    b"\xff\xff\xff\xff\x0f",
                ]
            )
        elif kind == 6:
            del changed[at : at + chance.randrange(1, 4)]
        else:
            changed[at:at] = chance.randbytes(chance.randrange(1, 4))
        return bytes(changed)

    def _id(self, place: Place | None = None) -> Id:
        """Return an item to point at: mostly a known one, mostly of the same place."""
        chance = self.chance
        if place is not None and place in self.ids and chance.random() < 0.8:
            return chance.choice(self.ids[place])
        if self.ids and chance.random() < 0.9:
            client, clock = chance.choice(self.ids[chance.choice(list(self.ids))])
            return client, max(0, clock + chance.choice([0, 0, 0, -1, 1]))
        return chance.choice([*self.clients, 0, 2**53 - 1]), chance.choice([0, 1, 5, 2**31 - 1])

    def _root(self) -> str:
        return self.chance.choice([*ROOTS, "text:new", "list:new", "x", "reg:"])

    def _change(self, client: int, start: int, blocks: list[Block], deletes: list[Range]) -> tuple[int, int]:
        """Change one thing about a parsed update; return its client and start."""
        chance = self.chance
        kind = chance.choice(_KINDS)
        at = chance.randrange(len(blocks)) if blocks else -1
        if kind == 0 and chance.random() < 0.3:
            return chance.choice([*self.clients, client + 1, 0, chance.randrange(2**53)]), start
        if kind == 1 and chance.random() < 0.3:
            return client, max(0, start + chance.choice([-1, 1, 2**31 - 1 - start, 10, -start]))
        if kind == 2:
            target = self._id()
            length = chance.choice([0, 1, 1, 2, 5, 2**20])
            deletes.append((target[0], target[1], target[1] + length))
            if chance.random() < 0.7:
                deletes[:] = sorted(set(deletes))
        elif kind == 3 and deletes:
            gone, first, last = deletes.pop(chance.randrange(len(deletes)))
            if chance.random() < 0.7:
                deletes.append(
                    (gone, max(0, first + chance.choice([-1, 0, 1])), last + chance.choice([-1, 0, 1, 9]))
                )
                deletes.sort()
        elif kind == 4 and at >= 0:
            blocks.append(blocks[at])
        elif kind == 5 and at >= 0:
            blocks.insert(chance.randrange(len(blocks)), blocks.pop(at))
        elif kind == 6 and len(blocks) > 1:
            del blocks[at]
        elif at >= 0:
            blocks[at] = self._changed_block(blocks[at], kind)
        return client, start

    def _changed_block(self, block: Block, kind: int) -> Block:
        chance = self.chance
        info, clock, length, root, key, origin, right, values, text = block
        place: Place | None = (root or self._root(), key)
        if kind in (7, 8, 9):  # other origins, in the same list, text or key
            if root is None:
                place = next((p for p, ids in self.ids.items() if origin in ids), None)
            elif chance.random() < 0.5:
                place = chance.choice([*self.ids, place])
            origin = chance.choice([None, self._id(place), self._id(place)])
            right = None if info & IN_MAP else chance.choice([None, self._id(place), self._id(place)])
            if origin or right:
                root = key = None
            else:
                root = root or (place or ("list:messages", None))[0]
        elif kind == 10:
            root, origin, right = self._root(), None, None
        elif kind == 11:
            key = chance.choice(["a", "a@7", "@", "", "title", "k" * 300, "\x00", "é@9", "7"])
        elif kind == 12:
            values, text, length = None, None, chance.choice([1, 1, 2, 7, 2**20, 2**31 - 2])
            info = info & 0xF0 | 1
        elif kind == 13:
            values, text, length = None, "".join(chance.choices(ALPHABET, k=chance.randrange(5))), 0
            info = info & 0xF0 | 4
        elif kind == 14:
            values, text = (
                tuple(chance.randbytes(chance.randrange(5)) for _ in range(chance.randrange(4))),
                None,
            )
            info = info & 0xF0 | 8
        else:
            info ^= 1 << chance.randrange(8)
        return (info, clock, length, root, key, origin, right, values, text)


def encode(
    client: int, start: int, blocks: list[Block], deletes: list[Range], chance: random.Random
) -> bytes:
    """Write a parsed update again, true to what the blocks say; now and then a count lies."""
    lie = chance.choice([-1, 1, 2**29]) if chance.random() < 0.03 else 0
    parts = [b"\x01", write_varint(max(0, len(blocks) + lie)), write_varint(client), write_varint(start)]
    for info, _, length, root, key, origin, right, values, text in blocks:
        flags = info & 0x3F | (0x80 if origin else 0) | (0x40 if right else 0)
        parts.append(bytes([flags]))
        for target in (origin, right):
            if target is not None:
                parts += (write_varint(target[0]), write_varint(target[1]))
        if origin is None and right is None:
            name = (root or "reg").encode()
            parts += (b"\x01", write_varint(len(name)), name)
            if info & IN_MAP:
                written = (key or "").encode()
                parts += (write_varint(len(written)), written)
        if values is not None:
            parts.append(write_varint(len(values)))
            for value in values:
                parts += (b"\x74", write_varint(len(value)), value)
        elif text is not None:
            written = text.encode()
            parts += (write_varint(len(written)), written)
        else:
            parts.append(write_varint(length))
    by_client: dict[int, list[Range]] = {}
    for deleted in deletes:
        by_client.setdefault(deleted[0], []).append(deleted)
    parts.append(write_varint(len(by_client)))
    for owner, ranges in by_client.items():
        parts += (write_varint(owner), write_varint(len(ranges)))
        for _, first, last in ranges:
            parts += (write_varint(first), write_varint(max(0, last - first)))
    return b"".join(parts)
