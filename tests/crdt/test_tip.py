"""A tip goes on as its document would: the same bytes and contents, and it takes nothing that the check refuses."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.changes import AddElements, Increment, InsertItems, Operation, RemoveItems, SetRegister
from crdt.document import Document
from crdt.errors import UpdateRefused
from crdt.grammar import Id, walk_update
from crdt.index import Place
from crdt.limits import UPDATE_BYTES_MAX
from crdt.tip import ItemsUnread, Tip
from crdt.updates import check_update, read_creation, write_creation
from crdt.values import encode_reading, encode_value
from tests.crdt.forging import Forger, encode
from tests.crdt.test_document import an_operation

__all__: list[str] = []

CREATOR, MINE, OTHER = 7, 800, 2**53 - 1
CREATION = write_creation(
    CREATOR,
    [(b"@", encode_reading(5)), (b"title", encode_value("x")), (b"updatedAt", encode_value(1))],
    [(b"tags", [b'"a"', b'"b"'])],
    [(b"views", [(b"", encode_value(3))])],
    [(b"lines", [encode_value(1), encode_value(2)])],
)
chances = st.randoms(use_true_random=True)


def created(client: int) -> Document:
    creation = read_creation(CREATION, client=CREATOR)
    assert creation is not None
    return Document.from_creation(CREATION, creation, client=client)


def tip_of(document: Document) -> Tip:
    tip = Tip.of(document.index, document.contents)
    assert tip is not None
    return Tip.from_bytes(tip.to_bytes())


def an_append(chance: random.Random) -> list[Operation]:
    """Return an edit such as a tip is for."""
    value = encode_value(chance.choice([0, "x" * chance.choice([1, 200]), None]))
    paths = chance.sample(["updatedAt", "title", "isArchived", "settings/a"], chance.randrange(1, 4))
    items = [
        InsertItems("lines", None, (value,) * chance.choice([1, 1, 3])) for _ in range(chance.randrange(2))
    ]
    operations: list[Operation] = [*items, *(SetRegister(path, value) for path in paths)]
    chance.shuffle(operations)
    return operations


def assert_same(tip: Tip, document: Document) -> None:
    """What a tip knows is what it would know, were it made anew."""
    assert tip.contents.digest("c", "r") == document.contents.digest("c", "r")
    assert tip.contents.reg == document.contents.reg
    fresh = tip_of(document)
    assert (tip._clocks, tip._entries, tip._keys) == (fresh._clocks, fresh._entries, fresh._keys)
    assert {root: document.index.tail(root) for root in tip._tails} == tip._tails


def in_order(update: bytes) -> object:
    """Return what an update says, the deleted ranges of several clients in an order of ours."""
    *head, deletes = walk_update(update, None)
    return [*head, sorted(deletes)]


@given(chances)
def test_an_edit_at_the_tip_is_that_of_the_document_and_others_take_it(chance: random.Random) -> None:
    document, follower = created(MINE), created(OTHER)
    tip = tip_of(document)
    for reading in range(10, 22):
        if chance.random() < 0.3:  # somebody else goes on, having seen everything
            update, _ = follower.edit(an_append(chance), reading=reading)
            checked = document.apply(update, client=OTHER)
            taken = tip.take(update, client=OTHER)
            assert taken is not None
        else:
            operations = an_append(chance)
            update, taken = tip.edit(operations, client=MINE, reading=reading)
            theirs, checked = document.edit(operations, reading=reading)
            assert in_order(update) == in_order(theirs)
            if len({client for client, _, _ in checked.deletes}) < 2:  # yrs orders clients by a hash
                assert update == theirs
            assert follower.apply(update, client=MINE) == checked
        assert (taken.touched, taken.appended, taken.end) == (checked.touched, checked.appended, checked.end)
        assert_same(tip, document)
        if chance.random() < 0.2:
            tip = Tip.from_bytes(tip.to_bytes())


@given(chances)
def test_of_any_history_a_tip_takes_only_what_it_understands_and_understands_it_as_the_document(
    chance: random.Random,
) -> None:
    document = created(MINE)
    others = {client: created(client) for client in (OTHER, 5)}
    outbox: list[tuple[int, bytes]] = []  # what the others did and the document has not seen
    tip: Tip | None = tip_of(document)
    for reading in range(10, 30):
        what = chance.choice(["mine", "theirs", "theirs", "arrives", "arrives"])
        if what == "theirs":
            client = chance.choice(list(others))
            operations = an_append(chance)
            if chance.random() < 0.4:
                operation = an_operation(chance, others[client])
                if "Text" not in type(operation).__name__:
                    operations = [SetRegister("updatedAt", encode_value(0)), operation]
            update, _ = others[client].edit(operations, reading=reading)
            outbox.append((client, update))
        elif what == "arrives" and outbox:
            client, update = outbox.pop(0)
            taken = None if tip is None else tip.take(update, client=client)
            checked = document.apply(update, client=client)
            if taken is None:
                tip = Tip.of(document.index, document.contents)
            else:
                assert (taken.touched, taken.appended) == (checked.touched, checked.appended)
            for other, follower in others.items():
                if other != client and chance.random() < 0.5:  # the rest stays behind for ever, and works on
                    with contextlib.suppress(UpdateRefused):
                        follower.apply(update, client=client)
        elif what == "mine":
            operations = an_append(chance)
            update, _ = document.edit(operations, reading=reading)
            if tip is None or tip.take(update, client=MINE) is None:
                tip = Tip.of(document.index, document.contents)
        if tip is not None:
            assert_same(tip, document)


@given(chances)
def test_a_tip_takes_nothing_that_the_check_refuses(chance: random.Random) -> None:
    document, follower = created(MINE), created(OTHER)
    corpus, items = [CREATION], list(check_update(CREATION, client=CREATOR, index=None).items)
    for reading in range(10, 14):
        writer, reader = chance.sample([document, follower], 2)
        update, checked = writer.edit(an_append(chance), reading=reading)
        reader.apply(update, client=writer.client)
        corpus.append(update)
        items += checked.items
    update, _ = follower.edit(an_append(chance), reading=20)
    ids: dict[Place, list[Id]] = {}
    for item in items:
        known = ids.setdefault((item.root, item.key), [])
        known += [(item.client, item.clock + n) for n in range(item.length)]
    forger = Forger(chance, corpus, ids, list(document.index.clocks))
    for _ in range(30):
        start = document.index.next_clock(OTHER)
        forged = forger.forge(update, start) if chance.random() < 0.9 else update
        tip = tip_of(document)
        try:
            taken = tip.take(forged, client=OTHER)
        except UpdateRefused:
            taken = None
        if taken is None:
            assert_same(tip, document)  # as it was
            continue
        checked = check_update(forged, client=OTHER, index=document.index)
        assert (taken.touched, taken.appended) == (checked.touched, checked.appended)


@pytest.mark.parametrize(
    "operation",
    [
        InsertItems("lines", 0, (b"\x01",)),
        InsertItems("no such list", None, (b"\x01",)),
        RemoveItems("lines", 0, 1),
        AddElements("tags", ('"c"',)),
        Increment("views", 1),
        SetRegister("$deleted", b"\xc3"),
    ],
)
def test_what_needs_the_document_is_refused_and_nothing_changes(operation: Operation) -> None:
    document = created(MINE)
    tip = tip_of(document)
    with pytest.raises(ItemsUnread):
        tip.edit([SetRegister("updatedAt", b"\x01"), operation], client=MINE, reading=9)
    assert_same(tip, document)


def test_the_items_of_a_tip_are_never_taken_for_none() -> None:
    lists = tip_of(created(MINE)).contents.lists
    assert list(lists) == ["lines"]
    assert lists.get("missing", ()) == ()
    for use in (lambda: lists["lines"], lambda: lists.get("lines", ()), lists.items, lists.values):
        with pytest.raises(ItemsUnread):
            use()


def test_a_document_with_text_has_no_tip() -> None:
    update = write_creation(CREATOR, [(b"@", encode_reading(5))], texts=[(b"body", b"x")])
    creation = read_creation(update, client=CREATOR)
    assert creation is not None
    document = Document.from_creation(update, creation, client=MINE)
    assert Tip.of(document.index, document.contents) is None


def test_an_edit_too_large_for_one_update_changes_nothing() -> None:
    document = created(MINE)
    tip = tip_of(document)
    with pytest.raises(UpdateRefused, match="UPDATE_BYTES_MAX"):
        tip.edit([SetRegister("updatedAt", bytes(UPDATE_BYTES_MAX))], client=MINE, reading=9)
    assert_same(tip, document)


def test_a_key_is_written_anew_only_by_its_own_client_and_behind_its_last_entry() -> None:
    document = created(MINE)
    document.edit([SetRegister("title", b"\x01")], reading=9)
    again = (0x28, 1, 1, "reg", f"title@{MINE}", None, None, (b"\x01",), None)
    plain = (0xA8, 5, 1, None, None, (CREATOR, 1), None, (b"\x01",), None)
    for client, block in (
        (MINE, again),
        (CREATOR, (*plain[:1], document.index.next_clock(CREATOR), *plain[2:])),
    ):
        forged = encode(client, block[1], [block], [], random.Random(1))
        with pytest.raises(UpdateRefused, match=r"last at clock|not its own"):
            check_update(forged, client=client, index=document.index)
        assert tip_of(document).take(forged, client=client) is None
