"""The SQL of a search by words: what a text table finds, within a query's conditions, best first."""

from __future__ import annotations

from typing import Any

from client_sdk.database import Connection
from client_sdk.plan import Plan
from client_sdk.text_index import ITEM_BITS, TextTable

__all__ = ["ranking"]


def ranking(
    connection: Connection, plan: Plan, table: TextTable, expression: str, *, newest: int | None
) -> tuple[str, list[Any]]:
    """Return the SQL that ranks a table's rows within a plan's conditions, all but its limit, and its parameters.

    Of more rows than ``newest`` that match, so many are ranked, the newest; None: all.
    """
    name = f'"{table.name}"'
    doc = f"{name}.rowid >> {ITEM_BITS}" if table.list_field else f"{name}.rowid"
    fits, held = _filter(connection, plan, doc)
    matching, parameters = f"FROM {name} WHERE {name} MATCH ?{fits}", [expression, *held]
    if newest is not None:
        oldest = f"SELECT rowid {matching} ORDER BY rowid DESC LIMIT 1 OFFSET {newest - 1}"
        matching += f" AND rowid >= ifnull(({oldest}), 0)"
        parameters *= 2
    # The + keeps FTS5 from sorting, which takes twice as long, and ranks what the filter leaves out too.
    return f"SELECT rank, rowid {matching} ORDER BY +rank, rowid DESC LIMIT ?", parameters


def _filter(connection: Connection, plan: Plan, doc: str) -> tuple[str, list[Any]]:
    """Return the conditions on the record whose number is the expression ``doc``, and their parameters.

    What an index answers is answered once, for all words; anything else is asked of each record that has the words.
    """
    where, parameters = plan.where()
    if not where:
        return "", []
    rows = f'"{plan.table.name}"'
    fitting = f"SELECT {rows}.doc FROM {rows} WHERE {where}"
    first = connection.execute(f"EXPLAIN QUERY PLAN {fitting}", parameters).fetchone()
    if first is not None and first[3].startswith(("SEARCH", "MULTI-INDEX")):
        return f" AND +({doc}) IN ({fitting})", parameters
    return f" AND EXISTS (SELECT 1 FROM {rows} WHERE {rows}.doc = {doc} AND {where})", parameters
