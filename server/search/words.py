"""By words: the texts that have any of the question's words, the best first, as common table expressions.

Words are stemmed by Postgres' ``english`` (Snowball's porter2, without its stopwords; words of other languages mostly
stand as they are). Case and accents do not count, and scripts without spaces are taken apart, as on a device
(`crdt.words`). A text's score is the sum over the words of

::

    ln(1 + (n - df + ½) / (df + ½)) × tf × 2.2 / (1 + 1.2 × (¼ + ¾ × its length / the mean length))

which is BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) with the term frequency as
``ts_rank`` saturates it. Postgres keeps no statistics of words, but the texts that have them *are* such: ``pairs`` has
each text with each of the words that stand in it, as postings would.

**In a space with more than** `EXACT_TEXTS_MAX` **texts** that would take too long, so the work is bounded. The first
`SAMPLE` texts tell how common each word is. Of those that are not, at most `POSTINGS_MAX` texts each are looked up, and
as many that have all the words; of the least common of the others only where that is not enough. Those of the rarest
words that together have enough are ranked, as far as they meet the conditions: common words say little, and count where
they stand beside others.

Rows are named by their ``ctid``, the ``spot``: within one statement they stay where they are, and no key is shorter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from crdt.words import spaced
from server.search.conditions import Bind
from server.search.question import CANDIDATES, Question, narrowed

__all__ = ["EXACT_TEXTS_MAX", "POSTINGS_MAX", "SAMPLE", "WORDS_MAX", "by_text"]

#: Of a page, its longest words: the others are the common ones.
WORDS_MAX: Final = 64
EXACT_TEXTS_MAX: Final = 10_000
POSTINGS_MAX: Final = 1_000
SAMPLE: Final = 500
#: Of the sample, what a common word stands in: an index lists all of its texts before it gives the first.
_COMMON_FROM: Final = SAMPLE // 20
#: Texts that the rarest words must have together before the more common ones are left out of the choice.
_CHOSEN_MIN: Final = 2 * CANDIDATES

#: ``ts_rank`` of one word that stands once: by it tf is 1 then, and at most 1.64.
_RANK_OF_ONE: Final = 0.0607927
_LEXEME: Final = r"""'''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || ''''"""


def by_text(question: Question, bind: Bind, texts: int) -> list[str]:
    """Return the expressions ``asked`` (its query) and ``by_text`` (collection, record_id, part, score, place).

    ``texts``: about how many the space has; exactly, up to `EXACT_TEXTS_MAX`.
    """
    return [
        f"""lexemes AS MATERIALIZED (
    SELECT ({_LEXEME})::tsquery AS query, row_number() OVER () AS word
    FROM unnest(tsvector_to_array(to_tsvector('english', {bind(spaced(question.text))}))) AS lexeme
    ORDER BY length(lexeme) DESC LIMIT {WORDS_MAX}
)""",
        "asked AS MATERIALIZED (SELECT string_agg(query::text, ' | ')::tsquery AS query FROM lexemes)",
        f"sized AS (SELECT {bind(texts)}::float8 AS n)",
        *(_pairs(question, bind) if texts <= EXACT_TEXTS_MAX else _pairs_of_the_rarest(question, bind)),
        """weighed AS MATERIALIZED (
    SELECT word, ln(1 + (greatest(n, df) - df + 0.5) / (df + 0.5)) AS idf FROM counted, sized
)""",
        f"""by_text AS (
    SELECT told.*, score, rank() OVER (ORDER BY score DESC) AS place FROM (
        SELECT spot, said * 2.2 / (1 + 1.2 * (0.25 + 0.75 * size / avg(size) OVER ())) AS score
        FROM (
            SELECT spot, size, sum(idf * rank) / {_RANK_OF_ONE} AS said FROM pairs JOIN weighed USING (word)
            GROUP BY spot, size
        ) AS scored ORDER BY score DESC, spot LIMIT {CANDIDATES}
    ) AS best JOIN LATERAL (
        SELECT collection, record_id, part FROM texts WHERE texts.space_id = $1 AND texts.ctid = best.spot OFFSET 0
    ) AS told ON true
)""",
    ]


def _pairs(question: Question, bind: Bind) -> list[str]:
    """All of them, in one pass over the space's texts. Conditions make no word rarer."""
    counted = "SELECT word, count(*)::float8 AS df FROM pairs GROUP BY word"
    if question.conditions:
        counted = """SELECT word, count(*)::float8 AS df FROM lexemes CROSS JOIN texts
    WHERE texts.space_id = $1 AND texts.words @@ query GROUP BY word"""
    return [
        f"""pairs AS MATERIALIZED (
    SELECT texts.ctid AS spot, length(texts.words) AS size, word, ts_rank(texts.words, query) AS rank
    FROM lexemes CROSS JOIN texts {narrowed("texts", question, bind)} AND texts.words @@ query
)""",
        f"counted AS ({counted})",
    ]


def _pairs_of_the_rarest(question: Question, bind: Bind) -> list[str]:
    """With conditions more is looked up: a record is read for each, and few may meet them."""
    most, enough = POSTINGS_MAX, _CHOSEN_MIN
    if question.conditions:
        most, enough = 2 * most, 5 * enough
    anything = narrowed("texts", replace(question, conditions=()), bind)
    looked_up = f"SELECT texts.ctid AS spot FROM texts {anything} AND texts.words @@ query LIMIT {most}"
    return [
        f"""sampled AS MATERIALIZED (SELECT words FROM texts WHERE texts.space_id = $1 LIMIT {SAMPLE})""",
        """seen AS MATERIALIZED (
    SELECT word, query, seen
    FROM lexemes, LATERAL (SELECT count(*)::float8 AS seen FROM sampled WHERE words @@ query) AS those
)""",
        f"""telling AS MATERIALIZED (
    SELECT word, spot FROM (
        SELECT word, query FROM seen WHERE seen < {_COMMON_FROM}
        UNION ALL SELECT 0, string_agg(query::text, ' & ')::tsquery FROM lexemes HAVING count(*) > 1
    ) AS wanted CROSS JOIN LATERAL ({looked_up}) AS found
)""",
        f"""postings AS MATERIALIZED (
    SELECT word, spot FROM telling
    UNION ALL SELECT word, spot FROM (
        SELECT word, query FROM seen WHERE seen >= {_COMMON_FROM} AND (SELECT count(*) FROM telling) < {enough}
        ORDER BY seen, word LIMIT 1
    ) AS wanted CROSS JOIN LATERAL ({looked_up}) AS found
)""",
        """held AS MATERIALIZED (
    SELECT word, count(*)::float8 AS df, sum(count(*)) OVER (ORDER BY count(*), word) - count(*) AS rarer
    FROM postings WHERE word > 0 GROUP BY word
)""",
        f"""chosen AS MATERIALIZED (
    SELECT DISTINCT spot FROM postings LEFT JOIN held USING (word) WHERE word = 0 OR rarer < {enough}
)""",
        f"""pairs AS MATERIALIZED (
    SELECT spot, length(words) AS size, word, ts_rank(words, query) AS rank
    FROM chosen JOIN LATERAL (
        SELECT texts.words FROM texts {narrowed("texts", question, bind)} AND texts.ctid = chosen.spot OFFSET 0
    ) AS told ON true
    JOIN lexemes ON words @@ query
)""",
        f"""counted AS (
    SELECT word, CASE WHEN df < {most} THEN df ELSE greatest({most}, n * seen / {SAMPLE}) END AS df
    FROM seen LEFT JOIN held USING (word), sized
)""",
    ]
