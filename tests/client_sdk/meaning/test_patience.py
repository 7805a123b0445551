"""What other devices wrote is left to them: for a while, for as long as they serve, and never for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from client_sdk.errors import ClosedClient
from client_sdk.meaning import patience as patience_module
from client_sdk.meaning.patience import Patience
from tests.client_sdk.device import open_device
from tests.client_sdk.meaning.embedders import Gated
from tests.client_sdk.records import Note

__all__: list[str] = []


class Given:
    """Remembers what is given up."""

    def __init__(self) -> None:
        self.docs: list[int] = []
        self.turned = asyncio.Event()
        self.patience = Patience(["notes"], ended=self.ended, turned=self.turned.set)

    def ended(self, collection: str, docs: Collection[int]) -> None:
        assert collection == "notes"
        self.docs += docs
        self.turned.set()


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience_module, "LEFT_TO_DEVICES_S", 0.02)


async def given_up(given: Given, docs: list[int]) -> None:
    async with asyncio.timeout(5):
        while given.docs != docs:
            given.turned.clear()
            await given.turned.wait()


async def test_what_nobody_serves_is_given_up_after_a_while_and_what_is_served_is_not() -> None:
    given = Given()
    given.patience.begin(lambda: False)
    assert given.patience.is_on
    given.patience.leave("notes", [1, 2, 3])
    given.patience.served("notes", [2, 99])
    assert (given.patience.count(), given.patience.count("notes")) == (2, 2)
    await given_up(given, [1, 3])
    assert given.patience.count() == 0


async def test_the_last_one_that_is_served_is_told() -> None:
    given = Given()
    given.patience.begin(lambda: False)
    given.patience.leave("notes", [1])
    given.turned.clear()
    given.patience.served("notes", [1])
    assert given.turned.is_set()
    assert given.docs == []


async def test_while_records_still_come_nobody_is_given_up_but_who_waits_for_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0

    def is_catching_up() -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            monkeypatch.setattr(patience_module, "LEFT_TO_DEVICES_S_MAX", 0.0)
        return looks < 5

    given = Given()
    given.patience.begin(is_catching_up)
    given.patience.leave("notes", [7])
    await given_up(given, [7])
    assert looks == 3
    given.patience.leave("notes", [8])
    await given_up(given, [7, 8])


async def test_at_the_end_of_the_connection_everything_is_given_up() -> None:
    given = Given()
    given.patience.begin(lambda: True)
    given.patience.leave("notes", [1])
    given.patience.end()
    assert given.docs == [1]
    assert not given.patience.is_on


async def test_a_connection_that_is_expected_and_does_not_come_is_waited_for_briefly() -> None:
    given = Given()
    given.patience.expect()
    assert given.patience.is_expecting
    await asyncio.wait_for(given.turned.wait(), 5)
    assert not given.patience.is_expecting


async def test_who_waits_for_vectors_hears_that_the_file_is_closed(tmp_path: Path) -> None:
    embedder = Gated()
    client = await open_device(tmp_path / "a.db", embedder=embedder)
    await client.collection(Note).insert(Note(title="a title"))
    waiting = asyncio.create_task(client.embedded())
    await embedder.is_waiting.wait()
    await client.close()
    for late in (waiting, client.embedded()):
        with pytest.raises(ClosedClient):
            await asyncio.wait_for(late, 5)
