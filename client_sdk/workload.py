"""What is asked of the file, by pattern: how often, how long it took, and how many rows were looked at for
each returned.

A pattern is a query without its values. Times are of every run; the rows that SQLite looked at are counted
now and then, in the background: the query runs once more with a function as its first condition, which SQLite
calls for each row that its index did not rule out. Figures are kept in the file, without any value, and go on
after a restart.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec

from client_sdk.commit import Committed
from client_sdk.conditions import AnyOf, Column
from client_sdk.database import Connection
from client_sdk.plan import Plan

__all__ = ["SCHEMA", "IndexColumn", "Pattern", "Workload", "explain", "read_patterns"]

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS pjais_queries(
        pattern TEXT PRIMARY KEY,
        collection TEXT NOT NULL,
        sql TEXT NOT NULL,
        wanted TEXT NOT NULL,
        runs INTEGER NOT NULL,
        seconds REAL NOT NULL,
        returned INTEGER NOT NULL,
        samples INTEGER NOT NULL,
        sampled INTEGER NOT NULL,
        scanned INTEGER NOT NULL,
        explained TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS pjais_indexes(
        name TEXT PRIMARY KEY,
        collection TEXT NOT NULL,
        pattern TEXT NOT NULL,
        scanned REAL NOT NULL,
        runs INTEGER NOT NULL,
        writes INTEGER NOT NULL,
        idle INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS pjais_writes(collection TEXT PRIMARY KEY, writes INTEGER NOT NULL) WITHOUT ROWID",
)

#: A pattern is looked at closely at its first run and then once in so many.
_RUNS_BETWEEN_SAMPLES: Final = 64
#: Patterns remembered; an application has some dozens.
_PATTERNS_MAX: Final = 1_000
_RUNS_BETWEEN_SAVES: Final = 2_000
_PLACES: Final = re.compile(r"IN \(\?(?:, \?)*\)")

IndexColumn = tuple[str, bool]
"""An expression over the table's columns, and whether it is descending."""


class Pattern(msgspec.Struct):
    """What is known of one pattern. ``scanned`` and ``sampled`` are rows looked at and returned in ``samples`` runs."""

    pattern: str
    collection: str
    sql: str
    wanted: list[IndexColumn]
    runs: int = 0
    seconds: float = 0.0
    returned: int = 0
    samples: int = 0
    sampled: int = 0
    scanned: int = 0
    explained: str = ""

    @property
    def scanned_a_run(self) -> float:
        """Rows that SQLite looks at in a run."""
        return self.scanned / self.samples if self.samples else 0.0

    @property
    def returned_a_run(self) -> float:
        """Rows that a run returns, in the runs that were looked at closely."""
        return self.sampled / self.samples if self.samples else 0.0


class _Database(Protocol):
    async def read(self, function: Callable[[Connection], Any], *, brief: bool = False) -> Any: ...

    async def write(self, function: Callable[[Connection], Any]) -> Any: ...


class Workload:
    """The patterns since the file was opened, to be added to those in the file."""

    def __init__(self, database: _Database, spawn: Callable[[Any], asyncio.Task[None]]) -> None:
        #: Called after so many queries, when their figures have been saved.
        self.saved: Callable[[], Awaitable[Any]] | None = None
        self._database = database
        self._spawn = spawn
        self._seen: dict[tuple[Any, ...], Pattern] = {}
        self._writes: defaultdict[str, int] = defaultdict(int)
        self._samples: set[asyncio.Task[None]] = set()
        self._runs_since_save = 0

    def ran(self, plan: Plan, seconds: float, returned: int) -> None:
        """Count a run."""
        shape = plan.shape
        pattern = self._seen.get(shape)
        if pattern is None:
            if len(self._seen) >= _PATTERNS_MAX:
                return
            pattern = self._seen[shape] = _pattern_of(plan)
        if pattern.runs % _RUNS_BETWEEN_SAMPLES == 0:
            sample = self._spawn(self._sample(plan, pattern))
            self._samples.add(sample)
            sample.add_done_callback(self._samples.discard)
        pattern.runs += 1
        pattern.seconds += seconds
        pattern.returned += returned
        self._runs_since_save += 1
        if self._runs_since_save >= _RUNS_BETWEEN_SAVES:
            self._runs_since_save = 0
            self._spawn(self._look_back())

    def committed(self, committed: Committed) -> None:
        """Count the rows that a commit changed."""
        for change in committed.changes:
            self._writes[change.collection] += 1

    async def _look_back(self) -> None:
        await self.save()
        if self.saved is not None:
            await self.saved()

    async def save(self) -> None:
        """Add what was counted to the file's figures, with what is being looked at just now."""
        if self._samples:
            await asyncio.wait(set(self._samples))
        patterns = [pattern for pattern in self._seen.values() if pattern.runs or pattern.samples]
        rows = [_row(pattern) for pattern in patterns]
        writes = dict(self._writes)
        if not rows:
            return  # writes alone say nothing
        await self._database.write(lambda connection: _save(connection, rows, writes))
        self._writes.clear()
        for pattern, row in zip(patterns, rows, strict=True):
            pattern.runs -= row[4]
            pattern.seconds -= row[5]
            pattern.returned -= row[6]
            pattern.samples -= row[7]
            pattern.sampled -= row[8]
            pattern.scanned -= row[9]

    async def patterns(self) -> list[Pattern]:
        """Return everything that is known, the most expensive first."""
        await self.save()
        found: list[Pattern] = await self._database.read(read_patterns)
        return found

    async def _sample(self, plan: Plan, pattern: Pattern) -> None:
        scanned, returned, explained = await self._database.read(lambda connection: _look(connection, plan))
        pattern.samples += 1
        pattern.scanned += scanned
        pattern.sampled += returned
        pattern.explained = explained


def read_patterns(connection: Connection) -> list[Pattern]:
    """Return the file's figures, the most expensive first."""
    rows = connection.execute(
        "SELECT pattern, collection, sql, wanted, runs, seconds, returned, samples, sampled, scanned, explained"
        " FROM pjais_queries ORDER BY seconds DESC"
    ).fetchall()
    made = []
    for row in rows:
        pattern, collection, sql, wanted, *figures = row
        columns = msgspec.json.decode(wanted, type=list[IndexColumn])
        made.append(Pattern(pattern, collection, sql, columns, *figures))
    return made


def explain(connection: Connection, sql: str) -> str:
    """Return how SQLite would run a statement, a step a line. Its parameters need no values for that."""
    rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * sql.count("?")).fetchall()
    return "\n".join(row[3] for row in rows)


def _look(connection: Connection, plan: Plan) -> tuple[int, int, str]:
    """Run a plan once, and return how many rows were looked at, how many came, and how it was done."""
    seen = 0

    def see() -> int:
        nonlocal seen
        seen += 1
        return 1

    connection.create_function("pjais_seen", 0, see)
    select = f'SELECT "{plan.table.name}".doc FROM "{plan.table.name}"'
    sql, parameters = plan.sql(select, first="pjais_seen()")
    returned = len(connection.execute(sql, parameters).fetchall())
    return seen, returned, explain(connection, plan.sql(select)[0])


def _pattern_of(plan: Plan) -> Pattern:
    sql, _ = plan.sql(f'SELECT "{plan.table.name}".doc FROM "{plan.table.name}"')
    sql = _PLACES.sub("IN (?)", sql)
    name = sql.partition(" FROM ")[2].replace(f'"{plan.table.name}".', "")
    return Pattern(name, plan.table.name, sql, _wanted(plan))


def _wanted(plan: Plan) -> list[IndexColumn]:
    """Return the columns of the index that would serve a plan best: those that must have a value, then the order, or
    else one that is compared. Empty where no index can.
    """

    def bare(column: Column) -> str:
        return column.sql.replace(f'"{plan.table.name}".', "")

    plain = [one for one in plan.conditions if not isinstance(one, AnyOf)]
    made: dict[str, bool] = {
        bare(one.column): False for one in plain if one.operator in ("=", "in", "is null")
    }
    if plan.order:
        made |= {bare(one.column): one.descending for one in plan.order if bare(one.column) not in made}
    else:
        ranged = [bare(one.column) for one in plain if one.operator in ("<", "<=", ">", ">=")]
        made |= {column: False for column in ranged[:1] if column not in made}
    return list(made.items())


def _row(pattern: Pattern) -> tuple[Any, ...]:
    held = msgspec.structs.astuple(pattern)
    return (*held[:3], msgspec.json.encode(pattern.wanted).decode(), *held[4:])


def _save(connection: Connection, rows: list[tuple[Any, ...]], writes: dict[str, int]) -> None:
    connection.executemany(
        "INSERT INTO pjais_queries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (pattern) DO UPDATE SET"
        " runs = runs + excluded.runs, seconds = seconds + excluded.seconds, returned = returned + excluded.returned,"
        " samples = samples + excluded.samples, sampled = sampled + excluded.sampled,"
        " scanned = scanned + excluded.scanned,"
        " explained = coalesce(nullif(excluded.explained, ''), explained), wanted = excluded.wanted",
        rows,
    )
    connection.executemany(
        "INSERT INTO pjais_writes VALUES (?, ?)"
        " ON CONFLICT (collection) DO UPDATE SET writes = writes + excluded.writes",
        list(writes.items()),
    )
