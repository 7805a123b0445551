"""Words of every script: what is one word to a person is one to the indexes."""

from __future__ import annotations

import pytest

from crdt.words import folded, spaced

__all__: list[str] = []


def test_unspaced_scripts_are_taken_apart_and_the_rest_stays() -> None:
    assert spaced("plain text") == "plain text"
    assert spaced("日本go").split() == ["日", "本", "go"]
    assert spaced("ｃａｆｅ\u0301") == "cafe"


@pytest.mark.parametrize(
    ("text", "as_one"),
    [("ΚΑΦΕΣ", "καφές"), ("STRASSE", "Straße"), ("Việt", "viet"), ("ёлка", "елка"), ("İzmir", "izmir")],
)
def test_case_and_accents_do_not_count_in_any_alphabet(text: str, as_one: str) -> None:
    assert folded(text) == folded(as_one)


@pytest.mark.parametrize("text", ["हिन्दी", "ไทยสวย", "がぎ", "한국어"])
def test_vowels_that_are_written_over_a_letter_are_no_accents(text: str) -> None:
    assert folded(text) == text
