"""A live query equals a fresh run after every commit, whatever the records, the query and the changes are."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import types
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta

import client_sdk
from client_sdk import Client, Collection, Counter, Query, Record, Text, views
from client_sdk.commit import Committed
from client_sdk.differences import Added, Changed, Moved, Removed, difference
from client_sdk.errors import QueryError
from client_sdk.outbox import Outbox
from crdt import wire
from tests.client_sdk.device import KEY, sources
from tests.client_sdk.records import Line, Mood, Note

START: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

WORDS: Final = ["", "a", "ab", "b", "Ä", "ß", "日本", "\U0001f600", "a_b%", "z\0z"]
VALUES: Final[dict[str, tuple[Any, Callable[[random.Random], Any]]]] = {
    "name": (str, lambda chance: chance.choice(WORDS)),
    "body": (Text, lambda chance: chance.choice(WORDS)),
    "count": (Annotated[int, Meta(ge=-9, le=9)], lambda chance: chance.randint(-3, 3)),
    "rating": (float | None, lambda chance: chance.choice([None, -1.5, 0.0, 1, 2.5])),
    "is_on": (bool, lambda chance: chance.random() < 0.5),
    "due": (
        dt.datetime | None,
        lambda chance: chance.choice([None, START, START + dt.timedelta(days=chance.randint(0, 3))]),
    ),
    "mood": (Mood, lambda chance: chance.choice(list(Mood))),
    "kind": (Literal["x", "y", "z"] | None, lambda chance: chance.choice([None, "x", "y", "z"])),
    "tags": (set[str], lambda chance: set(chance.sample(["t", "u", "v", ""], chance.randint(0, 3)))),
    "more": (
        dict[str, Any],
        lambda chance: chance.choice(
            [{}, {"k": 1}, {"k": True, "m": {"n": "a"}}, {"k": "1"}, {"k": {"l": 1}}, {"k": None}]
        ),
    ),
    "lines": (list[Line], lambda chance: [Line(id=str(n)) for n in range(chance.randint(0, 2))]),
}
DEFAULTS: Final = {"tags": set, "more": dict, "lines": list}
SCALARS: Final = ("name", "body", "count", "rating", "is_on", "due", "mood", "kind")
VERBS: Final = ("insert", "insert_many", "update", "delete", "restore", "increment")
STEPS: Final = 25


def declared(chance: random.Random) -> type[Record]:
    """Return a record class with some of the fields, and some of the indexes that they may have."""
    names = ["views", *chance.sample(list(VALUES), chance.randint(2, len(VALUES)))]
    indexed = [name for name in names if name in SCALARS]
    indexes = [
        tuple(chance.sample(indexed, chance.randint(1, min(2, len(indexed))))) for _ in range(2) if indexed
    ]

    def fill(namespace: dict[str, Any]) -> None:
        namespace["__annotations__"] = {
            name: VALUES[name][0] if name in VALUES else Counter for name in names
        }
        namespace["__module__"] = __name__
        namespace["views"] = Counter(0)
        for name in names:
            if name in DEFAULTS:
                namespace[name] = DEFAULTS[name]()

    options = {"collection": "things", "indexes": list(dict.fromkeys(indexes))}
    return types.new_class("Thing", (Record,), options, fill)


def asked(chance: random.Random, things: Collection[Any]) -> Query[Any]:
    """Return a query at random."""
    names = [name for name in things.schema.by_name if name not in {"lines", "created_at", "updated_at"}]
    query = things._query()
    for _ in range(chance.choice([0, 1, 1, 2])):
        conditions = [condition(chance, chance.choice(names)) for _ in range(chance.choice([1, 1, 2]))]
        query = query.or_(*conditions) if len(conditions) > 1 else query.where(*conditions[0])
    for name in chance.sample([name for name in names if name in (*SCALARS, "views")], 1) * chance.choice(
        [0, 1, 2]
    ):
        query = query.order_by(name, chance.choice(["asc", "desc"]))
    if "more" in names and chance.random() < 0.2:
        query = query.order_by("more.k", chance.choice(["asc", "desc"]))
    if chance.random() < 0.6:
        query = query.limit(chance.choice([0, 1, 2, 5, 20]))
    if chance.random() < 0.3:
        query = query.offset(chance.choice([1, 3, 2_000]))
    return query


def condition(chance: random.Random, name: str) -> tuple[Any, ...]:
    if name == "views":
        return name, chance.choice(["=", "<", ">="]), chance.randint(0, 3)
    value = VALUES[name][1](chance)
    if name == "tags":
        return name, "contains", chance.choice(["t", "u", ""])
    if name == "more":
        leaf = chance.choice(["more.k", "more.m.n", "more.none"])
        return chance.choice(
            [
                (leaf, chance.choice(["=", "!=", "<", ">="]), chance.choice([1, "1", "a", 0.5])),
                (leaf, "is_null", chance.random() < 0.5),
                ("more", "contains", "k"),
                (leaf, "contains", "a"),
            ]
        )
    if value is None or chance.random() < 0.1:
        return name, "is_null", chance.random() < 0.5
    operators = ["=", "=", "!=", "<", "<=", ">", ">=", "in"]
    if name in {"name", "body"}:
        operators += ["contains", "startswith"]
    operator = chance.choice(operators)
    return (
        name,
        operator,
        [value, *([VALUES[name][1](chance)] if name not in {"rating", "due", "kind"} else [])]
        if (operator == "in")
        else value,
    )


class Device:
    """A device under test, and the way of what it writes to the other."""

    def __init__(self, client: Client, record: type[Record]) -> None:
        self.client = client
        self.things: Collection[Any] = client.collection(record)
        self.sent = self.position = 0

    async def change(self, chance: random.Random) -> None:
        """Do something to some record."""
        ids = [row["record"] for row in await self.client.sql("SELECT record FROM pjais_documents")]
        record = self.things.schema.record
        fields = [name for name in self.things.schema.by_name if name in VALUES]

        def values() -> dict[str, Any]:
            return {
                name: VALUES[name][1](chance)
                for name in chance.sample(fields, chance.randint(1, len(fields)))
            }

        def whole() -> Any:
            return record(**{name: VALUES[name][1](chance) for name in fields})

        some = chance.choice(ids) if ids else ""
        verb = chance.choice([*VERBS, "insert", "update", "update"])
        if verb == "insert" or not ids:
            await self.things.insert(whole())
        elif verb == "insert_many":
            await self.things.insert_many([whole() for _ in range(chance.randint(2, 8))])
        elif await self.things.get(some) is None:
            if verb == "restore":
                await self.things.restore(some)
        elif verb == "update":
            await self.things.update(some, **values())
        elif verb == "delete":
            await self.things.delete(some)
        elif verb == "increment":
            await self.things.increment(some, views=chance.choice([-1, 1, 2]))

    async def send(self, other: Device) -> None:
        """Hand everything that is new here to the other device, as a server does: by pages."""
        while True:
            batch = await self.client._writer.read(
                lambda connection: Outbox.batch(
                    connection, after_position=self.sent, edits_max=7, bytes_max=1 << 20
                )
            )
            if batch is None:
                return
            self.sent = batch.last_position
            through = other.position + len(batch.edits)
            entries = [
                wire.Entry(position, edit.collection, edit.record, batch.client, edit.update)
                for position, edit in enumerate(batch.edits, other.position + 1)
            ]
            await other.client._replica.apply_page(wire.Page("s", other.position, through, through, entries))
            other.position = through


class Watched:
    """One live query, and what it was last told, whole and by differences."""

    def __init__(self, query: Query[Any], group: str | None) -> None:
        self.query = query
        self.group = group
        self.told: list[Any] = []
        self.followed: list[Any] = []
        self.count = -1
        self.groups: dict[Any, int] = {}
        self.told_times = 0

    async def start(self) -> list[asyncio.Task[None]]:
        self.query.subscribe(self.hear)
        made = [asyncio.create_task(self.follow()), asyncio.create_task(self.follow_count())]
        if self.group is not None:
            made.append(asyncio.create_task(self.follow_groups(self.group)))
        return made

    def hear(self, result: list[Any]) -> None:
        self.told, self.told_times = result, self.told_times + 1

    async def follow(self) -> None:
        async for steps in self.query.watch_changes():
            self.followed = applied(self.followed, steps)

    async def follow_count(self) -> None:
        async for count in self.query.watch_count():
            self.count = count

    async def follow_groups(self, field: str) -> None:
        async for groups in self.query.watch_group_count(field):
            self.groups = groups

    async def check(self) -> None:
        fresh = await self.query.all()
        assert self.told == fresh
        assert self.followed == fresh
        assert self.count == await self.query.count()
        if self.group is not None:
            assert self.groups == await self.query.group_count(self.group)


def applied(held: list[Any], steps: list[Any]) -> list[Any]:
    made = list(held)
    for step in steps:
        match step:
            case Removed(place, record):
                assert made.pop(place) == record
            case Moved(source, place, record):
                assert made[source].id == record.id
                made.insert(place, made.pop(source))
            case Added(place, record):
                made.insert(place, record)
            case Changed(place, record):
                assert made[place].id == record.id
                made[place] = record
    return made


async def settled(client: Client) -> None:
    """Wait until everyone has been told what there is to tell."""
    watches = client._watches
    quiet = 0
    async with asyncio.timeout(20):
        while quiet < 8:
            is_busy = watches._due or any(live.is_reading for live in watches._lives.values())
            quiet = 0 if is_busy else quiet + 1
            await asyncio.sleep(0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_every_live_query_equals_a_fresh_run(seed: int) -> None:
    chance = random.Random(seed)
    spare = chance.choice([0, 2, 10])
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "_SPARE_ROWS_MIN", spare)
        asyncio.run(lived(Path(folder), chance))


async def lived(folder: Path, chance: random.Random) -> None:
    record = declared(chance)
    # On threads of their own, reads and commits meet in every order.
    config = client_sdk.Config(inline=chance.choice(["quick", "never"]))
    async with (
        client_sdk.open(
            folder / "a.db", records=[record], key=KEY, sources=sources(1), config=config
        ) as first,
        client_sdk.open(folder / "b.db", records=[record], key=KEY, sources=sources(2)) as second,
    ):
        here, there = Device(first, record), Device(second, record)
        for _ in range(chance.randint(0, 6)):
            await here.change(chance)
        groups = [
            name for name in ("count", "kind", "mood", "is_on", "name") if name in here.things.schema.by_name
        ]
        watched: list[Watched] = []
        tasks: list[asyncio.Task[None]] = []
        for step in range(STEPS):
            if not step or chance.random() < 0.15:
                watched.append(Watched(asked(chance, here.things), chance.choice(groups) if groups else None))
                tasks += await watched[-1].start()
            match chance.choice(["here", "here", "here", "there", "exchange", "together", "at once"]):
                case "here":
                    await here.change(chance)
                case "there":
                    await there.change(chance)
                case "exchange":
                    await there.send(here)
                    await here.send(there)
                case "at once":
                    await asyncio.gather(*(here.change(chance) for _ in range(4)), return_exceptions=True)
                case "together":
                    async with first.transaction():
                        for _ in range(chance.randint(1, 4)):
                            await here.change(chance)
            if chance.random() < 0.7:
                await settled(first)
                for one in watched:
                    await one.check()
        await settled(first)
        for one in watched:
            await one.check()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await settled(first)
    assert first._watches.counts.open == 0


@given(st.lists(st.integers(0, 30), unique=True), st.lists(st.integers(0, 30), unique=True))
def test_differences_make_one_list_of_another(old: list[int], new: list[int]) -> None:
    def note(number: int, title: str = "") -> Note:
        return Note(id=str(number), title=title)

    before, after = [note(number) for number in old], [note(number, str(number % 3 // 2)) for number in new]
    steps = difference(before, after)
    assert applied(before, steps) == after
    assert sum(isinstance(step, Removed) for step in steps) == len(set(old) - set(new))
    assert sum(isinstance(step, Added) for step in steps) == len(set(new) - set(old))
    kept = [number for number in old if number in set(new)]
    if sorted(kept, key=new.index) == kept:
        assert not any(isinstance(step, Moved) for step in steps)


def test_one_record_that_goes_far_is_one_move() -> None:
    old = [Note(id=str(number), title="") for number in range(9)]
    assert difference(old, [*old[1:], old[0]]) == [Moved(0, 8, old[0])]
    assert difference(old, [old[8], *old[:8]]) == [Moved(8, 0, old[8])]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with client_sdk.open(tmp_path / "a.db", records=[Tally], key=KEY, sources=sources(1)) as opened:
        yield opened


class Tally(Record, collection="tallies", indexes=[("owner", "number")]):
    owner: str = ""
    number: int = 0


async def test_a_commit_costs_what_it_touches(client: Client) -> None:
    tallies = client.collection(Tally)
    await tallies.insert_many(Tally(owner=str(n % 100), number=n) for n in range(500))
    told: list[str] = []
    for owner in range(100):
        query = tallies.where(owner=str(owner)).order_by("number", "desc").limit(3)
        query.subscribe(lambda found, owner=owner: told.append(str(owner)))  # type: ignore[misc]
    await settled(client)
    counts = client._watches.counts
    assert (counts.open, counts.read, len(told)) == (100, 100, 100)
    told.clear()
    await tallies.insert(Tally(owner="7", number=1_000))
    await tallies.insert(Tally(owner="8", number=-1))  # behind the window that is shown
    await settled(client)
    assert told == ["7"]
    assert (counts.patched, counts.read) == (2, 100)


async def test_equal_queries_are_kept_once_and_results_belong_to_who_got_them(client: Client) -> None:
    tallies = client.collection(Tally)
    await tallies.insert(Tally(owner="a"))
    heard: list[list[Tally]] = []
    for _ in range(10):
        tallies.where(owner="a").subscribe(heard.append)
    await settled(client)
    assert (client._watches.counts.read, len(client._watches._lives)) == (1, 1)
    heard[0].clear()
    assert all(len(result) == 1 for result in heard[1:])


async def test_a_window_refills_from_what_it_holds_in_reserve(client: Client) -> None:
    tallies = client.collection(Tally)
    made = await tallies.insert_many(Tally(number=n) for n in range(40))
    watch = tallies.order_by("number").limit(4).watch()
    assert [one.number for one in await anext(watch)] == [0, 1, 2, 3]
    for n in range(12):
        await tallies.delete(made[n].id)
        assert [one.number for one in await anext(watch)] == [n + 1, n + 2, n + 3, n + 4]
    assert client._watches.counts.read == 2  # ten in reserve, then once more
    await watch.aclose()


async def test_counts_and_groups_are_counted_on(client: Client) -> None:
    tallies = client.collection(Tally)
    made = await tallies.insert_many(Tally(owner="ab"[n % 2], number=n) for n in range(6))
    count = tallies.where("number", ">=", 2).watch_count()
    groups = tallies._query().watch_group_count("owner")
    assert await anext(count) == 4
    assert await anext(groups) == {"a": 3, "b": 3}
    await tallies.update(made[0].id, number=9, owner="c")
    assert await anext(count) == 5
    assert await anext(groups) == {"a": 2, "b": 3, "c": 1}
    assert client._watches.counts.read == 2
    await count.aclose()
    await groups.aclose()


async def test_pages_by_cursor_meet_every_record_once_while_records_come_and_go(client: Client) -> None:
    tallies = client.collection(Tally)
    made = await tallies.insert_many(Tally(number=n % 5, owner=str(n)) for n in range(40))
    query = tallies.order_by("number", "desc").limit(7)
    seen: list[str] = []
    page = await query.all()
    while page:
        seen += [one.owner for one in page]
        last = page[-1]
        if len(seen) == 14:
            await tallies.delete(last.id)
            await tallies.delete(made[4].id)  # was seen
            await tallies.insert(Tally(number=9, owner="before all"))
        page = await query.after(last).all()
    assert seen == [one.owner for one in sorted(made, key=lambda one: (-one.number, int(one.owner)))]
    with pytest.raises(QueryError, match="order_by"):
        query.after(last).order_by("owner")


async def test_whether_any_fits(client: Client) -> None:
    tallies = client.collection(Tally)
    assert not await tallies.where(owner="a").exists()
    await tallies.insert(Tally(owner="a"))
    assert await tallies.where(owner="a").exists()


async def test_what_a_read_has_seen_is_not_counted_twice(client: Client) -> None:
    """A commit may be told after a read that saw it already."""
    tallies = client.collection(Tally)
    told: list[Committed] = []
    client._writer.listeners.insert(0, told.append)
    await tallies.insert(Tally(owner="a"))
    count = tallies._query().watch_count()
    assert await anext(count) == 1
    client._watches.committed(told[0])
    await tallies.insert(Tally(owner="b"))
    assert await anext(count) == 2
    await count.aclose()
