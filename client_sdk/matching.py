"""What a text table finds within a query's conditions, best first: the SQL of every search by words.

Of a row, finding it by a word takes 0.04 µs and ranking it 0.55, most of that for its length. So `matched_any`, which
answers a question of which any word will do, looks first which of the words tell rows apart, and ranks few of those
that only have words which stand in many. What is ranked has the rank that `matched` gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Final

from client_sdk.database import Connection
from client_sdk.plan import Plan
from client_sdk.text_index import ITEM_BITS, TextTable

__all__ = ["ANY_RANKED_MAX", "BEGINNING", "matched", "matched_any"]

ANY_RANKED_MAX: Final = 5_000
"""Rows that are ranked for their rare words, and as many for the others: 3 ms each. Of 100,000 memories this finds 0.99
of the first ten that ranking all finds, and 0.94 of the first 200."""

BEGINNING: Final = " *"
"""What stands after a quoted word that may go on."""

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


def matched_any(
    connection: Connection,
    plan: Plan,
    table: TextTable,
    words: Sequence[str],
    *,
    limit: int,
    docs: Sequence[int] | None = None,
    ranked_max: int = ANY_RANKED_MAX,
) -> list[tuple[float, int]]:
    """Return what `matched` finds by any of ``words``, or nearly; each is an FTS5 expression, perhaps a `BEGINNING`.

    First come the rows that have a rare word: so many rare ones as together stand in at most ``ranked_max`` rows. While
    these are fewer than ``limit``, the newest rows that have all the other words follow, then the newest that have any
    of them, at most ``ranked_max`` each. So where the words stand in no more rows it is exactly what `matched` returns.
    A beginning that is not rare is left out. ``docs`` as for `matched`: where they are few, all that fit are ranked.

    It is the order of MaxScore (Turtle and Flood, "Query evaluation: strategies and optimizations", 1995), with a bound
    on the rows instead of one on their scores.
    """
    rare, common = _told_apart(connection, table, words, ranked_max)
    look = partial(matched, connection, plan, table, limit=limit, docs=docs)
    if docs is not None and not table.list_field and len(docs) <= ranked_max:
        rare, common = [*rare, *common], []
    found = look(_any(rare)) if rare else []
    if rare and common:  # those that have both: a better rank, and so the one that is kept
        found = _best_of_each([*found, *look(f"{_any(rare)} AND {_any(common)}")])
    for others in dict.fromkeys([_all(common), _any(common)]) if common else ():
        if len(found) < limit:
            without = f" NOT {_any(rare)}" if rare else ""
            found = _best_of_each([*found, *look(f"{others}{without}", newest=ranked_max)])
    return found[:limit]


def _told_apart(
    connection: Connection, table: TextTable, words: Sequence[str], rows_max: int
) -> tuple[list[str], list[str]]:
    """Return the rarest words, which together stand in at most ``rows_max`` rows, and the others."""
    sql = f'SELECT count(*) FROM (SELECT 1 FROM "{table.name}" WHERE "{table.name}" MATCH ? LIMIT ?)'
    rows = {word: connection.execute(sql, (word, rows_max + 1)).fetchone()[0] for word in words}
    by_rarity = sorted(rows, key=rows.__getitem__)
    sums = accumulate(rows[word] for word in by_rarity)
    count = sum(one <= rows_max for one in sums)
    return by_rarity[:count], [word for word in by_rarity[count:] if not word.endswith(BEGINNING)]


def _any(words: Sequence[str]) -> str:
    return f"({' OR '.join(f'({word})' for word in words)})"


def _all(words: Sequence[str]) -> str:
    return f"({' AND '.join(f'({word})' for word in words)})"


def _best_of_each(found: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return each row once, with its best rank, in the order of `matched`."""
    worst_first = sorted(found, key=lambda one: (-one[0], one[1]))
    best = {rowid: rank for rank, rowid in worst_first}
    return sorted(((rank, rowid) for rowid, rank in best.items()), key=lambda one: (one[0], -one[1]))


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
