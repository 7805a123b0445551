"""The check accepts every honest update, says truly what it changes, and refuses the rest by a stable code."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from crdt.errors import UpdateGap, UpdateRefused
from crdt.grammar import write_varint
from crdt.limits import DOCUMENT_BYTES_MAX, KEY_BYTES_MAX, UPDATE_BYTES_MAX, UPDATE_ITEMS_MAX
from crdt.updates import (
    CUTS_MAX,
    CheckedUpdate,
    DocumentIndex,
    Shape,
    check_shape,
    check_snapshot,
    check_update,
    is_covered,
)
from tests.crdt.histories import Device, History, contents, pack, state_of

__all__: list[str] = []

chances = st.randoms(use_true_random=False)
histories = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def refusal(update: bytes, *, client: int = 7, index: DocumentIndex | None = None) -> str:
    """Return the code by which the check refuses an update."""
    with pytest.raises(UpdateRefused) as caught:
        check_update(update, client=client, index=index)
    return caught.value.code


def shape_refusal(update: bytes, *, client: int = 7) -> str:
    with pytest.raises(UpdateRefused) as caught:
        check_shape(update, client=client)
    return caught.value.code


def snapshot_refusal(snapshot: bytes) -> str:
    with pytest.raises(UpdateRefused) as caught:
        check_snapshot(snapshot)
    return caught.value.code


def known(*updates: bytes, client: int = 7) -> DocumentIndex:
    """Return the index of a document that is these updates of one client."""
    index = DocumentIndex()
    for update in updates:
        index.add(check_update(update, client=client, index=index))
    return index


# ------------------------------------------------------------------------------------------------- honest updates


@histories
@given(chances)
def test_no_honest_update_is_ever_refused_in_the_order_of_the_log(chance: random.Random) -> None:
    history = History.random(chance)
    history.close()
    index, doc = DocumentIndex(), Doc[Any]()
    for client, update in history.log:
        checked = check_update(update, client=client, index=index)
        shape = check_shape(update, client=client)
        assert (shape.start, shape.end) == (checked.start, checked.end)
        assert shape.is_creation >= checked.is_creation  # two may have created the same id
        index.add(checked)
        doc.apply_update(update)
        assert index.clocks == state_of(doc)
        assert is_covered(state_of(doc), checked)
        if chance.random() < 0.2:  # a snapshot stands for the log so far
            index = check_snapshot(doc.get_update())
            assert index.clocks == state_of(doc)


@histories
@given(chances)
def test_no_honest_update_is_ever_refused_in_the_order_in_which_a_device_sees_them(
    chance: random.Random,
) -> None:
    history = History(chance)
    history.devices = [Device(client) for client in (3, 2**40 + 1, 200)]
    history.log.append((3, history.devices[0].create(chance)))
    history.devices[0].made.clear()
    indexes = {device.client: DocumentIndex() for device in history.devices}
    cursors = dict.fromkeys(indexes, 0)
    for _ in range(20):
        device = chance.choice(history.devices)
        index = indexes[device.client]
        for client, update in history.log[cursors[device.client] :]:
            if client != device.client or cursors[device.client] == 0:
                index.add(check_update(update, client=client, index=index))
                device.apply(update)
            cursors[device.client] += 1
        for _ in range(chance.randrange(3)):
            index.add(check_update(device.edit(chance), client=device.client, index=index))
        if chance.random() < 0.7:
            history.push(device)
    for device in history.devices:
        assert indexes[device.client].clocks == state_of(device.doc)
    history.close()


@histories
@given(chances)
def test_what_an_update_touches_is_what_pycrdt_shows_as_changed(chance: random.Random) -> None:
    history = History.random(chance)
    history.close()
    index, doc = DocumentIndex(), Doc[Any]()
    before = contents(doc)
    for client, update in history.log:
        checked = check_update(update, client=client, index=index)
        index.add(checked)
        doc.apply_update(update)
        after = contents(doc)
        for root, value in after.items():
            if root[0] in "rsc":
                changed = {k for k in {*value, *before[root]} if value.get(k) != before[root].get(k)}
                assert changed <= checked.touched.get(root, frozenset())
            elif value != before[root]:
                assert checked.touched[root] == frozenset()
            if root in checked.appended:
                assert value == before[root] + list(checked.appended[root])
        before = after


@histories
@given(chances)
def test_a_known_tail_is_the_item_after_which_pycrdt_appends(chance: random.Random) -> None:
    history = History(chance)
    history.devices = [Device(client) for client in chance.sample(range(1, 50), chance.randrange(2, 5))]
    history.devices[0].create(chance)
    history.push(history.devices[0])
    only_appends = chance.random() < 0.7
    for _ in range(chance.randrange(25)):
        device = chance.choice(history.devices)
        step = chance.random()
        if step < 0.5:
            history.pull(device, chance.randrange(1, 4))
        elif step < 0.7:
            history.push(device, chance.randrange(1, 3))
        elif only_appends:
            device.append_only(chance)
        else:
            device.edit(chance)
    for device in history.devices:
        history.push(device)
    index, doc = DocumentIndex(), Doc[Any]()
    for client, update in history.log:
        index.add(check_update(update, client=client, index=index))
        doc.apply_update(update)
    from_snapshot = check_snapshot(doc.get_update())
    probe = Device(2**53 - 1)
    probe.apply(doc.get_update())
    probe_items = probe.append_only(chance)
    (*_, item) = [
        item
        for item in check_update(probe_items, client=probe.client, index=index).items
        if item.root == "list:messages"
    ]
    for each in (index, from_snapshot):
        if each.tail("list:messages") is not None:
            assert item.origin == each.tail("list:messages")
        elif only_appends:
            assert not each.has_list("list:messages")
    history.close()
    probe.close()


def test_a_conversation_s_every_append_is_known_as_one() -> None:
    chance = random.Random(1)
    first, second = Device(5), Device(2**50)
    index = DocumentIndex()
    update = first.create(chance)
    second.apply(update)
    index.add(check_update(update, client=5, index=index))
    for turn in range(50):
        writer, reader = (first, second) if turn % 3 else (second, first)
        update = writer.append_only(chance)
        reader.apply(update)
        checked = check_update(update, client=writer.client, index=index)
        index.add(checked)
        assert list(checked.appended) == ["list:messages"]
        assert checked.touched == {"list:messages": frozenset(), "reg": checked.touched["reg"]}


def test_an_append_after_the_last_item_was_deleted_is_known_as_one() -> None:
    device, index = Device(5), DocumentIndex()
    for change in ("extend", "pop", "extend", "clear", "extend"):
        device._is_writing = True
        with device.doc.transaction():
            items = device.array("list:messages")
            if change == "extend":
                items.extend([b"\x01", b"\x02"])
            elif change == "pop":
                items.pop()
            else:
                items.clear()
            device._write_register("updatedAt", [0])
        checked = check_update(device.made[-1], client=5, index=index)
        index.add(checked)
        assert ("list:messages" in checked.appended) is (change == "extend")


def test_an_insertion_before_the_end_is_not_an_append() -> None:
    device, index = Device(5), DocumentIndex()
    appended = []
    for place in (0, 0, 2, 2, 4):  # a | b a | b a c | b a d c | b a d c e
        device._is_writing = True
        with device.doc.transaction():
            device.array("list:messages").insert(place, b"\x01")
            device._write_register("updatedAt", [0])
        checked = check_update(device.made[-1], client=5, index=index)
        index.add(checked)
        assert checked.touched["list:messages"] == frozenset()
        appended.append("list:messages" in checked.appended)
    assert appended == [True, False, True, False, True]


def test_the_check_does_not_change_the_index(history: History) -> None:
    index = DocumentIndex()
    for client, update in history.log:
        before = index.copy()
        checked = check_update(update, client=client, index=index)
        assert check_update(update, client=client, index=index) == checked
        assert index.clocks == before.clocks
        index.add(checked)
        assert before.clocks != index.clocks


def test_a_repeat_a_gap_and_an_overlap_are_told_apart(history: History) -> None:
    client, update = history.log[0]
    index = known(update, client=client)
    assert refusal(update, client=client, index=index) == "repeat"
    device = Device(7)
    one, two, three = (device.append_only(random.Random(n)) for n in range(3))
    with pytest.raises(UpdateGap) as caught:
        check_update(three, client=7, index=known(one))
    assert (caught.value.code, caught.value.client) == ("gap", 7)
    assert caught.value.expected == check_shape(one, client=7).end
    assert caught.value.start == check_shape(two, client=7).end
    both = Doc[Any]()
    both.apply_update(one)
    both.apply_update(two)
    assert refusal(both.get_update(), client=7, index=known(one)) == "overlap"
    assert refusal(both.get_update(), client=7, index=known(one, two)) == "repeat"


def test_a_repeat_is_told_before_anything_but_the_grammar_is_judged() -> None:
    unknown_origin = bytes.fromhex("01 01 07 00 a8 07 63 01 74 01 31 00")
    assert refusal(unknown_origin) == "unknown"
    assert refusal(unknown_origin, index=known(FIRST)) == "repeat"


def test_a_creation_is_told_from_an_edit() -> None:
    device = Device(7)
    created = device.create(random.Random(3))
    index = known(created)
    assert check_update(created, client=7, index=None).is_creation
    assert check_shape(created, client=7).is_creation
    edited = device.edit(random.Random(3))
    assert not check_update(edited, client=7, index=index).is_creation
    assert not check_shape(edited, client=7).is_creation
    other = Device(9)
    other.apply(created)
    edited = other.edit(random.Random(3))
    assert not check_update(edited, client=9, index=index).is_creation
    assert not check_shape(edited, client=9).is_creation


def test_items_and_deletes_are_named() -> None:
    device = Device(7)
    device._is_writing = True
    with device.doc.transaction():
        device.map("reg")["title@7"] = b"\x01"
        device.array("list:messages").extend([b"\x02", b"\x03"])
        device.text("text:body").insert(0, "a😀")
    first = check_update(device.made[-1], client=7, index=None)
    assert [(i.root, i.key, i.clock, i.length, i.values, i.text) for i in first.items] == [
        ("reg", "title@7", 0, 1, (b"\x01",), None),
        ("list:messages", None, 1, 2, (b"\x02", b"\x03"), None),
        ("text:body", None, 3, 3, None, "a😀"),
    ]
    assert first.appended == {"list:messages": (b"\x02", b"\x03")}
    index = DocumentIndex()
    index.add(first)
    with device.doc.transaction():
        device.map("reg")["title@7"] = b"\x09"
        del device.text("text:body")[1:5]
        device.array("list:messages").pop(0)
    second = check_update(device.made[-1], client=7, index=index)
    assert [(i.root, i.key, i.origin, i.values) for i in second.items] == [
        ("reg", "title@7", (7, 0), (b"\x09",))
    ]
    assert second.deletes == ((7, 0, 2), (7, 4, 6))
    assert second.touched == {"reg": {"title@7"}, "list:messages": frozenset(), "text:body": frozenset()}
    assert second.appended == {}


# ---------------------------------------------------------------------------------------------------- hostile bytes

FIRST = (
    bytes.fromhex("01 01 07 00 28 01 03") + b"reg" + bytes.fromhex("01 61 01 74 01 31 00")
)  # reg["a"] = "1"


def test_the_smallest_update_is_accepted() -> None:
    assert check_shape(FIRST, client=7) == Shape(0, 1, True)
    assert check_update(FIRST, client=7, index=None).touched == {"reg": {"a"}}


def block(hexadecimal: str, *, clock: str = "01", deletes: str = "00") -> bytes:
    """Return an update of client 7 with one block, by default the one that follows `FIRST`."""
    return bytes.fromhex(f"01 01 07 {clock} {hexadecimal} {deletes}")


REG_A = "28 01 03 726567 01 61"  # a block in reg["a"], up to its content
LIST = "01 06 6c6973743a6d"  # the parent list:m
TEXT = "01 06 746578743a62"  # the parent text:b


def nested(depth: int) -> bytes:
    """Return reg["a"] as an `Any` array, nested."""
    return bytes.fromhex(f"01 01 07 00 {REG_A} 01") + b"\x75\x01" * depth + b"\x75\x00\x00"


# The bytes of HAZARDS: what they did to pycrdt 0.14.13 without a check.
HAZARDS = {
    "accepted, and the next read is a segmentation fault": ("01010300000000", 3, "kind"),
    "accepted, and every get_update panics": ("010100010080808080000000000000", 0, "kind"),
    "an Any array nested 100,000 deep overflows the stack": (nested(100_000).hex(), 7, "value"),
    "text with an emoji in an array makes to_py loop for ever": (
        f"01 01 07 00 04 {LIST} 04 f09f9880 00",
        7,
        "container",
    ),
    "a GC block over a client's whole clock range mutes it": ("01 01 07 00 00 ffffffff07 00", 7, "kind"),
    "a Skip block does the same": ("01 01 07 00 0a ffffffff07 00", 7, "kind"),
    "a count of 2^29 clients takes 1 GB": ("8080808002 01 07 00", 7, "clients"),
    "a count of 2^29 blocks": ("01 8080808002 07 00 28 01 03", 7, "items"),
    "a count of 2^29 values": (f"01 01 07 00 08 {LIST} 8080808002 74 01 31 00", 7, "value"),
    "a count of 2^29 clients among the deletes": (
        f"01 01 07 00 {REG_A} 01 74 01 31 8080808002 07",
        7,
        "truncated",
    ),
    "a count of 2^29 deleted ranges": (
        f"01 01 07 00 {REG_A} 01 74 01 31 01 07 8080808002 00 01",
        7,
        "truncated",
    ),
    "a string of 2^31 bytes": (f"01 01 07 00 04 {TEXT} ffffffff07 61 00", 7, "truncated"),
}


@pytest.mark.parametrize("name", HAZARDS)
def test_what_breaks_pycrdt_is_refused(name: str) -> None:
    hexadecimal, client, code = HAZARDS[name]
    update = bytes.fromhex(hexadecimal)
    assert shape_refusal(update, client=client) == code
    assert refusal(update, client=client) == code
    assert snapshot_refusal(update) in {code, "order", "truncated"}


GRAMMAR = {
    "": "truncated",
    "00": "empty",
    "00 00": "empty",
    "00 01 07 01 00 01": "empty",
    "01 00 07 00 00": "empty",
    "02 01 07 00 00": "clients",
    "81 00 01 07 00 00": "clients",
    f"01 01 08 00 {REG_A} 01 74 01 31 00": "client",
    f"01 01 87 00 00 {REG_A} 01 74 01 31 00": "varint",
    f"01 81 00 07 00 {REG_A} 01 74 01 31 00": "varint",
    f"01 01 07 80 00 {REG_A} 01 74 01 31 00": "varint",
    f"01 01 07 ffffffff0f {REG_A} 01 74 01 31 00": "varint",
    f"01 01 07 ffffffff07 {REG_A} 01 74 01 31 00": "clock",
    f"01 02 07 00 {REG_A} 01 74 01 31 00": "truncated",
    f"01 01 07 00 {REG_A} 01 74 01 31": "truncated",
    f"01 01 07 00 {REG_A} 01 74 02 31 00": "truncated",
    f"01 01 07 00 {REG_A} 01 74 01 31 00 00": "trailing",
    f"01 01 07 00 {REG_A} 02 74 01 31 74 01 31 00": "value",
    f"01 01 07 00 {REG_A} 00 00": "value",
    f"01 01 07 00 {REG_A} 01 7d 05 00": "value",  # an integer
    f"01 01 07 00 {REG_A} 01 77 01 61 00": "value",  # a string
    f"01 01 07 00 {REG_A} 01 76 00 00": "value",  # a map
    f"01 01 07 00 {REG_A} 01 7f 00": "value",  # undefined
    f"01 01 07 00 08 {LIST} 00 00": "value",
    f"01 01 07 00 08 {LIST} 02 74 01 31 7e 00": "value",
    f"01 01 07 00 04 {TEXT} 00 00": "length",
    f"01 01 07 00 01 {LIST} 00 00": "length",
    f"01 01 07 00 04 {TEXT} 01 ff 00": "utf8",
    f"01 01 07 00 04 {TEXT} 03 eda080 00": "utf8",  # half a surrogate pair
    "01 01 07 00 28 01 03 726567 01 ff 01 74 00 00": "utf8",
    "01 01 07 00 28 01 03 7265ff 01 61 01 74 00 00": "utf8",
    "01 01 07 00 28 00 07 00 01 61 01 74 00 00": "parent",
    "01 01 07 00 28 01 03 726566 01 61 01 74 00 00": "root",
    "01 01 07 00 28 01 04 7365743a 01 61 01 74 00 00": "root",  # set:
    "01 01 07 00 28 01 05 783a746167 01 61 01 74 00 00": "root",
    "01 01 07 00 28 01 80 01" + "61" * 128 + "01 61 01 74 00 00": "root",
    f"01 01 07 00 08 {LIST[:-2]}6d 01 74 00 00": None,
    f"01 01 07 00 28 {LIST} 01 61 01 74 00 00": "container",  # a key in a list
    "01 01 07 00 08 01 03 726567 01 74 00 00": "container",  # no key in a map
    "01 01 07 00 04 01 03 726567 01 61 00": "container",  # text in a map
    f"01 01 07 00 08 {TEXT} 01 74 00 00": "container",  # values in a text
    **{f"01 01 07 00 {kind:02x} {LIST} 01 61 00": "kind" for kind in (2, 3, 5, 6, 7, 9, 11, 0x18, 0x11)},
    **{f"01 01 07 00 {kind:02x} {LIST} 01 61 00": "container" for kind in (4, 0x28)},
    **{
        f"01 01 07 01 {kind:02x} 07 00 01 61 00": "kind"
        for kind in (0x82, 0x86, 0x87, 0x98, 0xE8, 0x68, 0x40, 0x80)
    },
}


@pytest.mark.parametrize("hexadecimal", GRAMMAR)
def test_a_broken_update_is_refused_without_its_document(hexadecimal: str) -> None:
    update, code = bytes.fromhex(hexadecimal), GRAMMAR[hexadecimal]
    if code is None:
        assert check_shape(update, client=7).end == 1
    else:
        assert shape_refusal(update) == code
        assert refusal(update) == code


def test_every_shorter_form_of_an_honest_update_is_refused(history: History) -> None:
    for client, update in history.log:
        for size in range(len(update)):
            assert shape_refusal(update[:size], client=client) in {"truncated", "utf8", "root", "key"}
        assert shape_refusal(update + b"\x00", client=client) in {"trailing", "truncated"}


def test_limits_are_named() -> None:
    assert shape_refusal(b"\x01" * (UPDATE_BYTES_MAX + 1)) == "size"
    assert snapshot_refusal(b"\x01" * (DOCUMENT_BYTES_MAX + 1)) == "size"
    assert shape_refusal(b"\x01" + write_varint(UPDATE_ITEMS_MAX + 1) + b"\x07\x00") == "items"
    assert snapshot_refusal(b"\x01" + write_varint(10**6 + 1) + b"\x07\x00") == "items"
    key = b"k" * (KEY_BYTES_MAX + 1)
    update = bytes.fromhex("01 01 07 00 28 01 03 726567") + write_varint(len(key)) + key + b"\x01\x74\x00\x00"
    assert shape_refusal(update) == "key"


A_TEXT = bytes.fromhex(f"01 01 07 00 04 {TEXT} 06 61 f09f9880 62 00")  # clocks: a 0, emoji 1 and 2, b 3
A_LIST = bytes.fromhex(f"01 01 07 00 08 {LIST} 02 74 01 31 74 01 32 00")
LIST_AND_TEXT = bytes.fromhex(f"01 02 07 00 08 {LIST} 02 74 01 31 74 01 32 04 {TEXT} 02 6162 00")

OWN = bytes.fromhex("01 01 07 00 28 01 03 726567 03 614037 01 74 01 31 00")  # reg["a@7"] = "1"

DOCUMENT = {
    # by what is known: (known, update, code)
    "an origin of an unknown client": (FIRST, block("a8 09 00 01 74 00"), "unknown"),
    "an origin past the known clocks": (FIRST, block("a8 07 01 01 74 00"), "unknown"),
    "a right origin past the known clocks": (A_LIST, block("48 07 02 01 74 00", clock="02"), "unknown"),
    "an origin that is no key's last entry": (FIRST, block("28 01 03 726567 01 61 01 74 00"), "origin"),
    "a rewrite of what the creation wrote": (FIRST, block("a8 07 00 01 74 00"), "key"),
    "a rewrite that does not name the own last entry": (
        OWN,
        bytes.fromhex("01 02 07 01 a8 07 00 01 74 00 a8 07 00 01 74 00 00"),
        "origin",
    ),
    "both origins in two roots": (LIST_AND_TEXT, block("c8 07 01 07 02 01 74 00", clock="04"), "origin"),
    "one item as both origins": (A_LIST, block("c8 07 01 07 01 01 74 00", clock="02"), "origin"),
    "a right origin to the left of the origin in one run": (
        A_LIST,
        block("c8 07 01 07 00 01 74 00", clock="02"),
        "origin",
    ),
    "text after an item of a list": (A_LIST, block("84 07 01 01 61", clock="02"), "container"),
    "a value after a text": (A_TEXT, block("88 07 03 01 74 00", clock="04"), "container"),
    "a keyed block after a text": (A_TEXT, block("a8 07 03 01 74 00", clock="04"), "container"),
    "a keyless block after a map's entry": (FIRST, block("88 07 00 01 74 00"), "container"),
    "deleted content without a key after a map's entry": (FIRST, block("81 07 00 01"), "container"),
    "text after a map's entry": (FIRST, block("84 07 00 01 61"), "container"),
    "an origin that is the first half of an emoji": (
        A_TEXT,
        block("84 07 01 01 61", clock="04"),
        "surrogate",
    ),
    "a right origin that is the second half": (A_TEXT, block("44 07 02 01 61", clock="04"), "surrogate"),
    "a delete that starts in an emoji": (
        A_TEXT,
        block("84 07 03 01 61", clock="04", deletes="01 07 01 02 01"),
        "surrogate",
    ),
    "a delete that ends in an emoji": (
        A_TEXT,
        block("84 07 03 01 61", clock="04", deletes="01 07 01 00 02"),
        "surrogate",
    ),
    "a delete of the unknown": (OWN, block("a8 07 00 01 74 00", deletes="01 07 01 00 03"), "unknown"),
    "a delete of an unknown client": (OWN, block("a8 07 00 01 74 00", deletes="01 09 01 00 01"), "unknown"),
    "an empty range": (FIRST, block("a8 07 00 01 74 00", deletes="01 07 01 00 00"), "deletes"),
    "ranges out of order": (FIRST, block("a8 07 00 01 74 00", deletes="01 07 02 01 01 00 01"), "deletes"),
    "overlapping ranges": (
        A_LIST,
        block("88 07 01 01 74 00", clock="02", deletes="01 07 02 00 02 01 01"),
        "deletes",
    ),
    "a client named twice": (
        FIRST,
        block("a8 07 00 01 74 00", deletes="02 07 01 00 01 07 01 01 01"),
        "deletes",
    ),
    "a client without ranges": (FIRST, block("a8 07 00 01 74 00", deletes="01 07 00"), "deletes"),
    "another client's key": (FIRST, block("28 01 03 726567 03 614038 01 74 00"), "key"),
    "another client's total": (FIRST, block("28 01 07 636f756e743a76 01 38 01 74 00"), "key"),
}


@pytest.mark.parametrize("name", DOCUMENT)
def test_what_the_document_contradicts_is_refused(name: str) -> None:
    before, update, code = DOCUMENT[name]
    assert refusal(update, index=known(before)) == code


def test_a_snapshot_of_very_many_clients_in_a_row_is_judged_in_a_moment() -> None:
    count = 50_000
    sections = [
        b"\x01" + write_varint(client) + b"\x00\x84" + write_varint(client - 1) + b"\x00\x01a"
        for client in range(count, 1, -1)
    ]
    first = b"\x01\x01\x00\x04\x01\x06text:b\x01a"
    assert len(check_snapshot(write_varint(count) + b"".join(sections) + first + b"\x00").clocks) == count


def runs(count: int) -> tuple[list[int], bytes]:
    """Return an update of two texts written in turn, so that each item is a run, and the clocks of the first one's."""
    clocks = list(range(0, 2 * count, 2))
    written = [bytes.fromhex(f"04 {TEXT} 01 61 04 01 06 746578743a63 01 61")]
    for clock in clocks[1:]:
        written += [
            b"\x84\x07" + write_varint(clock - 2) + b"\x01a",
            b"\x84\x07" + write_varint(clock - 1) + b"\x01a",
        ]
    return clocks, b"\x01" + write_varint(2 * count) + b"\x07\x00" + b"".join(written) + b"\x00"


def test_an_update_that_would_take_yrs_minutes_to_place_is_refused() -> None:
    """8,000 insertions behind one item, each before another one: 70 KB that took yrs seconds, and 144 KB a minute."""
    clocks, text = runs(8_000)
    index = known(text)
    start = index.next_clock(7)
    far = [b"\xc4\x07\x00\x07" + write_varint(clock) + b"\x01b" for clock in clocks[1:]]
    update = b"\x01" + write_varint(len(far)) + b"\x07" + write_varint(start) + b"".join(far) + b"\x00"
    assert refusal(update, index=index) == "steps"
    few = b"\x01" + write_varint(50) + b"\x07" + write_varint(start) + b"".join(far[:50]) + b"\x00"
    assert check_update(few, client=7, index=index).end == start + 50


def test_deletes_that_cut_a_text_into_hundreds_of_thousands_of_pieces_are_refused() -> None:
    """Each cut moves all the later blocks: 400,000 in 3.6 MB took yrs 38 s."""
    size = 4 * (CUTS_MAX + 1)
    text = b"\x04\x01\x06text:b" + write_varint(size) + b"a" * size
    body = b"\x01\x01\x07\x00" + text + b"\x01\x07"
    ranges = [write_varint(4 * number + 1) + b"\x01" for number in range(CUTS_MAX + 1)]
    update = body + write_varint(len(ranges)) + b"".join(ranges)
    assert refusal(update) == "steps"
    assert snapshot_refusal(update) == "steps"
    assert (
        check_update(body + write_varint(CUTS_MAX) + b"".join(ranges[1:]), client=7, index=None).end == size
    )


def test_as_many_deletes_that_cut_nothing_are_accepted() -> None:
    count = CUTS_MAX + 1
    first, second = (b"\x01\x06" + root + b"\x01a" for root in (b"text:b", b"text:c"))
    more = [
        b"\x84\x07" + write_varint(clock - 2) + b"\x01a"  # the texts take turns, so that each item is a run
        for clock in range(2, 2 * count)
    ]
    texts = b"\x04" + first + b"\x04" + second + b"".join(more)
    gone = b"".join(write_varint(2 * number) + b"\x01" for number in range(count))
    deletes = b"\x01\x07" + write_varint(count) + gone
    snapshot = b"\x01" + write_varint(2 * count) + b"\x07\x00" + texts + deletes
    assert check_snapshot(snapshot).next_clock(7) == 2 * count


def test_two_devices_that_rewrite_the_same_thousand_words_are_accepted() -> None:
    first, second = Device(5), Device(9)
    index = DocumentIndex()
    first._is_writing = second._is_writing = True
    with first.doc.transaction():
        first.text("text:body").insert(0, "word " * 1_000)
    for reader in (first, second):
        if reader is second:
            reader.apply(first.made[0])
        with reader.doc.transaction():
            for word in range(1_000):
                del reader.text("text:body")[word * 5 : word * 5 + 4]
                reader.text("text:body").insert(word * 5, "WORD")
    for client, update in [(5, first.made[0]), (5, first.made[1]), (9, second.made[-1])]:
        index.add(check_update(update, client=client, index=index))
    first.apply(second.made[-1])
    assert check_snapshot(first.doc.get_update()).clocks == index.clocks
    first.close()
    second.close()


def test_a_rewrite_of_another_client_s_key_is_refused() -> None:
    theirs = bytes.fromhex("01 01 09 00 28 01 03 726567 03 614039 01 74 00 00")  # reg["a@9"]
    index = known(theirs, client=9)
    assert refusal(block("a8 09 00 01 74 00", clock="00"), index=index) == "key"


def test_origins_inside_the_update_itself_are_checked_too() -> None:
    after_emoji = bytes.fromhex(f"01 02 07 00 04 {TEXT} 04 f09f9880 84 07 01 01 61 00")
    assert check_update(after_emoji, client=7, index=None).end == 3
    in_emoji = bytes.fromhex(f"01 02 07 00 04 {TEXT} 04 f09f9880 84 07 00 01 61 00")
    assert refusal(in_emoji) == "surrogate"
    itself = bytes.fromhex(f"01 02 07 00 04 {TEXT} 01 61 84 07 01 01 61 00")
    assert refusal(itself) == "unknown"
    twice = bytes.fromhex(f"01 02 07 00 {REG_A} 01 74 00 {REG_A} 01 74 00 00")
    assert refusal(twice) == "origin"
    deleted = bytes.fromhex(f"01 01 07 00 04 {TEXT} 05 f09f988061 01 07 01 01 01")
    assert refusal(deleted) == "surrogate"


# -------------------------------------------------------------------------------------------------------- snapshots


def test_a_snapshot_of_nothing_is_an_empty_index() -> None:
    assert check_snapshot(b"\x00\x00").clocks == {}


SNAPSHOTS = {
    f"02 01 07 00 {REG_A} 01 74 00 01 09 00 28 01 03 726567 01 62 01 74 00 00": "order",  # the smaller client first
    f"02 01 07 00 {REG_A} 01 74 00 01 07 00 28 01 03 726567 01 62 01 74 00 00": "order",  # one client twice
    f"01 01 07 01 {REG_A} 01 74 00 00": "order",  # not from clock 0
    "01 00 07 00 00": "order",
    "02 01 09 00 88 07 00 01 74 00 01 07 00 88 09 00 01 74 00 00": "order",  # each waits for the other
    "01 01 07 00 88 07 00 01 74 00 00": "order",  # waits for itself
    "01 01 07 00 88 09 00 01 74 00 00": "order",  # waits for nobody
    f"01 01 07 00 {REG_A} 01 74 00 01 07 01 01 01": "unknown",
    f"01 01 07 00 04 {TEXT} 05 f09f988061 01 07 01 01 01": "surrogate",
    f"01 01 07 00 {REG_A} 01 74 00 00 00": "trailing",
    f"01 01 07 00 {REG_A} 01 74 00": "truncated",
    f"01 01 07 00 04 {TEXT} 01 ff 00": "utf8",
    "01 01 07 00 00 05 00": "kind",
    f"01 02 07 00 {REG_A} 01 74 00 {REG_A} 01 74 00 00": "origin",
}


@pytest.mark.parametrize("hexadecimal", SNAPSHOTS)
def test_a_broken_snapshot_is_refused(hexadecimal: str) -> None:
    assert snapshot_refusal(bytes.fromhex(hexadecimal)) == SNAPSHOTS[hexadecimal]


def test_a_snapshot_whose_clients_wait_for_one_another_in_turn_is_accepted() -> None:
    chance = random.Random(5)
    low, high = Device(3), Device(1000)
    for turn in range(40):
        writer, reader = (low, high) if turn % 2 else (high, low)
        reader.apply(writer.append_only(chance))
    snapshot = low.doc.get_update()
    index = check_snapshot(snapshot)
    assert index.clocks == state_of(low.doc)
    assert index.tail("list:messages") is not None


def test_what_passes_the_check_is_kept_up_to_the_last_field() -> None:
    checked = check_update(FIRST, client=7, index=None)
    assert isinstance(checked, CheckedUpdate)
    assert is_covered({7: 1}, checked)
    assert not is_covered({7: 0, 8: 9}, checked)
    doc = Doc[Any]()
    doc.apply_update(FIRST)
    assert doc.get("reg", type=Map).to_py() == {"a": b"1"}
    assert doc.get("list:m", type=Array).to_py() == []
    assert str(doc.get("text:b", type=Text)) == ""
    assert pack(1) == b"\x01"
