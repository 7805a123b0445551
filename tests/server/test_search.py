"""Search on the server: what is found, by what, in which space, and what is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from crdt.limits import (
    SEARCH_COLLECTIONS_MAX,
    SEARCH_CONDITIONS_MAX,
    SEARCH_HITS_MAX,
    SEARCH_NAMES_MAX,
    SEARCH_TEXT_BYTES_MAX,
)
from server import vectors
from server.database import Connection, Database
from server.errors import MalformedMessage, ModelMismatch, TooLarge
from server.search import Answer, Condition, Mode, Question, search
from server.search.statement import search_statement
from server.search.words import EXACT_TEXTS_MAX
from tests.server.people import Device, enrolled
from tests.server.test_vectors import vector

__all__: list[str] = []

TABLES = {"documents", "texts", "vectors", "log", "materializations", "spaces", "models"}
MODES: tuple[Mode, ...] = ("hybrid", "text", "meaning")


async def fold(
    database: Database,
    device: Device,
    texts: Mapping[str, str | list[str]],
    *,
    collection: str = "notes",
    deleted: bool = False,
    **value: Any,
) -> None:
    """Do what the folding process does, for records given by their texts: one, or one for each item.

    An item's text is said by whom it begins with: "Anna: hello".
    """

    async def work(connection: Connection) -> None:
        for record, text in texts.items():
            parts = enumerate([text], -1) if isinstance(text, str) else enumerate(text)
            await connection.execute(
                "INSERT INTO documents (space_id, collection, record_id, position, snapshot, clocks, digest, value, "
                "deleted) VALUES ($1, $2, $3, 1, '', '', decode(repeat('00', 16), 'hex'), $4::jsonb, $5)",
                device.space,
                collection,
                record,
                msgspec.json.encode(value).decode(),
                deleted,
            )
            if not deleted:
                await connection.executemany(
                    "INSERT INTO texts (space_id, collection, record_id, part, body, speaker) "
                    "VALUES ($1, $2, $3, $4, $5, $6)",
                    [
                        (device.space, collection, record, part, one, one.partition(": ")[0])
                        for part, one in parts
                    ],
                )

    await database.transaction(work)


async def ask(database: Database, device: Device, mode: Mode = "text", **question: Any) -> Answer:
    return await search(database.connection, device.space, Question(**question), mode=mode)


def records(answer: Answer) -> list[str]:
    return [hit.record_id for hit in answer.hits]


async def put(database: Database, device: Device, *sent: vectors.Vector) -> None:
    await database.transaction(lambda connection: vectors.put(connection, device.space, sent))


async def test_words_find_other_forms_of_themselves_and_rare_ones_count_more(database: Database) -> None:
    device = await enrolled(database)
    await fold(database, device, {f"plain{n}": f"a day at the sea, number {n}" for n in range(20)})
    await fold(database, device, {"bike": "Her bike was stolen that day"})
    answer = await ask(database, device, text="which bikes at the sea?")
    assert records(answer)[0] == "bike"
    assert len(answer.hits) == 10
    assert answer.hits[0].found_by == ("text",)
    assert answer.hits[0].snippet == "Her bike was stolen that day"
    assert records(await ask(database, device, text="the of and")) == []
    assert records(await ask(database, device, text="nothing'like \\ \"this: | & ! (")) == []


async def test_items_are_found_by_their_place(database: Database) -> None:
    device = await enrolled(database)
    await fold(database, device, {"talk": ["hello", "where is the bike", "gone"]})
    (hit,) = (await ask(database, device, text="bike")).hits
    assert (hit.record_id, hit.part) == ("talk", 1)


async def test_meaning_finds_the_nearest_and_both_together_what_each_found(database: Database) -> None:
    device = await enrolled(database)
    await fold(database, device, {"a": "bike", "b": "sea", "c": "green tea"})
    await put(database, device, vector("a", 100, 0, 0), vector("b", 90, 90, 0), vector("c", 0, 0, -5))
    asked = {"vector": [3.0, 0.0, 0.0], "model": "small"}
    answer = await ask(database, device, "meaning", **asked)
    assert records(answer) == ["a", "b"]  # what points elsewhere is not found
    assert [hit.score for hit in answer.hits] == pytest.approx([1, 0.5**0.5], abs=1e-3)
    assert answer.hits[0].snippet == "bike"
    both = await ask(database, device, "hybrid", text="tea bike", limit=2, **asked)
    assert [(hit.record_id, hit.found_by) for hit in both.hits] == [
        ("a", ("text", "meaning")),
        ("b", ("meaning",)),
    ]
    assert both.hits[0].score > both.hits[1].score
    assert records(await ask(database, device, "hybrid", text="tea", **asked)) == ["a", "b", "c"]
    (far,) = (await ask(database, device, "meaning", vector=[0.0, 0.0, -1.0], model="small")).hits
    assert (far.record_id, far.found_by) == ("c", ("meaning",))


async def test_vectors_larger_than_the_covering_index_are_found_too(database: Database) -> None:
    device = await enrolled(database)
    await fold(database, device, {"a": "x", "b": "y"})
    await put(database, device, vector("a", *[1] * 3072), vector("b", *[1] * 2048, *[-1] * 1024))
    answer = await ask(database, device, "meaning", vector=[1.0] * 3072, model="small")
    assert records(answer) == ["a", "b"]


async def test_deleted_records_and_those_that_are_not_there_are_never_found(database: Database) -> None:
    device = await enrolled(database)
    await fold(database, device, {"gone": "a bike"}, deleted=True)
    await fold(database, device, {"there": "a bike"})
    await put(database, device, *(vector(record, 1, 2) for record in ("gone", "there", "to come")))
    for mode in MODES:
        answer = await ask(database, device, mode, text="bike", vector=[1, 2], model="small")
        assert records(answer) == ["there"]


async def test_two_spaces_never_meet_whatever_they_hold(database: Database) -> None:
    device, other = await enrolled(database), await enrolled(database)
    await fold(database, device, {"mine": "a bike", "both": "a bike"})
    await fold(database, other, {"theirs": "a bike", "both": "a secret bike"})
    await put(database, device, vector("mine", 1, 2), vector("theirs", 1, 2))
    await put(database, other, vector("theirs", 1, 2), vector("both", 1, 2), vector("mine", 1, 2))
    for mode in MODES:
        answer = await ask(database, device, mode, text="bike secret", vector=[1, 2], model="small")
        assert "theirs" not in records(answer)
        assert "secret" not in repr(answer)
        assert "mine" in records(answer)


@pytest.mark.parametrize("conditions", [[], [Condition("n", values=[1])]], ids=["all", "some"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("texts", [1, EXACT_TEXTS_MAX + 1])
def test_each_table_that_the_statement_reads_is_narrowed_to_the_space(
    mode: Mode, conditions: list[Condition], texts: int
) -> None:
    question = Question(text="x", vector=[1.0], model="m", collections=["notes"], conditions=conditions)
    sql, parameters = search_statement("the space", question, mode=mode, texts=texts, is_small=texts == 1)
    assert parameters[0] == "the space"
    read = [name for name in re.findall(r"(?:FROM|JOIN)\s+(\w+)", sql) if name in TABLES]
    assert len(read) >= 4
    for name in set(read):
        assert sql.count(f"{name}.space_id = $1") >= read.count(name), name


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (Condition("kind", values=["dream"]), ["a"]),
        (Condition("kind", values=["dream", "plan"]), ["a", "b"]),
        (Condition("kind", values=[None]), ["c"]),
        (Condition("mood.joy", at_least=0.5), ["a"]),
        (Condition("mood.joy", below=0.5), ["b"]),
        (Condition("mood.joy", above=0.1), ["a"]),
        (Condition("mood.joy", at_most=0.1), ["b"]),
        (Condition("mood.joy", above=0.1, at_most=0.9), ["a"]),
        (Condition("at", above="2026-01-01T00:00:00Z"), ["b"]),
        (Condition("at", at_most="2026-01-01T00:00:00Z"), ["a"]),
        (Condition("mood.joy", at_least=0, below=1e300), ["a", "b"]),
        (Condition("mood.joy", at_least="0"), ["c"]),
        (Condition("at", at_least="2026-02-01T00:00:00Z"), ["b"]),
        (Condition("tags", has="blue"), ["a"]),
        (Condition("mood", values=[{"joy": 0.9}]), ["a"]),
        (Condition("kind'); DROP TABLE texts; --", values=["dream"]), []),
        (Condition("kind", values=["dream\0"]), []),
        (Condition("", values=[1]), []),
    ],
    ids=str,
)
async def test_conditions_hold_before_anything_is_ranked(
    database: Database, condition: Condition, found: list[str]
) -> None:
    device = await enrolled(database)
    await fold(
        database,
        device,
        {"a": "x"},
        kind="dream",
        mood={"joy": 0.9},
        tags=["red", "blue"],
        at="2026-01-01T00:00:00Z",
    )
    await fold(
        database, device, {"b": "x"}, kind="plan", mood={"joy": 0.1}, tags=["red"], at="2026-03-01T00:00:00Z"
    )
    await fold(database, device, {"c": "x"}, mood={"joy": "much"}, at=7)
    await put(database, device, *(vector(record, 1, 2) for record in "abc"))
    for mode in MODES:
        answer = await ask(
            database, device, mode, text="x", vector=[1, 2], model="small", conditions=[condition]
        )
        assert sorted(records(answer)) == found


async def test_only_the_collections_asked_for_are_searched(database: Database) -> None:
    device = await enrolled(database)
    await fold(database, device, {"a": "bike"})
    await fold(database, device, {"b": "bike"}, collection="dreams")
    assert records(await ask(database, device, text="bike")) == ["b", "a"]
    assert records(await ask(database, device, text="bike", collections=["dreams", "none"])) == ["b"]


async def test_a_vector_of_another_model_or_size_is_an_error_that_names_what_there_is(
    database: Database,
) -> None:
    device = await enrolled(database)
    asked = {"text": "bike", "vector": [1.0, 2.0], "model": "small"}
    await fold(database, device, {"a": "bike"})
    assert records(await ask(database, device, "hybrid", **asked)) == ["a"]  # no vectors yet: words alone
    assert records(await ask(database, device, "meaning", **asked)) == []
    await put(database, device, vector("a", 1, 2))
    for wrong in ({"model": "large"}, {"vector": [1.0, 2.0, 3.0]}):
        for mode in ("hybrid", "meaning"):
            with pytest.raises(ModelMismatch, match=r"'small' with 2 dimensions \(1 vectors\)"):
                await ask(database, device, mode, **asked | wrong)


@pytest.mark.parametrize(
    ("mode", "question", "error"),
    [
        ("text", {}, MalformedMessage),
        ("hybrid", {"text": "x"}, MalformedMessage),
        ("meaning", {"vector": [1.0]}, MalformedMessage),
        ("meaning", {"vector": [0.0], "model": "m"}, MalformedMessage),
        ("meaning", {"vector": [float("nan")], "model": "m"}, MalformedMessage),
        ("meaning", {"vector": [1.7e308, 1.7e308], "model": "m"}, MalformedMessage),
        ("meaning", {"vector": [1.0] * 4_001, "model": "m"}, TooLarge),
        ("text", {"text": "x" * (SEARCH_TEXT_BYTES_MAX + 1)}, TooLarge),
        ("text", {"text": "x", "limit": 0}, MalformedMessage),
        ("text", {"text": "x", "limit": SEARCH_HITS_MAX + 1}, TooLarge),
        ("text", {"text": "x", "conditions": [Condition("a")]}, MalformedMessage),
        ("text", {"text": "x", "conditions": [Condition(".".join("a" * 40), values=[])]}, MalformedMessage),
        ("text", {"text": "x", "conditions": [Condition("a", values=[1] * 1_001)]}, TooLarge),
        ("text", {"text": "x", "conditions": [Condition("a" * 600_000, has=1)]}, TooLarge),
        ("text", {"text": "x", "conditions": [Condition("a", above="b" * 600_000)]}, TooLarge),
        ("text", {"text": "x", "conditions": [Condition("a", values=["b" * 600] * 1_000)]}, TooLarge),
        ("text", {"text": "x", "names": ["a" * 600_000]}, TooLarge),
        ("text", {"text": "x", "collections": ["a" * 600_000]}, TooLarge),
        ("text", {"text": "x", "collections": ["a"] * (SEARCH_COLLECTIONS_MAX + 1)}, TooLarge),
        (
            "meaning",
            {"vector": [1.0], "model": "m", "conditions": [Condition("a", values=[1] * 1_001)]},
            TooLarge,
        ),
        ("text", {"text": "x", "names": ["a"] * (SEARCH_NAMES_MAX + 1)}, TooLarge),
        (
            "text",
            {"text": "x", "conditions": [Condition("a", has=1)] * (SEARCH_CONDITIONS_MAX + 1)},
            TooLarge,
        ),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    database: Database, mode: Mode, question: dict[str, Any], error: type[Exception]
) -> None:
    device = await enrolled(database)
    with pytest.raises(error):
        await ask(database, device, mode, **question)


async def test_a_connection_comes_back_as_it_was_lent(database: Database) -> None:
    device = await enrolled(database)
    await fold(database, device, {"a": "bike"})
    names = ("enable_seqscan", "plan_cache_mode", "jit", "max_parallel_workers_per_gather")
    before = [await database.pool.fetchval(f"SHOW {name}") for name in names]
    async with database.connection() as connection:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        await search(lambda: nullcontext(connection), device.space, Question(text="bike"), mode="text")
        assert await connection.fetchval("SHOW enable_seqscan") == "off"
    assert await database.pool.fetchval("SELECT pg_backend_pid()") == pid, "the pool lends the last one first"
    assert [await database.pool.fetchval(f"SHOW {name}") for name in names] == before


async def test_the_longest_text_and_the_longest_question_are_searched(database: Database) -> None:
    device = await enrolled(database)
    await fold(database, device, {"long": " ".join(f"w{n}" for n in range(5_000)), "odd": "x" * 30_000})
    text = " ".join(f"w{n}" for n in range(1_400))[:SEARCH_TEXT_BYTES_MAX]
    assert records(await ask(database, device, text=text)) == ["long"]
