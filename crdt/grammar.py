"""The grammar of update bytes: one pass that accepts only what our own documents contain.

This is the Yjs update format, V1 (https://github.com/yjs/yjs, `UpdateEncoder.js`; https://docs.rs/yrs, `updates`),
cut down to the part that a record's document uses. Numbers are varints: seven bits a byte, lowest first, the
high bit says that more follow::

    update  = clients:1 section deletes            a snapshot has several sections, the largest client first
    section = count client clock block*            the blocks of one client; the first one starts at `clock`
    block   = info [origin] [right] [parent] content
              info:  0x80 an origin follows, 0x40 a right origin follows, 0x20 it stands in a map; low bits: content
              origin, right = client clock         the item that was left (right) of it when it was made
              parent = 01 size root [size key]     written only without both; the key only in a map
    content = 01 length                            deleted, `length` units long
            | 04 size utf8                         text; its length counts UTF-16 code units
            | 08 count (74 size bytes)*            values, each one a buffer of MessagePack
    deletes = count (client count (clock length)*)*

Everything else that the format knows (nested types, other values, embeds, formats, sub-documents, GC, Skip) is
refused, and so is whatever has a second spelling: a varint with needless bytes, an unknown bit, bytes after the end.
HAZARDS: without such a walk, 7 bytes make pycrdt's next read a segmentation fault, and 14 make it loop for ever.

The walk knows no document. What an origin points at is `crdt.updates`'s question.

It is the hottest code of the project: one function, local names, no call for a one-byte number. A slice past
the end is short rather than an error, which is harmless here, because the position then ends past the end and
the caller refuses the whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NoReturn, TypeAlias

from crdt.errors import UpdateRefused
from crdt.ids import CLIENT_ID_BITS
from crdt.limits import KEY_BYTES_MAX, UPDATE_BYTES_MAX, UPDATE_ITEMS_MAX

__all__ = [
    "CLIENT_MAX",
    "CLOCK_MAX",
    "IN_MAP",
    "ROOT_BYTES_MAX",
    "Block",
    "Id",
    "Range",
    "client_marks",
    "is_owner",
    "read_varint",
    "refuse",
    "walk_deletes",
    "walk_section",
    "walk_update",
    "write_varint",
]

Id: TypeAlias = tuple[int, int]  # client, clock
Range: TypeAlias = tuple[int, int, int]  # client, start, end (exclusive), in clock units
# info, clock, length, root, key, origin, right origin, values, text: root and key only where they are written
Block: TypeAlias = tuple[
    int, int, int, str | None, str | None, Id | None, Id | None, tuple[bytes, ...] | None, str | None
]

_HAS_ORIGIN: Final = 0x80
_HAS_RIGHT: Final = 0x40
IN_MAP: Final = 0x20
_TEXT: Final = 0x04
_VALUES: Final = 0x08
_BUFFER: Final = 0x74

# yrs adds clocks as 32-bit numbers and panics past them; nobody types two thousand million characters.
CLOCK_MAX: Final = 2**31 - 1
CLIENT_MAX: Final = 2**CLIENT_ID_BITS - 1
# A root's name is a prefix of ours and a field's name; one byte of varint holds its size.
ROOT_BYTES_MAX: Final = 127

_IN_MAP_INFOS: Final = frozenset({0x21, 0x28, 0xA1, 0xA8})
_IN_LIST_INFOS: Final = frozenset(flags | kind for flags in (0, 0x40, 0x80, 0xC0) for kind in (0x01, 0x08))
_IN_TEXT_INFOS: Final = frozenset(flags | kind for flags in (0, 0x40, 0x80, 0xC0) for kind in (0x01, 0x04))
_INFOS: Final = _IN_MAP_INFOS | _IN_LIST_INFOS | _IN_TEXT_INFOS
_REGISTER: Final = b"\x28\x01\x03reg"
_INFOS_BY_PREFIX: Final = {
    "set": _IN_MAP_INFOS,
    "count": _IN_MAP_INFOS,
    "list": _IN_LIST_INFOS,
    "text": _IN_TEXT_INFOS,
}


def refuse(code: str, detail: str) -> NoReturn:
    """Raise `UpdateRefused`."""
    raise UpdateRefused(code, detail)


def read_varint(data: bytes, pos: int, maximum: int = CLOCK_MAX) -> tuple[int, int]:
    """Return the number at ``pos`` and the position after it.

    Raises `UpdateRefused` ("varint") for a number past ``maximum`` or spelled with needless bytes, IndexError past
    the end.
    """
    byte = data[pos]
    value = byte & 0x7F
    shift = 7
    while byte > 0x7F:
        pos += 1
        byte = data[pos]
        value |= (byte & 0x7F) << shift
        shift += 7
        if value > maximum or not byte:
            refuse("varint", f"the number that reaches byte {pos} is past {maximum} or has needless bytes")
    return value, pos + 1


def write_varint(number: int) -> bytes:
    """Return a number, 0 or more, as a varint."""
    if number < 0x80:
        return number.to_bytes()
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


@lru_cache(maxsize=4096)
def client_marks(client: int) -> tuple[bytes, str]:
    """Return how a client id is written in bytes, and how it ends the keys that this client owns."""
    return write_varint(client), f"@{client}"


@lru_cache(maxsize=4096)
def _root(name: bytes) -> tuple[str, frozenset[int]]:
    """Return a root's name and the infos of what it may contain."""
    root = name.decode()
    if root == "reg":
        return root, _IN_MAP_INFOS
    prefix, _, field = root.partition(":")
    infos = _INFOS_BY_PREFIX.get(prefix)
    if infos is None or not field or len(name) > ROOT_BYTES_MAX:
        refuse(
            "root", f"{root!r} is not the name of a root: reg, or set, count, list, text with a field's name"
        )
    return root, infos


def walk_update(update: bytes, client: int | None) -> tuple[int, int, int, list[Block], list[Range]]:
    """Read an update of one client: the one given, or whoever it is when None.

    Returns the client, the first clock, the clock after the last, the blocks and the deleted ranges. Raises
    `UpdateRefused`.
    """
    size = len(update)
    if size > UPDATE_BYTES_MAX:
        refuse("size", f"{size:,} bytes are past UPDATE_BYTES_MAX ({UPDATE_BYTES_MAX:,})")
    try:
        sections = update[0]
        if sections != 1:
            refuse("clients" if sections else "empty", "an update holds the blocks of exactly one client")
        pos = 2
        count = update[1]
        if count > 0x7F:
            count, pos = read_varint(update, 1)
        if not count:
            refuse("empty", "an update without blocks")
        if count > UPDATE_ITEMS_MAX:
            refuse("items", f"{count:,} blocks are past UPDATE_ITEMS_MAX ({UPDATE_ITEMS_MAX:,})")
        if client is not None and update.startswith(client_marks(client)[0], pos):
            pos += len(client_marks(client)[0])
        else:
            announced = client
            client, pos = read_varint(update, pos, CLIENT_MAX)
            if announced is not None:
                refuse("client", f"client {announced} was announced, but the update is client {client}'s")
        start = update[pos]
        pos += 1
        if start > 0x7F:
            start, pos = read_varint(update, pos - 1)
        pos, end, blocks = walk_section(update, pos, count, client, start)
        if pos == size - 1 and not update[pos]:
            return client, start, end, blocks, []
        pos, deletes = walk_deletes(update, pos)
    except IndexError:
        raise UpdateRefused("truncated", f"the {size:,} bytes end too early") from None
    except UnicodeDecodeError as error:
        raise UpdateRefused("utf8", f"a key or a text is not UTF-8: {error.reason}") from None
    if pos != size:
        refuse("trailing" if pos < size else "truncated", f"{size:,} bytes, but the update ends at {pos:,}")
    return client, start, end, blocks, deletes


def walk_section(data: bytes, pos: int, count: int, client: int, clock: int) -> tuple[int, int, list[Block]]:
    """Read ``count`` blocks of ``client``, the first at ``clock``.

    Returns the position after them, the clock after them and the blocks. Raises `UpdateRefused`, IndexError past the
    end and UnicodeDecodeError; the caller turns the last two into refusals.
    """
    mark, owned = client_marks(client)
    mark_size = len(mark)
    starts = data.startswith
    blocks: list[Block] = []
    add = blocks.append
    for _ in range(count):
        info = data[pos]
        root = key = origin = right = text = None
        values: tuple[bytes, ...] | None = None

        if info < _HAS_RIGHT:  # neither origin: the parent is written
            if starts(_REGISTER, pos):  # most blocks of most updates
                root = "reg"
                pos += 6
            else:
                begin = pos + 3
                pos = begin + data[pos + 2]
                if info not in _INFOS or data[begin - 2] != 1:
                    _refuse_block(info, begin - 3)
                root, infos = _root(data[begin:pos])
                if info not in infos:
                    refuse("container", f"content {info:#04x} does not belong into {root!r}")
            if info & IN_MAP:
                size = data[pos]
                pos += 1
                if size > 0x7F:
                    size, pos = read_varint(data, pos - 1)
                    if size > KEY_BYTES_MAX:
                        refuse("key", f"a key of {size:,} bytes is past KEY_BYTES_MAX ({KEY_BYTES_MAX:,})")
                begin = pos
                pos += size
                key = data[begin:pos].decode()
                if "@" in key or root[0] == "c":
                    _check_writer(root, key, owned)
        elif info in _INFOS:
            pos += 1
            if info & _HAS_ORIGIN:
                if starts(mark, pos):
                    other = client
                    pos += mark_size
                else:
                    other, pos = read_varint(data, pos, CLIENT_MAX)
                number = data[pos]
                pos += 1
                if number > 0x7F:
                    number, pos = read_varint(data, pos - 1)
                origin = (other, number)
            if info & _HAS_RIGHT:
                if starts(mark, pos):
                    other = client
                    pos += mark_size
                else:
                    other, pos = read_varint(data, pos, CLIENT_MAX)
                number = data[pos]
                pos += 1
                if number > 0x7F:
                    number, pos = read_varint(data, pos - 1)
                right = (other, number)
        else:
            _refuse_block(info, pos)

        if info & _VALUES:
            length = data[pos]
            pos += 1
            if length == 1:  # nearly always
                if data[pos] != _BUFFER:
                    refuse("value", f"the value at byte {pos} is not a buffer")
                size = data[pos + 1]
                pos += 2
                if size > 0x7F:
                    size, pos = read_varint(data, pos - 1)
                begin = pos
                pos += size
                values = (data[begin:pos],)
            else:
                if length > 0x7F:
                    length, pos = read_varint(data, pos - 1)
                if info & IN_MAP or not length or length > UPDATE_ITEMS_MAX:
                    refuse(
                        "value",
                        f"{length} values before byte {pos}: a map's entry has 1, a list's block 1 or more",
                    )
                several: list[bytes] = []
                for _ in range(length):
                    if data[pos] != _BUFFER:
                        refuse("value", f"the value at byte {pos} is not a buffer")
                    size = data[pos + 1]
                    pos += 2
                    if size > 0x7F:
                        size, pos = read_varint(data, pos - 1)
                    begin = pos
                    pos += size
                    several.append(data[begin:pos])
                values = tuple(several)
        else:
            size = data[pos]
            pos += 1
            if size > 0x7F:
                size, pos = read_varint(data, pos - 1)
            if not size:
                refuse("length", f"the block before byte {pos} has no length")
            if info & _TEXT:
                begin = pos
                pos += size
                text = data[begin:pos].decode()
                length = size if text.isascii() else len(text.encode("utf-16-le")) >> 1
            else:
                length = size

        add((info, clock, length, root, key, origin, right, values, text))
        clock += length
    if clock > CLOCK_MAX:
        refuse("clock", f"client {client} would reach clock {clock}, past {CLOCK_MAX}")
    return pos, clock, blocks


def _refuse_block(info: int, pos: int) -> NoReturn:
    """Refuse a block for what it is, or for where it stands."""
    if info not in _INFOS:
        refuse("kind", f"a block of kind {info:#04x} at byte {pos} is none of a record's")
    refuse("parent", f"the block at byte {pos} stands in another item; only roots hold content")


def is_owner(root: str, key: str, owned: str) -> bool:
    """Tell whether a client is a map key's only writer (``owned`` is ``@`` and its id)."""
    return key == owned[1:] if root[0] == "c" else key.endswith(owned)


def _check_writer(root: str, key: str, owned: str) -> None:
    """Refuse a key that names another client as its only writer."""
    if is_owner(root, key, owned):
        return
    writer = key if root[0] == "c" else key.rpartition("@")[2]
    if writer.isdigit() or (writer and root[0] == "c"):
        refuse("key", f"only client {writer} writes {key!r} in {root!r}")


def walk_deletes(data: bytes, pos: int) -> tuple[int, list[Range]]:
    """Read the ranges of deleted items, which end the update.

    Returns the position after them and the ranges, in order for each client. Raises as `walk_section` does.
    """
    clients = data[pos]
    pos += 1
    if not clients:
        return pos, []
    if clients > 0x7F:
        clients, pos = read_varint(data, pos - 1)
    ranges: list[Range] = []
    seen: set[int] = set()
    for _ in range(clients):
        client, pos = read_varint(data, pos, CLIENT_MAX)
        count, pos = read_varint(data, pos)
        if client in seen or not count:
            refuse("deletes", f"client {client} is named twice, or without a range, among the deletes")
        seen.add(client)
        end = 0
        for _ in range(count):
            start = data[pos]
            pos += 1
            if start > 0x7F:
                start, pos = read_varint(data, pos - 1)
            length = data[pos]
            pos += 1
            if length > 0x7F:
                length, pos = read_varint(data, pos - 1)
            if start < end or not length:
                refuse("deletes", f"a range of client {client} at clock {start} is empty or out of order")
            end = start + length
            ranges.append((client, start, end))
    return pos, ranges
