"""Contents are what entries come to: the same at every device, whatever the entries are and in whatever order."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.contents import (
    DELETED,
    DIGEST_MODULUS,
    Contents,
    ListDigest,
    Register,
    add_digests,
    to_int64,
    total_of,
)
from crdt.updates import read_creation, write_creation
from crdt.values import encode_edit, encode_reading, encode_value
from tests.crdt.declarations import texts
from tests.crdt.fleet import NOW

__all__: list[str] = []

items = st.lists(st.binary(max_size=5), max_size=8)
paths = st.sampled_from(["title", "settings/a", "settings/a/b", "settings", DELETED, ""])
marks = st.sampled_from(
    ["", "@5", "@6", "@9007199254740991", "@", "@x", "@٥", "@-1", "@5@6", "@00000000000000005"]
)
keys = st.builds(lambda path, mark: path + mark, paths, marks)
values = st.builds(encode_value, st.none() | st.booleans() | st.integers(0, 9) | texts)
entries = (
    st.builds(encode_edit, st.integers(0, 3), st.none() | values)
    | values
    | st.binary(max_size=12)
    | st.just(encode_reading(2))
)
set_keys = st.lists(st.builds(lambda key, mark: key + mark, texts, marks), unique=True, max_size=4)
some_contents = st.builds(
    Contents,
    st.dictionaries(keys | st.just("@"), entries, max_size=12),
    st.dictionaries(texts, set_keys, max_size=2),
    st.dictionaries(texts, st.dictionaries(texts, entries, max_size=4), max_size=2),
    st.dictionaries(texts, items, max_size=2),
    st.dictionaries(texts, texts, max_size=2),
)


def shuffled(contents: Contents, seed: int) -> Contents:
    """Return the same entries in another order, as pycrdt's maps give them."""
    chance = random.Random(seed)

    def shuffle(held: dict[str, Any]) -> dict[str, Any]:
        return dict(chance.sample(list(held.items()), len(held)))

    return Contents(
        shuffle(dict(contents.reg)),
        {
            name: chance.sample(list(held), len(list(held)))
            for name, held in shuffle(dict(contents.sets)).items()
        },
        {name: shuffle(dict(held)) for name, held in shuffle(dict(contents.counts)).items()},
        shuffle(contents.lists),
        shuffle(dict(contents.texts)),
    )


@given(some_contents, st.integers())
def test_contents_do_not_depend_on_the_order_of_entries(contents: Contents, seed: int) -> None:
    """Hostile entries and keys of no meaning included: nothing raises, and every device says the same."""
    other = shuffled(contents, seed)
    assert other.value() == contents.value()
    assert other.digest("c", "r") == contents.digest("c", "r")
    assert other.is_deleted == contents.is_deleted
    assert other.reading_max() == contents.reading_max()
    assert 0 <= contents.digest("c", "r") < DIGEST_MODULUS
    msgspec.json.encode(contents.value())


@given(some_contents)
def test_values_are_what_counts_but_for_what_was_removed(contents: Contents) -> None:
    """By the short way for a document as it was created, too."""
    counting = {path: register.value for path, register in contents.resolved().items()}
    assert contents.values() == {path: value for path, value in counting.items() if value is not None}


def test_a_key_without_a_path_is_none_wherever_it_stands() -> None:
    registers = {"@5": encode_edit(1, encode_value(1)), "title": encode_value("x")}
    for reg in (registers, dict(reversed(registers.items()))):
        assert Contents(reg, {}, {}, {}, {}).values() == {"title": encode_value("x")}


@given(some_contents)
def test_what_counts_is_the_first_of_a_paths_entries(contents: Contents) -> None:
    resolved = contents.resolved()
    for path in {"title", "settings/a", "settings/a/b", "settings", DELETED, "", "missing"}:
        found = contents.entries(path)
        assert [register for _, register in found][:1] == ([resolved[path]] if path in resolved else [])
        assert [register[:2] for _, register in found] == sorted((one[:2] for _, one in found), reverse=True)
        for key, _ in found:
            assert key == path or key.rpartition("@")[0] == path


def test_of_several_entries_the_largest_reading_counts_then_the_largest_client() -> None:
    registers = {
        "@": encode_reading(7),
        "title": encode_value("created"),
        "title@5": encode_edit(6, encode_value("earlier")),
        "title@6": encode_edit(8, encode_value("tie")),
        "title@10": encode_edit(8, encode_value("counts")),
    }
    contents = Contents(registers, {}, {}, {}, {})
    assert contents.resolved() == {"title": Register(8, 10, encode_value("counts"))}
    assert [key for key, _ in contents.entries("title")] == ["title@10", "title@6", "title", "title@5"]
    assert contents.entries("title")[2][1] == Register(7, 0, encode_value("created"))
    assert contents.created_reading == 7
    assert contents.reading_max() == 8
    assert contents.entries("titl") == []


@given(items, items, items)
def test_the_digest_of_a_list_grows_by_what_is_appended(
    first: list[bytes], second: list[bytes], other: list[bytes]
) -> None:
    whole = ListDigest().extend([*first, *second])
    assert ListDigest().extend(first).extend(second) == whole
    assert (ListDigest().extend(other) == whole) == (other == [*first, *second])


def test_a_digest_tells_each_part_from_each_other() -> None:
    """The same content under another name, in another root or in another order is another record."""
    made = [
        Contents({}, {}, {}, {}, {}),
        Contents({"a": encode_value(1)}, {}, {}, {}, {}),
        Contents({"a": encode_value(1.0)}, {}, {}, {}, {}),
        Contents({"a": encode_value(None)}, {}, {}, {}, {}),
        Contents({"b": encode_value(1)}, {}, {}, {}, {}),
        Contents({}, {"a": ["1"]}, {}, {}, {}),
        Contents({}, {"a": ['"1"']}, {}, {}, {}),
        Contents({}, {}, {"a": {"": encode_value(1)}}, {}, {}),
        Contents({}, {}, {}, {"a": [encode_value(1)]}, {}),
        Contents({}, {}, {}, {"a": [encode_value(1), encode_value(2)]}, {}),
        Contents({}, {}, {}, {"a": [encode_value(2), encode_value(1)]}, {}),
        Contents({}, {}, {}, {}, {"a": "1"}),
    ]
    digests = [contents.digest("c", "r") for contents in made]
    digests += [made[1].digest("d", "r"), made[1].digest("c", "s")]
    assert len(set(digests)) == len(digests)


def test_a_digest_is_of_what_counts_and_not_of_how_it_came_to_be() -> None:
    created = Contents({"a": encode_value(1)}, {"s": ['"x"']}, {"c": {"": encode_value(5)}}, {}, {})
    edited = Contents(
        {
            "a@9": encode_edit(3, encode_value(1)),
            "a@8": encode_edit(2, encode_value(7)),
            "b@9": encode_edit(3, None),
        },
        {"s": ['"x"@9', '"x"@8'], "empty": []},
        {"c": {"9": encode_value(3), "8": encode_value(2)}, "none": {"9": encode_value(0)}},
        {"empty": []},
        {"empty": ""},
    )
    assert edited.digest("c", "r") == created.digest("c", "r")


@given(st.lists(st.integers(0, DIGEST_MODULUS - 1)), st.integers())
def test_digests_are_summed_in_any_order_and_can_be_taken_off(digests: list[int], seed: int) -> None:
    total = add_digests(*digests)
    assert 0 <= total < DIGEST_MODULUS
    assert add_digests(*random.Random(seed).sample(digests, len(digests))) == total
    assert add_digests(total, *(-digest for digest in digests)) == 0


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_a_count_past_64_bits_wraps_around(totals: list[int]) -> None:
    contents = Contents(
        {}, {}, {"c": {str(place): encode_value(total) for place, total in enumerate(totals)}}, {}, {}
    )
    assert contents.count("c") == to_int64(sum(totals))
    assert -(2**63) <= contents.count("c") < 2**63
    assert (contents.count("c") - sum(totals)) % 2**64 == 0


@given(st.binary(max_size=10))
def test_a_foreign_total_is_a_number_or_nothing(entry: bytes) -> None:
    assert type(total_of(entry)) is int


def test_elements_are_known_by_any_of_their_keys() -> None:
    contents = Contents({}, {"s": ['"a@5"', '"a@5"@7', "5@7", "5", '"b"@x']}, {}, {}, {})
    assert contents.elements("s") == {'"a@5"': ['"a@5"', '"a@5"@7'], "5": ["5@7", "5"], '"b"@x': ['"b"@x']}
    assert contents.elements("missing") == {}
    assert contents.value()["s"] == ["a@5", None, 5]


@pytest.mark.parametrize(
    ("edits", "is_deleted"),
    [
        ({}, False),
        ({"$deleted@5": encode_edit(3, b"\xc3")}, True),
        ({"$deleted@5": encode_edit(3, b"\xc3"), "$deleted@6": encode_edit(4, b"\xc2")}, False),
        ({"$deleted@5": encode_edit(3, b"\xc3"), "$deleted@6": encode_edit(2, b"\xc2")}, True),
        ({"$deleted@5@6": encode_edit(3, b"\xc3"), "$deletedX@5": encode_edit(3, b"\xc3")}, False),
    ],
)
def test_a_record_is_deleted_until_a_later_restore(edits: dict[str, bytes], is_deleted: bool) -> None:
    assert Contents(edits, {}, {}, {}, {}).is_deleted is is_deleted


def test_a_document_reads_without_a_schema() -> None:
    update = write_creation(
        5,
        [(b"@", encode_reading(7)), (b"title", encode_value("x")), (b"createdAt", encode_value(NOW)),
         (b"settings/a", encode_value(1)), (b"settings/b/c~1d", encode_value([1, {}]))],
        [(b"tags", [b'"b"', b'"a"'])],
        [(b"views", [(b"", encode_value(3))])],
        [(b"lines", [encode_value({"role": "x", "at": NOW}), encode_value(5)])],
        [(b"body", b"text")],
    )  # fmt: skip
    creation = read_creation(update, client=5)
    assert creation is not None
    assert Contents.from_creation(creation).value() == {
        "title": "x",
        "createdAt": NOW,
        "settings": {"a": 1, "b": {"c/d": [1, {}]}},
        "tags": ["a", "b"],
        "views": 3,
        "lines": [{"role": "x", "at": NOW}, 5],
        "body": "text",
    }
    assert isinstance(NOW, dt.datetime)


def test_a_field_that_was_a_register_and_became_a_map_reads_the_same_in_any_order() -> None:
    registers = {"settings": encode_value(1), "settings/a": encode_value(2)}
    for reg in (registers, dict(reversed(registers.items()))):
        assert Contents(reg, {}, {}, {}, {}).value() == {"settings": 1}


def test_what_json_cannot_hold_reads_as_none_and_bytes_as_base64url() -> None:
    contents = Contents(
        {"a": b"\xc1", "b": b"\xd4\x05\x00", "c/x": encode_value(float("nan")), "c/y": encode_value(1),
         "d": encode_value({1: 1})},
        {"s": ["nonsense", '"\\ud800"']},
        {"n": {"": b"\xc1", "5": encode_value("x"), "6": encode_value(2)}},
        {"l": [b"", encode_value(b"bytes"), encode_value(1)]},
        {},
    )  # fmt: skip
    assert contents.value() == {
        "a": None, "b": None, "c": {"x": None, "y": 1}, "d": None, "s": [None, None], "n": 2, "l": [None, "Ynl0ZXM", 1],
    }  # fmt: skip
