"""Several instances on one file: what one commits the others see, build upon, and never undo."""

from __future__ import annotations

import asyncio
import datetime as dt
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import client_sdk
from client_sdk import Client
from client_sdk.commit import Committed, Sources
from client_sdk.errors import AlreadyRegistered, ClientError, DeclaredOtherwise, FileInUse, RecordNotFound
from client_sdk.instances import LOOK_S
from client_sdk.keys import DeviceIdentity
from client_sdk.outbox import PendingBatch
from client_sdk.seal import SpaceKey
from client_sdk.sync.events import OutboxPlace
from client_sdk.sync.http import Registered, Token
from crdt import wire
from crdt.errors import ValidationError
from tests.client_sdk.device import KEY, check_laws, open_device, sources
from tests.client_sdk.records import Line, Note, Tag
from tests.journeys.live import eventually

__all__: list[str] = []


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Client, Client]]:
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(open_device(tmp_path / "a.db", seed=seed, multi_instance=True))
            for seed in (1, 2)
        ]
        yield first, second
        await check_laws(first)
        await check_laws(second)
        assert await first.digest() == await second.digest()


# ------------------------------------------------------------------------------------------------- who may open


async def test_a_file_is_shared_or_owned_and_never_both(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_device(path, multi_instance=True):
        with pytest.raises(FileInUse, match="open it so here too"):
            await open_device(path)
        async with open_device(path, multi_instance=True):
            pass
    async with open_device(path):
        with pytest.raises(FileInUse, match="unless all say multi_instance"):
            await open_device(path, multi_instance=True)


async def test_all_instances_name_the_same_records(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_device(path, multi_instance=True) as first:
        await first.collection(Tag).insert(Tag(name="a"))
        with pytest.raises(DeclaredOtherwise, match="declarations of tags"):
            await client_sdk.open(path, records=[Note], key=KEY, multi_instance=True)
        assert await first.collection(Tag).count() == 1
    async with client_sdk.open(path, records=[Note], key=KEY, multi_instance=True):
        with pytest.raises(DeclaredOtherwise, match="declarations of tags"):
            await open_device(path, multi_instance=True)
    async with open_device(path, multi_instance=True) as again:
        assert await again.collection(Tag).count() == 1


# ------------------------------------------------------------------------------------------ what the others see


async def heard_by(client: Client, wanted: Callable[[Committed], bool]) -> Committed:
    """Wait for a commit of another instance."""
    found: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()

    def listen(committed: Committed) -> None:
        if committed.is_foreign and wanted(committed) and not found.done():
            found.set_result(committed)

    client._writer.listeners.append(listen)
    return await asyncio.wait_for(found, 30)


async def test_a_live_query_follows_what_another_instance_commits(pair: tuple[Client, Client]) -> None:
    first, second = pair
    seen: asyncio.Queue[list[str]] = asyncio.Queue()
    query = second.collection(Note).where(pinned=True).order_by("title")
    query.subscribe(lambda notes: seen.put_nowait([note.title for note in notes]))
    assert await seen.get() == []
    loop = asyncio.get_running_loop()
    delays = []
    for number in range(10):
        await first.collection(Note).insert(Note(title=str(number), pinned=True))
        began = loop.time()
        assert await asyncio.wait_for(seen.get(), 30) == [str(n) for n in range(number + 1)]
        delays.append(loop.time() - began)
    assert min(delays) < 2 * LOOK_S, "one of ten was not held up by something else"
    async with first.transaction():
        await first.collection(Note).insert(Note(title="x", pinned=True))
        await first.collection(Note).insert(Note(title="y", pinned=True))
    assert (await asyncio.wait_for(seen.get(), 30))[-2:] == ["x", "y"], "one commit, one notice"


async def test_a_notice_names_the_records_and_how_they_changed(pair: tuple[Client, Client]) -> None:
    first, second = pair
    hearing = asyncio.ensure_future(heard_by(second, lambda committed: "tags" in committed.collections))
    await asyncio.sleep(0)
    async with first.transaction():
        note = await first.collection(Note).insert(Note(title="a"))
        await first.collection(Note).update(note.id, title="b")
        await first.collection(Tag).insert(Tag(id="t", name="a"))
    heard = await hearing
    kinds = [(change.collection, change.record, change.kind) for change in heard.changes]
    assert kinds == [("notes", note.id, "inserted"), ("notes", note.id, "updated"), ("tags", "t", "inserted")]
    assert heard.collections == {"notes", "tags"}
    assert (heard.pending, heard.whole) == (3, frozenset())


async def test_of_a_large_commit_the_notice_names_the_collection(pair: tuple[Client, Client]) -> None:
    first, second = pair
    hearing = asyncio.ensure_future(heard_by(second, lambda committed: bool(committed.collections)))
    await asyncio.sleep(0)
    await first.collection(Tag).insert_many([Tag(name=str(number)) for number in range(1_000)])
    heard = await hearing
    assert (heard.changes, set(heard.whole), heard.pending) == ([], {"tags"}, 1_000)
    assert second.status.pending == 1_000


async def test_who_missed_many_notices_takes_it_that_everything_changed(pair: tuple[Client, Client]) -> None:
    first, second = pair
    note = await second.collection(Note).insert(Note(title="a"))
    assert second._lookout is not None
    await second._lookout.close()
    for number in range(700):
        await first.collection(Note).update(note.id, importance=number % 100)
    await second.collection(Note).append(note.id, scores=[1])
    found = await second.collection(Note).get(note.id)
    assert found is not None
    assert (found.importance, found.scores) == (699 % 100, [1])
    kept = (await first.sql("SELECT count(*) AS kept FROM pjais_notices"))[0]["kept"]
    assert kept <= 320


async def test_listeners_hear_of_all_commits_in_order(pair: tuple[Client, Client]) -> None:
    told: tuple[list[int], list[int]] = ([], [])
    for client, heard in zip(pair, told, strict=True):
        client._writer.listeners.append(lambda committed, heard=heard: heard.append(committed.commits))  # type: ignore[misc]
    writes = [client.collection(Tag).insert(Tag(name=str(n))) for n in range(200) for client in pair]
    await asyncio.gather(*writes)
    newest = (await pair[0].sql("SELECT commits FROM pjais_state"))[0]["commits"]
    for client, heard in zip(pair, told, strict=True):
        await eventually(
            lambda heard=heard: heard[-1] == newest,  # type: ignore[misc]
            within_s=30,
            what=lambda: "a commit was not told of",
        )
        assert heard == sorted(set(heard)), "each once, in order"
        assert await client.collection(Tag).count() == 400


async def test_no_instance_writes_with_an_older_clock_than_another_has_written(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    ahead = Sources(now_ms=lambda: 1_900_000_000_000, random=sources(1).random)
    first = client_sdk.open(path, records=[Note, Tag], key=KEY, sources=ahead, multi_instance=True)
    async with first as early, open_device(path, seed=2, multi_instance=True) as late:
        readings = []
        for client in (early, late, early, late):
            await client.collection(Tag).insert(Tag(name="a"))
            readings.append((await client.sql("SELECT clock FROM pjais_state"))[0]["clock"])
        assert readings == sorted(set(readings))


async def test_a_space_that_one_instance_entered_is_the_others_too(pair: tuple[Client, Client]) -> None:
    first, second = pair
    home = Registered("account", "space", "device", "generation", Token("t", dt.datetime.now(dt.UTC)))
    identity = DeviceIdentity.generate(bytes(32))
    await first._account._keep("http://127.0.0.1:1", home, identity, SpaceKey(bytes(32)))
    await eventually(lambda: second.space == "space")
    with pytest.raises(AlreadyRegistered, match="space space"):
        await second.register("http://127.0.0.1:1")
    second._account.membership = None  # as if it had looked a moment earlier
    with pytest.raises(AlreadyRegistered):
        await second._account._keep("http://127.0.0.1:1", home, identity, SpaceKey(bytes(32)))


async def test_an_owner_leaves_no_notices(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        await client.collection(Note).insert(Note(title="a"))
        assert await client.sql("SELECT * FROM pjais_notices") == []
        assert [tuple(row) for row in await client.sql("SELECT commits FROM pjais_state")] == [(1,)]


# ------------------------------------------------------------------------------------------------- what is sent


async def batches(client: Client) -> list[PendingBatch]:
    """Return what the engine would send: it waits for all acknowledgements before it turns to another incarnation."""
    found: list[PendingBatch] = []
    place: OutboxPlace | None = None
    while True:
        batch = await client._replica.pending(place, edits_max=100, bytes_max=1 << 20)
        if place is not None and (batch is None or batch.incarnation != place.incarnation):
            await client._replica.acknowledge(place.incarnation, place.n, [])
            place = None
        elif batch is None:
            return found
        else:
            found.append(batch)
            place = OutboxPlace(batch.incarnation, batch.first + len(batch.edits) - 1)


async def test_what_two_instances_wrote_in_turn_goes_out_in_few_batches(pair: tuple[Client, Client]) -> None:
    for number in range(40):
        await pair[number % 2].collection(Tag).insert(Tag(name=str(number)))
    sent = await batches(pair[0])
    assert [len(batch.edits) for batch in sent] == [20, 20]


async def test_a_record_that_two_instances_edit_goes_out_in_the_order_of_its_edits(
    pair: tuple[Client, Client],
) -> None:
    note = await pair[0].collection(Note).insert(Note(title="a"))
    for number in range(6):
        await pair[number % 2].collection(Note).append(note.id, scores=[number])
        await pair[number % 2].collection(Tag).insert(Tag(name="other"))
    written = [
        bytes(row["update"])
        for row in await pair[0].sql(
            'SELECT "update" FROM pjais_log JOIN pjais_documents USING (doc)'
            " WHERE collection = 'notes' ORDER BY position"
        )
    ]
    sent = [
        edit.update for batch in await batches(pair[1]) for edit in batch.edits if edit.collection == "notes"
    ]
    assert sent == written


async def test_what_comes_back_from_the_server_of_another_instance_is_here_already(
    pair: tuple[Client, Client],
) -> None:
    first, second = pair
    notes = second.collection(Note)
    note = await notes.insert(Note(title="a"))
    for number in range(60):
        await (
            pair[number % 2].collection(Note).append(note.id, lines=[Line(id=str(number), content="x" * 900)])
        )
    await notes.insert(Note(id="chosen", title="b"))
    await first.collection(Note).delete("chosen")
    entries: list[wire.Entry] = []
    for batch in await batches(first):
        for edit in batch.edits:
            place = len(entries) + 1
            entries.append(wire.Entry(place, edit.collection, edit.record, batch.client, edit.update))
    assert len(entries) == 63
    digest = await first.digest()
    log = await first.sql("SELECT count(*) FROM pjais_log")
    assert await first.sql("SELECT count(*) FROM pjais_snapshots") == [(1,)], "the note was long enough"
    for start in range(0, 63, 10):
        end = min(start + 10, 63)
        await pair[start % 20 // 10]._replica.apply_page(wire.Page("s", start, end, 63, entries[start:end]))
    for client in pair:
        assert await client._replica.cursor() == ("", 63)
        assert await client.digest() == digest
        assert await client.sql("SELECT count(*) FROM pjais_log") == log
        assert await client.sql("SELECT * FROM pjais_quarantine") == []


async def test_an_instance_whose_pending_work_another_moved_goes_on_in_the_new_incarnation(
    pair: tuple[Client, Client],
) -> None:
    first, second = pair
    note = await first.collection(Note).insert(Note(title="a"))
    await first.collection(Note).append(note.id, scores=[1])
    old = (first._replica.incarnation, first._replica.client)
    await second._replica.rehome(old[0])
    await first.collection(Note).append(note.id, scores=[2])
    assert (first._replica.incarnation, first._replica.client) != old
    (batch,) = await batches(second)
    assert (batch.incarnation, batch.client) == (first._replica.incarnation, first._replica.client)
    assert (batch.first, len(batch.edits)) == (1, 3)
    found = await second.collection(Note).get(note.id)
    assert found is not None
    assert found.scores == [1, 2]


# -------------------------------------------------------------------------- any order of anything, by anybody


@dataclass(frozen=True)
class Step:
    """What one of two instances does to one of a few records."""

    who: Literal[0, 1]
    verb: str
    record: int
    number: int


VERBS = (
    "insert",
    "update",
    "add",
    "remove",
    "increment",
    "append",
    "long",
    "cut",
    "text",
    "delete",
    "restore",
)
STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from((0, 1)),
        st.sampled_from((*VERBS, "together", "undone")),
        st.integers(0, 2),
        st.integers(0, 9),
    ),
    max_size=40,
)


async def take(client: Client, step: Step) -> bool:
    """Take a step; return whether the record let it."""
    notes, record, number = client.collection(Note), f"r{step.record}", step.number
    try:
        match step.verb:
            case "insert":
                await notes.insert(Note(id=record, title=str(number)))
            case "update":
                await notes.update(record, title=f"t{number}", settings={"a": {str(number % 3): number}})
            case "add":
                await notes.add(record, tags=[str(number % 4)])
            case "remove":
                await notes.remove(record, tags=[str(number % 4)])
            case "increment":
                await notes.increment(record, views=number)
            case "append":
                await notes.append(record, scores=[number, number + 1])
            case "long":
                await notes.append(record, lines=[Line(id=str(number), content="x" * 9_000)])
            case "cut":
                await notes.remove_items(record, "scores", 0, 1)
            case "text":
                await notes.edit_text(record, "body", insert=(0, f"é{number}"))
            case "delete":
                await notes.delete(record)
            case "restore":
                await notes.restore(record)
            case "together":
                async with client.transaction():
                    await notes.increment(record, views=1)
                    await client.collection(Tag).insert(Tag(name=str(number)))
            case "undone":
                async with client.transaction():
                    await client.collection(Tag).insert(Tag(name="undone"))
                    await notes.append(record, scores=[99])
                    raise RuntimeError("undone")
    except (ClientError, ValidationError, RuntimeError):
        return False
    return True


async def contents(client: Client) -> list[Any]:
    notes = await client.collection(Note).order_by("id").all()
    held = [
        (n.id, n.title, n.body, n.tags, n.views, n.settings, n.scores, [line.id for line in n.lines])
        for n in notes
    ]
    return [held, sorted(tag.name for tag in await client.collection(Tag).all())]


@given(STEPS)
def test_steps_of_two_instances_come_to_what_one_owner_would_have_made(steps: list[Step]) -> None:
    async def live() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with AsyncExitStack() as stack:
                pair = [
                    await stack.enter_async_context(
                        open_device(Path(folder) / "a.db", seed=seed, multi_instance=True)
                    )
                    for seed in (1, 2)
                ]
                owner = await stack.enter_async_context(open_device(Path(folder) / "b.db", seed=3))
                for step in steps:
                    assert await take(pair[step.who], step) == await take(owner, step), step
                    assert await contents(pair[1 - step.who]) == await contents(owner), step
                for client in pair:
                    await check_laws(client)
                made = await pair[0].digest()
                assert made == await pair[1].digest()
            async with open_device(Path(folder) / "a.db", seed=4) as again:
                await check_laws(again)
                assert await again.digest() == made

    asyncio.run(live())


async def test_edits_of_one_record_by_two_instances_at_once_are_all_kept(pair: tuple[Client, Client]) -> None:
    note = await pair[0].collection(Note).insert(Note(title="a"))
    edits = [
        edit
        for number in range(60)
        for client in pair
        for edit in (
            client.collection(Note).increment(note.id, views=1),
            client.collection(Note).append(note.id, scores=[number], lines=[Line(id="l", content="x" * 900)]),
        )
    ]
    await asyncio.gather(*edits)
    found = await pair[1].collection(Note).get(note.id)
    assert found is not None
    assert (found.views, sorted(found.scores)) == (120, sorted([*range(60), *range(60)]))
    assert len(found.lines) == 120
    await pair[0].collection(Note).delete(note.id)
    with pytest.raises(RecordNotFound):
        await pair[1].collection(Note).update(note.id, title="b")
