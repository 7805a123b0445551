"""`server.materialize`, on a real Postgres, with real documents and a real worker that really dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt.changes import InsertItems, InsertText, Operation, SetRegister
from crdt.contents import DELETED, Contents, add_digests
from crdt.document import Document
from crdt.lanes import write_creation
from crdt.updates import check_shape
from crdt.values import encode_reading, encode_value
from server.database import Database
from server.log import LogRow, append
from server.materialize import batch, tables
from server.materialize.batch import ROWS_MAX, fold_anew, fold_spaces
from server.materialize.fold import Outcome, Update, Work, fold_creation, fold_record
from server.materialize.folding import Folding, WorkerFailed
from server.materialize.follow import Follower
from server.materialize.view import JSON_BYTES_MAX, json_of
from server.materialize.worker import outcome_of
from server.notify import HEADS, MATERIALIZED, read_notices, tell
from server.settings import Settings, load_settings
from tests.crdt.histories import History
from tests.postgres import run
from tests.server.people import eventually

__all__: list[str] = []

MEMORY_BYTES = 1024 * 1024 * 1024

# The update bytes of HAZARDS.md: accepted by pycrdt, and then every read crashes, panics or never returns.
HAZARDS = {
    "a block of no length": "01010300000000",
    "a division by zero": "010100010080808080000000000000",
    "a gap over all of another client's clocks": "0101030000ffffffff0700",
    "2**29 clients": "808080800201",
    "text in an array": "010103000401066c6973743a6104f09f98800000",
}


def crashing_snapshot() -> bytes:
    """Return bytes at which pycrdt overflows its stack, an array 100,000 deep; no check lets them in."""
    return b"\x01\x01\x05\x00\x08\x01\x06list:a\x01" + b"\x75\x01" * 100_000 + b"\x7e\x00"


class Space:
    """A space whose log a test writes, straight into the table: what gets past the gate is up to the test."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.id = uuid4()
        self.head = 0

    async def write(self, *edits: tuple[str, int, bytes]) -> None:
        """Append (record, client, update) and commit."""
        rows = []
        for record, client, update in edits:
            self.head += 1
            start, end = 0, 0
            with contextlib.suppress(Exception):
                shape = check_shape(update, client=client)
                start, end = shape.start, shape.end
            rows.append(
                LogRow(
                    self.id,
                    self.head,
                    "notes",
                    record,
                    UUID(int=client),
                    1,
                    self.head,
                    client,
                    start,
                    end,
                    update,
                )
            )
        async with self.database.connection() as connection, connection.transaction():
            await append(connection, rows)
            await connection.execute(
                "INSERT INTO spaces (space_id, account_id, generation, head) VALUES ($1, $1, $1, $2) "
                "ON CONFLICT (space_id) DO UPDATE SET head = excluded.head",
                self.id,
                self.head,
            )

    async def announce(self) -> None:
        async with listening(self.database) as line:
            await tell(line, HEADS, {self.id: self.head})

    async def standing(self) -> tables.Standing:
        async with self.database.connection() as connection:
            (found,) = await tables.standings(connection, [self.id])
        return found

    async def is_folded(self) -> bool:
        return (await self.standing()).position == self.head

    async def documents(self) -> dict[str, dict[str, Any]]:
        rows = await self.database.pool.fetch(
            "SELECT record_id, position, snapshot, clocks, digest, deleted, value FROM documents WHERE space_id = $1",
            self.id,
        )
        found = {}
        for row in rows:
            found[row["record_id"]] = {
                **row,
                "clocks": msgspec.msgpack.decode(row["clocks"]),
                "value": row["value"] and json.loads(row["value"]),
            }
        return found

    async def quarantine(self) -> dict[int, str]:
        rows = await self.database.pool.fetch(
            "SELECT position, reason FROM quarantine WHERE space_id = $1 ORDER BY position", self.id
        )
        return {row["position"]: row["reason"] for row in rows}

    async def check_digest(self) -> None:
        """The space's digest and count are those of its documents, and each document's is that of its snapshot."""
        documents = await self.documents()
        stands = await self.standing()
        digests = []
        for record, document in documents.items():
            read = Document.load(document["snapshot"], [], client=0)
            digests.append(read.contents.digest("notes", record))
            assert digests[-1].to_bytes(16, "big") == document["digest"]
            assert read.clocks() == document["clocks"]
        assert stands.digest == add_digests(*digests)
        assert stands.records == len(documents)


@contextlib.asynccontextmanager
async def listening(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    line = await database.listener()
    try:
        yield line
    finally:
        await line.close()


def creation(client: int, **values: object) -> bytes:
    """The update that creates a record."""
    registers = [(b"@", encode_reading(1 << 40))]
    return write_creation(
        client, registers + [(name.encode(), encode_value(value)) for name, value in values.items()]
    )


class Writer:
    """A device's copy of one record, which it edits under its own client id."""

    def __init__(self, client: int, *updates: bytes) -> None:
        self.client = client
        self.document = Document.load(None, list(updates), client=client)
        self.reading = 1 << 41

    def set(self, path: str, value: object) -> bytes:
        self.reading += 1
        return self.document.edit([SetRegister(path, encode_value(value))], reading=self.reading)[0]


@pytest.fixture
async def folding() -> AsyncIterator[Folding]:
    folding = Folding(memory_bytes_max=MEMORY_BYTES)
    yield folding
    await folding.close()


@pytest.fixture
def space(database: Database) -> Space:
    return Space(database)


async def catch_up(database: Database, folding: Folding) -> None:
    await Follower(database, folding).catch_up()


# ------------------------------------------------------------------------------------------------------ view

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.just(UTC))
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


def contents_of(**values: object) -> Contents:
    return Contents({name: encode_value(value) for name, value in values.items()}, {}, {}, {}, {})


@given(value=_values)
def test_a_view_is_json_without_nul_whatever_the_record_holds(value: object) -> None:
    text = json_of(contents_of(value=value))
    assert text is not None
    assert "\0" not in str(json.loads(text, parse_constant=pytest.fail))


def test_a_view_says_times_and_nul_as_json_can() -> None:
    time = datetime(2026, 5, 4, 3, 2, 1, 500_000, UTC)
    text = json_of(contents_of(time=time, never=float("inf"), text="a\0b", **{"a\0": 1}))
    assert text is not None
    assert json.loads(text) == {
        "time": "2026-05-04T03:02:01.500000Z",
        "never": None,
        "text": "a\N{REPLACEMENT CHARACTER}b",
        "a\N{REPLACEMENT CHARACTER}": 1,
    }


def test_text_that_only_looks_like_an_escape_stays() -> None:
    text = json_of(contents_of(text="\\u0000", other="\\\0"))
    assert text is not None
    assert json.loads(text) == {"text": "\\u0000", "other": "\\\N{REPLACEMENT CHARACTER}"}


def test_what_is_neither_json_nor_a_time_is_null() -> None:
    strange = msgspec.msgpack.encode({1: msgspec.msgpack.Ext(7, b"x"), None: 2})
    text = json_of(
        Contents({"value": strange}, {"tags": ['"\\ud800"']}, {}, {"list": [b"\xc1", b"\x01"]}, {})
    )
    assert text is not None
    assert json.loads(text) == {"value": None, "tags": [None], "list": [None, 1]}


def test_a_record_past_the_limit_has_no_view() -> None:
    assert json_of(contents_of(value="x" * JSON_BYTES_MAX)) is None


async def test_postgres_takes_every_view(database: Database) -> None:
    nasty = [
        "\0", "\\u0000", "\ud7ff\ue000\U0010ffff", 1e308, -5e-324, -0.0, (1 << 64) - 1, [[]] * 50,
        {"": {"\0": 1, "\0\0": 2}}, json.loads("[" * 200 + "]" * 200),
    ]  # fmt: skip
    for value in nasty:
        text = json_of(contents_of(value=value))
        assert text is not None
        assert await database.pool.fetchval("SELECT $1::jsonb IS NOT NULL", text)


# ---------------------------------------------------------------------------------------------------- folding


@given(seed=st.integers(0, 2**32))
def test_folding_in_any_batches_comes_to_the_same(seed: int) -> None:
    """An honest history folded in one go, update by update, and in random batches: the same digest, clocks and JSON."""
    chance = random.Random(seed)
    log = History.random(chance).log
    updates = [Update(position, client, update) for position, (client, update) in enumerate(log, 1)]
    cuts = sorted(chance.sample(range(1, len(updates)), chance.randrange(len(updates))))
    results = set()
    for bounds in ([], cuts, list(range(1, len(updates)))):
        snapshot = folded = None
        for start, end in zip([0, *bounds], [*bounds, len(updates)], strict=True):
            outcome = fold_record(Work("notes", "a", snapshot, updates[start:end]))
            folded = outcome.folded
            assert folded is not None
            assert not outcome.refused
            snapshot = folded.snapshot
        assert folded is not None
        value = json.dumps(json.loads(folded.value or "null"), sort_keys=True)
        clocks = tuple(sorted(msgspec.msgpack.decode(folded.clocks).items()))
        results.add((folded.digest, clocks, folded.deleted, folded.position, value))
    assert len(results) == 1


@given(seed=st.integers(0, 2**32))
def test_a_creation_folds_to_the_same_without_the_worker(seed: int) -> None:
    client, update = History.random(random.Random(seed), devices=1, steps=0).log[0]
    simple = fold_creation("notes", "a", Update(3, client, update))
    outcome = fold_record(Work("notes", "a", None, [Update(3, client, update)]))
    assert simple is not None
    assert outcome.folded is not None
    assert simple.snapshot is update
    assert (simple.digest, simple.deleted) == (outcome.folded.digest, outcome.folded.deleted)
    assert msgspec.msgpack.decode(simple.clocks) == msgspec.msgpack.decode(outcome.folded.clocks)
    assert json.loads(simple.value or "") == json.loads(outcome.folded.value or "")


def test_a_repeat_is_passed_over_and_a_gap_is_named() -> None:
    made = creation(7, title="a")
    writer = Writer(8, made)
    first, second, third = writer.set("title", "b"), writer.set("title", "c"), writer.set("title", "d")
    updates = [
        Update(position, client, update)
        for position, (client, update) in enumerate(
            [(7, made), (7, made), (8, first), (8, third), (8, second)], 1
        )
    ]
    outcome = fold_record(Work("notes", "a", None, updates))
    assert outcome.folded is not None
    assert outcome.folded.position == 5
    assert json.loads(outcome.folded.value or "")["title"] == "c"
    assert [(refused.position, refused.reason.split(":")[0]) for refused in outcome.refused] == [(4, "gap")]


def test_a_snapshot_that_cannot_be_read_again_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way it differs: other clocks, other contents."""
    work = Work("notes", "a", None, [Update(1, 7, creation(7, title="a"))])
    honest = Document.load

    def load_other(snapshot: bytes | None, updates: list[bytes], *, client: int) -> Document:
        return honest(snapshot and creation(7, title="b"), updates, client=client)

    def load_longer(snapshot: bytes | None, updates: list[bytes], *, client: int) -> Document:
        return honest(snapshot and creation(7, title="a", more=1), updates, client=client)

    for load, told in ((load_other, "contents"), (load_longer, "clocks")):
        monkeypatch.setattr(Document, "load", load)
        doubt = fold_record(work).doubt
        assert doubt is not None
        assert doubt.startswith("reload_differs: ")
        assert told in doubt


# ------------------------------------------------------------------------------------------------- the worker


def edited(record: str, position: int) -> Work:
    """An honest record with one edit."""
    made = creation(7, title="a")
    return Work("notes", record, made, [Update(position, 8, Writer(8, made).set("title", record))])


async def test_a_record_that_kills_the_worker_is_refused_alone(folding: Folding) -> None:
    poison = edited("bad", 2)
    poison = Work("notes", "bad", crashing_snapshot(), poison.updates)
    outcomes, troubled = await folding.fold([edited("a", 1), poison, edited("c", 3)])
    assert troubled == {1}
    assert [outcome.folded is not None for outcome in outcomes] == [True, False, True]
    ((position, reason),) = [(refused.position, refused.reason) for refused in outcomes[1].refused]
    assert position == 2
    assert reason == "crash: the worker ended by SIGSEGV"


async def test_a_panic_of_pycrdt_is_refused_by_its_name(folding: Folding) -> None:
    snapshot = bytes.fromhex(HAZARDS["a division by zero"])
    outcomes, _ = await folding.fold(
        [Work("notes", "bad", snapshot, edited("bad", 1).updates), edited("b", 2)]
    )
    assert outcomes[0].refused[0].reason.startswith("panic: ")
    assert outcomes[1].folded is not None


async def test_a_record_that_takes_too_long_is_refused_and_the_next_goes_on() -> None:
    slow = write_creation(7, [(b"%d" % number, b"\xc0") for number in range(60_000)])
    folding = Folding(memory_bytes_max=MEMORY_BYTES, cpu_s=0.05)
    try:
        outcomes, troubled = await folding.fold(
            [Work("notes", "slow", None, [Update(1, 7, slow)]), edited("b", 2)]
        )
    finally:
        await folding.close()
    assert outcomes[0].refused[0].reason.startswith("time: ")
    assert outcomes[1].folded is not None
    assert troubled == {0}


async def test_a_record_that_takes_too_much_memory_is_refused_and_the_next_goes_on() -> None:
    # 4 MB of maps that hold a map: 300 bytes in memory for each 3, past what this worker may have.
    large = write_creation(
        7, [(b"a", b"\xdd" + (1_390_000).to_bytes(4, "big") + b"\x81\x01\x80" * 1_390_000)]
    )
    folding = Folding(memory_bytes_max=400 * 1024 * 1024)
    try:
        outcomes, _ = await folding.fold(
            [Work("notes", "large", None, [Update(1, 7, large)]), edited("b", 2)]
        )
    finally:
        await folding.close()
    assert outcomes[0].refused[0].reason.startswith("memory: ")
    assert outcomes[1].folded is not None


async def test_a_worker_killed_from_outside_blames_nobody(folding: Folding) -> None:
    """Again and again, in the middle of its work: every record is folded all the same."""
    works = [edited(f"{number}", number + 1) for number in range(400)]
    killed: set[int] = set()

    async def kill() -> None:
        while len(killed) < 5:
            await asyncio.sleep(0.02)
            if folding.pid is not None and folding.pid not in killed:
                killed.add(folding.pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(folding.pid, signal.SIGKILL)

    killing = asyncio.create_task(kill())
    while not killing.done():
        outcomes, _ = await folding.fold(works)
        assert all(outcome.folded and not outcome.refused for outcome in outcomes)
    assert len(killed) == 5


@pytest.mark.parametrize(("kills", "is_blamed"), [(5, False), (50, True)])
async def test_an_update_is_blamed_for_kills_only_if_they_never_end(
    folding: Folding, monkeypatch: pytest.MonkeyPatch, kills: int, *, is_blamed: bool
) -> None:
    """It may be the system that kills whatever takes all memory; and it may be somebody's mistake."""
    honest = folding._fold_in_order
    left = kills

    async def fold_and_be_killed(works: Sequence[Work], outcomes: list[Outcome]) -> None:
        nonlocal left
        if left:
            left -= 1
            os.kill((await folding._started()).pid, signal.SIGKILL)
        await honest(works, outcomes)

    monkeypatch.setattr(folding, "_fold_in_order", fold_and_be_killed)
    (outcome,), troubled = await folding.fold([edited("a", 1)])
    assert troubled == {0}
    assert (outcome.folded is None) == is_blamed
    assert [refused.reason[:7] for refused in outcome.refused] == ["killed:"] * is_blamed


async def test_a_worker_that_cannot_start_says_nothing_about_a_record() -> None:
    folding = Folding(memory_bytes_max=50_000_000)
    with pytest.raises(WorkerFailed, match="PJAIS_MATERIALIZE_MEMORY_BYTES_MAX"):
        await folding.fold([edited("a", 1)])
    assert folding.pid is None


async def test_a_cancelled_fold_leaves_no_worker_that_would_answer_the_next(
    folding: Folding, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = 0

    def counted(data: bytes) -> Outcome:
        nonlocal answers
        answers += 1
        return outcome_of(data)

    monkeypatch.setattr("server.materialize.folding.outcome_of", counted)
    task = asyncio.create_task(folding.fold([edited(f"{number}", number + 1) for number in range(2_000)]))
    await eventually(lambda: answers > 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (outcome,), _ = await folding.fold([edited("z", 9)])
    assert isinstance(outcome, Outcome)
    assert outcome.folded is not None
    assert json.loads(outcome.folded.value or "")["title"] == "z"


# --------------------------------------------------------------------------------------------------- one turn


async def test_a_space_is_folded_with_its_digest_count_and_views(
    space: Space, database: Database, folding: Folding
) -> None:
    made = creation(7, title="a", n=5)
    writer = Writer(8, made)
    await space.write(
        ("a", 7, made), ("b", 7, creation(7, title="only made")), ("a", 8, writer.set("title", "edited"))
    )
    await catch_up(database, folding)
    documents = await space.documents()
    assert {record: document["value"] for record, document in documents.items()} == {
        "a": {"title": "edited", "n": 5},
        "b": {"title": "only made"},
    }
    assert {record: document["position"] for record, document in documents.items()} == {"a": 3, "b": 2}
    assert documents["b"]["snapshot"] == creation(7, title="only made"), "a creation is its own snapshot"
    assert await space.is_folded()
    await space.check_digest()

    await space.write(("a", 8, writer.set("n", 6)))
    await catch_up(database, folding)
    assert (await space.documents())["a"]["value"] == {"title": "edited", "n": 6}
    await space.check_digest()


async def test_a_tombstone_marks_the_row_and_a_restore_clears_it(
    space: Space, database: Database, folding: Folding
) -> None:
    made = creation(7, title="a")
    writer = Writer(8, made)
    await space.write(("a", 7, made), ("a", 8, writer.set(DELETED, value=True)))
    await catch_up(database, folding)
    row = (await space.documents())["a"]
    assert (row["deleted"], row["value"]) == (True, {"title": "a"})
    await space.write(("a", 8, writer.set(DELETED, value=False)))
    await catch_up(database, folding)
    assert not (await space.documents())["a"]["deleted"]
    assert (await space.standing()).records == 1
    await space.check_digest()


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_folding_from_scratch_comes_to_what_folding_as_it_came_did(
    seed: int, database_url: str, server_settings: Settings
) -> None:
    """Several records of several devices, mixed in one log that grows between turns of any size."""

    async def check() -> None:
        chance = random.Random(seed)
        database = await Database.connect(database_url, server_settings)
        folding = Folding(memory_bytes_max=MEMORY_BYTES)
        try:
            space = Space(database)
            logs = {f"r{number}": History.random(chance).log for number in range(chance.randrange(1, 6))}
            waiting = [record for record, log in logs.items() for _ in log]
            chance.shuffle(waiting)
            taken = dict.fromkeys(logs, 0)
            while waiting:
                edits = []
                for record in waiting[: chance.randrange(1, 30)]:
                    edits.append((record, *logs[record][taken[record]]))
                    taken[record] += 1
                del waiting[: len(edits)]
                await space.write(*edits)
                if chance.random() < 0.7:
                    async with database.connection() as connection:
                        await fold_spaces(
                            connection, folding, [space.id], rows_max={space.id: chance.randrange(1, 40)}
                        )
            await catch_up(database, folding)
            stands, documents = await space.standing(), await space.documents()
            await space.check_digest()
            assert not await space.quarantine()

            async with database.connection() as connection:
                assert await fold_anew(connection, folding, space.id) == space.head
            assert await space.standing() == stands
            anew = await space.documents()
            assert anew.keys() == documents.keys() == logs.keys()
            for record, document in anew.items():
                for column in ("position", "clocks", "digest", "deleted", "value"):
                    assert document[column] == documents[record][column]
        finally:
            await folding.close()
            await database.close()

    run(check())


async def test_the_limits_of_a_turn_change_nothing_but_its_size(
    space: Space, database: Database, folding: Folding, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {f"{number}": creation(7, title=f"{number}" * 50) for number in range(12)}
    writers = {record: Writer(8, update) for record, update in made.items()}
    await space.write(*((record, 7, update) for record, update in made.items()))
    await catch_up(database, folding)
    for round in range(3):
        await space.write(
            *((record, 8, writer.set("title", f"{round}")) for record, writer in writers.items())
        )
    for name, limit in (
        ("_FOLDS_MAX", 5),
        ("_SNAPSHOT_BYTES_MAX", 300),
        ("_LOG_BYTES_MAX", 200),
        ("ROWS_MAX", 4),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(batch, name, limit)
            async with database.connection() as connection:
                turn = await fold_spaces(connection, folding, [space.id])
            assert turn.behind == [space.id]
            assert 0 < turn.positions[space.id] < space.head
        await space.check_digest()
    await catch_up(database, folding)
    assert await space.is_folded()
    assert {document["value"]["title"] for document in (await space.documents()).values()} == {"2"}
    await space.check_digest()


async def test_a_large_creation_goes_through_the_worker_and_comes_to_the_same(
    space: Space, database: Database, folding: Folding
) -> None:
    large = creation(7, text="x" * 100_000)
    await space.write(("a", 7, large))
    await catch_up(database, folding)
    assert folding.pid is not None
    folded = fold_creation("notes", "a", Update(1, 7, large))
    assert folded is not None
    assert (await space.documents())["a"]["digest"] == folded.digest


async def test_a_turn_that_was_overtaken_commits_nothing(
    space: Space, database: Database, folding: Folding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the lock had failed: both fold from the same position, and the second to commit finds it moved."""
    await space.write(("a", 7, creation(7, title="a")), ("b", 7, creation(7, title="b")))
    honest = batch._fold

    async def fold_and_be_overtaken(*arguments: Any) -> None:
        await honest(*arguments)
        monkeypatch.setattr(batch, "_fold", honest)
        async with database.connection() as connection:
            await fold_spaces(connection, folding, [space.id])

    monkeypatch.setattr(batch, "_fold", fold_and_be_overtaken)

    async def no_lock(_connection: object, spaces: list[UUID]) -> list[UUID]:
        return spaces

    monkeypatch.setattr(tables, "try_lock", no_lock)
    async with database.connection() as connection:
        turn = await fold_spaces(connection, folding, [space.id])
    assert turn.positions == {}
    assert turn.unread == [space.id]
    assert await space.is_folded()
    await space.check_digest()


async def test_a_space_that_another_process_folds_is_left_to_it(
    space: Space, database: Database, folding: Folding
) -> None:
    await space.write(("a", 7, creation(7, title="a")))
    async with database.connection() as one, database.connection() as other:
        assert await tables.try_lock(one, [space.id]) == [space.id]
        turn = await fold_spaces(other, folding, [space.id])
        assert (turn.positions, turn.behind) == ({}, [])
    async with database.connection() as third:
        assert (await fold_spaces(third, folding, [space.id])).positions == {space.id: 1}


async def test_readers_see_the_old_documents_until_a_space_is_folded_anew(
    space: Space, database: Database, folding: Folding, monkeypatch: pytest.MonkeyPatch
) -> None:
    await space.write(*((f"{number}", 7, creation(7, title="a")) for number in range(10)))
    await catch_up(database, folding)
    seen = []
    honest = batch._commit

    async def look_and_commit(*arguments: Any) -> None:
        await honest(*arguments)
        seen.append(((await space.standing()).position, len(await space.documents())))

    monkeypatch.setattr(batch, "_commit", look_and_commit)
    monkeypatch.setattr(batch, "ROWS_MAX", 3)
    async with database.connection() as connection:
        await fold_anew(connection, folding, space.id)
    assert seen == [(10, 10)] * 4
    await space.check_digest()


# ---------------------------------------------------------------------------------------------------- poison


async def test_hostile_updates_in_the_log_stop_nobody(
    space: Space, database: Database, folding: Folding
) -> None:
    """Each is put into quarantine with its reason; its record, its space and other spaces go on."""
    other = Space(database)
    made = creation(3, title="a")
    writer = Writer(8, made)
    await other.write(("a", 3, made))
    await space.write(("a", 3, made), ("fresh", 3, creation(3, title="b")))
    await space.write(*(("a", 3, bytes.fromhex(poison)) for poison in HAZARDS.values()))
    await space.write(*((f"new {poison}", 3, bytes.fromhex(poison)) for poison in HAZARDS.values()))
    await space.write(("a", 8, writer.set("title", "after")), ("last", 3, creation(3, title="c")))
    await catch_up(database, folding)

    assert await space.is_folded()
    assert await other.is_folded()
    quarantine = await space.quarantine()
    assert list(quarantine) == list(range(3, 3 + 2 * len(HAZARDS)))
    assert {reason.split(":")[0] for reason in quarantine.values()} <= {
        "kind", "client", "clients", "container", "truncated", "empty", "trailing",
    }  # fmt: skip
    documents = await space.documents()
    assert {record: document["value"]["title"] for record, document in documents.items()} == {
        "a": "after",
        "fresh": "b",
        "last": "c",
    }
    await space.check_digest()


async def test_a_record_on_which_the_worker_dies_stops_nobody(
    space: Space, database: Database, folding: Folding
) -> None:
    """Its updates are put into quarantine with the way in which the worker ended; what it held stays as it was."""
    other = Space(database)
    made = creation(3, title="a")
    writers = {record: Writer(8, made) for record in "abc"}
    await space.write(*((record, 3, made) for record in "abc"))
    await other.write(("a", 3, made))
    await catch_up(database, folding)
    # The check lets nothing through that is known to kill: so the poison is put behind it, into the snapshot.
    await database.pool.execute(
        "UPDATE documents SET snapshot = $2 WHERE space_id = $1 AND record_id = 'b'",
        space.id,
        crashing_snapshot(),
    )
    before = (await space.standing()).digest
    await space.write(*((record, 8, writer.set("title", "b")) for record, writer in writers.items()))
    await other.write(("a", 8, Writer(8, made).set("title", "b")))
    await catch_up(database, folding)

    assert await space.is_folded()
    assert await other.is_folded()
    assert await space.quarantine() == {5: "crash: the worker ended by SIGSEGV"}
    documents = await space.documents()
    assert [documents[record]["value"]["title"] for record in "abc"] == ["b", "a", "b"]
    assert (await space.standing()).digest != before
    assert (await space.standing()).digest == add_digests(
        *(int.from_bytes(document["digest"], "big") for document in documents.values())
    )


async def test_a_space_in_trouble_gets_small_turns_that_grow_again(
    space: Space, database: Database, folding: Folding
) -> None:
    made = creation(3, title="a")
    await space.write(("a", 3, made))
    await catch_up(database, folding)
    await database.pool.execute("UPDATE documents SET snapshot = $1", crashing_snapshot())
    writer = Writer(8, made)
    follower = Follower(database, folding)
    await space.write(("a", 8, writer.set("title", "b")))
    await follower.catch_up()
    assert follower._rows_max == {space.id: 1}
    await space.write(*((f"{number}", 3, made) for number in range(2 * ROWS_MAX // 1_000)))
    positions = []
    while not await space.is_folded():
        await follower._look()
        await follower._next_turn()
        positions.append((await space.standing()).position)
    assert [after - before for before, after in zip([2, *positions], positions, strict=False)] == [
        1,
        2,
        4,
        8,
        1,
    ]


async def test_what_postgres_does_not_take_is_put_aside_alone(
    space: Space, database: Database, folding: Folding
) -> None:
    await database.pool.execute("ALTER TABLE documents ADD CHECK (record_id <> 'bad')")
    other = Space(database)
    await other.write(("a", 3, creation(3, title="a")))
    await space.write(*((record, 3, creation(3, title="a")) for record in ("a", "b", "bad", "c", "d")))
    await catch_up(database, folding)
    assert await other.is_folded()
    assert await space.is_folded()
    assert (await space.documents()).keys() == {"a", "b", "c", "d"}
    ((position, reason),) = (await space.quarantine()).items()
    assert position == 3
    assert reason.startswith("not_taken: ")
    await space.check_digest()


# ---------------------------------------------------------------------------------------------------- follow


@contextlib.asynccontextmanager
async def following(follower: Follower) -> AsyncIterator[None]:
    task = asyncio.create_task(follower.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_notice_is_enough_and_so_is_none(space: Space, database: Database, folding: Folding) -> None:
    await space.write(("a", 7, creation(7, title="before anyone listens")))
    async with following(Follower(database, folding, look_interval_s=3_600)):
        await eventually(space.is_folded)
        await space.write(("b", 7, creation(7, title="told")))
        await space.announce()
        await eventually(space.is_folded)
    async with following(Follower(database, folding, look_interval_s=0.02)):
        await space.write(("c", 7, creation(7, title="not told")))
        await eventually(space.is_folded)
    await space.check_digest()


async def test_whoever_waits_is_told_after_the_commit(
    space: Space, database: Database, folding: Folding
) -> None:
    told: asyncio.Queue[tuple[UUID, int]] = asyncio.Queue()

    def on_notice(_line: object, _pid: int, _channel: str, payload: object) -> None:
        for notice in read_notices(str(payload)):
            told.put_nowait(notice)

    async with listening(database) as line:
        await line.add_listener(MATERIALIZED, on_notice)
        await space.write(("a", 7, creation(7, title="a")), ("b", 7, creation(7, title="b")))
        await catch_up(database, folding)
        assert await asyncio.wait_for(told.get(), 10) == (space.id, 2)
        assert await space.is_folded()


async def test_a_large_import_holds_another_space_up_for_one_turn(
    space: Space, database: Database, folding: Folding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "ROWS_MAX", 10)
    small = Space(database)
    await space.write(*((f"{number}", 7, creation(7, title="a")) for number in range(100)))
    await small.write(("a", 7, creation(7, title="a")))
    follower = Follower(database, folding)
    await follower._look()
    await follower._next_turn()
    assert (await space.standing()).position == 10
    await follower._next_turn()
    assert await small.is_folded()
    await follower.catch_up()
    assert await space.is_folded()


async def test_it_goes_on_after_postgres_ended_its_connections(
    space: Space, database: Database, folding: Folding, database_url: str
) -> None:
    own = await Database.connect(
        database_url, load_settings(pool_size_min=1, pool_size_max=2), application="pjais-materialize"
    )
    try:
        async with following(Follower(own, folding, look_interval_s=0.05)):
            for number in range(3):
                await space.write((f"{number}", 7, creation(7, title="a")))
                await eventually(space.is_folded)
                await database.pool.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name LIKE 'pjais-materialize%'"
                )
    finally:
        await own.close()
    await space.check_digest()


async def test_two_at_once_share_the_spaces_and_lose_nothing(
    database: Database, folding: Folding, database_url: str
) -> None:
    spaces = [Space(database) for _ in range(4)]
    writers = [Writer(8, creation(7, title="a")) for _ in spaces]
    for space in spaces:
        await space.write(("doc", 7, creation(7, title="a")))
    other_folding = Folding(memory_bytes_max=MEMORY_BYTES)
    own = await Database.connect(database_url, load_settings(pool_size_min=1, pool_size_max=2))
    try:
        async with (
            following(Follower(database, folding, look_interval_s=0.01)),
            following(Follower(own, other_folding, look_interval_s=0.01)),
        ):
            for number in range(25):
                for space, writer in zip(spaces, writers, strict=True):
                    await space.write(
                        (f"{number}", 7, creation(7, title="new")),
                        ("doc", 8, writer.set("title", f"{number}")),
                    )
            for space in spaces:
                await eventually(space.is_folded)
    finally:
        await other_folding.close()
        await own.close()
    for space in spaces:
        assert (await space.documents())["doc"]["value"]["title"] == "24"
        assert not await space.quarantine()
        await space.check_digest()


# ---------------------------------------------------------------------------------------------- the process


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Iterator[Any]:
    """Start the real process, as the server does."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "server.materialize"],
                stdin=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PJAIS_DATABASE_URL": database_url},
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def workers_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    return []


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker in /proc")


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["process", "worker"])
async def test_killed_in_the_middle_it_loses_nothing_and_the_digest_is_right(
    space: Space, database: Database, folding: Folding, start: Any, victim: str
) -> None:
    """Five kills at random moments at which some of the log was not folded yet."""
    chance = random.Random(20)
    made = creation(7, title="a")
    writers = {f"{number}": Writer(8, made) for number in range(60)}
    await space.write(*((record, 7, made) for record in writers))
    process = start()
    rounds = kills = 0
    while kills < 5:
        await eventually(space.is_folded, within_s=60)
        rounds += 1
        await space.write(
            *((record, 8, writer.set("title", f"{rounds}")) for record, writer in writers.items()),
            *((f"new {rounds} {number}", 7, made) for number in range(300)),
        )
        await space.announce()
        await asyncio.sleep(chance.random() * 0.15)  # sleep: any moment will do
        kills += not await space.is_folded()
        workers = workers_of(process.pid)
        if victim == "process":
            process.kill()
            process.wait()
            process = start()
        else:
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
    await eventually(space.is_folded, within_s=60)
    documents = await space.documents()
    assert len(documents) == 60 + rounds * 300
    assert {documents[record]["value"]["title"] for record in writers} == {f"{rounds}"}
    assert not await space.quarantine()
    await space.check_digest()
    stands = await space.standing()
    async with database.connection() as connection:
        await fold_anew(connection, folding, space.id)
    assert await space.standing() == stands


async def test_it_stops_cleanly_on_sigterm(space: Space, start: Any) -> None:
    process = start()
    await space.write(
        ("a", 7, creation(7, title="a")), ("a", 8, Writer(8, creation(7, title="a")).set("n", 1))
    )
    await eventually(space.is_folded, within_s=30)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 10) == 0


async def test_it_ends_when_whoever_started_it_is_gone(space: Space, start: Any) -> None:
    process = start()
    await space.write(
        ("a", 7, creation(7, title="a")), ("a", 8, Writer(8, creation(7, title="a")).set("n", 1))
    )
    await eventually(space.is_folded, within_s=30)
    workers = workers_of(process.pid)
    process.stdin.close()
    assert await asyncio.to_thread(process.wait, 10) == 0
    await eventually(lambda: not any(map(is_alive, workers)))


def test_without_a_database_it_says_what_is_missing() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PJAIS_DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "server.materialize"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "PJAIS_DATABASE_URL" in done.stderr


# ------------------------------------------------------------------------------------------- long documents


async def test_a_long_conversation_is_folded_append_by_append(
    space: Space, database: Database, folding: Folding
) -> None:
    made = creation(7, title="talk")
    document = Document.load(None, [made], client=8)
    await space.write(("talk", 7, made))
    for round in range(4):
        operations: list[Operation] = [
            InsertItems(
                "messages", None, tuple(encode_value({"text": f"{round} {number}"}) for number in range(300))
            ),
            InsertText("summary", 0, f"{round} 😀 "),
            SetRegister("updatedAt", encode_value(round)),
        ]
        await space.write(("talk", 8, document.edit(operations, reading=(1 << 41) + round)[0]))
        await catch_up(database, folding)
    row = (await space.documents())["talk"]
    assert [message["text"] for message in row["value"]["messages"]] == [
        f"{round} {number}" for round in range(4) for number in range(300)
    ]
    assert row["value"]["summary"] == "3 😀 2 😀 1 😀 0 😀 "
    await space.check_digest()
