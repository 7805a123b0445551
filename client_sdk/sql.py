"""SQL that only reads, by hand: ``client.sql`` and ``client.watch_sql``.

Readers refuse to write (``PRAGMA query_only``). Which tables a statement reads is asked of SQLite itself: its
authorizer is called for each while the statement is compiled, also through views and subqueries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from client_sdk.database import Connection, SqlError
from client_sdk.errors import QueryError, ReadOnlySql
from client_sdk.rows import to_sql

__all__ = ["SqlRow", "run_sql", "tables_read"]

_READ: Final = 20  # SQLITE_READ
_OK: Final = 0
_WRITES: Final = ("readonly database", "query_only", "attempt to write")


class SqlRow(tuple[Any, ...]):
    """A row: a tuple whose columns are also found by name."""

    __slots__ = ()
    names: tuple[str, ...] = ()

    def __getitem__(self, key: Any) -> Any:
        """Return a column by its number or name. Raises ``KeyError`` for an unknown name."""
        if isinstance(key, str):
            try:
                return tuple.__getitem__(self, self.names.index(key))
            except ValueError:
                raise KeyError(f"no column {key!r}; there are {', '.join(self.names)}") from None
        return tuple.__getitem__(self, key)

    def asdict(self) -> dict[str, Any]:
        """Return the columns by name."""
        return dict(zip(self.names, self, strict=True))


def run_sql(connection: Connection, statement: str, parameters: Sequence[Any]) -> list[SqlRow]:
    """Run a statement that reads. Raises `ReadOnlySql` and `QueryError`."""
    _check(statement)
    try:
        cursor = connection.execute(statement, tuple(to_sql(value) for value in parameters))
        rows = cursor.fetchall()
    except SqlError as error:
        raise _explain(statement, error) from None
    kind = type(
        "SqlRow", (SqlRow,), {"__slots__": (), "names": tuple(one[0] for one in cursor.description or ())}
    )
    return [kind(row) for row in rows]


def tables_read(connection: Any, statement: str, parameters: Sequence[Any]) -> frozenset[str]:
    """Return the tables that a statement reads. Raises `ReadOnlySql` and `QueryError`."""
    _check(statement)
    tables: set[str] = set()

    def authorize(
        action: int, table: str | None, _column: str | None, _database: str | None, _by: str | None
    ) -> int:
        if action == _READ and table:
            tables.add(table.partition("__")[0])  # a list's table changes with its record
        return _OK

    connection.set_authorizer(authorize)
    try:
        connection.execute(f"EXPLAIN {statement}", tuple(to_sql(value) for value in parameters)).fetchall()
    except SqlError as error:
        raise _explain(statement, error) from None
    finally:
        connection.set_authorizer(None)
    return frozenset(tables)


def _check(statement: str) -> None:
    word = statement.lstrip(" \t\n(").split(None, 1)
    if not word or word[0].upper() not in {"SELECT", "WITH", "VALUES"}:
        raise ReadOnlySql(statement)


def _explain(statement: str, error: Exception) -> QueryError:
    if any(part in str(error) for part in _WRITES):
        return ReadOnlySql(statement)
    return QueryError(f"SQLite does not understand {statement.strip()[:120]!r}: {error}")
