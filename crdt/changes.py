"""What one transaction does to one document, typed: the operations that `crdt.document` carries out.

They are values, checked and encoded before the document is touched, so that carrying them out cannot fail half way: an
exception inside a pycrdt transaction would commit what was done so far.
"""

from __future__ import annotations

import msgspec

__all__ = [
    "AddElements",
    "DeleteText",
    "Increment",
    "InsertItems",
    "InsertText",
    "Operation",
    "RemoveElements",
    "RemoveItems",
    "SetRegister",
]


class SetRegister(msgspec.Struct, frozen=True):
    """Set the register at ``path`` to a value's bytes; None removes a map's leaf.

    ``reading`` is the edit's, unless the value only changes its form: then it keeps the one that it has.
    """

    path: str
    value: bytes | None
    reading: int | None = None


class AddElements(msgspec.Struct, frozen=True):
    """Add elements (as JSON) to a set."""

    name: str
    elements: tuple[str, ...]


class RemoveElements(msgspec.Struct, frozen=True):
    """Remove elements (as JSON) from a set, as far as this device has seen them added."""

    name: str
    elements: tuple[str, ...]


class Increment(msgspec.Struct, frozen=True):
    """Add ``by`` to a counter."""

    name: str
    by: int


class InsertItems(msgspec.Struct, frozen=True):
    """Insert items' bytes into a list before ``index`` (None: append)."""

    name: str
    index: int | None
    items: tuple[bytes, ...]


class RemoveItems(msgspec.Struct, frozen=True):
    """Remove ``count`` items of a list from ``index`` on."""

    name: str
    index: int
    count: int


class InsertText(msgspec.Struct, frozen=True):
    """Insert text before the character (code point) number ``index``."""

    name: str
    index: int
    text: str


class DeleteText(msgspec.Struct, frozen=True):
    """Delete ``count`` characters (code points) of a text from number ``index`` on."""

    name: str
    index: int
    count: int


Operation = (
    SetRegister
    | AddElements
    | RemoveElements
    | Increment
    | InsertItems
    | RemoveItems
    | InsertText
    | DeleteText
)
