"""What of a record is for words to find: the server has no schema, so every text in it but for ids and what is sealed.

A record whose only list of items is a conversation has a text for itself (part -1) and one for each item (its place in
the list). With several such lists a place would not tell which: then all of it is the record's own. A deleted
record has no texts. Times, numbers and the names of fields are no texts; an id is what stands in ``id``, ``…Id`` or
``…Ids``.

Who said it is the text in ``speaker``, of the part itself or of a map in it: a question that names somebody prefers
what they said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from crdt.contents import Contents
from crdt.words import spaced

__all__ = [
    "PARTS_MAX",
    "RECORD_CHARACTERS_MAX",
    "RECORD_PART",
    "SPEAKER_CHARACTERS_MAX",
    "TEXT_CHARACTERS_MAX",
    "Part",
    "texts_of",
]

#: The part that is the record itself.
RECORD_PART: Final = -1
#: Of one part; Postgres takes no tsvector past 1 MB, and bytes that nobody writes could make that of 128 KiB.
TEXT_CHARACTERS_MAX: Final = 32 * 1024
#: Of one record, as `server.materialize.view` has it: every update compares them all; what is past it is not found.
RECORD_CHARACTERS_MAX: Final = 4 * 1024 * 1024
PARTS_MAX: Final = 100_000
#: Each character of a script without spaces stands between two of them.
_FOLDED_TIMES_MAX: Final = 3
#: What is longer is nobody's name.
SPEAKER_CHARACTERS_MAX: Final = 200


class Part(NamedTuple):
    """A text that words can find, at its place in a record; ``folded`` where it is found otherwise than it stands."""

    part: int
    body: str
    speaker: str | None
    folded: str | None


def texts_of(contents: Contents) -> list[Part]:
    """Return what can be found, in the order of parts."""
    if contents.is_deleted:
        return []
    try:
        value = contents.value(with_bytes=False)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return []
    lists = [name for name in contents.lists if any(isinstance(item, dict) for item in value.get(name, ()))]
    items: list[Any] = value.pop(lists[0]) if len(lists) == 1 else []
    found: list[Part] = []
    left = RECORD_CHARACTERS_MAX
    for part, inner in enumerate([value, *items[:PARTS_MAX]], RECORD_PART):
        if text := _joined(inner)[:left]:
            found.append(Part(part, text, _speaker(inner), _folded(text)))
            left -= len(text)
    return found


def _joined(value: Any) -> str:
    return _plain("\n".join(_leaves(value))[:TEXT_CHARACTERS_MAX])


def _folded(text: str) -> str | None:
    """Return what is indexed of a text, as a device does; None if that is the text itself."""
    return None if text.isascii() else spaced(text)[: _FOLDED_TIMES_MAX * TEXT_CHARACTERS_MAX]


def _speaker(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    for inner in (value, *value.values()):
        name = inner.get("speaker") if isinstance(inner, dict) else None
        if isinstance(name, str) and len(name) <= SPEAKER_CHARACTERS_MAX:
            return _plain(name)
    return None


def _plain(text: str) -> str:
    """A text as Postgres can hold it: no NUL, no half of a surrogate pair."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value and not value.isspace():
            yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if not (isinstance(name, str) and (name == "id" or name.endswith(("Id", "Ids")))):
                yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
