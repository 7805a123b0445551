"""Several openings of one file take turns at writing, and none holds its event loop up for another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from client_sdk.config import Config
from client_sdk.database import Connection, Database
from client_sdk.errors import FileInUse
from tests.client_sdk.database.lines import ALWAYS, NEVER, add, open_gate, prepare_lines, texts

__all__: list[str] = []


@pytest.fixture(params=["quick", "always", "never"])
async def pair(
    path: Path, key: bytes, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Database, Database]]:
    config = replace(Config(inline=request.param), busy_timeout_ms=20_000)
    first = await Database.open(path, key, prepare=prepare_lines, config=config, multi_instance=True)
    first.admit()
    second = await Database.open(path, key, config=config, multi_instance=True)
    yield first, second
    await first.close()
    await second.close()


async def test_a_brief_write_waits_for_another_instance_on_the_thread_and_the_loop_goes_on(
    pair: tuple[Database, Database],
) -> None:
    first, second = pair
    with open_gate() as gate:
        holding = asyncio.ensure_future(first.write(gate, waits=True))
        await gate.entered()
        writes = [asyncio.ensure_future(second.write(add(str(n)), brief=True)) for n in range(3)]
        done, _ = await asyncio.wait(writes, timeout=0.05)
        assert not done, "it was another's turn"
        assert await second.read(texts) == [], "reading waits for nobody"
    await holding
    await asyncio.gather(*writes)
    assert await second.read(texts) == ["behind the gate", "0", "1", "2"]


async def test_writes_of_two_instances_all_happen(pair: tuple[Database, Database]) -> None:
    told: list[list[int | None]] = [[], []]
    writes = [
        database.write(add(f"{number} {n}"), brief=bool(n % 3), after=told[number].append)
        for n in range(60)
        for number, database in enumerate(pair)
    ]
    await asyncio.gather(*writes)
    found = await pair[0].read(texts)
    for number in range(2):
        assert told[number] == sorted(told[number], key=lambda row: row or 0)
        assert [text for text in found if text.startswith(f"{number} ")] == [
            f"{number} {n}" for n in range(60)
        ]


@pytest.mark.parametrize("config", [Config(), ALWAYS, NEVER], ids=lambda config: config.inline)
async def test_a_write_whose_turn_does_not_come_says_so_and_undoes_nothing(
    path: Path, key: bytes, config: Config
) -> None:
    first = await Database.open(path, key, prepare=prepare_lines, multi_instance=True)
    first.admit()
    second = await Database.open(path, key, config=replace(config, busy_timeout_ms=20), multi_instance=True)
    undone: list[bool] = []
    with open_gate() as gate:
        holding = asyncio.ensure_future(first.write(gate, waits=True))
        await gate.entered()
        with pytest.raises(FileInUse, match="which was writing for"):
            await second.write(add("late"), brief=True, undo=lambda: undone.append(True))
    await holding
    assert not undone, "it had not begun"
    assert await second.write(add("again"), brief=True) == 2
    await first.close()
    await second.close()


async def test_a_glance_sees_the_newest_commit_of_any_instance(pair: tuple[Database, Database]) -> None:
    def count(connection: Connection) -> int:
        found: int = connection.execute("SELECT count(*) FROM lines").fetchone()[0]
        return found

    first, second = pair
    for number in range(4):
        await (first, second)[number % 2].write(add("one more"))
        assert first.glance(count) == second.glance(count) == number + 1
