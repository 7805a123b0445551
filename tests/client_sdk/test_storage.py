"""A watch on storage tells once when a threshold is passed, once when it is well back, and nothing in between."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk import Client, StorageAlert
from client_sdk.sizes import CollectionSize, Sizes
from client_sdk.storage import StorageWatch, check_thresholds
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


async def nothing() -> Sizes:
    return Sizes({}, 0, 0)


@pytest.fixture
async def lookout(path: Path, pauses: Pauses, heard: list[StorageAlert]) -> AsyncIterator[None]:
    """A watch on a file whose length the test sets."""
    thresholds = {"file_bytes": 1_000, "wal_bytes": 500}
    watch = StorageWatch(path, thresholds, heard.append, every=60, sizes=nothing, pause=pauses.pause)
    task = asyncio.create_task(watch.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def set_length(path: Path, length: int) -> None:
    path.touch()
    os.truncate(path, length)


@pytest.mark.usefixtures("lookout")
async def test_it_tells_when_a_threshold_is_passed_and_when_it_is_well_back(
    path: Path, pauses: Pauses, heard: list[StorageAlert]
) -> None:
    await pauses.turn()
    assert heard == []
    for length in (1_000, 1_001, 5_000, 1_000, 951, 1_001, 950, 1_000, 2_000):
        set_length(path, length)
        await pauses.turn()
    set_length(path.with_name("notes.db-wal"), 501)
    await pauses.turn()
    assert heard == [
        StorageAlert("file_bytes", 1_001, 1_000, is_over=True),
        StorageAlert("file_bytes", 950, 1_000, is_over=False),
        StorageAlert("file_bytes", 2_000, 1_000, is_over=True),
        StorageAlert("wal_bytes", 501, 500, is_over=True),
    ]
    assert set(pauses.waited) == {60}


@given(st.lists(st.integers(0, 2_000), max_size=30), st.sampled_from(["collection.notes.bytes"]))
async def test_over_and_back_take_turns_and_each_is_true_when_it_is_told(
    lengths: list[int], name: str
) -> None:
    heard: list[StorageAlert] = []
    left = list(reversed(lengths))

    async def sizes() -> Sizes:
        return Sizes({"notes": CollectionSize(data_bytes=left.pop())}, 0, 0)

    async def pause(_: float) -> None:
        if not left:
            raise asyncio.CancelledError

    watch = StorageWatch(Path("none"), {name: 1_000}, heard.append, every=1, sizes=sizes, pause=pause)
    if lengths:
        with pytest.raises(asyncio.CancelledError):
            await watch.run()
    assert [alert.is_over for alert in heard] == [n % 2 == 0 for n in range(len(heard))]
    assert all(alert.bytes > 1_000 if alert.is_over else alert.bytes <= 950 for alert in heard)
    if any(length > 1_000 for length in lengths):
        assert heard


async def hear(client: Client, thresholds: dict[str, int], count: int) -> list[StorageAlert]:
    """Watch until so many alerts came."""
    heard: list[StorageAlert] = []
    done = asyncio.Event()

    async def tell(alert: StorageAlert) -> None:
        heard.append(alert)
        if len(heard) == count:
            done.set()

    watching = client.watch_storage(tell, every=0.001, thresholds=thresholds)
    await asyncio.wait_for(done.wait(), 10)
    watching.close()
    watching.close()
    return heard


async def test_file_log_disk_and_collections_are_those_of_the_client(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        await client.collection(Note).insert_many([Note(title="a", body="word " * 500) for _ in range(100)])
        names = ["file_bytes", "wal_bytes", "disk_free_bytes", "collection.notes.bytes"]
        thresholds = dict.fromkeys(names, 1) | {"disk_free_bytes": 1 << 62, "collection.tags.bytes": 1 << 20}
        alerts = {alert.what: alert for alert in await hear(client, thresholds, 4)}
        assert sorted(alerts) == sorted(names)
        assert all(alert.is_over and alert.threshold == thresholds[alert.what] for alert in alerts.values())
        assert alerts["wal_bytes"].bytes == (tmp_path / "a.db-wal").stat().st_size
        held = (await client.metrics()).collections["notes"]
        total = held.data_bytes + held.index_bytes + held.log_bytes
        assert alerts["collection.notes.bytes"].bytes == pytest.approx(total, rel=0.01)
        assert total > 100 * 2_500


async def test_the_loop_is_not_held_while_the_disk_is_asked(
    path: Path, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not answer is a `stat` that does not return."""
    asked, answer = threading.Event(), threading.Event()

    def stuck(_: Path) -> None:
        asked.set()
        answer.wait(10)
        raise OSError("the disk went away")

    monkeypatch.setattr("client_sdk.storage.file_sizes", stuck)
    watch = StorageWatch(path, {"file_bytes": 1}, print, every=1, sizes=nothing, pause=pauses.pause)
    task = asyncio.create_task(watch.run())
    while not asked.is_set():  # noqa: ASYNC110 - it is set by a thread
        await asyncio.sleep(0)
    assert not pauses.waited
    answer.set()
    await pauses.turn()  # and goes on after the error
    task.cancel()
    assert pauses.waited


async def test_it_ends_with_the_client(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with open_device(tmp_path / "a.db") as client:
        client.watch_storage(print, thresholds={"file_bytes": 1 << 40, "collection.notes.bytes": 1 << 40})
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


async def test_a_callbacks_error_does_not_end_it(
    path: Path, pauses: Pauses, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bool] = []

    async def fails(alert: StorageAlert) -> None:
        heard.append(alert.is_over)
        raise RuntimeError("a bug of the application's")

    watch = StorageWatch(path, {"file_bytes": 100}, fails, every=1, sizes=nothing, pause=pauses.pause)
    task = asyncio.create_task(watch.run())
    for length in (200, 1):
        set_length(path, length)
        await pauses.turn()
    task.cancel()
    assert heard == [True, False]
    assert "a bug of the application's" in caplog.text


async def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name a threshold: file_bytes"):
        check_thresholds({}, [])
    with pytest.raises(ValueError, match="must be at least one"):
        check_thresholds({"wal_bytes": 0}, [])
    async with open_device(tmp_path / "a.db") as client:
        with pytest.raises(
            ValueError, match=r"no threshold 'collection.songs.bytes'; .* collection.tags.bytes"
        ):
            client.watch_storage(print, thresholds={"collection.songs.bytes": 1})
        with pytest.raises(ValueError, match="more than none"):
            client.watch_storage(print, every=0, thresholds={"file_bytes": 1})
