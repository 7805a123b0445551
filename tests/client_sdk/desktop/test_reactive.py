"""A live query as an observable: what it emits, and how it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from reactivex import operators

from client_sdk import Client, Collection
from client_sdk.desktop.reactive import observable, observable_changes
from client_sdk.differences import Added, Removed
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Note

__all__: list[str] = []


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as opened:
        yield opened


@pytest.fixture
def notes(client: Client) -> Collection[Note]:
    return client.collection(Note)


async def until(told: list[Any], count: int) -> None:
    async with asyncio.timeout(20):
        while len(told) < count:  # noqa: ASYNC110 - lists ring no bell
            await asyncio.sleep(0)


async def test_it_emits_the_result_now_and_after_each_change_through_operators(
    client: Client, notes: Collection[Note]
) -> None:
    told: list[list[str]] = []

    def titles_of(found: list[Note]) -> list[str]:
        return sorted(note.title for note in found)

    titles = observable(notes.where(pinned=True)).pipe(operators.map(titles_of))
    titles = titles.pipe(operators.distinct_until_changed())
    subscription = titles.subscribe(told.append)
    await until(told, 1)
    note = await notes.insert(Note(title="a", pinned=True))
    await until(told, 2)
    await notes.update(note.id, importance=7)  # the titles stay
    await notes.insert(Note(title="b", pinned=True))
    await until(told, 3)
    subscription.dispose()
    await notes.insert(Note(title="c", pinned=True))
    assert client._watches.counts.open <= 1
    assert told == [[], ["a"], ["a", "b"]]


async def test_a_query_gives_its_observable(notes: Collection[Note]) -> None:
    heard: asyncio.Queue[list[Note]] = asyncio.Queue()
    subscription = notes.where(pinned=True).observable().subscribe(heard.put_nowait)
    assert await asyncio.wait_for(heard.get(), 20) == []
    made = await notes.insert(Note(title="a", pinned=True))
    assert await asyncio.wait_for(heard.get(), 20) == [made]
    subscription.dispose()


def test_without_the_extra_a_query_says_what_to_install() -> None:
    program = """
import sys
sys.modules["reactivex"] = None  # as where it is not installed
from client_sdk.errors import ClientError
from client_sdk.query import Query
try:
    Query.observable(None)
except ClientError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'pjais-sync[rx]'" in told.stdout


async def test_changes_are_emitted_as_steps(notes: Collection[Note]) -> None:
    told: list[Any] = []
    subscription = observable_changes(notes.order_by("title")).subscribe(told.append)
    await until(told, 1)
    note = await notes.insert(Note(title="a"))
    await until(told, 2)
    await notes.delete(note.id)
    await until(told, 3)
    assert told == [[], [Added(0, note)], [Removed(0, note)]]
    subscription.dispose()


async def test_it_completes_when_the_client_closes_and_tells_its_error(tmp_path: Path) -> None:
    ended: list[Any] = []
    async with open_device(tmp_path / "b.db") as client:
        notes = client.collection(Note)
        told: list[Any] = []
        observable(notes.limit(1)).subscribe(told.append, on_completed=lambda: ended.append("completed"))
        await until(told, 1)
    await until(ended, 1)
    observable(notes.limit(1)).subscribe(on_completed=lambda: ended.append("again"))
    await until(ended, 2)
    assert ended == ["completed", "again"]


async def test_a_failing_observer_hears_its_own_error(notes: Collection[Note]) -> None:
    failed: list[Exception] = []

    def fails(_: list[Note]) -> None:
        raise RuntimeError("a bug of the application")

    observable(notes.limit(1)).pipe(operators.map(fails)).subscribe(on_error=failed.append)
    await until(failed, 1)
    assert str(failed[0]) == "a bug of the application"
