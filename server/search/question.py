"""What is asked, and the part of a statement that narrows a table to it.

Each table is narrowed to the space by itself: ``table.space_id = $1``, wherever it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from server.search.conditions import Bind, Condition, condition_sql

__all__ = ["CANDIDATES", "Mode", "Question", "narrowed"]

Mode: TypeAlias = Literal["hybrid", "text", "meaning"]

CANDIDATES: Final = 100
"""Rows that each list gives to the fusion: of 1,451 turns in one space more than 50 changed nothing."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. ``vector`` is of length 1, of ``model``; no ``collections`` mean all.

    ``names`` are people whom the question names: what they said comes before. Neither ``text`` nor ``vector`` should
    say their names too (`client_sdk.ranking` tells why).
    """

    text: str = ""
    vector: Sequence[float] = ()
    model: str = ""
    collections: Sequence[str] = ()
    conditions: Sequence[Condition] = ()
    names: Sequence[str] = ()
    limit: int = 10


def narrowed(table: str, question: Question, bind: Bind) -> str:
    """The rest of ``FROM table``: rows of the space, in the collections asked for, of records that meet the conditions.

    Without conditions no record is read: that took most of the time.
    """
    sql = f"WHERE {table}.space_id = $1"
    if question.collections:
        sql += f" AND {table}.collection = ANY({bind(list(question.collections))}::text[])"
    if question.conditions:
        conditions = " AND ".join(condition_sql(one, bind) for one in question.conditions)
        sql = f"""JOIN documents ON documents.space_id = $1 AND documents.collection = {table}.collection
        AND documents.record_id = {table}.record_id AND {conditions}
    {sql}"""
    return sql
