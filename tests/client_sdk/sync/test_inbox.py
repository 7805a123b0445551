"""Pages that follow one another are taken together, and nothing else is touched or reordered."""

from __future__ import annotations

from collections import deque

import pytest

from client_sdk.sync.events import Event, Lost, Received
from client_sdk.sync.inbox import take
from crdt import wire
from crdt.limits import PAGE_ENTRIES_MAX


def page(after: int, through: int, *, space: str = "s", entries: int | None = None) -> Received:
    count = through - after if entries is None else entries
    listed = [wire.Entry(after + n + 1, "notes", "r", 1, b"x") for n in range(count)]
    return Received(wire.Page(space, after, through, through, listed), now_ms=through)


def test_pages_in_a_row_become_one() -> None:
    inbox: deque[Event | Exception] = deque([page(0, 3), page(3, 5), page(5, 5), page(5, 9)])
    taken = take(inbox)
    assert isinstance(taken, Received)
    assert isinstance(taken.message, wire.Page)
    assert (taken.message.after, taken.message.through, taken.message.head, taken.now_ms) == (0, 9, 9, 9)
    assert [entry.position for entry in taken.message.entries] == list(range(1, 10))
    assert not inbox


@pytest.mark.parametrize(
    "following",
    [
        page(4, 6),
        page(2, 6),
        page(3, 6, space="other"),
        page(3, 3 + PAGE_ENTRIES_MAX),
        Received(wire.Ack("s", 1, 5), now_ms=1),
        Lost(OSError()),
        OSError(),
    ],
)
def test_what_does_not_follow_stays(following: Event | Exception) -> None:
    first, last = page(0, 3), page(6, 7)
    inbox: deque[Event | Exception] = deque([first, following, last])
    assert take(inbox) == first
    assert list(inbox) == [following, last]


def test_other_events_come_alone() -> None:
    ack = Received(wire.Ack("s", 1, 5), now_ms=1)
    inbox: deque[Event | Exception] = deque([ack, page(0, 1), page(1, 2)])
    assert take(inbox) is ack
    assert len(inbox) == 2
