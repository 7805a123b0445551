"""One group commit: what waits, for all spaces, in one transaction.

In the order of its statements: lock the spaces (always in the order of their ids, so that two processes never
wait for one another); read who the writers are and how far they are numbered; where this process does not
know a writer's clocks, ask the log; decide; COPY into the log; keep the refusals; move `writers.through` and
`spaces.head`. Nothing is told to anyone before the commit has returned.

A space that another process holds is left out (``SKIP LOCKED``) and tried again with the next commit, so one busy space
does not make the others wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from crdt.wire import Ack, Refusal
from server.admit.decide import CheckedPush, RecordKey, Refused, decide
from server.admit.memory import Writer, WriterKey, Writers
from server.database import Connection
from server.errors import ClientIdTaken, MalformedMessage, NotInSpace, OutOfOrder, RequestRefused
from server.log import LogRow, append

__all__ = ["Admitted", "GroupCommit"]

# Every plan of the transaction goes by primary keys: planning the writers anew each time takes 0.3 ms of 0.4.
_LOCK: Final = """
SELECT space_id, head, set_config('plan_cache_mode', 'force_generic_plan', true)
FROM spaces WHERE space_id = ANY($1::uuid[]) ORDER BY space_id FOR NO KEY UPDATE
"""
_WRITERS: Final = """
SELECT members.device_id IS NOT NULL AND devices.device_id IS NOT NULL AS is_member,
       own.through, own.client_id, owner.device_id AS owner_device, owner.incarnation AS owner_incarnation
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[])
     WITH ORDINALITY AS asked (space_id, device_id, incarnation, client_id, place)
LEFT JOIN members ON members.space_id = asked.space_id AND members.device_id = asked.device_id
LEFT JOIN devices ON devices.device_id = asked.device_id AND devices.revoked_at IS NULL
LEFT JOIN writers AS own
    ON own.space_id = asked.space_id AND own.device_id = asked.device_id AND own.incarnation = asked.incarnation
LEFT JOIN writers AS owner ON owner.space_id = asked.space_id AND owner.client_id = asked.client_id
ORDER BY asked.place
"""
_CLOCKS: Final = """
SELECT asked.collection, asked.record_id, written.clock_end
FROM unnest($3::text[], $4::text[]) AS asked (collection, record_id)
CROSS JOIN LATERAL (
    SELECT max(clock_end) AS clock_end FROM log
    WHERE space_id = $1 AND client_id = $2 AND collection = asked.collection AND record_id = asked.record_id
) AS written
"""
_KEEP_REFUSALS: Final = """
INSERT INTO refusals (space_id, device_id, incarnation, n, collection, record_id, update, code, detail)
SELECT * FROM unnest(
    $1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bytea[], $8::text[], $9::text[]
)
"""
_REFUSALS: Final = """
SELECT n, code, detail FROM refusals
WHERE space_id = $1 AND device_id = $2 AND incarnation = $3 AND n BETWEEN $4 AND $5 ORDER BY n
"""
_MOVE: Final = """
WITH moved AS (
    INSERT INTO writers (space_id, device_id, incarnation, client_id, through)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
    ON CONFLICT (space_id, device_id, incarnation) DO UPDATE SET through = excluded.through
)
UPDATE spaces SET head = grown.head
FROM unnest($6::uuid[], $7::bigint[]) AS grown (space_id, head) WHERE spaces.space_id = grown.space_id
"""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A durable push: its acknowledgement, and the positions ``after`` < p ≤ ``through`` that it took."""

    ack: Ack
    after: int
    through: int


@dataclass(slots=True)
class _Writing:
    """A writer within this transaction: what it will be when the commit returns."""

    writer: Writer
    client: int
    through: int
    fresh: dict[RecordKey, int] = field(default_factory=dict)


class GroupCommit:
    """The transaction for some checked pushes. `write` it inside one; `learn` and read the results after its commit."""

    def __init__(self, pushes: Sequence[CheckedPush], writers: Writers) -> None:
        self._pushes = pushes
        self._writers = writers
        self._writing: dict[WriterKey, _Writing] = {}
        self._head_before: dict[UUID, int] = {}
        #: By space, where its log ends after the commit; only of spaces that grew.
        self.heads: dict[UUID, int] = {}
        #: One for each push; None where its space was held by another process, and the push has to come again.
        self.outcomes: list[Admitted | RequestRefused | None] = []

    async def write(self, connection: Connection, *, wait_ms: int | None) -> None:
        """Do everything but commit. ``wait_ms``: how long to wait for spaces that others hold; None: not at all.

        Raises:
            asyncpg.LockNotAvailableError: waited in vain.
        """
        await self._lock(connection, wait_ms)
        rows, refused = await self._decide(connection)
        await append(connection, rows)
        if refused:
            await _keep_refusals(connection, refused)
        await self._repeat_refusals(connection)
        await self._move(connection)

    def learn(self) -> None:
        """The commit has returned: remember where the writers stand."""
        for key, writing in self._writing.items():
            writing.writer.through = writing.through
            self._writers.learn(key, writing.writer, writing.fresh)

    async def _lock(self, connection: Connection, wait_ms: int | None) -> None:
        spaces = sorted({checked.space for checked in self._pushes})
        if wait_ms is None:
            rows = await connection.fetch(_LOCK + " SKIP LOCKED", spaces)
        else:
            await connection.execute(f"SET LOCAL lock_timeout = {wait_ms}")
            rows = await connection.fetch(_LOCK, spaces)
        self._head_before = {row["space_id"]: row["head"] for row in rows}

    async def _decide(self, connection: Connection) -> tuple[list[LogRow], list[tuple[CheckedPush, Refused]]]:
        found = await connection.fetch(
            _WRITERS,
            [checked.space for checked in self._pushes],
            [checked.device for checked in self._pushes],
            [checked.push.incarnation for checked in self._pushes],
            [checked.push.client for checked in self._pushes],
        )
        owners: dict[tuple[UUID, int], WriterKey] = {}  # client ids claimed by this very commit
        rows: list[LogRow] = []
        all_refused: list[tuple[CheckedPush, Refused]] = []
        for checked, row in zip(self._pushes, found, strict=True):
            push = checked.push
            key = WriterKey(checked.space, checked.device, push.incarnation)
            if not row["is_member"]:
                self.outcomes.append(NotInSpace())
                continue
            if checked.space not in self._head_before:
                self.outcomes.append(None)
                continue
            if row["owner_device"] is not None:
                owner = WriterKey(checked.space, row["owner_device"], row["owner_incarnation"])
            else:
                owner = owners.get((checked.space, push.client), key)
            if owner != key:
                self.outcomes.append(ClientIdTaken(push.client))
                continue
            writing = self._writing.get(key)
            if writing is None:
                writer = self._writers.recall(key, through=row["through"] or 0)
                writing = _Writing(writer, client=row["client_id"] or push.client, through=writer.through)
            if writing.client != push.client:
                self.outcomes.append(
                    MalformedMessage("an incarnation writes under one client id, to its end")
                )
                continue
            if push.first > writing.through + 1:
                self.outcomes.append(OutOfOrder(expected=writing.through + 1, first=push.first))
                continue
            self._writing[key] = writing
            owners[checked.space, push.client] = key
            await self._know_clocks(connection, key, writing, checked)
            decision = decide(
                checked, through=writing.through, known=writing.writer.clocks, fresh=writing.fresh
            )
            after = self.heads.get(checked.space, self._head_before[checked.space])
            rows.extend(
                LogRow(
                    checked.space,
                    position,
                    edit.collection,
                    edit.record,
                    checked.device,
                    push.incarnation,
                    n,
                    push.client,
                    start,
                    end,
                    edit.update,
                )
                for position, (n, edit, start, end) in enumerate(decision.taken, after + 1)
            )
            all_refused.extend((checked, refused) for refused in decision.refused)
            through = after + len(decision.taken)
            if decision.taken:
                self.heads[checked.space] = through
            refusals = [refused.refusal for refused in decision.refused]
            ack = Ack(str(checked.space), push.incarnation, checked.last, refusals)
            self.outcomes.append(Admitted(ack, after, through))
            writing.through = max(writing.through, checked.last)
        return rows, all_refused

    async def _know_clocks(
        self, connection: Connection, key: WriterKey, writing: _Writing, checked: CheckedPush
    ) -> None:
        """Ask the log where this writer left off in the records that this process does not remember."""
        writer = writing.writer
        if writer.is_complete:
            return
        missing = {
            (edit.collection, edit.record)
            for edit, clock in zip(checked.push.edits, checked.clocks, strict=True)
            if not isinstance(clock, Refusal)
        }
        missing -= writer.clocks.keys()
        missing -= writing.fresh.keys()
        if not missing:
            return
        rows = await connection.fetch(
            _CLOCKS,
            key.space,
            writing.client,
            [name for name, _ in missing],
            [record for _, record in missing],
        )
        writer.clocks.update({(row["collection"], row["record_id"]): row["clock_end"] or 0 for row in rows})

    async def _repeat_refusals(self, connection: Connection) -> None:
        """Give a push that was here before the refusals that it got then: a repeat gets the same answer."""
        for place, (checked, outcome) in enumerate(zip(self._pushes, self.outcomes, strict=True)):
            if not isinstance(outcome, Admitted):
                continue
            if outcome.through - outcome.after + len(outcome.ack.refusals) == len(checked.push.edits):
                continue  # all of it was new
            push = checked.push
            found = await connection.fetch(
                _REFUSALS, checked.space, checked.device, push.incarnation, push.first, checked.last
            )
            ack = Ack(outcome.ack.space, push.incarnation, checked.last, [Refusal(*row) for row in found])
            self.outcomes[place] = Admitted(ack, outcome.after, outcome.through)

    async def _move(self, connection: Connection) -> None:
        moved = [
            (key, writing)
            for key, writing in self._writing.items()
            if writing.through > writing.writer.through
        ]
        if not moved:
            return
        await connection.execute(
            _MOVE,
            [key.space for key, _ in moved],
            [key.device for key, _ in moved],
            [key.incarnation for key, _ in moved],
            [writing.client for _, writing in moved],
            [writing.through for _, writing in moved],
            list(self.heads.keys()),
            list(self.heads.values()),
        )


async def _keep_refusals(connection: Connection, all_refused: Iterable[tuple[CheckedPush, Refused]]) -> None:
    rows = [
        (
            checked.space,
            checked.device,
            checked.push.incarnation,
            refusal.n,
            _storable(edit.collection),
            _storable(edit.record),
            edit.update,
            refusal.code,
            _storable(refusal.detail),
        )
        for checked, (edit, refusal) in all_refused
    ]
    await connection.execute(_KEEP_REFUSALS, *(list(column) for column in zip(*rows, strict=True)))


def _storable(text: str) -> str:
    """A refused name may be the reason for the refusal: Postgres takes no NUL, and nobody needs a megabyte of it."""
    return text[:300].replace("\0", "\N{SYMBOL FOR NULL}")
