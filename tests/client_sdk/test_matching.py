"""Any word of a question finds what ranking every row would, but for old rows that only have common words."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client_sdk import Client
from client_sdk.database import Connection
from client_sdk.matching import BEGINNING, matched, matched_any
from client_sdk.plan import Plan
from client_sdk.text_index import TextTable
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Line, Note

__all__: list[str] = []

WORDS = (
    "green",
    "tea",
    "river",
    "oak",
    "lamp",
    "teapot",
    "harp",
    "unheard",
)  # the commonest first, the last in none


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """Eighty notes, whose words are as often as those of a language (Zipf), in the title and in lines."""
    chance = random.Random(7)
    weights = [1 / (place + 1) for place in range(len(WORDS) - 1)]

    def prose() -> str:
        return " ".join(chance.choices(WORDS[:-1], weights, k=chance.randrange(1, 9)))

    async with open_device(tmp_path / "a.db") as client:
        await client.collection(Note).insert_many(
            Note(
                title=prose(),
                lines=[Line(id=str(n), content=prose()) for n in range(4)],
                pinned=chance.random() < 0.3,
            )
            for _ in range(80)
        )
        yield client


def plain(
    connection: Connection, plan: Plan, table: TextTable, words: Collection[str], docs: Sequence[int] | None
) -> dict[int, float]:
    """Return the rank of every row that has any of some words."""
    if not words:
        return {}
    found = matched(connection, plan, table, " OR ".join(words), limit=-1, docs=docs)
    return {rowid: rank for rank, rowid in found}


def expected(
    connection: Connection,
    plan: Plan,
    table: TextTable,
    words: Sequence[str],
    docs: Sequence[int] | None,
    limit: int,
    ranked_max: int,
) -> tuple[list[float], dict[int, float]]:
    """Return the ranks that are due, worked out with sets, and the rank of every row."""
    everywhere = {
        word: {
            row[0]
            for row in connection.execute(
                f'SELECT rowid FROM "{table.name}" WHERE "{table.name}" MATCH ?', (word,)
            )
        }
        for word in words
    }
    rare: list[str] = []
    common: list[str] = []
    total = 0
    for word in sorted(words, key=lambda word: len(everywhere[word])):
        total += len(everywhere[word])
        if total <= ranked_max:
            rare.append(word)
        elif not word.endswith(BEGINNING):
            common.append(word)
    ranks = plain(connection, plan, table, [*rare, *common], docs)
    if docs is not None and not table.list_field and len(docs) <= ranked_max:
        return sorted(ranks.values())[:limit], ranks
    with_rare = ranks.keys() & set().union(*(everywhere[word] for word in rare))
    due = set(with_rare)
    for joined in (set.intersection, set.union):
        if common and len(due) < limit:
            rows = ranks.keys() & joined(*(everywhere[word] for word in common)) - with_rare
            due |= set(sorted(rows, reverse=True)[:ranked_max])
    return sorted(ranks[row] for row in due)[:limit], ranks


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True),
    is_last_open=st.booleans(),
    limit=st.integers(1, 12) | st.just(40),
    ranked_max=st.integers(1, 60) | st.just(400),
    is_filtered=st.booleans(),
    is_list=st.booleans(),
)
async def test_what_is_found_is_what_sets_say(
    client: Client,
    words: list[str],
    is_last_open: bool,
    limit: int,
    ranked_max: int,
    is_filtered: bool,
    is_list: bool,
) -> None:
    notes = client.collection(Note)
    plan = (notes.where(pinned=True) if is_filtered else notes.where()).search("tea")._plan
    assert plan.table.text is not None
    asked = [f'"{word}"' for word in words]
    if is_last_open:
        asked.append(f"{asked[-1]}{BEGINNING}")
    table = plan.table.text.tables[is_list]

    def look(connection: Connection) -> None:
        docs = None
        if is_filtered:
            docs = [row[0] for row in connection.execute("SELECT doc FROM notes WHERE pinned")]
        found = matched_any(connection, plan, table, asked, limit=limit, docs=docs, ranked_max=ranked_max)
        due, ranks = expected(connection, plan, table, asked, docs, limit, ranked_max)
        assert [rank for rank, _ in found] == pytest.approx(due)
        assert [rank for rank, _ in found] == pytest.approx([ranks[rowid] for _, rowid in found])
        assert len({rowid for _, rowid in found}) == len(found)

    await client._writer.read(look)


@pytest.mark.parametrize("ranked_max", [1, 5, 1_000])
async def test_no_words_find_nothing_and_unheard_ones_neither(client: Client, ranked_max: int) -> None:
    plan = client.collection(Note).where().search("tea")._plan
    assert plan.table.text is not None
    table = plan.table.text.tables[0]

    def look(connection: Connection) -> None:
        for words in ([], ['"unheard"'], ['"unheard"', f'"unheard"{BEGINNING}']):
            assert matched_any(connection, plan, table, words, limit=10, ranked_max=ranked_max) == []

    await client._writer.read(look)


async def test_a_rare_word_is_found_however_old_its_row_is(client: Client) -> None:
    notes = client.collection(Note)
    old = await notes.insert(Note(title="zither"))
    await notes.insert_many(Note(title="green green") for _ in range(30))
    plan = notes.where().search("tea")._plan
    assert plan.table.text is not None
    table = plan.table.text.tables[0]
    words = ['"green"', '"zither"']
    found = await client._writer.read(
        lambda connection: matched_any(connection, plan, table, words, limit=10, ranked_max=20)
    )
    doc = await client._writer.read(lambda connection: plan.table.find(connection, old.id))
    assert found[0][1] == doc
    assert len(found) == 10
