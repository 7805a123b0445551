"""A kept result is never older than the last commit, ends after its time, and the results together stay small."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import client_sdk
from client_sdk import Client, Collection, Record
from client_sdk.cache import ResultCache
from client_sdk.errors import QueryError
from client_sdk.plan import Plan
from client_sdk.views import View, Window
from tests.client_sdk.device import KEY, sources
from tests.client_sdk.records import Line, Note, Tag


class Plain(Record, collection="plain", indexes=["owner"]):
    owner: str = ""
    number: int = 0


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with client_sdk.open(
        tmp_path / "a.db", records=[Plain, Note, Tag], key=KEY, sources=sources(1)
    ) as opened:
        yield opened


@pytest.fixture
def plain(client: Client) -> Collection[Plain]:
    return client.collection(Plain)


async def test_asking_again_reads_nothing_and_is_true_after_every_commit(
    client: Client, plain: Collection[Plain]
) -> None:
    query = plain.where(owner="a").order_by("number").limit(5).cached()
    assert await query.all() == []
    made = await plain.insert(Plain(owner="a", number=2))
    assert await query.all() == [made]
    await plain.insert(Plain(owner="b"))
    first = await plain.insert(Plain(owner="a", number=1))
    assert await query.all() == [first, made]
    await plain.delete(made.id)
    assert await query.all() == [first]
    counts = client._cache.counts
    assert (counts.hits, counts.misses, counts.dropped) == (3, 1, 0)
    assert client._watches.counts.read == 1
    assert await plain.where(owner="a").cached().count() == 1
    assert await plain.where(owner="b").cached().exists()
    assert await plain.order_by("id").cached().group_count("owner") == {"a": 1, "b": 1}


async def test_what_cannot_be_patched_is_thrown_away_unread(client: Client) -> None:
    notes = client.collection(Note)
    note = await notes.insert(Note(title="a"))
    query = notes.where(title="a").cached()
    assert await query.all() == [note]
    await notes.append(note.id, lines=[Line(id="1")])
    assert client._watches.counts.read == 1
    assert client._cache.counts.dropped == 1
    assert [len(found.lines) for found in await query.all()] == [1]
    assert client._watches.counts.read == 2


async def test_a_transaction_sees_its_own_writes(client: Client, plain: Collection[Plain]) -> None:
    query = plain.where(owner="a").cached()
    assert await query.all() == []
    async with client.transaction():
        made = await plain.insert(Plain(owner="a"))
        assert await query.all() == [made]
        assert await query.count() == 1
    assert await query.all() == [made]


async def test_it_waits_with_a_watcher_that_is_read_again(client: Client) -> None:
    notes = client.collection(Note)
    note = await notes.insert(Note(title="a"))
    query = notes.where(title="a").cached()
    watch = query.watch()
    assert await anext(watch) == [note]
    assert await query.all() == [note]
    await notes.append(note.id, lines=[Line(id="1")])
    assert [len(found.lines) for found in await query.all()] == [1]
    await watch.aclose()


async def test_results_end_after_their_time_and_the_oldest_go_first(
    client: Client, plain: Collection[Plain]
) -> None:
    await plain.insert_many(Plain(owner="abc"[n % 3], number=n) for n in range(30))
    now = 0.0
    cache = ResultCache(client._watches, bytes_max=4_000, now=lambda: now)

    async def ask(owner: str) -> int:
        window: View[list[Plain]] = Window(Plan(plain._table, plain.where(owner=owner).plan.conditions))
        result: list[Plain] = await cache.get(window, 10.0)
        return len(result)

    assert [await ask(owner) for owner in "aab"] == [10, 10, 10]
    assert (cache.counts.hits, cache.counts.misses) == (1, 2)
    assert 2_000 < cache.counts.bytes <= 4_000
    await ask("a")
    await ask("c")  # too much: b was not asked for longest
    assert cache.counts.bytes <= 4_000
    await ask("a")
    assert (cache.counts.hits, cache.counts.misses) == (3, 3)
    now = 10.0
    await ask("a")
    assert (cache.counts.hits, cache.counts.misses) == (3, 4)
    cache.clear()
    assert (cache.counts.bytes, cache.counts.results) == (0, 0)
    assert not client._watches._lives


async def test_two_who_ask_at_once_read_once(client: Client, plain: Collection[Plain]) -> None:
    query = plain.order_by("number").cached()
    results = await asyncio.gather(*(query.all() for _ in range(5)))
    assert results == [[]] * 5
    assert client._watches.counts.read == 1


def test_a_time_is_a_number_of_seconds(plain: Collection[Plain]) -> None:
    with pytest.raises(QueryError, match="seconds"):
        plain.order_by("id").cached(0)
