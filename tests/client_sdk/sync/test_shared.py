"""Of several instances one syncs: what the others show is what it posts, and when it is gone another begins.

The one that syncs is played by a `Board`: what it posts is all that the others ever know of it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from client_sdk import Client
from client_sdk.errors import NotRegistered, SyncElsewhere, SyncTimeout
from client_sdk.keys import derive_key
from client_sdk.sync.account import Membership
from client_sdk.sync.board import Board, Posted
from client_sdk.sync.status import Status
from tests.client_sdk.device import KEY, open_device
from tests.client_sdk.records import Tag
from tests.journeys.live import eventually, free_port

__all__: list[str] = []


def posted(commits: int, **others: object) -> Posted:
    """Return what a leader posts when all is well."""
    fields: dict[str, object] = {
        "state": "synced",
        "cursor": 5,
        "head": 5,
        "verified": True,
        "error": "",
        "offset_ms": 40,
    }
    return Posted(commits, **(fields | others))  # type: ignore[arg-type]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Client, Client]]:
    """Two instances of a device that has a space, at a server that is not there."""
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(open_device(tmp_path / "a.db", seed=seed, multi_instance=True))
            for seed in (1, 2)
        ]
        identifier = "00000000-0000-7000-8000-000000000001"
        url = f"http://127.0.0.1:{free_port()}"
        for client in made:
            client._account.membership = Membership(url, identifier, identifier, identifier, bytes(32))
        yield made[0], made[1]


@pytest.fixture
def client(pair: tuple[Client, Client]) -> Client:
    return pair[0]


@pytest.fixture
def leader(tmp_path: Path, client: Client) -> Board:
    board = Board(tmp_path / "a.db", derive_key(KEY, b"sync status"), os.urandom)
    assert board.take()
    return board


async def shows(client: Client, state: str) -> None:
    await eventually(lambda: client.status.state == state, what=lambda: client.status)


async def test_the_status_is_what_the_leader_posts_and_what_the_file_holds(
    client: Client, leader: Board
) -> None:
    assert client.status == Status()
    leader.post(posted(commits=100, cursor=3, state="syncing", verified=None))
    await shows(client, "syncing")
    assert client.status == Status("syncing", 0, 3, 5)
    assert client._writer.corridor.clock.offset_ms == 40
    leader.post(posted(commits=100))
    await shows(client, "synced")
    assert client.status == Status("synced", 0, 5, 5, verified=True)
    await client.collection(Tag).insert(Tag(name="a"))
    assert client.status == Status("syncing", 1, 5, 5, verified=True)
    leader.post(posted(commits=1))
    await eventually(lambda: client.status.verified is None, what=lambda: client.status)


async def test_synced_waits_for_the_proof_that_comes_after_it_was_asked(
    client: Client, leader: Board
) -> None:
    commits = client._writer.told
    leader.post(posted(commits))
    await shows(client, "synced")
    waiting = asyncio.ensure_future(client.synced(30))
    await eventually(lambda: client._writer.told > commits)
    for early in (
        posted(commits, cursor=4),
        posted(commits + 9, state="syncing"),
        posted(commits + 9, verified=None),
        posted(commits, state="error", error="of before"),
    ):
        leader.post(early)
        await eventually(lambda early=early: client._switch._posted == early)  # type: ignore[attr-defined,misc]
        assert not waiting.done()
    leader.post(posted(commits + 9))
    await waiting


async def test_synced_raises_what_the_leader_has_met_since(client: Client, leader: Board) -> None:
    leader.post(posted(client._writer.told + 9, state="error", error="the server refused"))
    with pytest.raises(SyncElsewhere, match="the server refused"):
        await client.synced(30)
    assert client.status.state == "error"
    assert "the server refused" in str(client.status.last_error)
    leader.post(posted(100, state="offline"))
    await shows(client, "offline")
    with pytest.raises(SyncTimeout, match="wait longer"):
        await client.synced(0.1)


async def test_statuses_yield_what_the_leader_posts(client: Client, leader: Board) -> None:
    statuses = client.statuses()
    assert (await anext(statuses)).state == "offline"
    leader.post(posted(100))
    assert (await anext(statuses)).state == "synced"
    leader.leave()
    assert (await anext(statuses)).state == "offline"
    await statuses.aclose()  # type: ignore[attr-defined]


async def test_who_wants_sync_takes_over_and_who_does_not_shows_that_nobody_syncs(
    pair: tuple[Client, Client], leader: Board
) -> None:
    first, second = pair
    await first.connect()
    leader.post(posted(100))
    for client in pair:
        await shows(client, "synced")
    assert first._runner is None
    leader.close()  # as the system does when its process dies
    await eventually(lambda: first._runner is not None)
    await eventually(lambda: second.status.state != "synced", what=lambda: second.status)
    await second.connect()
    assert second._runner is None
    await first.disconnect()
    await eventually(lambda: second._runner is not None)
    assert first._runner is None


async def test_the_lock_is_held_until_the_runner_has_stopped(
    pair: tuple[Client, Client], client: Client
) -> None:
    first, second = pair
    await first.connect()
    await second.connect()
    runner = first._runner
    assert runner is not None
    assert runner._task is not None
    is_over: list[bool] = []
    took_over = second._switch._start

    def start(on_status: object) -> None:
        assert runner._task is not None
        is_over.append(runner._task.done())
        took_over(on_status)  # type: ignore[arg-type]

    second._switch._start = start  # type: ignore[method-assign]
    await asyncio.gather(first.disconnect(), first.disconnect())
    await eventually(lambda: second._runner is not None)
    assert is_over == [True]


async def test_without_a_space_no_instance_connects_until_one_has_registered(tmp_path: Path) -> None:
    async with (
        open_device(tmp_path / "b.db", multi_instance=True) as first,
        open_device(tmp_path / "b.db", seed=2, multi_instance=True) as second,
    ):
        for client in (first, second):
            with pytest.raises(NotRegistered):
                await client.connect()
            with pytest.raises(NotRegistered):
                await client.synced(1)
        assert not second.is_registered
