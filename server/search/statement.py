"""The one statement of a search: by words, by meaning, fused, filtered, with what hits are shown with.

By words: any of the question's words, stemmed by Postgres' ``english`` (Snowball's porter2, without its stopwords;
words of other languages mostly stand as they are). A text's score is the sum over the words of

::

    ln(1 + (n - df + ½) / (df + ½)) × tf × 2.2 / (1 + 1.2 × (¼ + ¾ × its length / the mean length))

which is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) with the term frequency as
``ts_rank`` saturates it: Postgres keeps no statistics of words, but the texts that match *are* them.

By meaning: the cosine. Both lists' candidates, and the parts just before and after each, are then ranked by the recipe
of `client_sdk.ranking`, in SQL: a part's words and meaning take in a share of those of the parts beside it, and what
somebody said whom the question names comes before. Where only words are asked for their score stands alone.

The meaning of a part is the cosine of the question with the *sum* of its vector and the shares of those beside it. Its
length comes from inner products, since what is stored are whole numbers and a scale::

    |v + s (b + a)|² = v·v + s² (b·b + a·a) + 2 s (v·b + v·a) + 2 s² b·a

A hit needs a text. A deleted record has none: texts go in the transaction that folds it so.

Each table is narrowed to the space by itself: ``table.space_id = $1``, wherever it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from crdt.ranking import NAME_WEIGHT, NEIGHBOUR_SHARE, TEXT_WEIGHT
from server.search.conditions import Condition, condition_sql

__all__ = ["CANDIDATES", "MATCHES_MAX", "Mode", "Question", "search_statement"]

Mode: TypeAlias = Literal["hybrid", "text", "meaning"]

CANDIDATES: Final = 200
"""Rows that each list gives to the fusion: on the device, more than 50 changed nothing."""
MATCHES_MAX: Final = 10_000
"""Texts that are ranked for their words. Past it the words say little, and some of their texts are left out."""
#: The covering index of `vectors` holds no larger ones.
_COVERED_DIMENSIONS_MAX: Final = 1_000
_SNIPPET_CHARACTERS: Final = 200
#: `ts_headline` parses what it is given anew.
_HEADLINE_CHARACTERS_MAX: Final = 8_000

#: ``ts_rank`` of one word that stands once: by it tf is 1 then, and at most 1.64.
_RANK_OF_ONE: Final = 0.0607927


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
    limit = bind(question.limit)
    ctes = []
    if mode != "meaning":
        ctes += _by_text(question, bind)
    if mode == "text":
        ctes += [_hits_by_text(limit)]
    else:
        ctes += [
            *_by_meaning(question, bind),
            *_beside(question, mode, bind),
            _hits(question, mode, bind, limit),
        ]
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
       coalesce({headline}, left(texts.body, {_SNIPPET_CHARACTERS})) AS snippet,
       EXISTS (
           SELECT FROM log WHERE log.space_id = $1 AND log.collection = hits.collection
             AND log.record_id = hits.record_id AND log.position > coalesce(
               (SELECT position FROM materializations WHERE materializations.space_id = $1), 0)
       ) AS is_behind
FROM hits JOIN texts ON texts.space_id = $1 AND texts.collection = hits.collection
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
    FROM texts {_narrowed("texts", question, bind)} AND texts.words @@ (SELECT query FROM asked) LIMIT {MATCHES_MAX}
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
        FROM vectors {_narrowed("vectors", question, bind)} AND vectors.model = {bind(question.model)} {narrowed}
        ORDER BY {distance} LIMIT {CANDIDATES}
    ) AS best
)""",
    ]


def _narrowed(table: str, question: Question, bind: Any) -> str:
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


def _beside(question: Question, mode: Mode, bind: Any) -> list[str]:
    """What is ranked (``steps`` from a candidate: 1 at the most), with what each takes a share of.

    Grouped and looked up one by one: the planner cannot know how many there will be. A part is beside another if their
    places follow one another. A record itself (-1) has no place and stands alone; its cosine is known from the list.
    """
    dimensions, share = len(question.vector), NEIGHBOUR_SHARE
    lists = """SELECT collection, record_id, part, NULL::float8 AS score, NULL::bigint AS text_rank, cosine
        FROM by_meaning"""
    if mode == "hybrid":
        lists += """
        UNION ALL SELECT collection, record_id, part, score, place, NULL FROM by_text"""
    beside = ",\n           ".join(
        f"CASE WHEN {look}(place) OVER talk = place {sign} 1 THEN {look}({name}) OVER talk END AS {name}_{side}"
        for side, look, sign in (("before", "lag", "-"), ("after", "lead", "+"))
        for name in ("score", "scale", "vector", "dot", "square")
    )
    return [
        f"""near AS (
    SELECT collection, record_id, part + step AS part, min(abs(step)) AS steps,
           max(score) FILTER (WHERE step = 0) AS score, max(text_rank) FILTER (WHERE step = 0) AS text_rank,
           max(cosine) FILTER (WHERE step = 0 AND part = -1) AS cosine
    FROM ({lists}) AS lists, (VALUES (-2), (-1), (0), (1), (2)) AS steps (step)
    WHERE step = 0 OR (part >= 0 AND part + step >= 0)
    GROUP BY collection, record_id, part + step
)""",
        f"""placed AS (
    SELECT near.*, nullif(near.part, -1) AS place, told.speaker, held.scale, held.vector,
           -held.scale * (held.vector <#> (SELECT vector FROM query_vector)) AS dot,
           -held.scale * held.scale * (held.vector <#> held.vector) AS square
    FROM near JOIN LATERAL (
        SELECT speaker FROM texts WHERE texts.space_id = $1 AND texts.collection = near.collection
          AND texts.record_id = near.record_id AND texts.part = near.part OFFSET 0
    ) AS told ON true LEFT JOIN LATERAL (
        SELECT scale, vector::halfvec({dimensions}) AS vector FROM vectors WHERE vectors.space_id = $1
          AND vectors.collection = near.collection AND vectors.record_id = near.record_id
          AND vectors.part = near.part AND vectors.model = {bind(question.model)}
          AND vectors.dimensions = {dimensions} AND near.cosine IS NULL OFFSET 0
    ) AS held ON true
)""",
        f"""beside AS (
    SELECT placed.*,
           {beside}
    FROM placed WINDOW talk AS (PARTITION BY collection, record_id ORDER BY part)
)""",
        f"""ranked AS (
    SELECT collection, record_id, part, text_rank, speaker,
           coalesce(score, 0) + {share} * {_sum("score_before", "score_after")} AS words,
           greatest(0, coalesce(cosine, (dot + {share} * {_sum("dot_before", "dot_after")})
             / sqrt(greatest(1e-9, square + {share**2} * {_sum("square_before", "square_after")}
               - {2 * share} * scale * {_sum(_product("", "_before"), _product("", "_after"))}
               - {2 * share**2} * {_sum(_product("_before", "_after"))})), 0)) AS meaning
    FROM beside WHERE steps <= 1
)""",
    ]


def _sum(*numbers: str) -> str:
    return f"({' + '.join(f'coalesce({number}, 0)' for number in numbers)})"


def _product(one: str, other: str) -> str:
    """The inner product of two vectors' components, with the other one's scale, and with the first's unless it is ours.

    Negative, as pgvector has it.
    """
    scale = f"scale{one} * " if one else ""
    return f"{scale}scale{other} * (vector{one} <#> vector{other})"


def _hits(question: Question, mode: Mode, bind: Any, limit: str) -> str:
    text_weight = TEXT_WEIGHT if mode == "hybrid" else 0
    return f"""hits AS (
    SELECT collection, record_id, part, text_rank, CASE WHEN meaning > 0 THEN meaning_rank END AS meaning_rank,
           found + CASE WHEN speaker = ANY({bind(list(question.names))}::text[]) THEN {NAME_WEIGHT} ELSE 0 END AS score
    FROM (
        SELECT ranked.*, rank() OVER (ORDER BY meaning DESC) AS meaning_rank,
               {text_weight} * coalesce(words / nullif(max(words) OVER (), 0), 0)
               + {1 - text_weight} * coalesce(meaning / nullif(max(meaning) OVER (), 0), 0) AS found
        FROM ranked
    ) AS fused
    WHERE found > 0 ORDER BY score DESC, collection, record_id, part LIMIT {limit}
)"""


def _hits_by_text(limit: str) -> str:
    return f"""hits AS (
    SELECT collection, record_id, part, score, place AS text_rank, NULL::bigint AS meaning_rank FROM by_text
    ORDER BY score DESC, collection, record_id, part LIMIT {limit}
)"""
