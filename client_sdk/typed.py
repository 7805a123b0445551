"""What a person types into a search box, as FTS5 is asked for it; and where its words stand in a text.

Nothing that is typed is syntax but a pair of quotation marks: words are joined by AND, the last one is looked for as a
beginning too, ``"in quotes"`` is a phrase. Everything that FTS5 would read as an operator is quoted.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import msgspec

from crdt.words import folded, is_unspaced, spaced

__all__ = ["TYPED_CHARS_MAX", "TYPED_WORDS_MAX", "Snippets", "Typed", "sendable"]

#: What is read of a text that is searched for: a long paragraph. More words cost time and find nothing more.
TYPED_CHARS_MAX: Final = 1_000
TYPED_WORDS_MAX: Final = 32
#: Characters of a snippet, marks not counted: two lines of a list on a screen.
_SNIPPET_CHARS_MAX: Final = 160
#: What is looked through for a snippet: more than a screen's worth of a long text is not read again for each hit.
_LOOKED_THROUGH_CHARS_MAX: Final = 100_000

_PARTS: Final = re.compile(r'"([^"]*)"|([^\s"]+)')
_WORD: Final = re.compile(r"\w+")
_UNSENDABLE: Final = re.compile("[\0\ud800-\udfff]")
# Porter leaves shorter words alone.
_SHARED_CHARS_MIN: Final = 3
# English endings that FTS5's porter tokenizer takes off, as far as a mark needs to know.
_ENDINGS: Final = frozenset(
    {
        "e",
        "s",
        "es",
        "ed",
        "er",
        "ers",
        "d",
        "r",
        "y",
        "i",
        "ies",
        "ied",
        "ier",
        "ing",
        "ings",
        "ly",
        "ness",
        "ful",
        "al",
        "ment",
        "ments",
        "ation",
        "ations",
        "ion",
        "ions",
        "or",
        "ors",
        "able",
    }
)


def sendable(text: str) -> str:
    """Return what is read of a text that is searched for, without what SQLite does not take."""
    return _UNSENDABLE.sub(" ", text[:TYPED_CHARS_MAX])


class Typed(msgspec.Struct, frozen=True):
    """A text that is searched for: its parts (words and phrases), and whether the last one is still being typed."""

    parts: tuple[str, ...]
    is_last_open: bool

    @classmethod
    def of(cls, text: str) -> Typed:
        """Read a text; of a very long one its first words (`TYPED_CHARS_MAX`, `TYPED_WORDS_MAX`)."""
        cut = sendable(text)
        parts: list[str] = []
        is_open = False
        for quoted, word in _PARTS.findall(cut):
            part = quoted or word
            if any(_is_in_words(character) for character in part):
                parts.append(part)
                is_open = not quoted
        return cls(tuple(parts[:TYPED_WORDS_MAX]), is_open and len(parts) <= TYPED_WORDS_MAX)

    @property
    def telling(self) -> Typed:
        """The same without the words that only ask (`client_sdk.ranking.STOPWORDS`), unless there are no others."""
        from client_sdk.ranking import STOPWORDS

        parts = tuple(part for part in self.parts if part.casefold() not in STOPWORDS)
        if not parts:
            return self
        return Typed(parts, self.is_last_open and parts[-1] == self.parts[-1])

    @property
    def all(self) -> str:
        """The FTS5 expression of all parts."""
        return " AND ".join(self.each)

    @property
    def any(self) -> str:
        """The FTS5 expression of any part."""
        return " OR ".join(self.each)

    @property
    def each(self) -> list[str]:
        """The FTS5 expression of each part."""
        made = [f'"{spaced(part)}"' for part in self.parts]
        if self.is_last_open:  # the whole word counts twice, and stands before longer ones
            made[-1] = f"({made[-1]} OR {made[-1]} *)"
        return made


class Snippets:
    """Shows where the words that were searched for stand in a text, between ``marks``."""

    def __init__(self, typed: Typed, marks: tuple[str, str]) -> None:
        self._marks = marks
        self._wanted = [
            (word, typed.is_last_open and number == len(typed.parts) - 1)
            for number, part in enumerate(typed.parts)
            for word in map(folded, _WORD.findall(spaced(part)))
        ]
        self._beginnings = tuple({word[:_SHARED_CHARS_MIN] for word, _ in self._wanted})
        plain = [re.escape(one) for one in self._beginnings if one.isascii()]
        #: The words of an English text that may be wanted: a fifth of the time that looking at each word takes.
        self._candidates = re.compile(rf"(?<!\w)(?:{'|'.join(plain)})\w*" if plain else "(?!)", re.IGNORECASE)

    def of(self, texts: list[str]) -> str:
        """Return the stretch of the first text that has most of the words, each of them marked."""
        best: tuple[int, str, list[tuple[int, int]]] = (-1, "", [])
        for text in texts:
            shown = text[:_LOOKED_THROUGH_CHARS_MAX]
            found = self._places(shown)
            count = len({shown[start:end].casefold() for start, end in found})
            if count > best[0] and (shown or not best[1]):
                best = (count, shown, found)
        return _marked(best[1], best[2], self._marks)

    def _places(self, text: str) -> list[tuple[int, int]]:
        """Return where the words stand, in order, not overlapping; a character of an unspaced script is a word."""
        found: list[tuple[int, int]] = []
        words = self._candidates if text.isascii() else _WORD
        for match in words.finditer(text):
            word, base = match.group(), match.start()
            for piece, offset in ((word, 0),) if word.isascii() else _pieces(word):
                plain = folded(piece)
                if not (plain.startswith(self._beginnings) and self._is_wanted(plain)):
                    continue
                start, end = base + offset, base + offset + len(piece)
                while end < len(text) and unicodedata.category(text[end])[0] == "M":
                    end += 1  # an accent or a vowel that is written over the letter
                if found and found[-1][1] == start and len(piece) == 1:
                    start = found.pop()[0]
                found.append((start, end))
        return found

    def _is_wanted(self, plain: str) -> bool:
        return any(_is_same(plain, word, is_open=is_open) for word, is_open in self._wanted)


def _marked(text: str, found: list[tuple[int, int]], marks: tuple[str, str]) -> str:
    start, end = _stretch(text, found)
    pieces = ["…"] if start else []
    at = start
    for first, last in found:
        if first >= start and last <= end:
            pieces += [text[at:first], marks[0], text[first:last], marks[1]]
            at = last
    pieces += [text[at:end], "…" if end < len(text) else ""]
    return " ".join("".join(pieces).split())


def _stretch(text: str, found: list[tuple[int, int]]) -> tuple[int, int]:
    """Return where the snippet begins and ends: where most words stand, with some text before the first."""
    if len(text) <= _SNIPPET_CHARS_MAX:
        return 0, len(text)
    first, most = 0, 0
    for place, (start, _) in enumerate(found):
        held = 0
        for _, end in found[place:]:
            if end - start > _SNIPPET_CHARS_MAX * 3 // 4:
                break
            held += 1
        if held > most:
            first, most = start, held
    start = max(0, min(first - _SNIPPET_CHARS_MAX // 4, len(text) - _SNIPPET_CHARS_MAX))
    end = min(len(text), start + _SNIPPET_CHARS_MAX)
    if start and (space := text.find(" ", start, first)) >= 0:
        start = space + 1
    if end < len(text) and (space := text.rfind(" ", max(start, end - 20), end)) > first:
        end = space
    return start, end


def _pieces(word: str) -> list[tuple[str, int]]:
    """Return the parts of a run of letters that are indexed as words, and where they begin."""
    if not is_unspaced(word):
        return [(word, 0)]
    pieces: list[tuple[str, int]] = []
    is_joined = False
    for offset, character in enumerate(word):
        is_apart = is_unspaced(unicodedata.normalize("NFKC", character))
        if pieces and is_joined and not is_apart:
            pieces[-1] = (pieces[-1][0] + character, pieces[-1][1])
        else:
            pieces.append((character, offset))
        is_joined = not is_apart
    return pieces


def _is_same(word: str, wanted: str, *, is_open: bool) -> bool:
    """Return whether two folded words are one to the index, nearly: the endings are English, and not all of them."""
    if word == wanted or (is_open and word.startswith(wanted)):
        return True
    shared = 0
    for one, other in zip(word, wanted, strict=False):
        if one != other:
            break
        shared += 1
    if shared < _SHARED_CHARS_MIN:
        return False
    last = word[shared - 1]
    return all(rest.removeprefix(last) in _ENDINGS or not rest for rest in (word[shared:], wanted[shared:]))


def _is_in_words(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LN" or category == "Co"
