"""The one statement of a search: by words, by meaning, fused, filtered, with what hits are shown with.

By words: any of the question's words, stemmed by Postgres' ``english`` (Snowball's porter2, without its stopwords;
words of other languages mostly stand as they are). A text's score is the sum over the words of

::

    ln(1 + (n - df + ½) / (df + ½)) × tf × 2.2 / (1 + 1.2 × (¼ + ¾ × its length / the mean length))

which is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) with the term frequency as
``ts_rank`` saturates it: Postgres keeps no statistics of words, but the texts that match *are* them.

By meaning: the cosine. Fused as the device does (``0.4 × text + 0.6 × meaning``, each list's best at 1, a cosine below
0 at 0: Bruch, Gai and Ingber, ACM TOIS 2023); whatever one list found gets its number in the other as well.

Each table is narrowed to the space by itself: ``table.space_id = $1``, wherever it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from server.search.conditions import Condition, condition_sql

__all__ = ["CANDIDATES", "MATCHES_MAX", "Mode", "Question", "search_statement"]

Mode: TypeAlias = Literal["hybrid", "text", "meaning"]

CANDIDATES: Final = 200
"""Rows that each list gives to the fusion: on the device, more than 50 changed nothing."""
MATCHES_MAX: Final = 10_000
"""Texts that are ranked for their words. Past it the words say little, and some of their texts are left out."""
TEXT_WEIGHT: Final = 0.4
#: The covering index of `vectors` holds no larger ones.
_COVERED_DIMENSIONS_MAX: Final = 1_000
_SNIPPET_CHARACTERS: Final = 200
#: `ts_headline` parses what it is given anew.
_HEADLINE_CHARACTERS_MAX: Final = 8_000

#: ``ts_rank`` of one word that stands once: by it tf is 1 then, and at most 1.64.
_RANK_OF_ONE: Final = 0.0607927


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. ``vector`` is of length 1, of ``model``; no ``collections`` mean all."""

    text: str = ""
    vector: Sequence[float] = ()
    model: str = ""
    collections: Sequence[str] = ()
    conditions: Sequence[Condition] = ()
    limit: int = 10


@dataclass(slots=True)
class _Parameters:
    values: list[Any] = field(default_factory=list)

    def bind(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


def search_statement(space: object, question: Question, *, mode: Mode) -> tuple[str, list[Any]]:
    """Return the statement and its parameters; the space is ``$1``.

    Its rows: collection, record_id, part, score, by_text, by_meaning (alone it would have been among the hits),
    has_words, snippet, is_behind (the record has updates that are not folded yet).
    """
    parameters = _Parameters()
    bind = parameters.bind
    bind(space)
    ctes, lists = [], []
    if mode != "meaning":
        ctes += _by_text(question, bind)
        lists.append(
            "SELECT collection, record_id, part, score, place AS text_rank, NULL::float8 AS cosine, "
            "NULL::bigint AS meaning_rank FROM by_text"
        )
    if mode != "text":
        ctes += _by_meaning(question, bind)
        lists.append(
            "SELECT collection, record_id, part, NULL::float8 AS score, NULL::bigint AS text_rank, cosine, "
            "place AS meaning_rank FROM by_meaning"
        )
    limit = bind(question.limit)
    ctes += [_found(lists), _hits(question, mode, bind, limit)]
    with_ = ",\n".join(ctes)
    headline = (
        "CASE WHEN hits.text_rank IS NOT NULL THEN ts_headline('english', "
        f"left(texts.body, {_HEADLINE_CHARACTERS_MAX}), (SELECT query FROM asked), "
        '\'StartSel="", StopSel="", MaxWords=35, MinWords=15\') END'
        if mode != "meaning"
        else "NULL::text"
    )
    sql = f"""
WITH {with_}
SELECT hits.collection, hits.record_id, hits.part, hits.score,
       coalesce(hits.text_rank <= {limit}, false) AS by_text,
       coalesce(hits.meaning_rank <= {limit}, false) AS by_meaning,
       hits.text_rank IS NOT NULL AS has_words,
       coalesce({headline}, left(texts.body, {_SNIPPET_CHARACTERS}), '') AS snippet,
       EXISTS (
           SELECT FROM log WHERE log.space_id = $1 AND log.collection = hits.collection
             AND log.record_id = hits.record_id AND log.position > coalesce(
               (SELECT position FROM materializations WHERE materializations.space_id = $1), 0)
       ) AS is_behind
FROM hits LEFT JOIN texts ON texts.space_id = $1 AND texts.collection = hits.collection
    AND texts.record_id = hits.record_id AND texts.part = hits.part
ORDER BY hits.score DESC, hits.collection, hits.record_id, hits.part
"""
    return sql, parameters.values


def _by_text(question: Question, bind: Any) -> list[str]:
    text = bind(question.text)
    lexeme = r"""'''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || ''''"""
    return [
        f"""lexemes AS MATERIALIZED (
    SELECT ({lexeme})::tsquery AS query FROM unnest(tsvector_to_array(to_tsvector('english', {text}))) AS lexeme
)""",
        "asked AS MATERIALIZED (SELECT string_agg(query::text, ' | ')::tsquery AS query FROM lexemes)",
        f"""matched AS MATERIALIZED (
    SELECT texts.collection, texts.record_id, texts.part, texts.words, length(texts.words) AS size
    FROM texts {_shown("texts", question, bind)} AND texts.words @@ (SELECT query FROM asked) LIMIT {MATCHES_MAX}
)""",
        f"""weighed AS MATERIALIZED (
    SELECT query, ln(1 + (greatest(n, df) - df + 0.5) / (df + 0.5)) AS idf
    FROM lexemes, LATERAL (SELECT count(*) AS df FROM matched WHERE matched.words @@ lexemes.query) AS counted,
         (SELECT count(*) AS n FROM (
            SELECT FROM texts WHERE texts.space_id = $1 LIMIT {2 * MATCHES_MAX}) AS counted_texts) AS sized
)""",
        f"""by_text AS (
    SELECT *, rank() OVER (ORDER BY score DESC) AS place FROM (
        SELECT collection, record_id, part,
               (SELECT sum(idf * ts_rank(words, query)) FROM weighed) / {_RANK_OF_ONE} * 2.2
               / (1 + 1.2 * (0.25 + 0.75 * size / (SELECT avg(size) FROM matched))) AS score
        FROM matched ORDER BY score DESC, collection, record_id, part LIMIT {CANDIDATES}
    ) AS best
)""",
    ]


def _by_meaning(question: Question, bind: Any) -> list[str]:
    dimensions = len(question.vector)
    vector = bind(str(list(question.vector)))
    # written as the indexes have it, or Postgres would not use them
    distance = f"(vectors.vector::halfvec({dimensions})) <=> (SELECT vector FROM query_vector)"
    narrowed = (
        f"AND vectors.dimensions <= {_COVERED_DIMENSIONS_MAX}"
        if dimensions <= _COVERED_DIMENSIONS_MAX
        else ""
    )
    return [
        f"query_vector AS (SELECT {vector}::halfvec({dimensions}) AS vector)",
        f"""by_meaning AS (
    SELECT *, rank() OVER (ORDER BY cosine DESC) AS place FROM (
        SELECT vectors.collection, vectors.record_id, vectors.part, 1 - ({distance}) AS cosine
        FROM vectors {_shown("vectors", question, bind)} AND vectors.model = {bind(question.model)} {narrowed}
        ORDER BY {distance} LIMIT {CANDIDATES}
    ) AS best
)""",
    ]


def _shown(table: str, question: Question, bind: Any) -> str:
    """The rest of ``FROM table``: rows of records in the collections asked for that meet the conditions.

    Without conditions the records are not read for every row, which took most of the time: the few deleted ones have an
    index of their own, and ``found`` sees that a record is there at all.
    """
    collections = (
        f" AND {table}.collection = ANY({bind(list(question.collections))}::text[])"
        if question.collections
        else ""
    )
    record = f"""documents.space_id = $1 AND documents.collection = {table}.collection
        AND documents.record_id = {table}.record_id"""
    if question.conditions:
        conditions = " AND ".join(condition_sql(one, bind) for one in question.conditions)
        return f"""JOIN documents ON {record} AND NOT documents.deleted AND {conditions}
    WHERE {table}.space_id = $1{collections}"""
    return f"""WHERE {table}.space_id = $1{collections}
        AND NOT EXISTS (SELECT FROM documents WHERE {record} AND documents.deleted)"""


def _found(lists: Sequence[str]) -> str:
    """What is on any list, once, of records that are there. Grouped: the planner cannot know how long lists will be."""
    return f"""found AS (
    SELECT merged.* FROM (
        SELECT collection, record_id, part, max(score) AS words, max(text_rank) AS text_rank,
               max(cosine) AS cosine, max(meaning_rank) AS meaning_rank
        FROM ({" UNION ALL ".join(lists)}) AS lists
        GROUP BY collection, record_id, part
    ) AS merged
    JOIN documents ON documents.space_id = $1 AND documents.collection = merged.collection
        AND documents.record_id = merged.record_id AND NOT documents.deleted
)"""


def _hits(question: Question, mode: Mode, bind: Any, limit: str) -> str:
    score, cosine = {"text": "words", "meaning": "cosine"}.get(mode, ""), ""
    if mode == "hybrid":
        dimensions = len(question.vector)
        score = f"""{TEXT_WEIGHT} * coalesce(words / nullif(max(words) OVER (), 0), 0)
        + {1 - TEXT_WEIGHT} * coalesce(nearness / nullif(max(nearness) OVER (), 0), 0)"""
        cosine = f"""LEFT JOIN LATERAL (
        SELECT greatest(coalesce(found.cosine, (
            SELECT 1 - ((vectors.vector::halfvec({dimensions})) <=> (SELECT vector FROM query_vector))
            FROM vectors WHERE vectors.space_id = $1 AND vectors.collection = found.collection
              AND vectors.record_id = found.record_id AND vectors.part = found.part
              AND vectors.model = {bind(question.model)} AND vectors.dimensions = {dimensions}
        )), 0) AS nearness
    ) AS compared ON true"""
    return f"""hits AS (
    SELECT found.*, {score} AS score FROM found {cosine}
    ORDER BY score DESC, collection, record_id, part LIMIT {limit}
)"""
