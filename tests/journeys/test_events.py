"""What a device hears of another's work, and of coming into step, through a running server."""

from __future__ import annotations

import asyncio

from client_sdk import Event
from tests.client_sdk.records import Tag
from tests.journeys.conftest import Opens
from tests.journeys.live import LiveServer

__all__: list[str] = []


async def test_another_devices_change_is_remote_and_being_in_step_is_told(
    opens: Opens, server: LiveServer
) -> None:
    first, second = await opens("first"), await opens("second")
    await first.register(server.url)
    await second.join(server.url, await first.invite())
    assert first.server_url == second.server_url == server.url
    events = second.events()
    await second.synced(timeout=30)
    assert await asyncio.wait_for(anext(events), 30) == Event("synced")
    tag = await first.collection(Tag).insert(Tag(name="a"))
    await first.synced(timeout=30)
    async with asyncio.timeout(30):
        event = await anext(events)
        assert isinstance(event, Event)
        assert (event.kind, event.collection, event.records) == ("inserted", "tags", (tag.id,))
        assert event.is_remote
        await second.synced()
        assert await anext(events) == Event("synced")
    metrics = await second.metrics()
    assert metrics.sync.verified is True
    assert metrics.sync.cursor == metrics.sync.head > 0
    assert metrics.collections["tags"].records == 1
    assert (metrics.sync.pulls, metrics.sync.pulled, metrics.sync.pushes) == (1, 1, 0)
    assert metrics.remote.count >= 1
    sent = (await first.metrics()).sync
    assert (sent.pushes, sent.pushed, sent.refused) == (1, 1, 0)
    assert sent.last_synced is not None


async def test_an_instance_that_leaves_sync_to_another_hears_of_being_in_step(
    opens: Opens, server: LiveServer
) -> None:
    first, second = await opens("both", multi_instance=True), await opens("both", multi_instance=True)
    await first.register(server.url)
    events = second.events(kinds=["synced"])
    await first.synced(timeout=30)
    await second.connect()
    assert await asyncio.wait_for(anext(events), 30) == Event("synced")
    assert (await second.metrics()).sync.last_synced is not None
