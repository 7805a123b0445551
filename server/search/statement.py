"""The one statement of a search: by words, by meaning, fused, filtered, with what hits are shown with.

`words` finds by words; by meaning the nearest are found. Both lists' candidates, and the parts just before and after
each, are then ranked by the recipe of `client_sdk.ranking`, in SQL: a part's words and meaning take in a share of those
of the parts beside it, and what somebody said whom the question names comes before. Where only words are asked for
their score stands alone.

The meaning of a part is the cosine of the question with the *sum* of its vector and the shares of those beside it. Its
length comes from inner products, since what is stored are whole numbers and a scale::

    |v + s (b + a)|² = v·v + s² (b·b + a·a) + 2 s (v·b + v·a) + 2 s² b·a

Scales are multiplied as float8: of float4 the products of small ones end the statement ("underflow").

A hit needs a text. A deleted record has none: texts go in the transaction that folds it so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from crdt.ranking import NAME_WEIGHT, NEIGHBOUR_SHARE, TEXT_WEIGHT
from crdt.requests import Mode
from server.search.conditions import Bind
from server.search.question import CANDIDATES, Question, narrowed
from server.search.words import by_text

__all__ = ["search_statement"]

#: The covering index of `vectors` holds no larger ones.
_COVERED_DIMENSIONS_MAX: Final = 1_000
_SNIPPET_CHARACTERS: Final = 200
#: `ts_headline` parses what it is given anew.
_HEADLINE_CHARACTERS_MAX: Final = 8_000


@dataclass(slots=True)
class _Parameters:
    values: list[Any] = field(default_factory=list)

    def bind(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


def search_statement(
    space: object, question: Question, *, mode: Mode, texts: int, is_small: bool
) -> tuple[str, list[Any]]:
    """Return the statement and its parameters; the space is ``$1``.

    ``texts``: about how many it has. ``is_small``: all its vectors are compared, in one pass over the covering index,
    and those beside a candidate are known from it; else each is looked up.

    Its rows: collection, record_id, part, score, by_text, by_meaning (alone it would have been among the hits),
    has_words, snippet, is_behind (the record has updates that are not folded yet).
    """
    parameters = _Parameters()
    bind = parameters.bind
    bind(space)
    limit = bind(question.limit)
    ctes = []
    if mode != "meaning":
        ctes += by_text(question, bind, texts)
    if mode == "text":
        ctes += [_hits_by_text(limit)]
    else:
        ctes += [
            *(_by_comparing_all(question, bind) if is_small else _by_meaning(question, bind)),
            *_beside(question, mode, bind, is_small=is_small),
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


def _by_meaning(question: Question, bind: Bind) -> list[str]:
    distance, vectors = _vectors(question, bind)
    return [
        _query_vector(question, bind),
        f"""by_meaning AS (
    SELECT vectors.collection, vectors.record_id, vectors.part, 1 - ({distance}) AS cosine
    FROM vectors {vectors}
    ORDER BY {distance} LIMIT {CANDIDATES}
)""",
    ]


def _by_comparing_all(question: Question, bind: Bind) -> list[str]:
    distance, vectors = _vectors(question, bind)
    return [
        _query_vector(question, bind),
        f"""compared AS MATERIALIZED (
    SELECT vectors.collection, vectors.record_id, vectors.part, scale::float8 AS scale,
           vector::halfvec({len(question.vector)}) AS vector, 1 - ({distance}) AS cosine
    FROM vectors {vectors}
)""",
        f"""by_meaning AS (
    SELECT collection, record_id, part, cosine FROM compared ORDER BY cosine DESC LIMIT {CANDIDATES}
)""",
    ]


def _query_vector(question: Question, bind: Bind) -> str:
    vector = bind(str(list(question.vector)))
    return f"query_vector AS (SELECT {vector}::halfvec({len(question.vector)}) AS vector)"


def _vectors(question: Question, bind: Bind) -> tuple[str, str]:
    """The distance to the question, and the rest of ``FROM vectors``; as the indexes have it, or they are not used."""
    dimensions = len(question.vector)
    distance = f"(vectors.vector::halfvec({dimensions})) <=> (SELECT vector FROM query_vector)"
    vectors = f"{narrowed('vectors', question, bind)} AND vectors.model = {bind(question.model)}"
    if dimensions <= _COVERED_DIMENSIONS_MAX:
        vectors += f" AND vectors.dimensions <= {_COVERED_DIMENSIONS_MAX}"
    return distance, vectors


def _beside(question: Question, mode: Mode, bind: Bind, *, is_small: bool) -> list[str]:
    """What is ranked (``steps`` from a candidate: 1 at the most), with what each takes a share of.

    Grouped and looked up one by one: the planner cannot know how many there will be. A part is beside another if their
    places follow one another. A record itself (-1) has no place and stands alone; its cosine is known from the list.
    Places have 31 bits, and the one after the last has more.
    """
    share = NEIGHBOUR_SHARE
    held = "LEFT JOIN compared AS held USING (collection, record_id, part)"
    if not is_small:
        dimensions = len(question.vector)
        held = f"""LEFT JOIN LATERAL (
        SELECT scale::float8 AS scale, vector::halfvec({dimensions}) AS vector FROM vectors
        WHERE vectors.space_id = $1 AND vectors.collection = near.collection AND vectors.record_id = near.record_id
          AND vectors.part = near.part AND vectors.model = {bind(question.model)}
          AND vectors.dimensions = {dimensions} AND near.cosine IS NULL OFFSET 0
    ) AS held ON true"""
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
    SELECT collection, record_id, part::bigint + step AS part, min(abs(step)) AS steps,
           max(score) FILTER (WHERE step = 0) AS score, max(text_rank) FILTER (WHERE step = 0) AS text_rank,
           max(cosine) FILTER (WHERE step = 0 AND part = -1) AS cosine
    FROM ({lists}) AS lists, (VALUES (-2), (-1), (0), (1), (2)) AS steps (step)
    WHERE step = 0 OR (part >= 0 AND part::bigint + step >= 0)
    GROUP BY collection, record_id, part::bigint + step
)""",
        f"""placed AS (
    SELECT near.*, nullif(near.part, -1) AS place, told.speaker, held.scale, held.vector,
           -held.scale * (held.vector <#> (SELECT vector FROM query_vector)) AS dot,
           -held.scale * held.scale * (held.vector <#> held.vector) AS square
    FROM near JOIN LATERAL (
        SELECT speaker FROM texts WHERE texts.space_id = $1 AND texts.collection = near.collection
          AND texts.record_id = near.record_id AND texts.part = near.part OFFSET 0
    ) AS told ON true {held}
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
    """The inner product, negative as pgvector has it, without our own scale: that stands before the sum."""
    scale = f"scale{one} * " if one else ""
    return f"{scale}scale{other} * (vector{one} <#> vector{other})"


def _hits(question: Question, mode: Mode, bind: Bind, limit: str) -> str:
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
