"""What is asked, checked before anything is made of it, and the part of a statement that narrows a table to it.

Each table is narrowed to the space by itself: ``table.space_id = $1``, wherever it is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from crdt.limits import (
    SEARCH_CHARACTERS_MAX,
    SEARCH_COLLECTIONS_MAX,
    SEARCH_CONDITIONS_MAX,
    SEARCH_HITS_MAX,
    SEARCH_NAMES_MAX,
    SEARCH_TEXT_BYTES_MAX,
    SEARCH_VALUES_MAX,
    VECTOR_DIMENSIONS_MAX,
)
from crdt.requests import Mode
from server.database import storable
from server.errors import MalformedMessage, TooLarge
from server.search.conditions import Bind, Condition, condition_sql

__all__ = ["CANDIDATES", "Question", "checked", "narrowed"]

CANDIDATES: Final = 100
"""Rows that each list gives to the fusion: of 1,451 turns in one space more than 50 changed nothing."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, as it came. ``vector`` is of ``model``, of any length; no ``collections`` mean all.

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


def checked(question: Question, mode: Mode) -> Question:
    """Return the question as Postgres can hold it, its vector at length 1: float16 ends at 65,504.

    Raises:
        MalformedMessage: it lacks what its mode needs.
        TooLarge: past a limit, which it names.
    """
    many = [one.values for one in question.conditions[:SEARCH_CONDITIONS_MAX] if one.values is not None]
    for limit, size, allowed in (
        ("VECTOR_DIMENSIONS_MAX", len(question.vector), VECTOR_DIMENSIONS_MAX),
        ("SEARCH_HITS_MAX", question.limit, SEARCH_HITS_MAX),
        ("SEARCH_CONDITIONS_MAX", len(question.conditions), SEARCH_CONDITIONS_MAX),
        ("SEARCH_VALUES_MAX", max(map(len, many), default=0), SEARCH_VALUES_MAX),
        ("SEARCH_COLLECTIONS_MAX", len(question.collections), SEARCH_COLLECTIONS_MAX),
        ("SEARCH_NAMES_MAX", len(question.names), SEARCH_NAMES_MAX),
    ):
        if size > allowed:
            raise TooLarge(limit, size=size, allowed=allowed)
    characters = sum(map(len, _texts(question)))
    if characters > SEARCH_CHARACTERS_MAX:
        raise TooLarge("SEARCH_CHARACTERS_MAX", size=characters, allowed=SEARCH_CHARACTERS_MAX)
    size = len(question.text.encode(errors="replace"))
    if size > SEARCH_TEXT_BYTES_MAX:
        raise TooLarge("SEARCH_TEXT_BYTES_MAX", size=size, allowed=SEARCH_TEXT_BYTES_MAX)
    if question.limit < 1:
        raise MalformedMessage(f"limit is a number from 1 to {SEARCH_HITS_MAX}")
    if mode != "meaning" and not question.text:
        raise MalformedMessage(f"a search by {mode} takes a text")
    if mode != "text" and not (question.vector and question.model):
        raise MalformedMessage(f"a search by {mode} takes the question's vector and the model that made it")
    return replace(
        question,
        text=storable(question.text),
        vector=_unit(question.vector) if mode != "text" else (),
        model=storable(question.model),
        collections=[storable(name) for name in question.collections],
        names=[storable(name) for name in question.names],
    )


def _texts(question: Question) -> list[str]:
    """All texts in it but those inside of maps and lists, which HTTP alone can bring: a body is bounded."""
    values = [
        value
        for one in question.conditions
        for value in (*(one.values or ()), one.has, one.at_least, one.above, one.at_most, one.below)
    ]
    return [
        question.text,
        question.model,
        *question.collections,
        *question.names,
        *(one.field for one in question.conditions),
        *(value for value in values if isinstance(value, str)),
    ]


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.hypot(*vector)
    if not 0 < length < math.inf:
        raise MalformedMessage("the question's vector has finite components, and a direction")
    return [component / length for component in vector]


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
