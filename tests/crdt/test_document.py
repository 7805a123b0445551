"""A document takes edits and updates, says what it holds, and comes back from its bytes the same."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.changes import (
    AddElements,
    DeleteText,
    Increment,
    InsertItems,
    InsertText,
    Operation,
    RemoveElements,
    RemoveItems,
    SetRegister,
)
from crdt.document import Document
from crdt.errors import UpdateGap, UpdateRefused
from crdt.limits import UPDATE_BYTES_MAX
from crdt.updates import check_update, read_creation, write_creation
from crdt.values import encode_reading, encode_value
from tests.crdt.fleet import plain
from tests.crdt.histories import ALPHABET

__all__: list[str] = []

CREATOR, WRITER, OTHER = 7, 8, 2**53 - 1
CREATION = write_creation(
    CREATOR,
    [(b"@", encode_reading(5)), (b"title", encode_value("x")), (b"settings/a", encode_value(1))],
    [(b"tags", [b'"a"', b'"b"'])],
    [(b"views", [(b"", encode_value(3))])],
    [(b"lines", [encode_value(1), encode_value(2)])],
    [(b"body", "a😀b".encode())],
)
TOUCH = SetRegister("updatedAt", encode_value(0))
chances = st.randoms(use_true_random=True)


def created(client: int = WRITER) -> Document:
    creation = read_creation(CREATION, client=CREATOR)
    assert creation is not None
    return Document.from_creation(CREATION, creation, client=client)


def an_operation(chance: random.Random, document: Document) -> Operation:
    """Return any operation that is within bounds: absurd ones and ones without effect included."""
    contents = document.contents
    name = chance.choice(["a", "b", "lines", "tags", "body", "views", "é😀"])
    length, text = len(contents.lists.get(name, ())), len(contents.texts.get(name, ""))
    elements = tuple(chance.sample(['"a"', '"b@5"', "5", '"é\\u0000"', "null"], chance.randrange(3)))
    value = encode_value(chance.choice([None, 1, "x" * 300, chance.choice(ALPHABET)]))
    start, place = chance.randrange(length + 1), chance.randrange(text + 1)
    choices: list[Operation] = [
        SetRegister(
            chance.choice(["title", "updatedAt", "settings/a", "settings/a/~2", "$deleted", name]), value
        ),
        SetRegister(chance.choice(["settings/a", "settings/a/b", "missing"]), None),
        AddElements(name, elements),
        RemoveElements(name, elements),
        Increment(name, chance.choice([0, 1, -5, 2**63 - 1, -(2**63)])),
        InsertItems(name, chance.choice([None, start]), (value,) * chance.randrange(3)),
        RemoveItems(name, start, chance.randrange(length - start + 1)),
        InsertText(name, place, "".join(chance.choice(ALPHABET) for _ in range(chance.randrange(3)))),
        DeleteText(name, place, chance.randrange(text - place + 1)),
    ]
    return chance.choice(choices)


@given(chances)
def test_every_edit_within_bounds_passes_the_check_and_is_the_same_everywhere(chance: random.Random) -> None:
    document, updates = created(), [CREATION]
    follower = created(OTHER)
    for reading in range(10, 14):
        # Each is chosen by what is there before the edit, so of one kind of place one only.
        operations: list[Operation] = [TOUCH, an_operation(chance, document)]
        while chance.random() < 0.5:
            extra = an_operation(chance, document)
            if isinstance(extra, SetRegister | AddElements | RemoveElements | Increment):
                operations.append(extra)
        chance.shuffle(operations)
        before = document.index.next_clock(WRITER)
        update, checked = document.edit(operations, reading=reading)
        assert (checked.client, checked.start) == (WRITER, before)
        assert checked.end == document.index.next_clock(WRITER)
        assert follower.apply(update, client=WRITER) == checked
        updates.append(update)
    reloaded = Document.load(None, updates, client=OTHER)
    from_snapshot = Document.load(document.snapshot(), [], client=OTHER)
    for other in (follower, reloaded, from_snapshot):
        assert plain(other.contents) == plain(document.contents)
        assert other.contents.digest("c", "r") == document.contents.digest("c", "r")
        assert other.clocks() == document.clocks()


def test_an_edit_of_one_kind_after_another_in_one_transaction_sees_the_one_before() -> None:
    document = created()
    update, checked = document.edit(
        [
            TOUCH,
            AddElements("tags", ('"c"',)),
            RemoveElements("tags", ('"c"', '"a"')),
            Increment("views", 2),
            Increment("views", 3),
            InsertItems("lines", 1, (encode_value(8), encode_value(9))),
            RemoveItems("lines", 0, 2),
            InsertItems("lines", None, (encode_value(7),)),
            DeleteText("body", 1, 1),
            InsertText("body", 1, "😅é"),
            SetRegister("title", encode_value("y")),
            SetRegister("title", encode_value("z")),
        ],
        reading=9,
    )
    follower = created(OTHER)
    assert follower.apply(update, client=WRITER) == checked
    for contents in (document.contents, follower.contents):
        assert contents.value() == {
            "title": "z", "updatedAt": 0, "settings": {"a": 1}, "tags": ["b"], "views": 8, "lines": [9, 2, 7],
            "body": "a😅éb",
        }  # fmt: skip
        assert contents.list_digest("lines").count == 3


def test_a_running_total_wraps_around_and_never_leaves_64_bits() -> None:
    document = created()
    for reading in range(5, 9):
        document.edit([TOUCH, Increment("views", 2**63 - 1)], reading=reading)
    assert document.contents.count("views") == 3 - 4


def test_an_edit_that_sets_no_register_is_a_bug_of_the_caller() -> None:
    """It could be one of deletes alone, which moves no clock."""
    document = created()
    before = plain(document.contents)
    for operations in ([], [RemoveElements("tags", ('"a"',))], [Increment("views", 1)]):
        with pytest.raises(ValueError, match="sets at least one register"):
            document.edit(operations, reading=9)
    assert plain(document.contents) == before
    document.edit([TOUCH], reading=9)


def test_an_edit_too_large_for_one_update_is_refused() -> None:
    with pytest.raises(UpdateRefused, match="UPDATE_BYTES_MAX"):
        created().edit([TOUCH, InsertText("body", 0, "x" * UPDATE_BYTES_MAX)], reading=9)


def test_a_repeat_a_gap_and_a_foreign_client_change_nothing() -> None:
    first, second = created(), created(OTHER)
    updates = [first.edit([TOUCH, Increment("views", by)], reading=9)[0] for by in (1, 2)]
    before = plain(second.contents)
    with pytest.raises(UpdateGap):
        second.apply(updates[1], client=WRITER)
    with pytest.raises(UpdateRefused, match=r"\(client\)"):
        second.apply(updates[0], client=CREATOR)
    with pytest.raises(UpdateRefused, match=r"\(truncated\)"):
        second.apply(updates[0][:-3], client=WRITER)
    assert plain(second.contents) == before
    for update in updates:
        second.apply(update, client=WRITER)
        with pytest.raises(UpdateRefused, match=r"\(repeat\)"):
            second.apply(update, client=WRITER)
    assert plain(second.contents) == plain(first.contents)


def test_a_document_that_is_one_update_needs_no_pycrdt_until_it_changes() -> None:
    document = created()
    assert document.contents.value()["title"] == "x"
    assert document.snapshot() == CREATION
    assert document.clocks() == {CREATOR: 12}
    assert document._doc is None
    assert Document.load(None, [CREATION], client=WRITER)._doc is None
    document.edit([TOUCH], reading=9)
    assert document._doc is not None


def test_an_empty_document_says_nothing_and_takes_a_creation() -> None:
    document = Document.load(None, [], client=WRITER)
    assert document.contents.value() == {}
    assert document.clocks() == {}
    checked = document.apply(CREATION, client=CREATOR)
    assert checked.is_creation
    assert plain(document.contents) == plain(created().contents)


def test_a_snapshot_merges_beside_what_is_here() -> None:
    first, second = created(), created(OTHER)
    first.edit([TOUCH, Increment("views", 1)], reading=9)
    kept, _ = second.edit([TOUCH, Increment("views", 10)], reading=9)
    second.merge_snapshot(first.snapshot())
    assert second.contents.count("views") == 14
    first.apply(kept, client=OTHER)
    assert plain(first.contents) == plain(second.contents)
    second.merge_snapshot(first.snapshot())
    assert plain(first.contents) == plain(second.contents)
    assert second.clocks() == first.clocks()
    update, _ = second.edit([TOUCH, InsertItems("lines", None, (encode_value(3),))], reading=10)
    first.apply(update, client=OTHER)
    assert first.contents.value()["lines"] == [1, 2, 3]


changed_creations = st.builds(
    lambda at, to: CREATION[:at] + to + CREATION[at + 1 :], st.integers(0, 120), st.binary(max_size=2)
)


@given(st.binary(max_size=40) | changed_creations)
def test_foreign_bytes_are_refused_by_type_or_taken_whole(data: bytes) -> None:
    document = created()
    for take in (lambda: document.apply(data, client=CREATOR), lambda: document.merge_snapshot(data)):
        try:
            take()
        except UpdateRefused as error:
            if error.code in {"panic", "pending"}:
                return
    document.contents.value()
    document.contents.digest("c", "r")
    reloaded = Document.load(document.snapshot(), [], client=OTHER)
    assert plain(reloaded.contents) == plain(document.contents)


@given(chances)
def test_a_long_list_reads_as_it_was_edited(chance: random.Random) -> None:
    document, numbers = Document(client=WRITER), list(range(chance.randrange(60, 200)))
    document.edit([TOUCH, InsertItems("lines", None, tuple(map(encode_value, numbers)))], reading=5)
    for reading in range(6, 9):
        start = chance.randrange(len(numbers))
        count = chance.randrange(min(9, len(numbers) - start))
        place = chance.randrange(len(numbers) - count + 1)
        document.edit(
            [
                TOUCH,
                RemoveItems("lines", start, count),
                InsertItems("lines", place, (encode_value(-reading),)),
            ],
            reading=reading,
        )
        del numbers[start : start + count]
        numbers.insert(place, -reading)
    assert Document.load(document.snapshot(), [], client=OTHER).contents.value()["lines"] == numbers
    assert document.contents.value()["lines"] == numbers


def test_bytes_are_counted_for_memory_and_compaction() -> None:
    document = created()
    assert (document.snapshot_bytes, document.tail_bytes, document.bytes) == (0, len(CREATION), len(CREATION))
    update, _ = document.edit([TOUCH], reading=9)
    assert document.tail_bytes == len(CREATION) + len(update)
    snapshot = document.snapshot()
    document.compacted(len(snapshot))
    assert (document.snapshot_bytes, document.tail_bytes) == (len(snapshot), 0)
    loaded = Document.load(snapshot, [update], client=OTHER)
    assert (loaded.snapshot_bytes, loaded.tail_bytes) == (len(snapshot), len(update))


def test_the_index_after_a_load_judges_as_the_one_that_was_kept() -> None:
    document = created()
    updates = [document.edit([TOUCH, Increment("views", by)], reading=9 + by)[0] for by in range(3)]
    loaded = Document.load(document.snapshot(), [], client=OTHER)
    assert loaded.index.clocks == document.index.clocks
    with pytest.raises(UpdateRefused, match=r"\(repeat\)"):
        check_update(updates[2], client=WRITER, index=loaded.index)
    more: Any = document.edit([TOUCH, InsertText("body", 0, "😀")], reading=20)[0]
    assert loaded.apply(more, client=WRITER).start == document.index.next_clock(WRITER) - 3
