"""By words: in a large space the work is bounded, and what is found is what matters."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg
import numpy as np
import pytest

from server.database import Database
from server.search import Condition, Question, words
from server.search.statement import search_statement
from server.search.words import EXACT_TEXTS_MAX
from tests.server.people import Device, enrolled
from tests.server.test_search import fold

__all__: list[str] = []

SMALL, LARGE = EXACT_TEXTS_MAX, EXACT_TEXTS_MAX + 1


async def rows(database: Database, device: Device, texts: int, question: Question) -> list[asyncpg.Record]:
    sql, parameters = search_statement(device.space, question, mode="text", texts=texts, is_small=False)
    async with database.connection() as connection:
        return await connection.fetch(sql, *parameters)


async def found(
    database: Database, device: Device, texts: int, text: str, *conditions: Condition
) -> Mapping[str, float]:
    """Scores by record, the best first."""
    question = Question(text=text, conditions=conditions, limit=100)
    return {row["record_id"]: row["score"] for row in await rows(database, device, texts, question)}


async def test_where_nothing_is_common_the_bounded_search_finds_what_the_exact_one_does(
    database: Database,
) -> None:
    device, chance = await enrolled(database), np.random.default_rng(1)
    for half in (0, 1):
        made = {
            f"r{n}": " ".join(chance.choice(("bike", "sea", "tea", "lamp", "tower"), 6))
            for n in range(half, 80, 2)
        }
        await fold(database, device, made, half=half)
    for conditions in ((), (Condition("half", values=[1]),)):
        for text in ("w1x", "w1x or w2x by the w3x", "nothing of it", "the", ""):
            exact = await found(database, device, SMALL, text, *conditions)
            assert await found(database, device, LARGE, text, *conditions) == pytest.approx(exact, rel=1e-3)


async def test_the_rarest_words_choose_and_the_common_ones_still_count(database: Database) -> None:
    device = await enrolled(database)
    texts = {"sea": "by the sea and far away", "day": "a day among the other days"}
    kinds = ["sea" if n % 3 == 0 else "day" for n in range(900)]
    await fold(database, device, {f"{n}{kind}": texts[kind] for n, kind in enumerate(kinds)})
    await fold(database, device, {"a": "a bike at tea time", "b": "a bike by day time"})
    ranked = await found(database, device, LARGE, "day sea bike")
    assert list(ranked)[:2] == ["b", "a"], "a common word counts beside a rare one"
    assert {name[-3:] for name in ranked} == {"a", "b", "sea"}, "and alone only the least common finds more"


async def test_a_text_with_all_the_words_is_found_however_common_each_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await enrolled(database)
    await fold(database, device, {f"{n}sea": "the sea" for n in range(300)})
    await fold(database, device, {f"{n}day": "a day" for n in range(300)})
    await fold(database, device, {"z": "a day by the sea"})
    monkeypatch.setattr(words, "POSTINGS_MAX", 20)
    ranked = await found(database, device, LARGE, "day sea")
    assert next(iter(ranked)) == "z"
    assert len(ranked) == 21
