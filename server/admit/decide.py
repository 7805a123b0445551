"""What happens to each update of a push, decided without any I/O.

`check` knows only the push: limits, names, and the grammar of each update. `decide` knows in addition what
the log holds of this incarnation: how far it is numbered, and for each record the clock at which its client
goes on. Both return refusals instead of raising them, since one bad update must not stop the good ones around
it: it is consumed, its number and reason are remembered, and the device is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from crdt.errors import UpdateRefused
from crdt.ids import CLIENT_ID_BITS
from crdt.limits import COLLECTION_NAME_BYTES_MAX, PUSH_EDITS_MAX, RECORD_ID_BYTES_MAX, UPDATE_BYTES_MAX
from crdt.updates import check_shape
from crdt.wire import Edit, Push, Refusal
from server.errors import MalformedMessage, TooLarge

__all__ = ["CheckedPush", "Decision", "RecordKey", "Refused", "Taken", "check", "decide"]

RecordKey = tuple[str, str]
"""Collection and record id."""

_COLLECTION: Final = re.compile(
    rf"[a-z][a-z0-9_]{{0,{COLLECTION_NAME_BYTES_MAX - 1}}}"
)  # as `crdt.schema` has it
_CLIENT_MAX: Final = (1 << CLIENT_ID_BITS) - 1
_INCARNATION_MAX: Final = (1 << 63) - 1
#: What a refusal's detail may take in the table and in an Ack; it is for people.
_DETAIL_CHARACTERS_MAX: Final = 300
#: Checked in one go before others get the event loop: about 3 ms.
_SLICE_EDITS: Final = 200


@dataclass(frozen=True, slots=True)
class CheckedPush:
    """A push whose updates were walked. ``clocks`` has for each edit its (start, end), or why it is refused."""

    device: UUID
    space: UUID
    push: Push
    clocks: tuple[tuple[int, int] | Refusal, ...]
    size: int  # bytes of all updates

    @property
    def last(self) -> int:
        """The number of the last edit; ``first - 1`` in an empty push."""
        return self.push.first + len(self.push.edits) - 1


class Taken(NamedTuple):
    """An update that goes into the log: its number, itself, and its client's clocks (``end`` is exclusive)."""

    n: int
    edit: Edit
    start: int
    end: int


class Refused(NamedTuple):
    """An update that does not, and why."""

    edit: Edit
    refusal: Refusal


class Decision(NamedTuple):
    """What becomes of a push, in the order of its numbers."""

    taken: list[Taken]
    refused: list[Refused]


def check(device: UUID, space: UUID, push: Push) -> Iterator[CheckedPush | None]:
    """Check a push in slices: yields None between two of them, at last the checked push.

    Raises:
        TooLarge: more than ``PUSH_EDITS_MAX`` edits.
        MalformedMessage: a number that no device of ours can have.
    """
    if len(push.edits) > PUSH_EDITS_MAX:
        raise TooLarge("PUSH_EDITS_MAX", size=len(push.edits), allowed=PUSH_EDITS_MAX)
    if not (
        1 <= push.client <= _CLIENT_MAX
        and 1 <= push.incarnation <= _INCARNATION_MAX
        and 1 <= push.first <= _INCARNATION_MAX - PUSH_EDITS_MAX
    ):
        raise MalformedMessage(
            "client, incarnation and first of a Push are positive, and of at most 53, 63 and 63 bits"
        )
    clocks: list[tuple[int, int] | Refusal] = []
    size = 0
    client = push.client
    for n, edit in enumerate(push.edits, push.first):
        size += len(edit.update)
        problem = _problem_with_names(edit)
        if problem is not None:
            clocks.append(Refusal(n, *problem))
        else:
            try:
                shape = check_shape(edit.update, client=client)
            except UpdateRefused as refused:
                clocks.append(Refusal(n, refused.code, refused.detail[:_DETAIL_CHARACTERS_MAX]))
            else:
                clocks.append((shape.start, shape.end))
        if len(clocks) % _SLICE_EDITS == 0:
            yield None
    yield CheckedPush(device, space, push, tuple(clocks), size)


def decide(
    checked: CheckedPush, *, through: int, known: Mapping[RecordKey, int], fresh: dict[RecordKey, int]
) -> Decision:
    """Decide on the edits that come after number ``through``; those up to it were decided before.

    ``known`` says where the client goes on in each record that it has written, in the log; ``fresh``, which goes
    first, where earlier pushes of the same commit leave off, and is brought up to date. A record in neither begins
    at 0.
    """
    taken: list[Taken] = []
    refused: list[Refused] = []
    push = checked.push
    for index in range(max(0, through + 1 - push.first), len(push.edits)):
        n, edit, clock = push.first + index, push.edits[index], checked.clocks[index]
        if isinstance(clock, Refusal):
            refused.append(Refused(edit, clock))
            continue
        start, end = clock
        key = (edit.collection, edit.record)
        expected = fresh.get(key)
        if expected is None:
            expected = known.get(key, 0)
        if start == expected:
            fresh[key] = end
            taken.append(Taken(n, edit, start, end))
        else:
            refused.append(Refused(edit, Refusal(n, *_problem_with_clock(push.client, start, end, expected))))
    return Decision(taken, refused)


def _problem_with_names(edit: Edit) -> tuple[str, str] | None:
    """Names go into columns and into other devices' tables, so they are checked before anything else."""
    collection, record = edit.collection, edit.record
    if _COLLECTION.fullmatch(collection) is None:
        return (
            "collection_name",
            f"a collection's name is a-z, then a-z, 0-9 or _, at most {COLLECTION_NAME_BYTES_MAX}",
        )
    size = len(record) if record.isascii() else len(record.encode())
    if not 0 < size <= RECORD_ID_BYTES_MAX or "\0" in record:
        return "record_id", f"a record id has 1 to {RECORD_ID_BYTES_MAX} bytes and no NUL"
    if len(edit.update) > UPDATE_BYTES_MAX:
        return "too_large", f"{len(edit.update):,} bytes is past UPDATE_BYTES_MAX ({UPDATE_BYTES_MAX:,})"
    return None


def _problem_with_clock(client: int, start: int, end: int, expected: int) -> tuple[str, str]:
    if start > expected:
        return "gap", f"client {client} continues at clock {start}, but {expected} comes next"
    if end <= expected:
        return "repeat", f"client {client} has already written clocks {start} to {end}; {expected} comes next"
    return "overlap", f"client {client} writes clocks {start} to {end}, but {expected} comes next"
