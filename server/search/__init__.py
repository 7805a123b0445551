"""Search in everything that a space holds: by words, by meaning, or both fused, in one statement.

The device brings the question's vector; the server has no model. What is folded is what is searched: where it is about
to be folded (a device has just written), and where a hit has updates that are not, that is waited for, two seconds at
the most, and without a connection. So what was acknowledged is found, and what was deleted is not, by a server that
keeps up: it folds within milliseconds.

`statement` is the SQL, `words` its half by words, `question` what is asked, `conditions` what may be asked of fields,
`indexes` what a space gets once it is large.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, TypeAlias
from uuid import UUID

from crdt.requests import Finder, Mode
from server.database import Connection
from server.errors import ModelMismatch
from server.search.conditions import Condition
from server.search.question import CANDIDATES, Question, checked
from server.search.statement import search_statement
from server.search.words import EXACT_TEXTS_MAX
from server.vectors import Model

__all__ = ["Answer", "Condition", "Finder", "Hit", "Lend", "Mode", "Question", "search"]

#: Lends a connection for one attempt, such as `server.access.searching` does.
Lend: TypeAlias = Callable[[], AbstractAsyncContextManager[Connection]]

_BEHIND_WAITED_S: Final = 2.0
#: A fold takes milliseconds. What takes longer is asked for less and less often.
_AGAIN_S_MIN: Final = 0.02
_AGAIN_S_MAX: Final = 0.2
#: So many updates are folded well within the wait; of more what is folded is searched at once.
_SOON_UPDATES_MAX: Final = 2_000

#: Of this many vectors and texts all are compared, by a plan for all such spaces: planning takes 1 to 2 ms.
_SMALL_MAX: Final = 2_000
#: How many an HNSW index keeps in view: twice what is taken of it finds 0.99 of the nearest.
_IN_VIEW: Final = 2 * CANDIDATES

# How large the space is, where it stands, and how the connection plans, in one round trip. Small spaces share a plan
# for all, made once for each connection: every table has an index that begins with the space, no other way is taken,
# and no list is compared with another row by row. Large ones have indexes of their own, which only a plan for these
# very values can use. No workers: starting one takes longer (7 ms) than comparing a space (1 ms). No compiling either.
# What an index lists is gone through until enough of it meets the conditions (pgvector 0.8, "Iterative Index Scans").
# No transaction, which would be two round trips more: the pool resets what a connection was set to.
_PREPARE: Final = f"""
WITH sized AS MATERIALIZED (
    SELECT CASE WHEN texts > {EXACT_TEXTS_MAX} THEN greatest(texts, vectors) ELSE texts END AS texts,
           greatest(texts, vectors) AS size
    FROM (SELECT count(*) AS texts FROM (
        SELECT FROM texts WHERE texts.space_id = $1 LIMIT {EXACT_TEXTS_MAX + 1}) AS seen) AS counted,
        (SELECT coalesce(max(vectors), 0) AS vectors FROM models WHERE models.space_id = $1) AS held
)
SELECT head, coalesce(position, 0) AS materialized, model, dimensions, vectors, texts, size,
       set_config('plan_cache_mode', CASE WHEN size <= {_SMALL_MAX} THEN 'force_generic_plan'
                                     ELSE 'force_custom_plan' END, false),
       set_config('enable_nestloop', CASE WHEN size <= {_SMALL_MAX} THEN 'off' ELSE 'on' END, false),
       set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false),
       set_config('max_parallel_workers_per_gather', '0', false),
       set_config('hnsw.iterative_scan', 'relaxed_order', false), set_config('hnsw.ef_search', '{_IN_VIEW}', false)
FROM sized, spaces LEFT JOIN materializations ON materializations.space_id = $1
    LEFT JOIN models ON models.space_id = $1
WHERE spaces.space_id = $1 ORDER BY vectors DESC, model
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """A record that was found, by its part (-1: itself; else an item's place).

    ``score`` is higher for a better one and compares within one search; ``found_by`` are those of text and meaning that
    alone would have had it among their hits, or else any that had it among their candidates.
    """

    collection: str
    record_id: str
    part: int
    score: float
    found_by: tuple[Finder, ...]
    snippet: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, the best first, as of position ``materialized`` of a log that ends at ``head``."""

    hits: list[Hit]
    head: int
    materialized: int


async def search(lend: Lend, space: UUID, question: Question, *, mode: Mode) -> Answer:
    """Answer a question in a space that exists. Where the space has no vectors at all, only words find.

    Raises, beside what ``lend`` does:
        ModelMismatch: the space has vectors, but none of this model and size.
        MalformedMessage: the question lacks what its mode needs, or a condition asks for what no field can be.
        TooLarge: past a limit, which it names.
    """
    question = checked(question, mode)
    deadline = asyncio.get_running_loop().time() + _BEHIND_WAITED_S
    again_s = _AGAIN_S_MIN
    while True:
        async with lend() as connection:
            is_late = asyncio.get_running_loop().time() > deadline
            answer, is_behind = await _found(connection, space, question, mode, is_late=is_late)
        if is_late or not is_behind:
            return answer
        await asyncio.sleep(again_s)
        again_s = min(2 * again_s, _AGAIN_S_MAX)


async def _found(
    connection: Connection, space: UUID, question: Question, mode: Mode, *, is_late: bool
) -> tuple[Answer, bool]:
    """Return the answer as it is now, and whether it will be a better one in a moment."""
    stands = await connection.fetch(_PREPARE, space)
    head, materialized = stands[0]["head"], stands[0]["materialized"]
    if not is_late and 0 < head - materialized <= _SOON_UPDATES_MAX:
        return Answer([], head, materialized), True
    held = [
        Model(row["model"], row["dimensions"], row["vectors"]) for row in stands if row["model"] is not None
    ]
    if mode != "text":
        if not held and mode == "meaning":
            return Answer([], head, materialized), False
        if held and (question.model, len(question.vector)) not in {one[:2] for one in held}:
            raise ModelMismatch(question.model, len(question.vector), held)
    sql, parameters = search_statement(
        space,
        question,
        mode=mode if held else "text",
        texts=stands[0]["texts"],
        is_small=stands[0]["size"] <= _SMALL_MAX,
    )
    found = await connection.fetch(sql, *parameters)
    hits = [
        Hit(
            row["collection"],
            row["record_id"],
            row["part"],
            row["score"],
            _found_by(is_text=row["by_text"], is_meaning=row["by_meaning"], has_words=row["has_words"]),
            row["snippet"],
        )
        for row in found
    ]
    return Answer(hits, head, materialized), any(row["is_behind"] for row in found)


def _found_by(*, is_text: bool, is_meaning: bool, has_words: bool) -> tuple[Finder, ...]:
    if not (is_text or is_meaning):
        is_text, is_meaning = has_words, not has_words
    return (*(("text",) if is_text else ()), *(("meaning",) if is_meaning else ()))
