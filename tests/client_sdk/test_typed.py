"""What is typed is never syntax, and a snippet shows the words that were found."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlcipher3 import dbapi2

from client_sdk.typed import TYPED_CHARS_MAX, TYPED_WORDS_MAX, Snippets, Typed
from crdt.words import spaced

__all__: list[str] = []

MARKS = ("[", "]")


@pytest.fixture(scope="module")
def fts() -> Iterator[sqlite3.Connection]:
    with closing(dbapi2.connect(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE t USING fts5(a, b, tokenize='porter unicode61')")
        connection.execute("INSERT INTO t VALUES ('one two', 'three')")
        yield connection


def typed_text() -> st.SearchStrategy[str]:
    syntax = st.sampled_from(
        ['"', "*", "(", ")", ":", "^", "+", "-", "{", "}", "AND", "OR", "NOT", "NEAR", " ", "a", "\0"]
    )
    return st.one_of(st.text(), st.lists(syntax).map("".join), st.lists(syntax).map(" ".join))


@given(text=typed_text())
def test_nothing_that_is_typed_is_a_syntax_error(fts: sqlite3.Connection, text: str) -> None:
    typed = Typed.of(text)
    for expression in (typed.all, typed.any):
        if typed.parts:
            fts.execute("SELECT rowid FROM t WHERE t MATCH ?", (expression,)).fetchall()


@pytest.mark.parametrize(
    ("text", "parts", "is_last_open"),
    [
        ("", (), False),
        ("  \t ", (), False),
        ("*** !!", (), False),
        ("green tea", ("green", "tea"), True),
        ('green "black tea"', ("green", "black tea"), False),
        ('"never closed', ("never", "closed"), True),
        ("a OR b", ("a", "OR", "b"), True),
        ("nul\0here", ("nul", "here"), True),
        ("half \ud800 pair", ("half", "pair"), True),
    ],
)
def test_words_and_phrases_are_told_apart(text: str, parts: tuple[str, ...], is_last_open: bool) -> None:
    assert Typed.of(text) == Typed(parts, is_last_open)


def test_a_very_long_text_is_cut_to_a_stated_size() -> None:
    assert Typed.of("word " * 200_000) == Typed(("word",) * TYPED_WORDS_MAX, is_last_open=False)
    assert Typed.of("x" * 1_000_000).parts == ("x" * TYPED_CHARS_MAX,)


@pytest.mark.parametrize(
    ("text", "asked", "shown"),
    [
        ("She runs by the river", "running", "She [runs] by the river"),
        ("Café society", "cafe", "[Café] society"),
        ("cafe\u0301 society", "café", "[cafe\u0301] society"),
        ("日本語を勉強する", "勉強", "日本語を[勉強]する"),
        ("the theatre", "the", "[the] [theatre]"),
        ("the theatre", '"the"', "[the] theatre"),
        ("line one\n\n  line two", "two", "line one line [two]"),
        ("nothing of it", "else", "nothing of it"),
        ("", "else", ""),
    ],
)
def test_the_words_that_were_found_are_marked(text: str, asked: str, shown: str) -> None:
    assert Snippets(Typed.of(asked), MARKS).of([text]) == shown


def test_a_long_text_is_shown_where_most_of_the_words_stand() -> None:
    text = "tea alone. " + "filler words " * 100 + "green tea at last. " + "filler words " * 100
    shown = Snippets(Typed.of("green tea"), MARKS).of([text])
    assert "[green] [tea] at last" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert len(shown) < 180


def test_the_field_with_most_of_the_words_is_shown() -> None:
    assert Snippets(Typed.of("green tea"), MARKS).of(["tea", "green tea"]) == "[green] [tea]"


@given(text=st.text(), asked=st.text())
def test_without_its_marks_a_snippet_is_a_stretch_of_the_text(text: str, asked: str) -> None:
    shown = Snippets(Typed.of(asked), ("", "")).of([text])
    assert shown.strip("…") in " ".join(text.split()) or "…" in text


@given(text=st.text())
def test_taking_a_text_apart_adds_only_blanks(text: str) -> None:
    assert spaced(spaced(text)).split() == spaced(text).split()
