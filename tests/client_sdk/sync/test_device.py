"""What sync relies on in a device's copy: one suite, run over the copy in memory and over the encrypted file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest

from client_sdk.sync.device import Replica
from client_sdk.sync.events import OutboxPlace, PendingBatch
from crdt import wire
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Note
from tests.client_sdk.sync.model import GENERATION, SPACE, MemoryReplica

BYTES = 1_000_000


class Device(Protocol):
    """A copy that can be written to and opened again."""

    @property
    def replica(self) -> Replica: ...
    async def write(self, how_many: int) -> None: ...
    async def reopen(self) -> None: ...


class InMemory:
    def __init__(self, numbers: count[int]) -> None:
        self._numbers = numbers
        self.replica = MemoryReplica(numbers)

    async def write(self, how_many: int) -> None:
        for _ in range(how_many):
            self.replica.write("notes", f"r{next(self._numbers)}", b"good")

    async def reopen(self) -> None:
        self.replica.reopen()


class OnFile:
    def __init__(self, path: Path, seed: int, stack: AsyncExitStack) -> None:
        self._path, self._seed, self._stack = path, seed, stack

    async def open(self) -> None:
        self._seed += 100
        self._client = await self._stack.enter_async_context(open_device(self._path, seed=self._seed))
        self.replica: Replica = self._client._replica

    async def write(self, how_many: int) -> None:
        notes = self._client.collection(Note)
        for number in range(how_many):
            await notes.insert(Note(title=f"note {number}"))

    async def reopen(self) -> None:
        await self._client.close()
        await self.open()


Make = Callable[[], Awaitable[Device]]


@pytest.fixture(params=["memory", "file"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    numbers = count(1)
    async with AsyncExitStack() as stack:

        async def make() -> Device:
            if request.param == "memory":
                return InMemory(numbers)
            seed = next(numbers)
            device = OnFile(tmp_path / f"{seed}.db", seed, stack)
            await device.open()
            return device

        yield make


@pytest.fixture
async def device(make: Make) -> Device:
    return await make()


async def batches(replica: Replica, *, edits_max: int = 100, bytes_max: int = BYTES) -> list[PendingBatch]:
    """Walk through the outbox as the engine does."""
    found: list[PendingBatch] = []
    place: OutboxPlace | None = None
    while (batch := await replica.pending(place, edits_max=edits_max, bytes_max=bytes_max)) is not None:
        assert 1 <= len(batch.edits) <= edits_max
        found.append(batch)
        place = OutboxPlace(batch.incarnation, batch.first + len(batch.edits) - 1)
    return found


async def page_of(writer: Device, after: int = 0) -> wire.Page:
    """Everything that a device has pending, as the server would pass it on."""
    edits = [(batch.client, edit) for batch in await batches(writer.replica) for edit in batch.edits]
    entries = [
        wire.Entry(position, edit.collection, edit.record, client, edit.update)
        for position, (client, edit) in enumerate(edits, after + 1)
    ]
    through = after + len(entries)
    return wire.Page(SPACE, after, through, through, entries)


async def test_a_new_copy_has_read_nothing_and_has_nothing_pending(device: Device) -> None:
    assert await device.replica.cursor() == ("", 0)
    assert await device.replica.pending_count() == 0
    assert await device.replica.pending(None, edits_max=10, bytes_max=BYTES) is None


async def test_writes_are_pending_in_order_numbered_from_one(device: Device) -> None:
    await device.write(5)
    assert await device.replica.pending_count() == 5
    found = await batches(device.replica, edits_max=2)
    assert [(batch.first, len(batch.edits)) for batch in found] == [(1, 2), (3, 2), (5, 1)]
    assert {(batch.incarnation, batch.client) for batch in found} == {
        (device.replica.incarnation, device.replica.client)
    }


async def test_a_batch_keeps_to_its_bytes_but_has_one_update_at_least(device: Device) -> None:
    await device.write(3)
    assert [len(batch.edits) for batch in await batches(device.replica, bytes_max=1)] == [1, 1, 1]


async def test_what_is_acknowledged_is_gone_for_good_and_the_rest_stays(device: Device) -> None:
    await device.write(5)
    incarnation = device.replica.incarnation
    for _ in range(2):  # a second time changes nothing
        await device.replica.acknowledge(incarnation, 3, [wire.Refusal(2, "bad", "why")])
        assert await device.replica.pending_count() == 2
    await device.reopen()
    assert [(batch.incarnation, batch.first) for batch in await batches(device.replica)] == [(incarnation, 4)]


async def test_an_acknowledgement_of_another_incarnation_changes_nothing(device: Device) -> None:
    await device.write(2)
    await device.replica.acknowledge(device.replica.incarnation + 1, 9, [])
    assert await device.replica.pending_count() == 2


async def test_each_opening_has_its_own_identity_and_the_oldest_work_goes_first(device: Device) -> None:
    first = (device.replica.incarnation, device.replica.client)
    await device.write(2)
    await device.reopen()
    second = (device.replica.incarnation, device.replica.client)
    await device.write(1)
    assert first[0] != second[0]
    assert first[1] != second[1]
    found = [(batch.incarnation, batch.client, batch.first) for batch in await batches(device.replica)]
    assert found == [(*first, 1), (*second, 1)]


async def test_a_page_moves_the_cursor_and_makes_both_copies_equal(make: Make) -> None:
    writer, reader = await make(), await make()
    await writer.write(4)
    page = await page_of(writer)
    assert await reader.replica.digest() != await writer.replica.digest()
    for _ in range(2):  # a repeat changes nothing
        await reader.replica.apply_page(page)
        assert await reader.replica.digest() == await writer.replica.digest()
        assert (await reader.replica.cursor())[1] == 4
        assert await reader.replica.pending_count() == 0
    await reader.reopen()
    assert (await reader.replica.cursor())[1] == 4


async def test_a_page_of_nothing_moves_the_cursor_too(device: Device) -> None:
    await device.replica.apply_page(wire.Page(SPACE, 0, 7, 9, []))
    assert (await device.replica.cursor())[1] == 7


async def test_hostile_entries_do_not_stop_the_page_that_they_are_in(device: Device) -> None:
    hostile = wire.Entry(1, "notes", "r1", 3, bytes.fromhex("01010300000000"))
    await device.replica.apply_page(wire.Page(SPACE, 0, 1, 1, [hostile]))
    assert (await device.replica.cursor())[1] == 1


async def test_a_document_that_was_fetched_moves_no_cursor(device: Device) -> None:
    await device.replica.apply_page(wire.Page(SPACE, 0, 7, 9, []))
    await device.replica.apply_documents(wire.Documents(SPACE, 0, 0, 9, []))
    assert (await device.replica.cursor())[1] == 7
    await device.replica.apply_documents(wire.Documents(SPACE, 7, 9, 9, []))
    assert (await device.replica.cursor())[1] == 9


async def test_the_generation_stays(device: Device) -> None:
    await device.replica.set_generation(GENERATION)
    await device.reopen()
    assert await device.replica.cursor() == (GENERATION, 0)


async def test_rehoming_writes_the_pending_work_anew_under_another_identity(make: Make) -> None:
    writer, reader = await make(), await make()
    await writer.write(3)
    before = (writer.replica.incarnation, writer.replica.client)
    digest = await writer.replica.digest()
    await writer.replica.rehome()
    after = (writer.replica.incarnation, writer.replica.client)
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert await writer.replica.pending_count() == 3
    found = [(batch.incarnation, batch.client, batch.first) for batch in await batches(writer.replica)]
    assert found == [(*after, 1)]
    assert (await writer.replica.digest())[1] == digest[1]
    await reader.replica.apply_page(await page_of(writer))
    assert await reader.replica.digest() == await writer.replica.digest()
