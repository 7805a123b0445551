"""The query advisor: which indexes would pay, made and dropped by what really runs.

A pattern that ran more than a hundred times while SQLite looked at many rows for each that it returned gets
the index that would serve it, if SQLite then uses it. An index of the advisor's that no longer pays (its
patterns do not run any more, or keeping it costs the writes more than it saves the reads) is dropped at the
second look that finds it so. Declared indexes are never touched. ``Config.advisor = "automatic"`` looks after
every 2,000 queries.

After SQLite's own ``.expert`` (https://sqlite.org/cli.html#index_recommendations_sqlite_expert_), with what
runs instead of what might.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from client_sdk.database import Connection, Database
from client_sdk.rows import Table
from client_sdk.workload import Pattern, Workload, explain, read_patterns

__all__ = ["Advice", "Advisor", "Applied"]

RUNS_MIN: Final = 100
#: Rows looked at beyond three for each returned, that are not worth an index.
_SCANNED_SPARE: Final = 200
_SCANNED_A_ROW_MAX: Final = 3
#: Rough costs, in seconds: looking at a row, and keeping one more index up to date for a row.
_LOOK_S: Final = 0.6e-6
_WRITE_S: Final = 8e-6
_IDLE_LOOKS_MAX: Final = 2
_PREFIX: Final = "pjais_advised_"


class Advice(msgspec.Struct, frozen=True):
    """One pattern, what it costs, and what would help. ``mean_ms`` is a run's time, ``plan`` how SQLite goes
    about it.
    """

    pattern: str
    collection: str
    runs: int
    mean_ms: float
    scanned: float
    returned: float
    plan: str
    action: Literal["none", "create index"]
    columns: tuple[str, ...] = ()


class Applied(msgspec.Struct, frozen=True):
    """The indexes that were made and dropped, by name."""

    created: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


class Advisor:
    """What runs, and the indexes that it would be better with."""

    def __init__(self, database: Database, workload: Workload, tables: Mapping[str, Table]) -> None:
        self._database = database
        self._workload = workload
        self._tables = tables

    async def report(self) -> list[Advice]:
        """Return every pattern that ran, the most expensive first, also before the last restart."""
        return [_advice(pattern) for pattern in await self._workload.patterns()]

    async def apply(self) -> Applied:
        """Make the indexes that are advised, and drop those made earlier that no longer pay."""
        await self._workload.save()
        return await self._database.write(self._apply)

    def _apply(self, connection: Connection) -> Applied:
        patterns = [pattern for pattern in read_patterns(connection) if pattern.collection in self._tables]
        dropped = _drop(connection, patterns)
        created = [
            name
            for pattern in patterns
            if _advice(pattern).action == "create index"
            and (name := _create(connection, pattern)) is not None
        ]
        return Applied(tuple(created), tuple(dropped))


def _advice(pattern: Pattern) -> Advice:
    scanned, returned = pattern.scanned_a_run, pattern.returned_a_run
    is_poor = scanned > returned * _SCANNED_A_ROW_MAX + _SCANNED_SPARE
    is_due = is_poor and pattern.runs > RUNS_MIN and bool(pattern.wanted)
    return Advice(
        pattern.pattern,
        pattern.collection,
        pattern.runs,
        pattern.seconds / pattern.runs * 1_000 if pattern.runs else 0.0,
        scanned,
        returned,
        pattern.explained,
        "create index" if is_due else "none",
        tuple(f"{column} DESC" if descending else column for column, descending in pattern.wanted)
        if is_due
        else (),
    )


def _create(connection: Connection, pattern: Pattern) -> str | None:
    """Make the index that a pattern wants; return its name, None if SQLite has no use for it or there is one."""
    columns = ", ".join(f"{column}{' DESC' if descending else ''}" for column, descending in pattern.wanted)
    name = _PREFIX + hashlib.sha256(f"{pattern.collection} {columns}".encode()).hexdigest()[:12]
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone():
        return None
    connection.execute(f'CREATE INDEX "{name}" ON "{pattern.collection}"({columns})')
    explained = explain(connection, pattern.sql)
    if name not in explained:
        connection.execute(f'DROP INDEX "{name}"')
        return None
    connection.execute(
        "INSERT OR REPLACE INTO pjais_indexes(name, collection, pattern, scanned, runs, writes, idle)"
        " VALUES (?, ?, ?, ?, ?, ?, 0)",
        (
            name,
            pattern.collection,
            pattern.pattern,
            pattern.scanned_a_run,
            pattern.runs,
            _writes(connection, pattern.collection),
        ),
    )
    # What was seen without it says nothing any more.
    connection.execute(
        "UPDATE pjais_queries SET samples = 0, sampled = 0, scanned = 0, explained = ? WHERE pattern = ?",
        (explained, pattern.pattern),
    )
    return name


def _drop(connection: Connection, patterns: list[Pattern]) -> list[str]:
    """Drop the advised indexes that have not paid since the last looks."""
    by_name = {pattern.pattern: pattern for pattern in patterns}
    dropped = []
    held: list[tuple[Any, ...]] = connection.execute(
        "SELECT name, collection, pattern, scanned, runs, writes, idle FROM pjais_indexes"
    ).fetchall()
    for name, collection, served, scanned, runs, writes, idle in held:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone():
            connection.execute("DELETE FROM pjais_indexes WHERE name = ?", (name,))  # its table was made anew
            continue
        pattern = by_name.get(served)
        runs_now = pattern.runs if pattern is not None else runs
        writes_now = _writes(connection, collection)
        saved = (runs_now - runs) * max(0.0, scanned - (pattern.scanned_a_run if pattern else 0.0)) * _LOOK_S
        idle_now = idle + 1 if saved <= (writes_now - writes) * _WRITE_S else 0
        if idle_now >= _IDLE_LOOKS_MAX:
            connection.execute(f'DROP INDEX "{name}"')
            connection.execute("DELETE FROM pjais_indexes WHERE name = ?", (name,))
            dropped.append(name)
        else:
            connection.execute(
                "UPDATE pjais_indexes SET runs = ?, writes = ?, idle = ? WHERE name = ?",
                (runs_now, writes_now, idle_now, name),
            )
    return dropped


def _writes(connection: Connection, collection: str) -> int:
    found = connection.execute(
        "SELECT writes FROM pjais_writes WHERE collection = ?", (collection,)
    ).fetchone()
    return 0 if found is None else int(found[0])
