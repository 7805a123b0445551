"""A watch on storage tells once when a limit is passed, once when it is not any longer, and nothing in between."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client_sdk import StorageAlert
from client_sdk.storage import Limits, StorageWatch
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Note

__all__: list[str] = []


class Pauses:
    """A clock turned by hand: `turn` returns when everything was looked at once more."""

    def __init__(self) -> None:
        self.waited: list[float] = []
        self._reached = asyncio.Event()
        self._go = asyncio.Event()

    async def pause(self, seconds: float) -> None:
        self.waited.append(seconds)
        self._go.clear()
        self._reached.set()
        await self._go.wait()

    async def turn(self) -> None:
        self._reached.clear()
        self._go.set()
        await asyncio.wait_for(self._reached.wait(), 10)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def heard() -> list[StorageAlert]:
    return []


@pytest.fixture
async def lookout(path: Path, pauses: Pauses, heard: list[StorageAlert]) -> AsyncIterator[None]:
    """A watch on a file whose length the test sets."""
    limits = Limits(file_bytes=1_000, wal_bytes=500)
    watch = StorageWatch(path, limits, heard.append, every=60, pause=pauses.pause)
    task = asyncio.create_task(watch.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def set_length(path: Path, length: int) -> None:
    path.touch()
    os.truncate(path, length)


@pytest.mark.usefixtures("lookout")
async def test_it_tells_when_a_limit_is_passed_and_when_it_is_not_any_longer(
    path: Path, pauses: Pauses, heard: list[StorageAlert]
) -> None:
    await pauses.turn()
    assert heard == []
    for length in (1_000, 1_001, 5_000, 1_000, 10, 2_000):
        set_length(path, length)
        await pauses.turn()
    set_length(path.with_name("notes.db-wal"), 501)
    await pauses.turn()
    assert heard == [
        StorageAlert("file", 1_001, 1_000, is_over=True),
        StorageAlert("file", 1_000, 1_000, is_over=False),
        StorageAlert("file", 2_000, 1_000, is_over=True),
        StorageAlert("wal", 501, 500, is_over=True),
    ]
    assert set(pauses.waited) == {60}


async def test_it_looks_at_once_and_the_disk_passes_its_limit_downwards(
    tmp_path: Path, pauses: Pauses, heard: list[StorageAlert]
) -> None:
    async with open_device(tmp_path / "a.db") as client:
        watching = client.watch_storage(
            heard.append, every=5, file_bytes=1, free_bytes=1 << 62, pause=pauses.pause
        )
        await pauses.turn()
        assert [(alert.what, alert.limit, alert.is_over) for alert in heard] == [
            ("file", 1, True),
            ("free", 1 << 62, True),
        ]
        watching.close()
        watching.close()


async def test_a_log_that_grows_is_told_of(tmp_path: Path, pauses: Pauses, heard: list[StorageAlert]) -> None:
    async with open_device(tmp_path / "a.db") as client:
        client.watch_storage(heard.append, wal_bytes=200_000, pause=pauses.pause)
        await pauses.turn()
        assert heard == []
        await client.collection(Note).insert_many([Note(title="a", body="word " * 500) for _ in range(100)])
        await pauses.turn()
        (alert,) = heard
        assert (alert.what, alert.is_over) == ("wal", True)
        assert alert.bytes == (tmp_path / "a.db-wal").stat().st_size


async def test_it_ends_with_the_client(tmp_path: Path, heard: list[StorageAlert]) -> None:
    before = asyncio.all_tasks()
    async with open_device(tmp_path / "a.db") as client:
        client.watch_storage(heard.append, file_bytes=1 << 40)
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


async def test_a_callbacks_error_does_not_end_it(
    path: Path, pauses: Pauses, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bool] = []

    async def fails(alert: StorageAlert) -> None:
        heard.append(alert.is_over)
        raise RuntimeError("a bug of the application's")

    task = asyncio.create_task(
        StorageWatch(path, Limits(file_bytes=1), fails, every=1, pause=pauses.pause).run()
    )
    for length in (2, 1):
        set_length(path, length)
        await pauses.turn()
    task.cancel()
    assert heard == [True, False]
    assert "a bug of the application's" in caplog.text


def test_a_watch_on_nothing_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="name a limit"):
        Limits()
    with pytest.raises(ValueError, match="more than none"):
        StorageWatch(path, Limits(file_bytes=1), print, every=0)
