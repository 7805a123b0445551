"""What a file sealed before it joined a space opens afterwards on the other devices, and nothing of it is lost."""

from __future__ import annotations

from pathlib import Path

import client_sdk
from client_sdk import Client, SealedValue
from client_sdk.reseal import take_key
from client_sdk.seal import SpaceKey
from client_sdk.sync.replica import apply_page
from crdt import wire
from crdt.changes import SetRegister
from crdt.document import Document
from crdt.values import encode_value
from tests.client_sdk.device import KEY, check_laws, open_device, sources
from tests.client_sdk.records import Note, Tag

__all__: list[str] = []

SPACE = SpaceKey(b"s" * 32)
NONCE = bytes(12)


async def take(client: Client, key: SpaceKey = SPACE) -> None:
    await client._writer.run(lambda corridor: take_key(corridor, key))


async def secrets_under(client: Client, key: SpaceKey, records: list[str]) -> dict[str, object]:
    """Return what a device that has only this key reads, by record."""
    seals = client._writer.corridor.seals
    before, seals.keys = seals.keys, (key,)
    try:
        return {
            record: note.secret
            for record in records
            if (note := await client.collection(Note).get(record)) is not None
        }
    finally:
        seals.keys = before


async def test_what_was_sealed_before_opens_under_the_key_of_the_space(path: Path) -> None:
    async with open_device(path) as client:
        notes = client.collection(Note)
        made = await notes.insert_many(
            [Note(title="a", secret="one"), Note(id="chosen", title="b", secret="two"), Note(title="c")]
        )
        await notes.update(made[0].id, secret="one, edited")
        before = await notes.order_by("title").all()
        own = client._writer.corridor.seals.keys[0]
        await take(client)
        assert await notes.order_by("title").all() == before, "also the times of their last changes"
        ids = [note.id for note in before]
        assert list((await secrets_under(client, SPACE, ids)).values()) == ["one, edited", "two", None]
        assert client._writer.corridor.seals.keys == (SPACE, own)
        assert (await notes.insert(Note(title="d", secret="later"))).secret == "later"
        await check_laws(client)
    async with open_device(path, seed=2) as client:
        assert client._writer.corridor.seals.keys == (SPACE, own)
        assert [note.secret for note in await client.collection(Note).order_by("title").all()] == [
            "one, edited",
            "two",
            None,
            "later",
        ]


async def test_taking_the_same_key_again_writes_nothing(path: Path) -> None:
    async with open_device(path) as client:
        await client.collection(Note).insert(Note(title="a", secret="one"))
        await take(client)
        pending, digest = client.status.pending, await client.digest()
        await take(client)
        assert (client.status.pending, await client.digest()) == (pending, digest)


async def test_the_later_edit_wins_not_the_later_join(path: Path) -> None:
    """Both devices made the same record; the other's secret is later than ours, and our join later than both."""
    async with open_device(path) as client:
        notes = client.collection(Note)
        await notes.insert(Note(id="n", title="t", secret="ours, earlier"))
        reading = client._writer.corridor.clock.last
        await notes.insert(Note(title="the clock goes on"))
        theirs = Document(client=777)
        sealed = notes._table.sealed["secret"]
        await take(client)
        held = sealed.seal("n", encode_value("theirs, later"), NONCE)
        update, _ = theirs.edit([SetRegister("secret", encode_value(held))], reading=reading + 1)
        page = wire.Page("s", 0, 1, 1, [wire.Entry(1, "notes", "n", 777, update)])
        await client._writer.run(lambda corridor: apply_page(corridor, page), is_remote=True)
        note = await notes.get("n")
        assert note is not None
        assert note.secret == "theirs, later"
        assert await notes.conflicts("n", "secret") == ["ours, earlier"]


async def test_a_deleted_record_is_sealed_anew_too(path: Path) -> None:
    async with open_device(path) as client:
        notes = client.collection(Note)
        note = await notes.insert(Note(title="a", secret="one"))
        await notes.delete(note.id)
        await take(client)
        assert (await notes.restore(note.id)).secret == "one"
        assert await secrets_under(client, SPACE, [note.id]) == {note.id: "one"}
        await check_laws(client)


async def test_a_conflict_stays_one_and_opens_here(path: Path) -> None:
    async with open_device(path) as client:
        notes = client.collection(Note)
        await notes.insert(Note(id="n", title="t", secret="first"))
        held = notes._table.sealed["secret"].seal("n", encode_value("second"), NONCE)
        update, _ = Document(client=777).edit([SetRegister("secret", encode_value(held))], reading=1 << 62)
        page = wire.Page("s", 0, 1, 1, [wire.Entry(1, "notes", "n", 777, update)])
        await client._writer.run(lambda corridor: apply_page(corridor, page), is_remote=True)
        await take(client)
        note = await notes.get("n")
        assert note is not None
        assert note.secret == "second"
        assert await notes.conflicts("n", "secret") == ["first"]


async def test_a_collection_that_was_not_declared_is_sealed_anew_when_it_is(path: Path) -> None:
    async with open_device(path) as client:
        note = await client.collection(Note).insert(Note(title="a", secret="one"))
    opening = client_sdk.open(path, records=[Tag], key=KEY, sources=sources(2))
    async with opening as client:
        await take(client)
    async with open_device(path, seed=3) as client:
        assert await secrets_under(client, SPACE, [note.id]) == {note.id: "one"}
        await check_laws(client)


async def test_a_value_heals_when_its_key_comes_and_who_watches_sees_it(path: Path) -> None:
    async with open_device(path) as client:
        notes = client.collection(Note)
        note = await notes.insert(Note(title="a", secret="one"))
        seals = client._writer.corridor.seals
        own = seals.keys[0]
        seals.keys = (SpaceKey(b"other" + bytes(27)),)
        watched = notes.watch()
        (first,) = await anext(watched)
        assert isinstance(first.secret, SealedValue)
        await take(client, own)
        (healed,) = await anext(watched)
        assert healed.secret == "one"
        assert healed == note
        await watched.aclose()


async def test_a_join_that_does_not_commit_leaves_the_keys_as_they_were(path: Path) -> None:
    async with open_device(path) as client:
        note = await client.collection(Note).insert(Note(title="a", secret="one"))
        keys = client._writer.corridor.seals.keys
        try:
            async with client.transaction():
                await take(client)
                raise LookupError
        except LookupError:
            pass
        assert client._writer.corridor.seals.keys == keys
        assert await client.collection(Note).get(note.id) == note
        await check_laws(client)
