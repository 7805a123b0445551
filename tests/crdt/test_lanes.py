"""Writing a creation gives pycrdt's own bytes, and reading one gives what pycrdt reads."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from crdt.errors import UpdateRefused
from crdt.grammar import CLIENT_MAX, ROOT_BYTES_MAX
from crdt.limits import KEY_BYTES_MAX, UPDATE_BYTES_MAX
from crdt.updates import Creation, check_shape, check_update, read_creation, write_creation
from tests.crdt.histories import Device, History, contents

__all__: list[str] = []

clients = st.integers(1, CLIENT_MAX) | st.sampled_from([1, 127, 128, 2**14 - 1, 2**14, CLIENT_MAX])
buffers = st.binary(max_size=40) | st.integers(120, 20_000).map(bytes)
keys = st.text(st.characters(exclude_characters="@", codec="utf-8"), max_size=150)
names = st.text("abcXYZ", min_size=1, max_size=20)
creations = st.fixed_dictionaries(
    {
        "registers": st.dictionaries(keys, buffers, max_size=8),
        "sets": st.dictionaries(names, st.lists(keys, unique=True, max_size=5), max_size=3),
        "counts": st.dictionaries(names, buffers, max_size=2),
        "lists": st.dictionaries(names, st.lists(buffers, max_size=140), max_size=3),
        "texts": st.dictionaries(names, st.text(st.characters(codec="utf-8")), max_size=3),
    }
)


def written_by_pycrdt(client: int, creation: dict[str, Any]) -> bytes | None:
    """Write the same in one transaction of a real document."""
    doc: Doc[Any] = Doc(client_id=client)
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(bytes(event.update)))
    with doc.transaction():
        registers = doc.get("reg", type=Map)
        for key, value in creation["registers"].items():
            registers[key] = value
        for name, elements in creation["sets"].items():
            elements_map = doc.get(f"set:{name}", type=Map)
            for key in elements:
                elements_map[key] = b""
        for name, value in creation["counts"].items():
            doc.get(f"count:{name}", type=Map)[""] = value
        for name, items in creation["lists"].items():
            doc.get(f"list:{name}", type=Array).extend(items)
        for name, text in creation["texts"].items():
            doc.get(f"text:{name}", type=Text).insert(0, text)
    doc.unobserve(subscription)
    return updates[0] if updates else None


def written(client: int, creation: dict[str, Any]) -> bytes:
    return write_creation(
        client,
        [(key.encode(), value) for key, value in creation["registers"].items()],
        [(name.encode(), [key.encode() for key in keys]) for name, keys in creation["sets"].items()],
        [(name.encode(), [(b"", value)]) for name, value in creation["counts"].items()],
        [(name.encode(), items) for name, items in creation["lists"].items()],
        [(name.encode(), text.encode()) for name, text in creation["texts"].items()],
    )


@settings(max_examples=300, deadline=None)
@given(clients, creations)
def test_a_creation_is_written_in_pycrdt_s_own_bytes(client: int, creation: dict[str, Any]) -> None:
    expected = written_by_pycrdt(client, creation)
    if expected is None:
        with pytest.raises(UpdateRefused, match="empty"):
            written(client, creation)
    else:
        assert written(client, creation) == expected


@settings(max_examples=300, deadline=None)
@given(clients, creations)
def test_what_was_written_is_read_back(client: int, creation: dict[str, Any]) -> None:
    creation["registers"]["@"] = b"1"  # every record's creation has its reading
    update = written(client, creation)
    read = read_creation(update, client=client)
    assert read == read_creation(update, client=None)
    assert read == Creation(
        client,
        check_shape(update, client=client).end,
        creation["registers"],
        {name: tuple(elements) for name, elements in creation["sets"].items() if elements},
        {name: {"": value} for name, value in creation["counts"].items()},
        {name: tuple(items) for name, items in creation["lists"].items() if items},
        {name: text for name, text in creation["texts"].items() if text},
    )
    checked = check_update(update, client=client, index=None)
    assert checked.is_creation
    assert checked.appended.keys() == {f"list:{name}" for name in read.lists}


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_a_real_document_s_creation_is_read_as_pycrdt_reads_it(
    chance: random.Random, is_minted: bool
) -> None:
    device = Device(chance.randrange(1, 2**53))
    update = device.create(chance, is_minted=is_minted)
    read = read_creation(update, client=device.client)
    assert read is not None
    shown = contents(device.doc)
    assert read.registers == shown["reg"]
    assert set(read.sets.get("tags", ())) == shown["set:tags"].keys()
    assert read.counts.get("views", {}) == shown["count:views"]
    assert list(read.lists.get("messages", ())) == shown["list:messages"]
    assert read.texts.get("body", "") == shown["text:body"]
    device.close()


def test_an_update_that_continues_a_document_is_left_to_pycrdt(history: History) -> None:
    read = [read_creation(update, client=client) for client, update in history.log]
    shapes = [check_shape(update, client=client) for client, update in history.log]
    assert [creation is not None for creation in read] == [shape.is_creation for shape in shapes]
    assert (
        sum(shape.is_creation for shape in shapes) == 3
    )  # an id that the application chose, on three devices at once


@pytest.mark.parametrize(
    "change",
    [
        lambda doc: doc.get("reg", type=Map).update({"a@7": b"2"}),  # rewrites a key
        lambda doc: doc.get("reg", type=Map).pop("a@7"),
        lambda doc: doc.get("list:m", type=Array).append(b"3"),  # in a second block
        lambda doc: doc.get("text:b", type=Text).insert(0, "x"),
    ],
)
def test_a_creation_in_several_steps_is_left_to_pycrdt(change: Any) -> None:
    doc: Doc[Any] = Doc(client_id=7)
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(bytes(event.update)))
    with doc.transaction():
        doc.get("reg", type=Map)["a@7"] = b"1"
        doc.get("list:m", type=Array).append(b"1")
        doc.get("text:b", type=Text).insert(0, "ab")
        doc.get("reg", type=Map)["b"] = b"1"
        change(doc)
    assert check_update(updates[0], client=7, index=None).end > 4
    assert read_creation(updates[0], client=7) is None


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("28 01 03 726567 01 61 01 74 00 28 01 03 726567 01 61 01 74 00", "origin"),  # one key twice
        ("28 01 03 726567 03 614038 01 74 00 28 01 03 726567 01 61 01 74 00", "key"),  # client 8's key
        ("28 01 03 726567 01 61 01 7d 01 28 01 03 726567 01 61 01 74 00", "value"),
    ],
)
def test_a_hostile_creation_is_refused(content: str, code: str) -> None:
    update = bytes.fromhex(f"01 02 07 00 {content} 00")
    with pytest.raises(UpdateRefused) as caught:
        read_creation(update, client=7)
    assert caught.value.code == code


@pytest.mark.parametrize("content", ["08 01 06 6c6973743a6d 01 74 01 31", "04 01 06 746578743a62 01 61"])
def test_a_sequence_in_two_unconnected_blocks_is_left_to_pycrdt(content: str) -> None:
    assert read_creation(bytes.fromhex(f"01 02 07 00 {content} {content} 00"), client=7) is None


def test_a_creation_past_a_limit_is_not_written() -> None:
    for code, arguments in {
        "key": ([(b"k" * (KEY_BYTES_MAX + 1), b"")],),
        "size": ([(b"k", bytes(UPDATE_BYTES_MAX))],),
        "root": ([], [(b"n" * ROOT_BYTES_MAX, [b"1"])]),
        "empty": ([],),
    }.items():
        with pytest.raises(UpdateRefused) as caught:
            write_creation(7, *arguments)  # type: ignore[arg-type]
        assert caught.value.code == code


def test_the_largest_key_and_name_are_written_and_accepted() -> None:
    name = b"n" * (ROOT_BYTES_MAX - len("set:"))
    update = write_creation(7, [(b"k" * KEY_BYTES_MAX, b"1")], [(name, [b"1"])])
    read = read_creation(update, client=7)
    assert read is not None
    assert read.sets == {name.decode(): ("1",)}
