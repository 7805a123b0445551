"""One opening at a time owns the file, until its process dies, however it dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from client_sdk.database import Database
from client_sdk.errors import FileInUse, NotAvailable
from tests.client_sdk.database.lines import WRITER, add, count, run_program

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


async def test_several_processes_on_one_file_are_announced_for_later(path: Path, key: bytes) -> None:
    with pytest.raises(NotAvailable, match="multi_instance"):
        await Database.open(path, key, multi_instance=True)
