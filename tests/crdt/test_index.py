"""The index knows where each item stands, and the end of a list exactly when origins prove it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc

from crdt.ends import Ends
from crdt.grammar import Id
from crdt.index import DocumentIndex, Draft, low_halves
from crdt.updates import check_snapshot, check_update
from tests.crdt.histories import ALPHABET, History

__all__: list[str] = []


def test_items_are_found_by_client_and_clock() -> None:
    index = DocumentIndex()
    assert not index
    index.put(7, 0, 1, ("reg", "a"), None, None, None)
    index.put(7, 1, 2, ("list:m", None), None, None, None)
    index.put(7, 3, 2, ("list:m", None), None, (7, 2), None)
    index.put(7, 5, 1, ("reg", "a"), None, (7, 0), None)
    places = [("reg", "a"), *[("list:m", None)] * 4, ("reg", "a"), None]
    assert [index.place(7, clock) for clock in range(7)] == places
    assert index.place(8, 0) is None
    assert index.places(7, 0, 6) == [("reg", "a"), ("list:m", None), ("reg", "a")]
    assert index.places(7, 2, 4) == [("list:m", None)]
    assert index.places(7, 2, 7) == index.places(8, 0, 1) == []
    assert index.last_entry(7, ("reg", "a")) == 5
    assert index.last_entry(8, ("reg", "a")) is None
    assert index.clocks == {7: 6}
    assert (index.next_clock(7), index.next_clock(8)) == (6, 0)
    assert bool(index)


def test_a_run_is_what_one_client_wrote_on_and_on_in_one_place() -> None:
    index = DocumentIndex()
    index.put(7, 0, 2, ("list:m", None), None, None, None)
    index.put(7, 2, 2, ("list:m", None), None, (7, 1), None)
    index.put(7, 4, 2, ("list:m", None), None, (7, 1), None)
    index.put(7, 6, 1, ("list:m", None), None, None, (7, 0))
    index.put(7, 7, 1, ("list:n", None), None, None, None)
    assert [index.run_start(7, clock) for clock in range(8)] == [0, 0, 0, 0, 4, 4, 6, 7]
    draft = Draft(index, 7, 8)
    draft.put(8, 2, ("list:n", None), None, (7, 7), None)
    draft.put(10, 2, ("list:n", None), None, (7, 9), None)
    draft.put(12, 1, ("list:n", None), None, (7, 9), None)
    assert [draft.run_start(7, clock) for clock in range(6, 13)] == [6, 7, 7, 7, 7, 7, 12]


def test_a_draft_sees_the_document_and_the_update_on_top() -> None:
    index = DocumentIndex()
    index.put(7, 0, 2, ("list:m", None), None, None, None)
    index.put(9, 0, 2, ("text:b", None), "😀", None, None)
    draft = Draft(index, 7, 2)
    draft.put(2, 1, ("reg", "a"), None, None, None)
    draft.put(3, 3, ("text:b", None), "a😀", None, None)
    assert [draft.place(7, clock) for clock in (0, 1, 2, 3, 5, 6)] == [
        ("list:m", None),
        ("list:m", None),
        ("reg", "a"),
        ("text:b", None),
        ("text:b", None),
        None,
    ]
    assert draft.places(7, 1, 4) == [("list:m", None), ("reg", "a"), ("text:b", None)]
    assert draft.places(7, 0, 2) == [("list:m", None)]
    assert draft.places(7, 4, 6) == [("text:b", None)]
    assert draft.places(7, 4, 7) == draft.places(9, 0, 3) == []
    assert draft.last_entry(7, ("reg", "a")) == 2
    assert draft.last_entry(9, ("reg", "a")) is None
    assert draft.is_split(7, 5)
    assert draft.is_split(9, 1)
    assert not draft.is_split(7, 4)
    assert index.next_clock(7) == 2
    assert index.last_entry(7, ("reg", "a")) is None


@given(st.lists(st.sampled_from(ALPHABET)).map("".join), st.integers(0, 1000))
def test_low_halves_are_where_utf_16_has_them(text: str, clock: int) -> None:
    units = text.encode("utf-16-le")
    expected = [clock + at for at in range(len(units) // 2) if 0xDC <= units[2 * at + 1] <= 0xDF]
    assert low_halves(text, clock) == expected


def test_a_copy_is_independent(history: History) -> None:
    index = DocumentIndex()
    for client, update in history.log[:-1]:
        index.add(check_update(update, client=client, index=index))
    copy = index.copy()
    client, update = history.log[-1]
    checked = check_update(update, client=client, index=copy)
    copy.add(checked)
    assert copy.next_clock(client) == checked.end
    assert index.next_clock(client) == checked.start
    assert check_update(update, client=client, index=index) == checked


def test_an_index_from_a_snapshot_knows_what_one_from_updates_knows(history: History) -> None:
    index = DocumentIndex()
    for client, update in history.log:
        index.add(check_update(update, client=client, index=index))
    from_snapshot = check_snapshot(history.devices[0].doc.get_update())
    assert from_snapshot.clocks == index.clocks
    for client, end in index.clocks.items():
        assert [from_snapshot.place(client, clock) for clock in range(end)] == [
            index.place(client, clock) for clock in range(end)
        ]


class Yata:
    """A list as yrs integrates it (`Item::integrate`), item by item, slow and plain."""

    def __init__(self) -> None:
        self.items: list[tuple[Id, Id | None, Id | None]] = []

    def insert(self, item: Id, origin: Id | None, right: Id | None) -> int:
        """Return the number of items that were walked over."""
        ids = [each[0] for each in self.items]
        left = -1 if origin is None else ids.index(origin)
        before: set[Id] = set()
        conflicting: set[Id] = set()
        steps = 0
        for at in range(left + 1, len(self.items)):
            other, other_origin, other_right = self.items[at]
            if other == right:
                break
            steps += 1
            before.add(other)
            conflicting.add(other)
            if other_origin == origin:
                if other[0] < item[0]:
                    left = at
                    conflicting.clear()
                elif other_right == right:
                    break
            elif other_origin is not None and other_origin in before:
                if other_origin not in conflicting:
                    left = at
                    conflicting.clear()
            else:
                break
        self.items.insert(left + 1, (item, origin, right))
        return steps


@settings(max_examples=500, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_a_known_end_is_the_end_whatever_items_claim(chance: random.Random, only_appends: bool) -> None:
    """Origins here are invented at random: no honest device need have made them."""
    ends, yata = Ends(), Yata()
    clocks = dict.fromkeys(range(4), 0)
    for _ in range(chance.randrange(1, 25)):
        ids = [each[0] for each in yata.items]
        client = chance.randrange(4)
        item = (client, clocks[client])
        clocks[client] += chance.randrange(1, 3)  # items of other roots stand between
        origin = chance.choice([None, *ids, *ids[-1:] * 5])
        right = None if only_appends or chance.random() < 0.7 else chance.choice([None, *ids])
        if right is not None and right == origin:
            continue
        ends.place(client, item[1], item[1], origin, right)
        yata.insert(item, origin, right)
        if ends.is_known:
            assert ends.tail == yata.items[-1][0]


def test_an_end_stays_known_through_concurrent_appends() -> None:
    ends = Ends()
    ends.place(5, 0, 0, None, None)
    ends.place(5, 1, 3, (5, 0), None)
    ends.place(3, 0, 4, (5, 1), None)  # had seen less; the smaller client comes first
    assert ends.tail == (5, 3)
    ends.place(9, 0, 1, (5, 3), None)
    ends.place(9, 2, 2, (9, 1), None)
    ends.place(9, 3, 3, (9, 2), None)
    ends.place(11, 0, 0, (9, 1), None)  # the larger client comes later
    assert ends.tail == (11, 0)
    ends.place(9, 4, 4, (9, 3), None)  # off the chain by now
    assert ends.tail == (11, 0)
    ends.place(12, 0, 0, None, None)  # had seen nothing
    assert ends.tail == (12, 0)
    assert ends.is_known


@pytest.mark.parametrize(
    ("origin", "right", "is_known"),
    [
        (None, (5, 0), True),
        ((5, 0), (5, 1), True),
        ((5, 1), (5, 0), False),
        ((5, 2), (5, 0), False),
    ],
)
def test_an_insertion_moves_no_end_if_its_neighbours_are_in_order(
    origin: Id | None, right: Id, is_known: bool
) -> None:
    ends = Ends()
    ends.place(5, 0, 2, None, None)
    ends.place(9, 0, 0, origin, right)
    assert ends.tail == ((5, 2) if is_known else None)


def test_looking_for_a_concurrent_append_is_bounded() -> None:
    ends = Ends()
    ends.place(1, 0, 0, None, None)
    last = (1, 0)
    for turn in range(1, 200):
        client = turn % 2 + 1
        ends.place(client, turn, turn, last, None)
        last = (client, turn)
    ends.place(3, 0, 0, (1, 0), None)
    assert ends.tail is None
    assert not ends.is_known


@settings(max_examples=500, deadline=None)
@given(st.randoms(use_true_random=False))
def test_what_counts_no_steps_takes_yrs_no_walk(chance: random.Random) -> None:
    """Origins here are invented at random: no honest device need have made them."""
    index, yata = DocumentIndex(), Yata()
    place = ("text:b", None)
    for _ in range(chance.randrange(1, 30)):
        ids = [each[0] for each in yata.items]
        client = chance.randrange(4)
        clock = index.next_clock(client)
        if chance.random() < 0.3:  # something else in between
            index.put(
                client, clock, 1, ("reg", str(clock)), None, (client, clock - 1) if clock else None, None
            )
            clock += 1
        origin = chance.choice([None, *ids, (client, clock - 1) if (client, clock - 1) in ids else None])
        right = chance.choice([None, *ids])
        beside = 0 if origin is None else ids.index(origin) + 1
        if chance.random() < 0.6:
            right = ids[beside] if beside < len(ids) else None
        if right is not None and right == origin:
            continue
        before = index.neighbours.steps
        index.put(client, clock, 1, place, None, origin, right)
        walked = yata.insert((client, clock), origin, right)
        assert walked <= max(1, index.neighbours.steps - before)


def test_a_draft_counts_the_steps_that_the_index_would() -> None:
    chance = random.Random(3)
    place = ("text:b", None)
    for _ in range(300):
        index = DocumentIndex()
        index.put(7, 0, 4, place, None, None, None)
        index.put(9, 0, 2, place, None, (7, 1), (7, 2))
        draft = Draft(index.copy(), 7, 4)
        ids = [(7, 0), (7, 1), (7, 2), (7, 3), (9, 0), (9, 1)]
        for clock in range(4, 12):
            origin, right = chance.choice([None, *ids, ids[-1]]), chance.choice([None, *ids])
            draft.put(clock, 1, place, None, origin, right)
            index.put(7, clock, 1, place, None, origin, right)
            ids.append((7, clock))
            assert draft.neighbours.pieces(place) == index.neighbours.pieces(place)
        assert draft.neighbours.steps == index.neighbours.steps


def test_a_deleted_range_may_cut_blocks_in_two() -> None:
    update = bytes.fromhex("01 01 07 00 04 01 06 746578743a62 03 616263 01 07 01 01 01")
    index = DocumentIndex()
    index.add(check_update(update, client=7, index=index))
    assert index.neighbours.pieces(("text:b", None)) == 3 + 2
    assert check_snapshot(update).neighbours.pieces(("text:b", None)) == 3 + 2


def test_entries_that_many_begin_under_one_key_count_steps() -> None:
    index = DocumentIndex()
    for client in range(10):
        index.put(client, 0, 1, ("reg", "@"), None, None, None)
    assert index.neighbours.steps == sum(range(2, 11))


@given(st.randoms(use_true_random=False))
def test_two_moments_of_one_history_never_contradict_one_another(chance: random.Random) -> None:
    history = History.random(chance)
    history.close()
    index, doc = DocumentIndex(), Doc[Any]()
    moments: list[DocumentIndex] = []
    for client, update in history.log:
        index.add(check_update(update, client=client, index=index))
        doc.apply_update(update)
        moments += [index.copy(), check_snapshot(doc.get_update())]
    for one in moments:
        for other in moments:
            assert one.contradicted_by(other) is None


def test_a_history_that_stands_elsewhere_contradicts() -> None:
    index, longer, elsewhere, cut = DocumentIndex(), DocumentIndex(), DocumentIndex(), DocumentIndex()
    for one, end in ((index, 3), (longer, 5)):
        one.put(7, 0, 1, ("reg", "a"), None, None, None)
        one.put(7, 1, end - 1, ("list:m", None), None, None, None)
    elsewhere.put(7, 0, 1, ("reg", "a"), None, None, None)
    elsewhere.put(7, 1, 1, ("list:n", None), None, None, None)
    cut.put(7, 0, 1, ("reg", "a"), None, None, None)
    cut.put(7, 1, 1, ("list:m", None), None, None, None)
    cut.put(7, 2, 1, ("list:m", None), None, None, None)
    other = DocumentIndex()
    other.put(8, 0, 9, ("list:n", None), None, None, None)
    assert (
        index.contradicted_by(longer) is longer.contradicted_by(index) is index.contradicted_by(other) is None
    )
    for wrong in (elsewhere, cut):
        assert index.contradicted_by(wrong) == wrong.contradicted_by(longer) == 7
