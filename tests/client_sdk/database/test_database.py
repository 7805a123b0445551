"""What was written is read, what failed is undone, in order, wherever it runs; and closing ends all of it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from client_sdk.config import Config
from client_sdk.database import Connection, Database, IntegrityError, SqlError
from client_sdk.database.pages import PAGE_BYTES
from client_sdk.errors import ClosedClient
from tests.client_sdk.database.lines import ALWAYS, NEVER, add, count, prepare_lines, texts

__all__: list[str] = []


@pytest.mark.parametrize("inline", ["never", "quick", "always"])
@pytest.mark.parametrize("brief", [False, True])
async def test_what_was_written_is_read_now_and_after_opening_again(
    path: Path, key: bytes, inline: Any, brief: bool
) -> None:
    database = await Database.open(path, key, config=Config(inline=inline), prepare=prepare_lines)
    assert await database.write(add("one"), brief=brief) == 1
    assert await database.read(texts, brief=brief) == ["one"]
    await database.close()
    database = await Database.open(path, key, config=Config(inline=inline))
    assert await database.read(texts, brief=brief) == ["one"]
    await database.close()


@pytest.mark.parametrize("brief", [False, True])
async def test_whatever_is_raised_in_a_transaction_undoes_all_of_it(database: Database, brief: bool) -> None:
    class Panic(BaseException):
        """What a library written in Rust raises."""

    def fail(connection: Connection) -> None:
        add("gone")(connection)
        raise Panic

    with pytest.raises(Panic):
        await database.write(fail, brief=brief)
    assert await database.read(count) == 0
    await database.write(add("stays"), brief=brief)
    assert await database.read(texts) == ["stays"]


async def test_a_constraint_may_be_broken_and_the_transaction_go_on(database: Database) -> None:
    def insert_twice(connection: Connection) -> str:
        connection.execute("INSERT INTO lines VALUES (1, 'first')")
        try:
            connection.execute("INSERT INTO lines VALUES (1, 'second')")
        except IntegrityError:
            return "there already"
        return "twice"

    assert await database.write(insert_twice) == "there already"
    assert await database.read(texts) == ["first"]


async def test_a_mistake_in_sql_is_raised_as_it_is(database: Database) -> None:
    with pytest.raises(SqlError, match="no such column"):
        await database.write(lambda connection: connection.execute("SELECT absent FROM lines"))


async def test_a_read_sees_one_state_however_many_statements_it_has(database: Database) -> None:
    """And the writer does not wait for it."""
    await database.write(add("before"))
    began, go_on = threading.Event(), threading.Event()

    def read_twice(connection: Connection) -> tuple[int, int]:
        first = count(connection)
        began.set()
        assert go_on.wait(30)
        return first, count(connection)

    reading = asyncio.ensure_future(database.read(read_twice))
    await asyncio.to_thread(began.wait, 30)
    await database.write(add("meanwhile"))
    go_on.set()
    assert await reading == (1, 1)
    assert await database.read(count) == 2


async def test_a_reader_writes_nothing(database: Database) -> None:
    with pytest.raises(SqlError, match="readonly"):
        await database.read(add("no"))
    assert await database.read(count) == 0


async def test_more_reads_than_readers_all_get_their_turn(database: Database) -> None:
    await database.write(add("one"))
    assert await asyncio.gather(*(database.read(count) for _ in range(20))) == [1] * 20


async def test_a_brief_read_that_is_not_brief_ends_on_another_thread(database: Database) -> None:
    threads = []

    def count_far(connection: Connection) -> int:
        threads.append(threading.current_thread())
        rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT count(*) FROM n"
        counted: int = connection.execute(rows).fetchone()[0]
        return counted

    assert await database.read(count_far, brief=True) == 300_000
    assert threads[0] is threading.current_thread()
    assert threads[-1] is not threading.current_thread()
    assert await database.read(count, brief=True) == 0, "and the connection is as it was"


async def test_brief_transactions_leave_other_tasks_their_turn(path: Path, key: bytes) -> None:
    database = await Database.open(path, key, config=ALWAYS, prepare=prepare_lines)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(take_turns())
    for number in range(64):
        await database.write(add(str(number)), brief=True)
    other.cancel()
    assert turns >= 4
    await database.close()


async def test_a_slow_disk_moves_brief_writes_to_the_thread(path: Path, key: bytes) -> None:
    config = Config(inline_ms_max=0)  # every commit is slower
    database = await Database.open(path, key, config=config, prepare=prepare_lines)
    threads = [await database.write(lambda _: threading.current_thread(), brief=True) for _ in range(3)]
    assert threads[0] is threading.current_thread()
    assert threading.current_thread() not in threads[1:]
    await database.close()


async def test_transactions_happen_in_the_order_in_which_they_were_handed_in(database: Database) -> None:
    told: list[int | None] = []
    writes = [database.write(add(str(n)), brief=bool(n % 3), after=told.append) for n in range(50)]
    numbers = await asyncio.gather(*writes)
    assert numbers == told == list(range(1, 51))
    assert await database.read(texts) == [str(n) for n in range(50)]


async def test_the_log_is_copied_into_the_file_as_it_grows(path: Path, key: bytes) -> None:
    database = await Database.open(
        path, key, config=Config(wal_pages=32, synchronous="NORMAL"), prepare=prepare_lines
    )
    for number in range(400):
        await database.write(add(f"{number} ".ljust(2_000, ".")), brief=True)
    log = path.with_name(path.name + "-wal")
    assert log.stat().st_size < 200 * PAGE_BYTES
    assert path.stat().st_size > 150 * PAGE_BYTES
    await database.close()


async def test_closing_lets_end_what_was_handed_in_and_refuses_the_rest(path: Path, key: bytes) -> None:
    database = await Database.open(path, key, config=NEVER, prepare=prepare_lines)
    writes = [asyncio.ensure_future(database.write(add(str(number)))) for number in range(5)]
    await asyncio.sleep(0)
    closing = [asyncio.ensure_future(database.close()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not database.is_open
    with pytest.raises(ClosedClient):
        await database.write(add("late"))
    with pytest.raises(ClosedClient):
        await database.read(count)
    await asyncio.gather(*writes, *closing)
    await database.close()
    database = await Database.open(path, key)
    assert await database.read(count) == 5
    await database.close()


async def test_a_sound_file_has_nothing_to_report(database: Database) -> None:
    await database.write(add("one"))
    assert await database.check() == ()


async def test_what_a_transaction_changed_in_memory_is_undone_with_it(database: Database) -> None:
    memory: list[str] = []

    def fail(connection: Connection) -> None:
        memory.append("changed")
        raise ZeroDivisionError

    for brief in (False, True):
        with pytest.raises(ZeroDivisionError):
            await database.write(fail, brief=brief, undo=memory.clear)
        assert not memory
    await database.write(lambda _: memory.append("stays"), undo=memory.clear)
    assert memory == ["stays"]
