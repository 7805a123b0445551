"""The gate in front of pycrdt: what an update's bytes say, and whether they may be believed.

No foreign byte reaches pycrdt unread. `crdt.grammar` walks the bytes; this module asks what the walk cannot know
without the document, and answers with what changed:

- `check_shape`     without the document: what the server's gate can know;
- `check_update`    against the document's index: what anyone asks before applying;
- `check_snapshot`  a whole document from somewhere else; its answer is the document's index;
- `read_creation`, `write_creation`  documents that are one update need no pycrdt at all (`crdt.lanes`).

An update is believed when it is one client's, the one announced; starts at the clock that comes next; holds only
what our documents hold, in roots where it belongs; names as origins only items that are known, of the same root;
rewrites only keys that are its own; deletes only what is known; and cuts no character in half. Whatever is not is
refused by a stable code:

============  =====================================================================================
code          what was wrong
============  =====================================================================================
truncated     the bytes end too early
trailing      bytes after the end
size, items   past `UPDATE_BYTES_MAX` (`DOCUMENT_BYTES_MAX`), past `UPDATE_ITEMS_MAX` (`SNAPSHOT_ITEMS_MAX`)
varint, utf8  a number past its bound or with needless bytes; text that is not UTF-8
clients       an update of no client or of several
client        another client than the one announced
empty         nothing inserted: our edits always write at least their time
kind, value   content that our documents do not hold; a value that is not one buffer
length        a block without length
parent, root  content outside the roots; a root that is none of ours
container     content that does not fit its root, or a right origin in a map
key           a key that is too long, another client's, or rewritten by one whose own it is not
clock         past 2**31 - 1
origin        origins in two roots, or not the key's last entry
unknown       an origin or a delete that points at nothing known
deletes       ranges empty, out of order, or a client named twice
surrogate     a cut between the two halves of a character
steps         placing it could take yrs too long: see `crdt.neighbours`
order         (snapshots) sections out of order, with gaps, or waiting for one another
repeat        all of it is known already: skip it
overlap       part of it is known already
gap           `UpdateGap`: it follows one that has not arrived
============  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from crdt.errors import UpdateGap, UpdateRefused
from crdt.grammar import (
    CLIENT_MAX,
    IN_MAP,
    Block,
    Id,
    Range,
    client_marks,
    is_owner,
    read_varint,
    refuse,
    walk_deletes,
    walk_section,
    walk_update,
)
from crdt.index import CheckedUpdate, DocumentIndex, Draft, Item, Place
from crdt.lanes import Creation, read_creation, write_creation
from crdt.limits import DOCUMENT_BYTES_MAX
from crdt.neighbours import SNAPSHOT_STEPS_MAX, STEPS_MAX

__all__ = [
    "CUTS_MAX",
    "SNAPSHOT_ITEMS_MAX",
    "CheckedUpdate",
    "Creation",
    "DocumentIndex",
    "Item",
    "Shape",
    "check_shape",
    "check_snapshot",
    "check_update",
    "is_covered",
    "read_creation",
    "write_creation",
]

# Blocks of a snapshot: a conversation of 100,000 messages has 200,000 (each message also moves `updatedAt`), and an
# index of this many takes about 300 MB while it is built.
SNAPSHOT_ITEMS_MAX: Final = 1_000_000


# Deleted ranges that may cut blocks in two: each cut moves all the client's later blocks by one, so that 400,000 take
# yrs 38 s, and this many 2.4 s. Nobody deletes every other character of a book; deleting whole items cuts nothing.
CUTS_MAX: Final = 100_000


class Shape(msgspec.Struct, frozen=True, gc=False):
    """What an update says of itself: its clocks, and whether it looks like the creation of a record.

    ``is_creation`` means that it starts at clock 0, deletes nothing and points at no other client's items.
    """

    start: int
    end: int
    is_creation: bool


def check_shape(update: bytes, *, client: int) -> Shape:
    """Check what can be checked without the document: the grammar, the limits, the announced client.

    Raises `UpdateRefused`.
    """
    _, start, end, blocks, deletes = walk_update(update, client)
    is_creation = False
    if not start and not deletes:
        is_creation = True
        for block in blocks:
            origin, right = block[5], block[6]
            if (origin is not None and origin[0] != client) or (right is not None and right[0] != client):
                is_creation = False
                break
    return Shape(start, end, is_creation)


def check_update(update: bytes, *, client: int, index: DocumentIndex | None) -> CheckedUpdate:
    """Check an update of ``client`` against what its document knows, and say what it changes.

    ``index`` is None for a document that is not known yet; it is not changed (`DocumentIndex.add` does that). Raises
    `UpdateGap` if an earlier update is missing, and `UpdateRefused`: with code "repeat" if all of it is known, before
    anything but its grammar is judged.
    """
    client, start, end, blocks, deletes = walk_update(update, client)
    if index is None:
        index = DocumentIndex()
    expected = index.next_clock(client)
    if start != expected:
        if start > expected:
            raise UpdateGap(client=client, start=start, expected=expected)
        code = "repeat" if end <= expected else "overlap"
        refuse(code, f"client {client} is known up to clock {expected}, the update holds {start} to {end}")

    draft = Draft(index, client, start)
    items: list[Item] = []
    touched: dict[str, set[str]] = {}
    appends: dict[str, _Append] = {}
    for info, clock, length, root, key, origin, right, values, text in blocks:
        place = _resolve(draft, client, info, root, key, origin, right)
        draft.put(clock, length, place, text, origin, right)
        root, key = place
        items.append(Item(client, clock, length, root, key, values, text, origin, right))
        keys = touched.get(root)
        if keys is None:
            keys = touched[root] = set()
        if key is not None:
            keys.add(key)
        elif root[0] == "l":
            append = appends.get(root)
            if append is None:
                append = appends[root] = _Append(index, root)
            append.follow(origin, right, values, (client, clock + length - 1))
    if draft.neighbours.steps > STEPS_MAX:
        refuse(
            "steps", f"it would take up to {draft.neighbours.steps:,} steps, past STEPS_MAX ({STEPS_MAX:,})"
        )
    if len(deletes) > CUTS_MAX:
        _refuse_cuts(deletes, {client: draft.starts(client) for client, _, _ in deletes})
    for deleted in deletes:
        for root, key in _deleted_places(draft, deleted):
            keys = touched.get(root)
            if keys is None:
                keys = touched[root] = set()
            if key is not None:
                keys.add(key)
            else:
                appends.pop(root, None)
    return CheckedUpdate(
        client,
        start,
        end,
        tuple(items),
        tuple(sorted(deletes)),
        {root: frozenset(keys) for root, keys in touched.items()},
        {root: tuple(append.values) for root, append in appends.items() if append.is_pure},
        not index and not deletes,
    )


def check_snapshot(snapshot: bytes) -> DocumentIndex:
    """Check the bytes of a whole document and return its index.

    Sections must begin at clock 0, the largest client first, and wait for one another in some order that ends.
    Raises `UpdateRefused`.
    """
    size = len(snapshot)
    if size > DOCUMENT_BYTES_MAX:
        refuse("size", f"{size:,} bytes are past DOCUMENT_BYTES_MAX ({DOCUMENT_BYTES_MAX:,})")
    blocks_by_client: dict[int, list[Block]] = {}
    allowed, previous = SNAPSHOT_ITEMS_MAX, CLIENT_MAX + 1
    try:
        sections, pos = read_varint(snapshot, 0)
        for _ in range(sections):
            count, pos = read_varint(snapshot, pos)
            client, pos = read_varint(snapshot, pos, CLIENT_MAX)
            start, pos = read_varint(snapshot, pos)
            allowed -= count
            if allowed < 0:
                refuse("items", f"more than SNAPSHOT_ITEMS_MAX ({SNAPSHOT_ITEMS_MAX:,}) blocks")
            if client >= previous or start or not count:
                refuse(
                    "order", f"the section of client {client} is out of order, empty, or starts past clock 0"
                )
            previous = client
            pos, _, blocks_by_client[client] = walk_section(snapshot, pos, count, client, 0)
        pos, deletes = walk_deletes(snapshot, pos)
    except IndexError:
        raise UpdateRefused("truncated", f"the {size:,} bytes end too early") from None
    except UnicodeDecodeError as error:
        raise UpdateRefused("utf8", f"a key or a text is not UTF-8: {error.reason}") from None
    if pos != size:
        refuse("trailing" if pos < size else "truncated", f"{size:,} bytes, but the snapshot ends at {pos:,}")

    index = DocumentIndex()
    for client, block in _in_causal_order(blocks_by_client):
        info, clock, length, root, key, origin, right, _, text = block
        place = _resolve(index, client, info, root, key, origin, right)
        index.put(client, clock, length, place, text, origin, right)
    if len(deletes) > CUTS_MAX:  # an honest snapshot's ranges end where its blocks do
        starts = {
            client: {0, *(block[1] + block[2] for block in blocks)}
            for client, blocks in blocks_by_client.items()
        }
        _refuse_cuts(deletes, starts)
    for deleted in deletes:
        index.cut(_deleted_places(index, deleted))
    steps = index.neighbours.steps
    if steps > SNAPSHOT_STEPS_MAX:
        refuse(
            "steps", f"it would take up to {steps:,} steps, past SNAPSHOT_STEPS_MAX ({SNAPSHOT_STEPS_MAX:,})"
        )
    return index


def _refuse_cuts(deletes: list[Range], starts: Mapping[int, AbstractSet[int]]) -> None:
    """Refuse deletes that cut too many runs in two; ``starts`` are where the runs begin, by client."""
    nothing: AbstractSet[int] = frozenset()
    cuts = sum(start not in starts.get(client, nothing) for client, start, _ in deletes)
    cuts += sum(end not in starts.get(client, nothing) for client, _, end in deletes)
    if cuts > CUTS_MAX * 2:
        refuse("steps", f"deletes that cut {cuts:,} times into runs, past twice CUTS_MAX ({CUTS_MAX:,})")


def is_covered(doc_state: Mapping[int, int], update: CheckedUpdate) -> bool:
    """Tell whether a document with this state vector (next clock by client) holds all that the update inserted."""
    return doc_state.get(update.client, 0) >= update.end


class _Append:
    """Whether an update only appends at the very end of one list."""

    __slots__ = ("is_pure", "tail", "values")

    def __init__(self, index: DocumentIndex, root: str) -> None:
        self.tail = index.tail(root)
        self.is_pure = self.tail is not None or not index.has_list(root)
        self.values: list[bytes] = []

    def follow(self, origin: Id | None, right: Id | None, values: tuple[bytes, ...] | None, last: Id) -> None:
        if right is not None or origin != self.tail:
            self.is_pure = False
        self.values.extend(values or ())  # inserted and deleted at once: it only moves the end
        self.tail = last


def _in_causal_order(blocks_by_client: dict[int, list[Block]]) -> Iterator[tuple[int, Block]]:
    """Yield each block after all that it points at, as yrs integrates them.

    Refuses a block that waits for itself or for nothing.
    """
    placed = dict.fromkeys(blocks_by_client, 0)  # blocks, by client
    clocks = dict.fromkeys(blocks_by_client, 0)
    for first in blocks_by_client:
        stack = [first]  # each one's next block waits for the next one's
        waiting = {first}
        while stack:
            client = stack[-1]
            blocks = blocks_by_client[client]
            if placed[client] == len(blocks):
                stack.pop()
                waiting.remove(client)
                continue
            block = blocks[placed[client]]
            for target in (block[5], block[6]):
                if target is not None and target[1] >= clocks.get(target[0], 0):
                    other = target[0]
                    if other in waiting or placed.get(other, 0) == len(blocks_by_client.get(other, ())):
                        refuse("order", f"client {client} waits at clock {block[1]} for {target} for ever")
                    stack.append(other)
                    waiting.add(other)
                    break
            else:
                yield client, block
                placed[client] += 1
                clocks[client] = block[1] + block[2]
                if client != first:
                    stack.pop()
                    waiting.remove(client)


def _resolve(
    known: DocumentIndex | Draft,
    client: int,
    info: int,
    root: str | None,
    key: str | None,
    origin: Id | None,
    right: Id | None,
) -> Place:
    """Return where a block of ``client`` stands, given all that came before it."""
    if root is not None:
        place = (root, key)
    else:
        place = _shared_place(known, origin, right)
        root, key = place
        if info & IN_MAP:
            fits = key is not None
        elif info & 0x0C:
            fits = root[0] == ("l" if info & 0x08 else "t")
        else:
            fits = key is None
        if not fits:
            refuse("container", f"content {info:#04x} does not belong into {root!r}")
        if key is not None and not is_owner(root, key, client_marks(client)[1]):
            refuse("key", f"client {client} rewrites {key!r} in {root!r}, which is not its own")
    if key is not None:
        last = known.last_entry(client, place)
        if last is not None and origin != (client, last):
            refuse(
                "origin",
                f"client {client} wrote {key!r} in {root!r} last at clock {last}, and not at {origin}",
            )
    return place


def _shared_place(known: DocumentIndex | Draft, origin: Id | None, right: Id | None) -> Place:
    """Return the one place where both origins stand, if they are known and cut no character."""
    place = beside = None
    if origin is not None:
        client, clock = origin
        place = known.place(client, clock)
        if place is None:
            refuse("unknown", f"an origin points at {origin}, which is not known")
        if place[0][0] == "t" and known.is_split(client, clock + 1):
            refuse("surrogate", f"{origin} is the first half of a character")
    if right is not None:
        client, clock = right
        beside = known.place(client, clock)
        if beside is None:
            refuse("unknown", f"a right origin points at {right}, which is not known")
        if beside[0][0] == "t" and known.is_split(client, clock):
            refuse("surrogate", f"{right} is the second half of a character")
        if origin is not None:
            if beside != place or right == origin:
                refuse("origin", f"{origin} and {right} do not stand beside one another")
            # In one run each item stands behind the one before it; yrs would reload anything else in another order.
            if origin[0] == client and clock != origin[1] + 1:
                if known.run_start(client, clock) == known.run_start(client, origin[1]):
                    refuse("origin", f"{origin} and {right} do not stand beside one another")
    return place or beside  # type: ignore[return-value]  # the walk lets no block pass without either


def _deleted_places(known: DocumentIndex | Draft, deleted: Range) -> list[Place]:
    """Return where the items of a deleted range stand, if all are known and no character is cut."""
    client, start, end = deleted
    places = known.places(client, start, end)
    if not places:
        refuse(
            "unknown", f"client {client} is not known from clock {start} to {end}, which the update deletes"
        )
    if known.is_split(client, start) or known.is_split(client, end):
        refuse("surrogate", f"deleting {start} to {end} of client {client} cuts a character in half")
    return places
