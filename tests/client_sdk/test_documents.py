"""A long document is gone on with at its tip, unread, and nothing tells it from one that was read."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client_sdk import Client, commit, documents
from client_sdk.hub import Conversation, Hub, Message
from tests.client_sdk.device import check_laws, open_device
from tests.client_sdk.hub.conftest import Pair, pair
from tests.client_sdk.records import Note

__all__ = ["pair"]


async def is_read(client: Client, record: str) -> bool:
    """Whether a record's document is in memory."""
    return await client._writer.run(
        lambda corridor: corridor.documents.find("notes", record) in corridor.documents._held
    )


async def written(path: Path, **values: Any) -> str:
    async with open_device(path) as client:
        notes = client.collection(Note)
        note = await notes.insert(Note(title="a", **values))
        await notes.update(note.id, pinned=True)
        return note.id


async def test_a_long_list_is_appended_to_and_its_record_edited_without_reading_the_document(
    path: Path,
) -> None:
    record = await written(path, scores=list(range(1_000)), tags={"t"}, views=3)
    async with open_device(path, seed=2) as client:
        notes = client.collection(Note)
        await notes.append(record, scores=[1_000, 1_001])
        await notes.append(record, scores=[1_002])
        stored = await notes.update(record, title="b", rating=0.5)
        assert not await is_read(client, record)
        assert stored.scores == list(range(1_003))
        await check_laws(client)


async def test_what_the_tip_does_not_know_reads_the_document(path: Path) -> None:
    record = await written(path, scores=list(range(1_000)))
    async with open_device(path, seed=2) as client:
        notes = client.collection(Note)
        await notes.append(record, scores=[1_000])
        assert not await is_read(client, record)
        assert (await notes.remove_items(record, "scores", 0, 1_000)).scores == [1_000]
        assert await is_read(client, record)
        await notes.append(record, scores=[1])
        await check_laws(client)
    async with open_device(path, seed=3) as client:
        assert (await client.collection(Note).update(record, scores=[5])).scores == [5]
        await check_laws(client)


async def test_a_tip_that_did_not_commit_is_forgotten(path: Path) -> None:
    record = await written(path, scores=list(range(1_000)))
    async with open_device(path, seed=2) as client:
        notes = client.collection(Note)
        await notes.append(record, scores=[1_000])
        with pytest.raises(ZeroDivisionError):
            async with client.transaction():
                await notes.append(record, scores=[-1, -2])
                raise ZeroDivisionError
        await notes.append(record, scores=[1_001])
        found = await notes.get(record)
        assert found is not None
        assert found.scores == list(range(1_002))
        await check_laws(client)


async def test_a_short_document_has_no_tip(path: Path) -> None:
    await written(path, scores=list(range(100)))
    async with open_device(path, seed=2) as client:
        assert await client.sql("SELECT * FROM pjais_tips") == []


async def test_a_deleted_long_record_is_restored_whole(path: Path) -> None:
    record = await written(path, scores=list(range(1_000)))
    for seed, verb in enumerate(("delete", "restore"), 2):
        async with open_device(path, seed=seed) as client:
            await getattr(client.collection(Note), verb)(record)
            await check_laws(client)
    async with open_device(path, seed=4) as client:
        await client.collection(Note).append(record, scores=[1_000])
        await check_laws(client)
        assert len((await client.collection(Note).all())[0].scores) == 1_001


async def test_a_document_that_was_read_meanwhile_leaves_no_older_tip(path: Path) -> None:
    record = await written(path, scores=list(range(1_000)))
    async with open_device(path, seed=2) as client:
        notes = client.collection(Note)
        await notes.append(record, scores=[1_000])
        await notes.conflicts(record, "title")
        assert await is_read(client, record)
        await notes.append(record, scores=[1_001])
        await client._writer.run(
            lambda corridor: corridor.documents._held.clear()
        )  # for others that are in use
        await notes.append(record, scores=[1_002])
        assert not await is_read(client, record)
        await check_laws(client)


VERBS = st.lists(
    st.sampled_from(
        ["append", "append", "append", "set", "remove", "insert", "add", "delete", "open", "undo"]
    ),
    max_size=40,
)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make tips from three items on, write them after three updates, and compact after a few hundred bytes."""
    monkeypatch.setattr(documents, "_TIP_ITEMS_MIN", 3)
    monkeypatch.setattr(documents, "_TIP_UPDATES_MAX", 3)
    monkeypatch.setattr(commit, "TAIL_BYTES_MIN", 300)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("end", range(1_008, 1_012))  # a tip is written every fourth time
async def test_a_new_client_id_leaves_no_tip_under_the_old_one(path: Path, end: int) -> None:
    record = await written(path, scores=list(range(1_000)))
    async with open_device(path, seed=2) as client:
        notes = client.collection(Note)
        for number in range(1_000, end):
            await notes.append(record, scores=[number])
        assert not await is_read(client, record)
        await client._replica.rehome()
        await notes.append(record, scores=[end])
        await check_laws(client)
        found = await notes.get(record)
        assert found is not None
        assert found.scores == list(range(end + 1))


@pytest.mark.usefixtures("eager")
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(verbs=VERBS, chance=st.randoms(use_true_random=True))
async def test_any_history_over_openings_keeps_the_laws(
    tmp_path_factory: pytest.TempPathFactory, verbs: list[str], chance: random.Random
) -> None:
    path, expected, seed = tmp_path_factory.mktemp("long") / "a.db", [1, 2, 3, 4], 1
    record = await written(path, scores=expected)
    client = await open_device(path, seed=seed)
    try:
        for verb in verbs:
            notes = client.collection(Note)
            number = chance.randrange(100)
            if verb == "append":
                await notes.append(record, scores=[number])
                expected = [*expected, number]
            elif verb == "set":
                await notes.update(record, **{chance.choice(["importance", "settings.a"]): number})
            elif verb == "remove" and expected:
                place = chance.randrange(len(expected))
                await notes.remove_items(record, "scores", place)
                expected = expected[:place] + expected[place + 1 :]
            elif verb == "insert":
                expected = [number, *expected]
                await notes.update(record, scores=expected)
            elif verb == "add":
                await notes.add(record, tags={str(number)})
            elif verb == "delete":
                await notes.delete(record)
                await notes.restore(record)
            elif verb == "undo":
                with pytest.raises(ZeroDivisionError):
                    async with client.transaction():
                        await notes.append(record, scores=[number])
                        raise ZeroDivisionError
            elif verb == "open":
                await client.close()
                seed += 1
                client = await open_device(path, seed=seed)
        found = await client.collection(Note).get(record)
        assert found is not None
        assert found.scores == expected
        await check_laws(client)
        await client._writer.run(lambda corridor: corridor.documents.drop_all())
        await client.collection(Note).append(record, scores=[0])
        await check_laws(client)
    finally:
        await client.close()


@pytest.mark.usefixtures("eager")
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["laptop", "phone"]), st.sampled_from(["say", "say", "archive", "forget", "meet"])
        ),
        max_size=30,
    )
)
async def test_two_devices_that_talk_at_once_end_equal_whether_they_read_the_document_or_not(
    tmp_path_factory: pytest.TempPathFactory, key: bytes, steps: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("talk")
    async with Hub.open(folder / "l.db", key=key) as laptop, Hub.open(folder / "p.db", key=key) as phone:
        pair = Pair(laptop, phone)
        first = [Message(role="user", content=str(n)) for n in range(5)]
        await laptop.conversations.insert(Conversation(id="c", messages=first))
        await laptop.conversations.archive("c")
        await pair.meet()
        for number, (who, what) in enumerate(steps):
            hub: Hub = getattr(pair, who)
            if what == "say":
                await hub.conversations.add_message("c", Message(role="user", content=f"{who} {number}"))
            elif what == "archive":
                await hub.conversations.archive("c")
            elif what == "forget":
                await hub.client._writer.run(lambda corridor: corridor.documents.drop_all())
            else:
                await pair.meet()
        await pair.meet()
        assert await laptop.conversations.get("c") == await phone.conversations.get("c")
        for hub in (laptop, phone):
            await check_laws(hub.client)


async def test_another_devices_message_is_taken_without_reading_the_document(pair: Pair) -> None:
    made = [Message(role="user", content=str(n)) for n in range(1_000)]
    await pair.laptop.conversations.insert(Conversation(id="c", messages=made))
    await pair.laptop.conversations.archive("c")
    await pair.meet()
    await pair.phone.conversations.add_message("c", Message(role="user", content="here"))
    await pair.meet()
    corridor = pair.laptop.client._writer.corridor
    await pair.laptop.client._writer.run(lambda corridor: corridor.documents.drop_all())
    await pair.phone.conversations.add_message("c", Message(role="user", content="there"))
    await pair.meet()
    assert (len(corridor.documents._held), len(corridor.documents._tips)) == (0, 1)
    assert (await pair.laptop.conversations.messages("c", -1))[0].content == "there"
    await check_laws(pair.laptop.client)
