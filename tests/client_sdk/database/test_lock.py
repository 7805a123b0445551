"""One opening at a time owns the file, until its process dies, however it dies."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from client_sdk.database import Connection, Database
from client_sdk.errors import FileInUse
from tests.client_sdk.database.lines import WRITER, add, count, prepare_lines, run_program, texts

__all__: list[str] = []


async def test_a_killed_process_loses_no_write_that_had_returned(path: Path, key: bytes) -> None:
    known = 0
    for kill in range(5):
        options = ("FULL", "never") if kill % 2 else ("NORMAL", "quick")
        process = run_program(WRITER, path, key.hex(), *options)
        assert process.stdout is not None
        for _ in range(40 + 90 * kill):
            known = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors.decode()
        whole = rest[: rest.rfind(b"\n") + 1].split()
        known = int(whole[-1]) if whole else known
        database = await Database.open(path, key)
        found = await database.read(count)
        assert known <= found <= known + 1
        assert await database.check() == ()
        await database.close()
        known = found


async def test_a_second_process_is_told_which_one_has_the_file(path: Path, key: bytes) -> None:
    process = run_program(WRITER, path, key.hex(), "NORMAL", "quick")
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(FileInUse, match=f"process {process.pid}") as caught:
        await Database.open(path, key)
    assert caught.value.pid == process.pid
    process.kill()
    process.communicate()
    database = await Database.open(path, key)
    assert await database.read(count) >= 1
    await database.close()


async def test_a_second_opening_in_this_process_is_refused_too(
    database: Database, path: Path, key: bytes
) -> None:
    alias = path.with_name("alias.db")
    alias.symlink_to(path)
    for name in (path, alias):
        with pytest.raises(FileInUse) as caught:
            await Database.open(name, key)
        assert caught.value.pid == os.getpid()
    assert await database.write(add("one")) == 1


async def test_several_openings_share_a_file_and_none_of_them_owns_it(path: Path, key: bytes) -> None:
    first = await Database.open(path, key, prepare=prepare_lines, multi_instance=True)
    first.admit()
    prepared: list[Connection] = []
    second = await Database.open(path, key, prepare=prepared.append, multi_instance=True)
    assert not prepared
    assert await first.write(add("one")) == 1
    assert await second.write(add("two")) == 2
    for left in (first, second):
        with pytest.raises(FileInUse, match="open it so here too") as caught:
            await Database.open(path, key)
        assert (caught.value.pid, caught.value.are_several) == (os.getpid(), True)
        await left.close()
    async with AsyncExitStack() as stack:
        owner = await Database.open(path, key)
        stack.push_async_callback(owner.close)
        assert await owner.read(texts) == ["one", "two"]
        with pytest.raises(FileInUse, match="unless all say multi_instance=True") as caught:
            await Database.open(path, key, multi_instance=True)
        assert (caught.value.pid, caught.value.are_several) == (os.getpid(), False)


async def test_who_shares_waits_while_another_one_prepares_the_file(path: Path, key: bytes) -> None:
    first = await Database.open(path, key, prepare=prepare_lines, multi_instance=True)
    opening = asyncio.ensure_future(Database.open(path, key, join=count, multi_instance=True))
    done, _ = await asyncio.wait({opening}, timeout=0.1)
    assert not done
    assert await first.write(add("prepared")) == 1
    first.admit()
    second = await opening
    assert await second.read(texts) == ["prepared"]
    await first.close()
    await second.close()


async def test_what_the_last_one_prepared_is_prepared_again_by_who_comes_alone(
    path: Path, key: bytes
) -> None:
    for _ in range(2):
        prepared: list[Connection] = []
        database = await Database.open(path, key, prepare=prepared.append, multi_instance=True)
        assert len(prepared) == 1
        await database.close()
