"""What every file format gives: its records, one after another, each with its place in the file.

A source is read twice: once to check every record before anything is written, once to write. So it makes its records
anew each time, and only the file's bytes are held in between: msgspec's `Raw` slices point into them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid5

import msgspec

from client_sdk.errors import ImportFailed
from crdt.schema import Record

__all__ = ["Entry", "JsonFile", "Source", "derived_id", "explain", "shortened"]

# Our own namespace for ids that are derived from another program's (RFC 9562, section 5.5): importing a file twice
# derives the same ids, and adds nothing.
_NAMESPACE = UUID("6f1c9a52-54b1-5c0e-9d5a-3c1f0e7a2b64")
_BYTE = re.compile(r"\(byte (\d+)\)")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s|$)")


class Entry(msgspec.Struct, frozen=True):
    """One record of a file: its collection, the record, its place (for people), and about how many bytes it is."""

    collection: str
    record: Record
    where: str
    size: int


class Source(Protocol):
    """A file that was understood. ``left_out`` says what of the last reading has no place in the Hub, and how often."""

    left_out: Counter[str]

    def entries(self) -> Iterator[Entry]:
        """Yield the records, personas before what belongs to them. Raises `ImportFailed`."""


class JsonFile:
    """The bytes of a JSON file, and errors that name a place in it."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data

    def decode(self, data: Any, kind: Any, where: str) -> Any:
        """Return a part of the file as ``kind``. Raises `ImportFailed`."""
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.failed(where, explain(error)) from None

    def decode_all(self, kind: Any) -> Any:
        """Return the whole file as ``kind``; an error names the line. Raises `ImportFailed`."""
        try:
            return msgspec.json.decode(self.data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.failed(self._place(error), explain(error)) from None

    def failed(self, where: str, problem: str) -> ImportFailed:
        """Return the error that says what is wrong where in this file."""
        return ImportFailed(self.path, where, problem)

    def _place(self, error: Exception) -> str:
        found = _BYTE.search(str(error))
        if found is not None:
            at = int(found[1])
        elif "truncated" in str(error):
            at = len(self.data)
        else:
            return "its beginning"
        line = self.data.count(b"\n", 0, at) + 1
        column = at - (self.data.rfind(b"\n", 0, at) + 1) + 1
        return f"line {line}, column {column}"


def derived_id(*parts: str) -> str:
    """Return the id of what another program knows by these names: the same each time, and no other's."""
    return str(uuid5(_NAMESPACE, "\x1f".join(parts)))


def explain(error: Exception) -> str:
    """Return what a decoder found wrong, in words of ours."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error).replace("`", "").replace(" - at $.", ", at ").replace(" - at $", ", at ")
    return text[:1].lower() + text[1:]


def shortened(text: str, length: int) -> str:
    """Return a text of at most ``length`` characters: whole sentences if there is one that fits, else whole words."""
    if len(text) <= length:
        return text
    ends = [found.end() for found in _SENTENCE_END.finditer(text, 0, length)]
    if ends:
        return text[: ends[-1]]
    head, _, _ = text[: length - 1].rpartition(" ")
    return (head or text[: length - 1]).rstrip() + "…"
