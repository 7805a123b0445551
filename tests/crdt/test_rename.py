"""Renaming a client changes its name and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crdt.changes import AddElements, DeleteText, Increment, InsertItems, InsertText, Operation, SetRegister
from crdt.document import Document
from crdt.rename import rename_client
from crdt.updates import check_snapshot, check_update

OLD, OTHER, NEW = 7001, 99, (1 << 53) - 5

operations = st.lists(
    st.sampled_from(
        [
            SetRegister("title", b"\x01"),
            SetRegister("settings/a~2b", b"\xa1x"),
            SetRegister("settings/a~2b", None),
            AddElements("tags", ('"a"', '"b@1"')),
            Increment("views", 3),
            InsertItems("items", None, (b"\x01", b"\x02")),
            InsertItems("items", 0, (b"\x03",)),
            InsertText("body", 0, "é😀x"),
        ]
    ),
    min_size=1,
    max_size=12,
)


def written(first: list[Operation], second: list[Operation]) -> tuple[list[tuple[int, bytes]], Document]:
    """Return the updates of a history by OLD, then OTHER on top of it, then OLD again; and OLD's document."""
    mine, theirs = Document(client=OLD), Document(client=OTHER)
    history: list[tuple[int, bytes]] = []
    for document, other, part in ((mine, theirs, first), (theirs, mine, second), (mine, theirs, first)):
        stamp = SetRegister("updatedAt", b"\x01")
        update, _ = document.edit([*part, stamp], reading=(1 << 60) + len(history))
        other.apply(update, client=document.client)
        history.append((document.client, update))
    return history, mine


@given(first=operations, second=operations)
def test_a_renamed_history_is_accepted_and_says_the_same(
    first: list[Operation], second: list[Operation]
) -> None:
    history, document = written(first, second)
    renamed = Document(client=1)
    for client, update in history:
        named = NEW if client == OLD else client
        renamed.apply(rename_client(update, OLD, NEW), client=named)
    assert renamed.contents.value() == document.contents.value()
    assert OLD not in renamed.clocks()
    assert renamed.clocks()[NEW] == document.clocks()[OLD]


@given(first=operations, second=operations)
def test_a_renamed_snapshot_is_accepted_and_goes_back_to_the_same_bytes(
    first: list[Operation], second: list[Operation]
) -> None:
    _, document = written(first, second)
    snapshot = document.snapshot()
    renamed = rename_client(snapshot, OLD, NEW)
    assert check_snapshot(renamed).next_clock(NEW) == document.clocks()[OLD]
    assert Document.load(renamed, [], client=1).contents.value() == document.contents.value()
    assert check_snapshot(rename_client(renamed, NEW, OLD)).clocks == check_snapshot(snapshot).clocks


def test_a_client_that_does_not_occur_changes_nothing() -> None:
    document = Document(client=OTHER)
    edits: list[Operation] = [
        InsertText("body", 0, "x"),
        DeleteText("body", 0, 1),
        SetRegister("updatedAt", b"\x01"),
    ]
    update, checked = document.edit(edits, reading=1 << 60)
    assert rename_client(update, OLD, NEW) == update
    assert check_update(update, client=OTHER, index=None).end == checked.end
