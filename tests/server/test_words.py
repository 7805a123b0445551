"""What of a record is for words to find."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from crdt.contents import Contents
from server.materialize.words import (
    RECORD_CHARACTERS_MAX,
    SPEAKER_CHARACTERS_MAX,
    TEXT_CHARACTERS_MAX,
    texts_of,
)

__all__: list[str] = []

encode = msgspec.msgpack.encode
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def contents(lists: dict[str, list[Any]] | None = None, **registers: Any) -> Contents:
    items = {name: [encode(item) for item in items] for name, items in (lists or {}).items()}
    return Contents({name: encode(value) for name, value in registers.items()}, {}, {}, items, {})


def test_all_texts_of_a_record_are_its_own_but_for_ids_and_what_is_sealed() -> None:
    record = contents(
        title="a trip",
        id="x",
        personaId="y",
        tagIds=["z"],
        secret=b"sealed",
        mood={"note": "calm", "noteId": "q"},
        n=7,
    )
    ((part, text, speaker, _),) = texts_of(record)
    assert (part, speaker) == (-1, None)
    assert sorted(text.split("\n")) == ["a trip", "calm"]


def test_the_items_of_the_only_list_of_items_are_parts_by_their_place() -> None:
    turns = [{"id": "1", "content": "hello"}, {"content": " "}, {"content": "there"}, "odd"]
    record = contents({"messages": turns}, title="talk")
    assert texts_of(record) == [
        (-1, "talk", None, None),
        (0, "hello", None, None),
        (2, "there", None, None),
        (3, "odd", None, None),
    ]


def test_with_two_lists_of_items_a_place_would_not_tell_which_so_all_is_the_records_own() -> None:
    record = contents({"a": [{"text": "one"}], "b": [{"text": "two"}]})
    ((part, text, speaker, _),) = texts_of(record)
    assert (part, sorted(text.split("\n")), speaker) == (-1, ["one", "two"], None)


def test_who_said_it_stands_in_the_part_or_in_a_map_of_it() -> None:
    turns: list[Any] = [
        {"speaker": "Anna", "content": "a"},
        {"content": "b", "metadata": {"speaker": "Be\0n"}},
        {"content": "c", "speaker": 7, "metadata": {"speaker": "Cy"}},
        {"content": "d", "metadata": {"deep": {"speaker": "nobody"}}},
        {"content": "e", "speaker": "x" * (SPEAKER_CHARACTERS_MAX + 1)},
        "f",
    ]
    record = contents({"messages": turns}, title="talk", speaker="Dora")
    speakers = [speaker for _, _, speaker, _ in texts_of(record)]
    assert speakers == ["Dora", "Anna", "Be\N{REPLACEMENT CHARACTER}n", "Cy", None, None, None]


def test_a_deleted_record_has_no_texts() -> None:
    assert texts_of(Contents({"title": encode("x"), "$deleted": b"\xc3"}, {}, {}, {}, {})) == []


def test_a_text_that_is_found_otherwise_than_it_stands_says_how() -> None:
    ((_, body, _, folded),) = texts_of(contents(title="El farero pintó 灯台"))
    assert body == "El farero pintó 灯台"
    assert folded is not None
    assert folded.split() == ["el", "farero", "pinto", "灯", "台"]


def test_texts_are_bounded() -> None:
    many = contents({"messages": [{"text": "x" * TEXT_CHARACTERS_MAX * 2}] * 200})
    texts = texts_of(many)
    assert max(len(text) for _, text, _, _ in texts) == TEXT_CHARACTERS_MAX
    assert sum(len(text) for _, text, _, _ in texts) == RECORD_CHARACTERS_MAX


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: "@" not in name), plain, max_size=5))
def test_whatever_a_record_holds_its_texts_are_such_as_postgres_takes(values: dict[str, Any]) -> None:
    try:
        record = contents(**values)
    except (OverflowError, UnicodeEncodeError):  # what MessagePack cannot hold
        return
    for part, text, speaker, folded in texts_of(record):
        assert part >= -1
        assert speaker is None or "\0" not in speaker
        assert folded is None or (not text.isascii() and len(folded) <= 3 * TEXT_CHARACTERS_MAX)
        assert folded is None or folded.encode().decode() == folded.replace("\0", "")
        assert text
        assert "\0" not in text
        text.encode()
