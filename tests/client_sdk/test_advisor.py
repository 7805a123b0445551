"""The advisor makes the index that a frequent query lacks, and drops it when it no longer pays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import client_sdk
from client_sdk import Client, Collection, Config, Record
from client_sdk.advisor import RUNS_MIN
from client_sdk.opening import Opening
from tests.client_sdk.device import KEY, sources


class Entry(Record, collection="entries", indexes=["kind"]):
    owner: str = ""
    kind: str = ""
    number: int = 0
    settings: dict[str, Any] = {}


def opened(path: Path, **options: Any) -> Opening:
    return client_sdk.open(
        path / "a.db", records=[Entry], key=KEY, sources=sources(1), config=Config(**options)
    )


async def filled(client: Client) -> Collection[Entry]:
    entries = client.collection(Entry)
    await entries.insert_many(
        Entry(owner=f"o{n % 200}", kind="k", number=n, settings={"theme": f"t{n % 100}"})
        for n in range(2_000)
    )
    return entries


async def run(entries: Collection[Entry], times: int) -> None:
    for n in range(times):
        assert len(await entries.where(owner=f"o{n % 200}").order_by("number", "desc").limit(3).all()) == 3


async def test_what_runs_is_reported_also_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        entries = await filled(client)
        await run(entries, 60)
        await entries.where(kind="none").count()
    async with opened(tmp_path) as client:
        await run(client.collection(Entry), 50)
        report = {advice.pattern: advice for advice in await client.advisor.report()}
        advice = next(one for pattern, one in report.items() if "owner" in pattern)
        assert advice.runs == 110
        assert "o1" not in str(report)  # no value is kept
        assert advice.returned == 3
        assert advice.scanned == 2_000
        assert "SCAN entries" in advice.plan
        assert advice.mean_ms > 0
        assert (advice.action, advice.columns) == ("create index", ('"owner"', '"number" DESC'))
        other = next(one for pattern, one in report.items() if "kind" in pattern)
        assert (other.action, other.scanned) == ("none", 0)


async def test_an_index_is_made_used_and_dropped_when_nobody_asks_any_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        entries = await filled(client)
        await run(entries, RUNS_MIN)
        assert (await client.advisor.apply()).created == ()
        await run(entries, 1)
        (name,) = (await client.advisor.apply()).created
        assert (await client.advisor.apply()).created == ()
        await run(entries, 70)
        (advice,) = await client.advisor.report()
        assert name in advice.plan
        assert (advice.action, advice.scanned) == ("none", 3)
        assert (await client.advisor.apply()).dropped == ()
        await entries.insert_many(Entry(owner="x") for _ in range(100))
        assert (await client.advisor.apply()).dropped == ()
        assert (await client.advisor.apply()).dropped == (name,)
        indexes = await client.sql(
            "SELECT name FROM sqlite_master WHERE tbl_name = 'entries' AND type = 'index'"
        )
        assert {row["name"] for row in indexes} == {"entries_by_kind", "sqlite_autoindex_entries_1"}


async def test_a_leaf_of_a_map_gets_an_index_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        entries = await filled(client)
        for n in range(RUNS_MIN + 1):
            assert await entries.where("settings.theme", "=", f"t{n % 100}").count() == 20
        (name,) = (await client.advisor.apply()).created
        assert await entries.where("settings.theme", "=", "t3").count() == 20
        plan = await client.sql(
            "SELECT count(*) FROM sqlite_master WHERE name = ? AND sql LIKE '%json_extract%'", (name,)
        )
        assert plan[0][0] == 1


async def test_it_acts_by_itself_when_asked_to(tmp_path: Path) -> None:
    async with opened(tmp_path, advisor="automatic") as client:
        entries = await filled(client)
        await run(entries, 2_000)
        while tasks := set(client._watches._tasks):
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # a task that is done is forgotten by the loop
        names = await client.sql("SELECT name FROM pjais_indexes")
        assert len(names) == 1


async def test_an_index_that_went_with_its_table_is_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        entries = await filled(client)
        await run(entries, RUNS_MIN + 1)
        (name,) = (await client.advisor.apply()).created
        await client._writer.database.write(lambda connection: connection.execute(f'DROP INDEX "{name}"'))
        await client.advisor.apply()
        assert await client.sql("SELECT name FROM pjais_indexes") == []
