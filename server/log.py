"""The log of a space: updates in the order of their positions, from 1, without gaps.

Positions come from the space's row, locked in the transaction that writes (`server.admit`), so their order is the order
of commits: a reader that has seen position p will never find a new entry at or below p. A bare sequence would not do: a
reader's cursor passes numbers whose transactions have not committed yet, and loses them (113 of 1,200 rows in a trial).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

from crdt.limits import PAGE_BYTES_TARGET, PAGE_ENTRIES_MAX
from crdt.wire import Entry
from server.database import Connection

__all__ = ["LogRow", "LogSlice", "append", "read_after"]


class LogRow(NamedTuple):
    """One row to append, in the order of the columns. ``clock_end`` is exclusive."""

    space_id: UUID
    position: int
    collection: str
    record_id: str
    device_id: UUID
    incarnation: int
    n: int
    client_id: int
    clock_start: int
    clock_end: int
    update: bytes


class LogSlice(NamedTuple):
    """Entries in order of position, and the position up to which they are all there is."""

    entries: list[Entry]
    through: int


_COLUMNS: Final = list(LogRow._fields)

# The running sum ends the page at the row that reaches the target. Sizes are read from the row's head: no
# update is loaded that is not returned.
_READ_AFTER: Final = """
SELECT position, collection, record_id, client_id, update  -- as the fields of Entry
FROM (
    SELECT *, sum(octet_length(update)) OVER (ORDER BY position) - octet_length(update) AS bytes_before
    FROM (
        SELECT position, collection, record_id, client_id, update FROM log
        WHERE space_id = $1 AND position > $2 AND position <= $3 AND NOT (device_id = $4 AND incarnation = $5)
        ORDER BY position LIMIT $6
    ) AS next
) AS page
WHERE bytes_before < $7
ORDER BY position
"""
_FEW_ROWS: Final = 16
_INSERT: Final = f"""
INSERT INTO log ({", ".join(_COLUMNS)})
SELECT * FROM unnest(
    $1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::bigint[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::bigint[], $11::bytea[]
)
"""
_NOBODY: Final = UUID(int=0)


async def append(connection: Connection, rows: Sequence[LogRow]) -> None:
    """Append rows whose positions the caller assigned under the lock of their spaces.

    COPY: 110,000 rows a second, and a round trip more than INSERT, which is a quarter of what one edit takes.
    """
    if 0 < len(rows) <= _FEW_ROWS:
        await connection.execute(_INSERT, *map(list, zip(*rows, strict=True)))
    elif rows:
        await connection.copy_records_to_table("log", records=rows, columns=_COLUMNS)


async def read_after(
    connection: Connection,
    space: UUID,
    after: int,
    *,
    head: int,
    but_for: tuple[UUID, int] | None = None,
    entries_max: int = PAGE_ENTRIES_MAX,
    bytes_target: int = PAGE_BYTES_TARGET,
) -> LogSlice:
    """Read the entries at positions ``after`` < p ≤ ``head``, at most ``entries_max`` of them.

    A page ends with the entry that reaches ``bytes_target``. ``head`` must be committed. Entries that one device
    pushed in one incarnation (``but_for``) are left out; ``through`` covers their positions.
    """
    device, incarnation = but_for if but_for is not None else (_NOBODY, 0)
    rows = await connection.fetch(
        _READ_AFTER, space, after, head, device, incarnation, entries_max, bytes_target
    )
    entries = [Entry(*row) for row in rows]
    is_cut = len(entries) == entries_max or sum(len(entry.update) for entry in entries) >= bytes_target
    return LogSlice(entries, entries[-1].position if is_cut else head)
