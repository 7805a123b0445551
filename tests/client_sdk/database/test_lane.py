"""A cancelled transaction is whole or absent and over when that is told; and no thread holds anything back."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client_sdk.config import Config
from client_sdk.database import Connection, Database
from tests.client_sdk.database.lines import (
    NEVER,
    add,
    count,
    fill,
    open_gate,
    prepare_lines,
    run_program,
    texts,
)

__all__: list[str] = []


async def test_a_write_that_is_cancelled_is_whole_and_over_when_that_is_told(database: Database) -> None:
    with open_gate() as gate:
        told: list[int | None] = []
        writing = asyncio.ensure_future(database.write(gate, after=told.append))
        await gate.entered()
        for _ in range(3):
            writing.cancel()
            await asyncio.sleep(0)
            assert not writing.done(), "its transaction is still open"
        gate.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert told == [1]
    assert await database.read(texts) == ["behind the gate"]


async def test_a_cancelled_write_that_failed_says_so_in_its_cause(database: Database) -> None:
    with open_gate() as gate:

        def fail(connection: Connection) -> None:
            gate(connection)
            raise ZeroDivisionError

        writing = asyncio.ensure_future(database.write(fail))
        await gate.entered()
        writing.cancel()
        gate.go_on.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await writing
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert await database.read(count) == 0


async def test_cancelled_writes_among_others_leave_no_trace_in_them(path: Path, key: bytes) -> None:
    database = await Database.open(path, key, config=NEVER, prepare=prepare_lines)

    def add_two(number: int) -> Callable[[Connection], None]:
        def run(connection: Connection) -> None:
            add(f"{number} a")(connection)
            add(f"{number} b")(connection)

        return run

    writes = [asyncio.ensure_future(database.write(add_two(number))) for number in range(60)]
    await asyncio.sleep(0)
    for write in writes[::2]:
        write.cancel()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    assert outcomes[1::2] == [None] * 30
    found = await database.read(texts)
    assert len(found) == len(set(found)) == 120, "handed in is carried out, each once"
    assert all(a[:-2] == b[:-2] for a, b in zip(found[::2], found[1::2], strict=True))
    await database.close()


async def test_a_cancelled_read_is_interrupted(database: Database) -> None:
    began = threading.Event()

    def run_for_ever(connection: Connection) -> Any:
        began.set()
        return connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        ).fetchone()

    reading = asyncio.ensure_future(database.read(run_for_ever))
    await asyncio.to_thread(began.wait, 30)
    reading.cancel()  # perhaps before its statement has begun
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await asyncio.gather(*(database.read(count) for _ in range(4))) == [0] * 4


async def test_a_read_that_is_cancelled_before_its_turn_never_runs(path: Path, key: bytes) -> None:
    database = await Database.open(path, key, config=Config(readers=1, inline="never"), prepare=prepare_lines)
    with open_gate() as gate:
        first = asyncio.ensure_future(database.read(gate.hold))
        await gate.entered()
        ran: list[bool] = []
        second = asyncio.ensure_future(database.read(lambda _: ran.append(True)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.go_on.set()
        await first
    assert await database.read(count) == 0
    assert not ran
    await database.close()


async def test_opening_that_is_cancelled_leaves_nothing_open(path: Path, key: bytes) -> None:
    with open_gate() as gate:

        def prepare(connection: Connection) -> None:
            prepare_lines(connection)
            gate(connection)

        opening = asyncio.ensure_future(Database.open(path, key, prepare=prepare))
        await gate.entered()
        opening.cancel()
        gate.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
    database = await Database.open(path, key)
    assert await database.read(count) == 1
    await database.close()


async def test_a_close_that_is_cancelled_has_closed(path: Path, key: bytes) -> None:
    database = await Database.open(path, key, prepare=prepare_lines)
    with open_gate() as gate:
        writing = asyncio.ensure_future(database.write(gate))
        await gate.entered()
        closing = asyncio.ensure_future(database.close())
        await asyncio.sleep(0)
        closing.cancel()
        gate.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await writing
    database = await Database.open(path, key)
    assert await database.read(count) == 1
    await database.close()


async def test_no_thread_and_no_file_handle_stays(tmp_path: Path, key: bytes) -> None:
    path = tmp_path / "left.db"

    def handles() -> list[str]:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [target for link in links if str(path) in (target := str(link.readlink()))]

    await fill(path, key, 5)
    for thread in [thread for thread in threading.enumerate() if thread.name.startswith(path.name)]:
        thread.join(30)
        assert not thread.is_alive()
    if sys.platform == "linux":
        assert not handles()


def test_a_database_that_nobody_closed_does_not_keep_the_process_alive(path: Path, key: bytes) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from client_sdk.database import Database\n"
        "async def main():\n"
        "    global database\n"
        "    database = await Database.open(Path(sys.argv[1]), bytes.fromhex(sys.argv[2]))\n"
        "    await database.write(lambda c: c.execute('CREATE TABLE t (a)'))\n"
        "    waiting = asyncio.ensure_future(database.write(lambda c: c.execute('INSERT INTO t VALUES (1)')))\n"
        "asyncio.run(main())\n"
        "print('end')\n"
    )
    process = run_program(program, path, key.hex())
    output, errors = process.communicate(timeout=60)
    assert output == b"end\n"
    assert process.returncode == 0
    assert b"Traceback" not in errors, errors.decode()


async def test_a_transaction_holds_nothing_once_it_is_over(path: Path, key: bytes) -> None:
    class Held:
        alive = 0

        def __init__(self) -> None:
            Held.alive += 1

        def __del__(self) -> None:
            Held.alive -= 1

    database = await Database.open(path, key, config=NEVER, prepare=prepare_lines)
    held = Held()
    await database.write(lambda _, held=held: held)  # type: ignore[misc]
    await database.read(lambda _, held=held: held)  # type: ignore[misc]
    del held
    gc.collect()
    assert Held.alive == 0
    await database.close()
