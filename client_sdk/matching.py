"""What a text table finds within a query's conditions, best first: the SQL of every search by words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from client_sdk.database import Connection
from client_sdk.plan import Plan
from client_sdk.text_index import ITEM_BITS, TextTable

__all__ = ["matched"]

_FEW_DOCS: Final = 10_000  # documents: up to as many it pays to name them to SQLite, 1 ms


def matched(
    connection: Connection,
    plan: Plan,
    table: TextTable,
    expression: str,
    *,
    limit: int,
    newest: int | None = None,
    docs: Sequence[int] | None = None,
) -> list[tuple[float, int]]:
    """Return rank (lower is better) and rowid of what an FTS5 expression finds among the records that fit a plan.

    Of more rows than ``newest`` that match, so many are ranked, the newest; None: all. ``docs``: the numbers of all
    documents that fit, where they are known.
    """
    name = f'"{table.name}"'
    doc = f"{name}.rowid >> {ITEM_BITS}" if table.list_field else f"{name}.rowid"
    fits, held = _filter(connection, plan, doc, docs)
    matching, parameters = f"FROM {name} WHERE {name} MATCH ?{fits}", [expression, *held]
    if newest is not None:
        oldest = f"SELECT rowid {matching} ORDER BY rowid DESC LIMIT 1 OFFSET {newest - 1}"
        matching += f" AND rowid >= ifnull(({oldest}), 0)"
        parameters *= 2
    # The + keeps FTS5 from sorting, which takes twice as long, and ranks what the filter leaves out too.
    sql = f"SELECT rank, rowid {matching} ORDER BY +rank, rowid DESC LIMIT ?"
    return connection.execute(sql, (*parameters, limit)).fetchall()


def _filter(
    connection: Connection, plan: Plan, doc: str, docs: Sequence[int] | None
) -> tuple[str, list[Any]]:
    """Return the conditions on the record whose number is the expression ``doc``, and their parameters.

    What an index answers is answered once, for all words; anything else is asked of each record that has the words.
    """
    where, parameters = plan.where()
    if not where:
        return "", []
    if docs is not None and len(docs) <= _FEW_DOCS:
        return f" AND +({doc}) IN (SELECT value FROM json_each(?))", [str(list(docs))]
    rows = f'"{plan.table.name}"'
    fitting = f"SELECT {rows}.doc FROM {rows} WHERE {where}"
    first = connection.execute(f"EXPLAIN QUERY PLAN {fitting}", parameters).fetchone()
    if first is not None and first[3].startswith(("SEARCH", "MULTI-INDEX")):
        return f" AND +({doc}) IN ({fitting})", parameters
    return f" AND EXISTS (SELECT 1 FROM {rows} WHERE {rows}.doc = {doc} AND {where})", parameters
