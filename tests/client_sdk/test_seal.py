"""Sealed values open where they were sealed, on a device that has the key, and are a `SealedValue` elsewhere."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

import client_sdk
from client_sdk import Record, Sealed, SealedValue, ValidationError
from client_sdk.errors import QueryError
from client_sdk.seal import NONCE_BYTES, SealedField, Seals, SpaceKey, load_keys
from crdt import wire
from crdt.changes import SetRegister
from crdt.document import Document
from crdt.schema import schema_of
from crdt.values import encode_value
from tests.client_sdk.device import check_laws, open_device
from tests.client_sdk.records import Note
from tests.client_sdk.sync.test_replica import Remote

__all__: list[str] = []

MARK = "the combination is 12-34-56"


class Safe(Record, collection="safes"):
    anything: Sealed[Any] = None
    other: Sealed[Any] = None
    number: Sealed[int] = 7
    needed: Sealed[str]


SAFE = schema_of(Safe)
CURRENT, OLD, FOREIGN = (SpaceKey(bytes([byte]) * 32) for byte in range(3))
NONCE = bytes(range(NONCE_BYTES))

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def sealed_field(name: str = "anything", *keys: SpaceKey, collection: str = "safes") -> SealedField:
    return SealedField(Seals(keys or (CURRENT, OLD)), collection, SAFE.field(name))


FIELD = sealed_field()


@given(plain_values, st.text(max_size=20), st.binary(min_size=12, max_size=12))
def test_a_value_comes_back_from_its_sealed_bytes(value: Any, record: str, nonce: bytes) -> None:
    plain = encode_value(value)
    sealed = FIELD.seal(record, plain, nonce)
    assert FIELD.open(record, sealed) == value
    assert sealed_field("anything", OLD, CURRENT).open(record, sealed) == value
    assert len(plain) < 8 or plain not in sealed


@given(
    st.binary(max_size=120)
    | st.binary(max_size=90).map(lambda rest: FIELD.seal("r", b"\xc0", NONCE)[:10] + rest)
)
def test_any_bytes_read_as_a_sealed_value(sealed: bytes) -> None:
    found = FIELD.open("r", sealed)
    assert isinstance(found, SealedValue)
    assert found.sealed == sealed
    assert repr(found) == f"<SealedValue: {found.reason}>"


@given(st.binary(max_size=60), st.data())
def test_a_changed_bit_is_noticed(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(FIELD.seal("r", plain, NONCE))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    assert isinstance(FIELD.open("r", bytes(sealed)), SealedValue)
    assert isinstance(FIELD.open("r", bytes(sealed[: bit // 8])), SealedValue)


def test_bytes_that_were_moved_do_not_open() -> None:
    sealed = FIELD.seal("r", encode_value(MARK), NONCE)
    assert FIELD.open("r", sealed) == MARK
    moved = {
        "another record": FIELD.open("r2", sealed),
        "another field": sealed_field("other").open("r", sealed),
        "another collection": sealed_field(collection="vaults").open("r", sealed),
    }
    for found in moved.values():
        assert isinstance(found, SealedValue)
        assert "another place" in found.reason
    for keys in ((FOREIGN,), (msgspec.structs.replace(CURRENT, epoch=2),)):
        found = sealed_field("anything", *keys).open("r", sealed)
        assert isinstance(found, SealedValue)
        assert "does not hold" in found.reason
    assert isinstance(SealedField(Seals(), "safes", SAFE.field("other")).open("r", sealed), SealedValue)
    assert "no form" in FIELD.open("r", b"\x02" + sealed[1:]).reason


def test_the_bytes_are_as_the_module_says() -> None:
    """Derived again here, from the primitives: another device must come to the same."""

    def derived(info: bytes, length: int) -> bytes:
        return HKDF(hashes.SHA256(), length, salt=None, info=info).derive(key.key)

    key = SpaceKey(b"k" * 32, epoch=300)
    head = b"\x01\xac\x02" + derived(b"pjais space key id v1\0", 8)
    place = b"\0\x05safes\0\x08anything"
    cipher = AESGCMSIV(derived(b"pjais sealed field v1\0\x01\xac\x02" + place, 32))
    padded = b"\xa2hi\x80".ljust(32, b"\0")
    expected = head + NONCE + cipher.encrypt(NONCE, padded, head + place + "é".encode())
    assert sealed_field("anything", key).seal("é", b"\xa2hi", NONCE) == expected


def test_lengths_are_few_and_cost_little() -> None:
    lengths = [len(FIELD.seal("r", bytes(length), NONCE)) for length in range(5_000)]
    over = 1 + 1 + 8 + NONCE_BYTES + 16
    assert set(lengths[:32]) == {32 + over}
    assert lengths == sorted(lengths)
    assert len(set(lengths)) < 120
    assert all(length - over <= max(32, plain * 1.12 + 1) for plain, length in enumerate(lengths))


def test_a_value_of_another_type_or_none_at_all_reads_as_declared() -> None:
    text, nothing = encode_value("text"), None
    number = sealed_field("number")
    misfit = number.open("r", number.seal("r", text, NONCE))
    assert "another type" in misfit.reason
    assert number.open("r", nothing) == 7
    assert FIELD.open("r", nothing) is None
    assert "no value" in sealed_field("needed").open("r", nothing).reason


def test_renewing_moves_under_the_key_in_force_and_leaves_the_rest() -> None:
    old, new = sealed_field("anything", OLD), FIELD
    sealed = old.seal("r", encode_value(MARK), NONCE)
    renewed = new.renew("r", sealed, NONCE)
    assert renewed is not None
    assert sealed_field("anything", CURRENT).open("r", renewed) == MARK
    assert new.renew("r", renewed, NONCE) is None
    assert new.renew("another", sealed, NONCE) is None
    assert new.renew("r", b"junk", NONCE) is None


def test_threads_seal_and_open_with_the_same_ciphers() -> None:
    field, failures = sealed_field(), []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for number in range(500):
            value = f"{seed}-{number}" * chance.randrange(1, 40)
            sealed = field.seal(str(seed), encode_value(value), chance.randbytes(NONCE_BYTES))
            if field.open(str(seed), sealed) != value:
                failures.append((seed, number))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


async def test_a_file_makes_its_key_once_and_shows_it_nowhere(path: Path) -> None:
    async with open_device(path) as client:
        first = client._writer.corridor.seals.keys
    async with open_device(path, seed=2) as client:
        assert client._writer.corridor.seals.keys == first
    assert len(first) == 1
    assert len(set(first[0].key)) > 8
    assert repr(first) == "(<SpaceKey of epoch 1>,)"
    assert pretty_repr(first) == "(SpaceKey(epoch=1),)"


async def test_a_file_of_an_earlier_version_keeps_the_key_of_its_membership(path: Path) -> None:
    earlier = msgspec.msgpack.encode({"url": "u", "space": "s", "space_key": b"k" * 32, "epoch": 1})
    async with open_device(path) as client:

        def work(corridor: Any) -> Any:
            corridor.connection.execute("DELETE FROM pjais_meta")
            corridor.connection.execute("INSERT INTO pjais_meta VALUES ('membership', ?)", (earlier,))
            return load_keys(corridor.connection, bytes), load_keys(corridor.connection, bytes)

        assert await client._writer.run(work) == ((SpaceKey(b"k" * 32),),) * 2


# ------------------------------------------------------------------------------------------------ through the SDK


async def test_a_secret_is_plain_through_the_collection_and_sealed_in_the_whole_file(path: Path) -> None:
    async with open_device(path) as client:
        notes = client.collection(Note)
        note = await notes.insert(Note(title="plain to see", secret=MARK))
        await notes.insert_many([Note(title="b", secret=MARK), Note(id="chosen", title="c", secret=MARK)])
        assert note.secret == MARK
        assert await notes.get(note.id) == note
        again = await notes.update(note.id, secret=MARK + "!", title="plain to see")
        assert again.secret == MARK + "!"
        assert [one.secret for one in await notes.order_by("title").all()] == [MARK, MARK, MARK + "!"]
        assert (await notes.update(note.id, secret=None)).secret is None
        dump = await everything(client)
        await check_laws(client)
    assert "plain to see" in dump
    assert MARK[:12] not in dump
    async with open_device(path, seed=2) as client:
        chosen = await client.collection(Note).get("chosen")
        assert chosen is not None
        assert chosen.secret == MARK


async def everything(client: client_sdk.Client) -> str:
    """Return all that stands in the decrypted file."""
    names = await client.sql("SELECT name FROM sqlite_master WHERE type = 'table'")
    rows = [tuple(row) for (name,) in names for row in await client.sql(f'SELECT * FROM "{name}"')]
    return repr(rows)


async def test_a_query_asks_only_whether_there_is_a_secret(path: Path) -> None:
    async with open_device(path) as client:
        notes = client.collection(Note)
        await notes.insert_many([Note(title="a", secret=MARK), Note(title="b")])
        assert [note.title for note in await notes.where("secret", "is_null", False).all()] == ["a"]
        assert await notes.where("secret", "is_null", True).count() == 1
        for operator in ("=", "!=", "in", "contains", "startswith", "<"):
            with pytest.raises(QueryError, match="sealed") as caught:
                notes.where("secret", operator, MARK)
            assert MARK not in str(caught.value)
        with pytest.raises(QueryError, match="no order"):
            notes.order_by("secret")
        with pytest.raises(QueryError, match="not counted by a sealed"):
            await notes.where(pinned=False).group_count("secret")


async def test_what_cannot_be_opened_stays_as_it_is_whatever_else_is_written(path: Path) -> None:
    junk = b"\x01 from somebody else"
    async with open_device(path) as client:
        notes, remote = client.collection(Note), Remote()
        remote.edit(
            SetRegister("title", encode_value("theirs")),
            SetRegister("createdAt", encode_value(None)),
            SetRegister("secret", encode_value(junk)),
        )
        await client._replica.apply_page(remote.page())
        note = await notes.get("r")
        assert note is not None
        assert repr(note.secret) == "<SealedValue: it was sealed under a key that this device does not hold>"
        changed = await notes.update("r", title="ours", tags={"a"})
        assert changed.secret == note.secret
        with pytest.raises(ValidationError, match=r"Note\.secret: got a SealedValue"):
            await notes.update("r", secret=note.secret)
        with pytest.raises(ValidationError, match=r"Note\.secret: got a SealedValue"):
            await notes.insert(Note(title="copy", secret=note.secret))
        (row,) = await client.sql("SELECT secret FROM notes")
        assert row["secret"] == junk
        assert (await notes.update("r", secret="ours")).secret == "ours"
        await check_laws(client)


async def test_conflicts_are_opened(path: Path) -> None:
    async with open_device(path) as client:
        notes = client.collection(Note)
        await notes.insert(Note(id="n", title="t", secret="first"))
        field = notes._table.sealed["secret"]
        for position, (text, who) in enumerate((("theirs", 777), ("ours", 778)), 1):
            sealed = encode_value(field.seal("n", encode_value(text), NONCE))
            update, _ = Document(client=who).edit(
                [SetRegister("secret", sealed)], reading=(1 << 62) + position
            )
            entry = wire.Entry(position, "notes", "n", who, update)
            await client._replica.apply_page(wire.Page("s", position - 1, position, position, [entry]))
        note = await notes.update("n", title="x")
        assert note.secret == "ours"
        assert await notes.conflicts("n", "secret") == ["theirs", "first"]
        await notes.update("n", secret="settled")
        assert await notes.conflicts("n", "secret") == []
