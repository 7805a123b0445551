"""One turn of some spaces: read a bounded part of their logs, fold it record by record, commit all of it at once.

In the transaction go the documents, what is in quarantine, and each space's new position, digest and count:
whoever reads them sees either all of the turn or nothing. No transaction is open while records are folded,
however long that takes.

A creation that is all there is of its record is folded right here: pure Python, a third of pycrdt's time.
Everything else goes to the worker, and large creations too, since a few megabytes of hostile bytes can take a
hundred times their size for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog

from crdt.contents import add_digests
from crdt.errors import UpdateRefused
from crdt.wire import Entry
from server import log
from server.database import Connection
from server.materialize import tables
from server.materialize.fold import Outcome, Refused, Update, Work, fold_creation, reason_of
from server.materialize.folding import Folding
from server.materialize.tables import Held, Key, Standing

__all__ = ["ROWS_MAX", "Turn", "fold_anew", "fold_spaces", "set_aside"]

#: Updates of a turn: about half a second if all of them are creations.
ROWS_MAX: Final = 8_000
#: Records for the worker in a turn: about half a second, at 0.5 ms each.
_FOLDS_MAX: Final = 1_000
#: Updates read in a turn, and in addition the snapshots that they go into, in bytes.
_LOG_BYTES_MAX: Final = 8 * 1024 * 1024
_SNAPSHOT_BYTES_MAX: Final = 16 * 1024 * 1024
#: A creation larger than this goes to the worker, whose memory is limited.
_CREATION_BYTES_MAX: Final = 64 * 1024
#: Creations folded in one go before others get the event loop: 10 ms.
_SLICE_CREATIONS: Final = 200

_log = structlog.get_logger(__name__)


class _Overtaken(Exception):
    """A space was moved on by others while it was folded here."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn came to.

    ``positions`` has where each space that moved stands now. ``behind`` are those of them that have more,
    ``unread`` those that have more and got no turn, ``troubled`` those with a record that the worker died of, or
    could not vouch for. Spaces that others fold are in none of them.
    """

    positions: Mapping[UUID, int]
    behind: Sequence[UUID]
    unread: Sequence[UUID] = ()
    troubled: frozenset[UUID] = frozenset()


@dataclass(slots=True)
class _Part:
    """A part of one space's log."""

    stands: Standing
    through: int
    entries: list[Entry]

    def cut(self, count: int) -> None:
        """Keep the first ``count`` entries."""
        self.entries = self.entries[:count]
        self.through = self.entries[-1].position if count else self.stands.position


@dataclass(slots=True)
class _Fold:
    """What is to be folded, by record, and what comes of it."""

    updates: dict[Key, list[Update]]
    held: dict[Key, Held]
    outcomes: dict[Key, Outcome] = field(default_factory=dict)
    troubled: set[UUID] = field(default_factory=set)


async def fold_spaces(
    connection: Connection,
    folding: Folding,
    spaces: Sequence[UUID],
    *,
    rows_max: Mapping[UUID, int] | None = None,
) -> Turn:
    """Give some spaces a turn, in this order, as far as its limits go. ``rows_max`` limits single spaces further.

    The connection must be the caller's alone until it goes back to its pool, which gives up the spaces' locks.

    Raises:
        WorkerFailed: nothing was changed.
        asyncpg.PostgresError: nothing was changed.
    """
    ours = await tables.try_lock(connection, spaces)
    parts, unread = await _read(connection, await tables.standings(connection, ours), rows_max or {})
    updates = _by_record(parts)
    held = await tables.held(connection, updates)
    if _cut_to_limits(parts, updates, held):
        updates = _by_record(parts)
    fold = _Fold(updates, held)
    await _fold(connection, folding, fold)
    moves = [(part.stands, _moved(part, fold)) for part in parts if part.through > part.stands.position]
    try:
        await _commit(connection, fold, moves)
    except _Overtaken:
        _log.warning("another process has folded the same spaces; this turn is dropped", spaces=len(moves))
        return Turn({}, [], ours)
    behind = [new.space for _, new in moves if new.position < new.head]
    unread += [part.stands.space for part in parts if not part.entries]
    return Turn({new.space: new.position for _, new in moves}, behind, unread, frozenset(fold.troubled))


async def set_aside(connection: Connection, space: UUID, reason: str) -> Turn:
    """Put a space's next update into quarantine without folding it, and move on.

    Raises:
        asyncpg.PostgresError: nothing was changed.
    """
    ours = await tables.try_lock(connection, [space])
    parts, _ = await _read(connection, await tables.standings(connection, ours), {space: 1})
    updates = _by_record(parts)
    outcomes = {key: Outcome(None, [Refused(update.position, reason)]) for key, (update,) in updates.items()}
    moves = [(part.stands, part.stands._replace(position=part.through)) for part in parts]
    await _commit(connection, _Fold(updates, {}, outcomes), moves)
    return Turn(
        {new.space: new.position for _, new in moves},
        [new.space for _, new in moves if new.position < new.head],
    )


async def fold_anew(connection: Connection, folding: Folding, space: UUID) -> int:
    """Forget what was folded of a space, fold its whole log again, and return the position that it stands at.

    All of it is one transaction: readers see the old documents until the new ones are there.

    Raises:
        WorkerFailed, asyncpg.PostgresError: nothing was changed.
    """
    position = 0
    await tables.lock(connection, space)
    async with connection.transaction():
        await connection.execute(
            "SET LOCAL idle_in_transaction_session_timeout = 0"
        )  # a turn may fold for long
        await tables.clear(connection, space)
        while True:
            turn = await fold_spaces(connection, folding, [space])
            position = turn.positions.get(space, position)
            if not turn.behind:
                return position


async def _read(
    connection: Connection, standings: Iterable[Standing], rows_max: Mapping[UUID, int]
) -> tuple[list[_Part], list[UUID]]:
    """Read the logs in order until the limits of a turn; return the parts, and the spaces that were not reached."""
    parts: list[_Part] = []
    unread: list[UUID] = []
    rows, size = ROWS_MAX, _LOG_BYTES_MAX
    for stands in standings:
        if stands.head <= stands.position:
            continue
        if rows <= 0 or size <= 0:
            unread.append(stands.space)
            continue
        entries_max = min(rows, rows_max.get(stands.space, rows))
        part = await log.read_after(
            connection,
            stands.space,
            stands.position,
            head=stands.head,
            entries_max=entries_max,
            bytes_target=size,
        )
        parts.append(_Part(stands, part.through, part.entries))
        rows -= len(part.entries)
        size -= sum(len(entry.update) for entry in part.entries)
    return parts, unread


def _by_record(parts: Iterable[_Part]) -> dict[Key, list[Update]]:
    updates: dict[Key, list[Update]] = {}
    for part in parts:
        space = part.stands.space
        for entry in part.entries:
            key = Key(space, entry.collection, entry.record)
            update = Update(entry.position, entry.client, entry.update)
            others = updates.get(key)
            if others is None:
                updates[key] = [update]
            else:
                others.append(update)
    return updates


def _cut_to_limits(
    parts: Sequence[_Part], updates: Mapping[Key, Sequence[Update]], held: Mapping[Key, Held]
) -> bool:
    """End the parts where the documents to load, or the records for the worker, are too many; never before
    the first.
    """
    seen: set[Key] = set()
    folds = size = 0
    is_full = is_cut = False
    for part in parts:
        if is_full:
            part.cut(0)
            continue
        for index, entry in enumerate(part.entries):
            key = Key(part.stands.space, entry.collection, entry.record)
            document = held.get(key)
            if key not in seen:
                seen.add(key)
                folds += document is not None or len(updates[key]) > 1
                size += 0 if document is None else document.size
                is_full = (folds > _FOLDS_MAX or size > _SNAPSHOT_BYTES_MAX) and len(seen) > 1
                if is_full:
                    part.cut(index)
                    is_cut = True
                    break
    return is_cut


async def _fold(connection: Connection, folding: Folding, fold: _Fold) -> None:
    simple: list[Key] = []
    rest: list[Key] = []
    for key, updates in fold.updates.items():
        is_simple = (
            len(updates) == 1 and key not in fold.held and len(updates[0].update) <= _CREATION_BYTES_MAX
        )
        (simple if is_simple else rest).append(key)
    early = asyncio.create_task(_fold_in_worker(connection, folding, fold, rest))
    try:
        not_simple = await _fold_creations(fold, simple)
        await early
    finally:
        early.cancel()
        await asyncio.gather(early, return_exceptions=True)
    await _fold_in_worker(connection, folding, fold, not_simple)


async def _fold_creations(fold: _Fold, keys: Sequence[Key]) -> list[Key]:
    """Fold the records that are one creation; return those that turn out to be something else."""
    not_simple = []
    for index, key in enumerate(keys):
        (update,) = fold.updates[key]
        try:
            folded = fold_creation(key.collection, key.record, update)
        except UpdateRefused as refused:
            fold.outcomes[key] = Outcome(None, [Refused(update.position, reason_of(refused))])
        except Exception:  # noqa: BLE001 - not foreseen: the worker may have it, and it may end in quarantine
            _log.warning("a creation is left to the worker", collection=key.collection, exc_info=True)
            not_simple.append(key)
        else:
            if folded is None:
                not_simple.append(key)
            else:
                fold.outcomes[key] = Outcome(folded)
        if index % _SLICE_CREATIONS == 0:
            await asyncio.sleep(0)
    return not_simple


async def _fold_in_worker(connection: Connection, folding: Folding, fold: _Fold, keys: Sequence[Key]) -> None:
    if not keys:
        return
    snapshots = await tables.snapshots(connection, [key for key in keys if key in fold.held])
    works = [Work(key.collection, key.record, snapshots.get(key), fold.updates[key]) for key in keys]
    outcomes, troubled = await folding.fold(works)
    fold.outcomes.update(zip(keys, outcomes, strict=True))
    fold.troubled.update(keys[index].space for index in troubled)


def _moved(part: _Part, fold: _Fold) -> Standing:
    """Return where the space stands after this part."""
    stands = part.stands
    changes, new = [], 0
    for key in {Key(stands.space, entry.collection, entry.record): None for entry in part.entries}:
        folded = fold.outcomes[key].folded
        if folded is not None:
            document = fold.held.get(key)
            new += document is None
            changes.append(
                int.from_bytes(folded.digest, "big") - (0 if document is None else document.digest)
            )
    digest = add_digests(stands.digest, *changes)
    return Standing(stands.space, stands.head, part.through, digest, stands.records + new)


async def _commit(connection: Connection, fold: _Fold, moves: Sequence[tuple[Standing, Standing]]) -> None:
    folded = [(key, outcome.folded) for key, outcome in fold.outcomes.items() if outcome.folded is not None]
    refused = [
        (key, refused.position, refused.reason)
        for key, outcome in fold.outcomes.items()
        for refused in outcome.refused
    ]
    if not moves:
        return
    async with connection.transaction():
        if not await tables.move(connection, moves):
            raise _Overtaken
        await tables.store(
            connection,
            [(key, made) for key, made in folded if key not in fold.held],
            [(key, made) for key, made in folded if key in fold.held],
        )
        await tables.quarantine(connection, refused)
