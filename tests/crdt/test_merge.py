"""What comes of edits that were made apart: of every kind, in random histories, on real documents.

The expectation needs no CRDT: each edit knows which edits its device had seen. What a later edit has seen, it may
replace or remove; what it has not seen stays.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
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
from crdt.contents import DELETED, Contents
from crdt.fields import Counter, Text
from crdt.limits import CLOCK_DRIFT_MS_MAX
from crdt.records import conflicts, operations, read, set_elements
from crdt.schema import Record
from crdt.values import decode_value, encode_value
from tests.crdt.fleet import Device, Edit, Fleet
from tests.crdt.histories import ALPHABET

__all__: list[str] = []

_TRUE, _FALSE = encode_value(True), encode_value(False)
_DAYS_MS = 24 * 3600 * 1000
chances = st.randoms(use_true_random=True)
# A history takes 15 ms, and each test here runs the same sort of them.
some = settings(max_examples=settings().max_examples // 3 + 1)


class Page(Record, collection="pages"):
    """One field of each kind, and two registers."""

    title: str = ""
    mood: str | None = None
    body: Text = Text()
    tags: set[str] = set()
    views: Counter = Counter(0)
    lines: list[int] = []
    settings: dict[str, Any] = {}


class Story:
    """One random history of a fleet. Items and characters are all different, so each can be followed."""

    def __init__(self, chance: random.Random, *, skews_ms: tuple[int, ...] = (0, -60_000, 200_000)) -> None:
        self.chance = chance
        self.next_item = 0
        self.fleet = Fleet(Page, [], skews_ms=skews_ms)
        for place in range(chance.randrange(2, 5)):
            client = self.fleet.new_client(chance)
            self.fleet.devices.append(Device(client, skew_ms=skews_ms[place % len(skews_ms)]))
        self.is_chosen = chance.random() < 0.3
        self.created: list[Page] = []
        for device in self.fleet.devices if self.is_chosen else self.fleet.devices[:1]:
            page = Page(
                id="",
                title=self.text(),
                mood=chance.choice([None, "calm"]),
                body=self.characters(),
                tags=set(chance.sample(ALPHABET, 2)),
                views=Counter(chance.randrange(100)),
                lines=self.items(),
                settings={"theme": self.text(), "deep": {"a": 1}},
            )
            self.created.append(page)
            self.fleet.create(device, page, is_chosen=self.is_chosen)
        if not self.is_chosen:
            self.fleet.push(self.fleet.devices[0])
            for device in self.fleet.devices[1:]:
                self.fleet.pull(device)

    def run(self, steps: int) -> Contents:
        fleet, chance = self.fleet, self.chance
        for _ in range(steps):
            device = chance.choice(fleet.devices)
            step = chance.random()
            if step < 0.6:
                self.edit(device)
            elif step < 0.75:
                fleet.push(device, chance.randrange(1, 4))
            elif step < 0.9:
                fleet.pull(device, chance.randrange(1, 6))
            elif step < 0.93:
                fleet.pull_snapshot(device)
            elif step < 0.97:
                fleet.compact(device)
            else:
                fleet.reopen(device, chance)
        fleet.settle()
        return fleet.assert_equal()

    def edit(self, device: Device) -> None:
        """Make one edit, and see at once that it reads as it was meant."""
        chance, contents, schema = self.chance, device.contents, self.fleet.schema
        made: list[Operation]
        expected: dict[str, Any] = {}
        kind = chance.randrange(9)
        if kind <= 1:
            field = chance.choice(["title", "mood"])
            expected[field] = self.text()
            made = operations(schema, contents, expected)
        elif kind == 2:
            expected["settings"] = chance.choice(
                [
                    {"theme": self.text()},
                    {},
                    {"deep": {"a": 2, "b": {}}},
                    {"deep": 5, "~/@": {"": self.text()}},
                ]
            )
            made = operations(schema, contents, expected)
        elif kind == 3:
            leaf = chance.choice(["theme", "deep", "deep.a", "deep.a.x"])
            value: Any = chance.choice([1, None, {}, "é"])
            made = operations(schema, contents, {f"settings.{leaf}": value})
        elif kind == 4:
            elements = set(chance.sample(ALPHABET, chance.randrange(1, 3)))
            keys = set_elements(schema, schema.field("tags"), elements)
            before = read(schema, contents)["tags"]
            if chance.random() < 0.5:
                made, expected["tags"] = [AddElements("tags", keys)], before | elements
            else:
                made, expected["tags"] = [RemoveElements("tags", keys)], before - elements
        elif kind == 5:
            by = chance.randrange(-50, 50)
            made, expected["views"] = [Increment("views", by)], contents.count("views") + by
        elif kind == 6:
            made = self.list_operations(contents)
        elif kind == 7:
            made = self.text_operations(contents.texts.get("body", ""))
        else:
            made = [SetRegister(DELETED, chance.choice([_TRUE, _FALSE]))]
        self.fleet.edit(device, made)
        values = read(schema, device.contents)
        assert {name: values[name] for name in expected} == expected

    def list_operations(self, contents: Contents) -> list[Operation]:
        length = len(contents.lists.get("lines", ()))
        made: list[Operation] = []
        if length and self.chance.random() < 0.4:
            start = self.chance.randrange(length)
            count = self.chance.randrange(1, length - start + 1)
            made.append(RemoveItems("lines", start, count))
            length -= count
        index = self.chance.choice([None, self.chance.randrange(length + 1)])
        made.append(InsertItems("lines", index, tuple(map(encode_value, self.items()))))
        return made

    def text_operations(self, text: str) -> list[Operation]:
        made: list[Operation] = []
        length = len(text)
        if length and self.chance.random() < 0.4:
            start = self.chance.randrange(length)
            count = self.chance.randrange(1, length - start + 1)
            made.append(DeleteText("body", start, count))
            length -= count
        made.append(InsertText("body", self.chance.randrange(length + 1), self.characters()))
        return made

    def text(self) -> str:
        return "".join(self.chance.choice(ALPHABET) for _ in range(self.chance.randrange(1, 4)))

    def items(self) -> list[int]:
        count = self.chance.randrange(1, 4)
        self.next_item += count
        return list(range(self.next_item - count, self.next_item))

    def characters(self) -> str:
        """Return characters that come nowhere else, most of them two units of UTF-16."""
        start = self.chance.choice([0x4E00, 0x20000, 0x20000])
        return "".join(chr(start + item) for item in self.items())


def living(edits: list[Edit], path: str) -> list[tuple[int, int, bytes | None]]:
    """Return what no other edit of the path has seen, the latest first."""
    setting: dict[Edit, bytes | None] = {}
    for edit in edits:
        for operation in edit.operations:
            if isinstance(operation, SetRegister) and operation.path == path:
                setting[edit] = operation.value
    seen = {other for edit in setting for other in edit.known if other in setting}
    found = [(edit.reading, edit.client, value) for edit, value in setting.items() if edit not in seen]
    return sorted(found, key=lambda one: one[:2], reverse=True)


@given(chances)
def test_all_devices_end_equal_whatever_the_history(chance: random.Random) -> None:
    """Values, entries and digests; from memory, from a snapshot, from a snapshot and a tail, and at the server."""
    story = Story(chance)
    story.run(steps=chance.randrange(60))


@some
@given(chances)
def test_of_registers_that_met_the_later_counts_and_the_others_stay_readable(chance: random.Random) -> None:
    story = Story(chance)
    contents = story.run(steps=40)
    for path in ("title", "mood", DELETED):
        expected = living(story.fleet.edits, path)
        found = [tuple(register) for _, register in contents.entries(path)]
        if not expected:
            continue  # as it was created
        assert found == expected
        if path != DELETED:
            counting, *lost = [register.value for _, register in contents.entries(path)]
            assert read(story.fleet.schema, contents)[path] == decode_value(counting or b"\xc0")
            assert conflicts(story.fleet.schema, contents, path) == [
                decode_value(value) for value in lost if value is not None and value != counting
            ]
    assert contents.is_deleted == (([*living(story.fleet.edits, DELETED), (0, 0, _FALSE)])[0][2] == _TRUE)


@some
@given(chances)
def test_without_a_far_future_the_latest_edit_of_all_counts(chance: random.Random) -> None:
    story = Story(chance)
    contents = story.run(steps=40)
    for path in ("title", "mood"):
        readings = [
            (edit.reading, edit.client)
            for edit in story.fleet.edits
            if any(isinstance(one, SetRegister) and one.path == path for one in edit.operations)
        ]
        if readings:
            assert contents.entries(path)[0][1][:2] == max(readings)


@some
@given(chances)
def test_a_far_future_clock_loses_against_an_edit_that_has_seen_it(chance: random.Random) -> None:
    """Its edits count until somebody sets the field who has seen them; and then they do not come back."""
    story = Story(chance, skews_ms=(0, 400 * _DAYS_MS, 0))
    story.run(steps=30)
    device = story.fleet.devices[0]
    assert device.clock.last >> 16 <= story.fleet.now_ms + CLOCK_DRIFT_MS_MAX
    expected = {"title": "now", "settings": {"deep": {"a": {"x": "now"}}}}
    story.fleet.edit(device, operations(story.fleet.schema, device.contents, expected))
    story.fleet.settle()
    values = read(story.fleet.schema, story.fleet.assert_equal())
    assert {name: values[name] for name in expected} == expected


def test_a_leaf_shows_at_once_where_a_far_future_clock_had_set_what_stands_above_it() -> None:
    fleet = Fleet(Page, [5, 9], skews_ms=(0, 400 * _DAYS_MS))
    first, second = fleet.devices
    fleet.create(first, Page())
    fleet.settle()
    things_above: list[Any] = [5, {}]
    for above in things_above:
        fleet.edit(second, operations(fleet.schema, second.contents, {"settings.deep": above}))
        fleet.settle()
        changes = {"settings.deep.a": 1}
        fleet.edit(first, operations(fleet.schema, first.contents, changes))
        assert read(fleet.schema, first.contents)["settings"] == {"deep": {"a": 1}}
        fleet.settle()
        assert read(fleet.schema, fleet.assert_equal())["settings"] == {"deep": {"a": 1}}


@some
@given(chances)
def test_every_increment_counts_once(chance: random.Random) -> None:
    story = Story(chance)
    contents = story.run(steps=40)
    total = sum(page.views for page in story.created)
    for edit in story.fleet.edits:
        total += sum(one.by for one in edit.operations if isinstance(one, Increment))
    assert contents.count("views") == total


@some
@given(chances)
def test_an_add_beats_a_remove_that_had_not_seen_it(chance: random.Random) -> None:
    story = Story(chance)
    contents = story.run(steps=50)
    creations = story.fleet.edits[: len(story.created)]
    for element in ALPHABET:
        key = encode_element(element)
        adds = {edit for edit, page in zip(creations, story.created, strict=True) if element in page.tags}
        touched: list[Edit] = []
        for edit in story.fleet.edits:
            for one in edit.operations:
                if isinstance(one, AddElements | RemoveElements) and key in one.elements:
                    touched.append(edit)
                    if isinstance(one, AddElements):
                        adds.add(edit)
        removed = {add for edit in touched for add in edit.known & adds}
        assert (element in read(story.fleet.schema, contents)["tags"]) == bool(adds - removed)


@some
@given(chances)
def test_all_items_stay_in_one_order_but_those_that_were_removed(chance: random.Random) -> None:
    story = FollowedStory(chance)
    contents = story.run(steps=40)
    lines = read(story.fleet.schema, contents)["lines"]
    assert len(lines) == len(set(lines))
    assert set(lines) == story.inserted_items - story.removed_items
    for page in story.created:
        kept = [item for item in page.lines if item in set(lines)]
        assert [item for item in lines if item in set(kept)] == kept


@some
@given(chances)
def test_text_keeps_every_character_but_those_that_were_deleted(chance: random.Random) -> None:
    story = FollowedStory(chance)
    contents = story.run(steps=40)
    text = contents.texts.get("body", "")
    assert len(text) == len(set(text))
    assert set(text) == story.inserted_characters - story.removed_characters


@some
@given(chances)
def test_maps_merge_leaf_by_leaf_and_of_a_leaf_and_a_branch_the_later_shows(chance: random.Random) -> None:
    story = Story(chance)
    contents = story.run(steps=50)
    edits = story.fleet.edits
    paths = {one.path for edit in edits for one in edit.operations if isinstance(one, SetRegister)}
    leaves = []
    for path in {*paths, *contents.resolved()}:
        if path.startswith("settings/"):
            expected = living(edits, path)
            found = contents.resolved()[path]
            if expected:
                assert tuple(found) == expected[0]
            if found.value is not None:
                leaves.append((found.reading, found.client, path, decode_value(found.value)))
    tree: dict[str, Any] = {}
    for *_, path, value in sorted(leaves, key=lambda leaf: leaf[:3]):
        *branches, leaf = [
            part.replace("~2", "@").replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]
        ]
        node = tree
        for branch in branches:
            if not isinstance(node.get(branch), dict):
                node[branch] = {}
            node = node[branch]
        node[leaf] = value
    assert read(story.fleet.schema, contents)["settings"] == tree


@some
@given(chances)
def test_restore_shows_what_was_edited_while_the_record_was_deleted(chance: random.Random) -> None:
    story = Story(chance)
    story.run(steps=10)
    fleet = story.fleet
    first, second = fleet.devices[:2]
    fleet.edit(first, [SetRegister(DELETED, _TRUE)])
    edited = {"title": "edited elsewhere", "settings": {"theme": "dark"}}
    fleet.edit(second, operations(fleet.schema, second.contents, edited))
    fleet.edit(second, [InsertItems("lines", None, (encode_value(-1),)), Increment("views", 7)])
    views = second.contents.count("views")
    fleet.settle()
    assert fleet.assert_equal().is_deleted
    fleet.edit(first, [SetRegister(DELETED, _FALSE)])
    fleet.settle()
    contents = fleet.assert_equal()
    assert not contents.is_deleted
    values = read(fleet.schema, contents)
    assert {name: values[name] for name in edited} == edited
    assert values["lines"][-1] == -1
    assert values["views"] == views


class FollowedStory(Story):
    """Remembers which items and characters came and went."""

    def __init__(self, chance: random.Random) -> None:
        self.removed_items: set[int] = set()
        self.removed_characters: set[str] = set()
        self.inserted_items: set[int] = set()
        self.inserted_characters: set[str] = set()
        super().__init__(chance)
        for page in self.created:
            self.inserted_items.update(page.lines)
            self.inserted_characters.update(page.body)

    def list_operations(self, contents: Contents) -> list[Operation]:
        made = super().list_operations(contents)
        for one in made:
            if isinstance(one, RemoveItems):
                items = contents.lists["lines"][one.index : one.index + one.count]
                self.removed_items.update(map(decode_value, items))
            elif isinstance(one, InsertItems):
                self.inserted_items.update(map(decode_value, one.items))
        return made

    def text_operations(self, text: str) -> list[Operation]:
        made = super().text_operations(text)
        for one in made:
            if isinstance(one, DeleteText):
                self.removed_characters.update(text[one.index : one.index + one.count])
            elif isinstance(one, InsertText):
                self.inserted_characters.update(one.text)
        return made


def encode_element(element: str) -> str:
    return msgspec.json.encode(element).decode()


def test_a_conflict_is_readable_on_both_devices_until_the_field_is_set_again() -> None:
    fleet = Fleet(Page, [5, 9])
    first, second = fleet.devices
    fleet.create(first, Page(title="at first", settings={"theme": "plain"}))
    fleet.settle()
    fleet.edit(first, operations(fleet.schema, first.contents, {"title": "one", "settings.theme": "light"}))
    fleet.edit(second, operations(fleet.schema, second.contents, {"title": "two", "settings.theme": "dark"}))
    fleet.settle()
    for device in fleet.devices:
        assert conflicts(fleet.schema, device.contents, "title") == ["one"]
        assert conflicts(fleet.schema, device.contents, "settings.theme") == ["light"]
        assert conflicts(fleet.schema, device.contents, "body") == []
        assert read(fleet.schema, device.contents)["title"] == "two"
    same = {"title": "two", "settings": {"theme": "dark"}}
    fleet.edit(first, operations(fleet.schema, first.contents, same))
    fleet.settle()
    assert conflicts(fleet.schema, fleet.assert_equal(), "title") == []
    assert conflicts(fleet.schema, fleet.assert_equal(), "settings.theme") == []


@pytest.mark.parametrize("is_removed_later", [True, False])
def test_a_leaf_that_one_removed_and_another_set_goes_by_the_clock(is_removed_later: bool) -> None:
    fleet = Fleet(Page, [5, 9])
    first, second = fleet.devices
    fleet.create(first, Page(settings={"theme": "plain"}))
    fleet.settle()
    remover, setter = (second, first) if is_removed_later else (first, second)
    steps: list[tuple[Device, dict[str, Any]]] = [
        (remover, {"settings": {}}),
        (setter, {"settings.theme": "dark"}),
    ]
    for device, change in sorted(steps, key=lambda step: step[0] is second):
        fleet.edit(device, operations(fleet.schema, device.contents, change))
    fleet.settle()
    contents = fleet.assert_equal()
    assert read(fleet.schema, contents)["settings"] == ({} if is_removed_later else {"theme": "dark"})
    assert conflicts(fleet.schema, contents, "settings.theme") == (["dark"] if is_removed_later else [])


def test_two_devices_that_create_the_same_id_merge_and_the_later_values_count() -> None:
    fleet = Fleet(Page, [9, 5])
    first, second = fleet.devices
    fleet.create(
        first, Page(title="one", mood="calm", tags={"a"}, views=Counter(2), lines=[1]), is_chosen=True
    )
    fleet.create(
        second, Page(title="two", mood=None, tags={"b"}, views=Counter(3), lines=[2]), is_chosen=True
    )
    fleet.settle()
    contents = fleet.assert_equal()
    values = read(fleet.schema, contents)
    assert (values["title"], values["mood"]) == ("two", None)
    assert (values["tags"], values["views"], set(values["lines"])) == ({"a", "b"}, 5, {1, 2})
    assert conflicts(fleet.schema, contents, "title") == ["one"]
    assert conflicts(fleet.schema, contents, "mood") == ["calm"]
