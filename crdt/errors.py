"""What can go wrong in the kernel, and what the caller does about it.

::

    CrdtError
    ├── SchemaError            the declaration of a record is wrong     fix the class; raised at import time
    ├── ValidationError        a value does not fit its field           fix the value; nothing was written
    ├── NotAvailable           a feature that is not built yet          do without, or update the package
    ├── ItemsNotLoaded         a list that was not asked for is used    ask for it, or read the record by its id
    ├── UpdateRefused          update bytes that we do not trust        quarantine it, go on with the rest
    │   └── UpdateGap          an honest update that came too early     wait for, or fetch, what is missing
    ├── DocumentUnreadable     a document that this schema cannot read  quarantine the record, keep its bytes
    └── WireError              bytes that are not a message of ours     close the connection
        ├── MalformedFrame     not decodable, or not of the protocol
        ├── FrameTooLarge      past a limit, which it names
        └── ProtocolMismatch   another version of the protocol          update the older side

A bug is none of these: it crashes.
"""

from __future__ import annotations

__all__ = [
    "CrdtError",
    "DocumentUnreadable",
    "FrameTooLarge",
    "ItemsNotLoaded",
    "MalformedFrame",
    "NotAvailable",
    "ProtocolMismatch",
    "SchemaError",
    "UpdateGap",
    "UpdateRefused",
    "ValidationError",
    "WireError",
]


ITEMS_ADVICE = 'ask for it with .include("{0}"), read the record with get(id), or page through the list'


class CrdtError(Exception):
    """The base of every expected failure in the kernel."""


class SchemaError(CrdtError):
    """A record class is declared wrongly; the message names the class, the field and what would be right."""


class ValidationError(CrdtError, ValueError):
    """A value does not fit its field. Nothing was written.

    Attributes: ``record`` (the class's name), ``field`` (snake_case, dotted into maps), ``problem`` (what was
    wrong) and ``expected`` (what would be right).
    """

    def __init__(self, *, record: str, field: str, problem: str, expected: str) -> None:
        super().__init__(f"{record}.{field}: {problem}; expected {expected}")
        self.record = record
        self.field = field
        self.problem = problem
        self.expected = expected


class NotAvailable(CrdtError, NotImplementedError):
    """A feature whose name stands but which is not built yet."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what} is not available yet; {instead}")
        self.what = what


class ItemsNotLoaded(CrdtError):
    """A record came from a query, which leaves out the items of lists declared lazy, and this one was used.

    Attributes: ``record`` (the class's name) and ``field``.
    """

    def __init__(self, record: str, field: str) -> None:
        super().__init__(f"{record}.{field} is not loaded: {ITEMS_ADVICE.format(field)}")
        self.record = record
        self.field = field


class UpdateRefused(CrdtError):
    """Update bytes that must not reach a document. ``code`` is stable, ``detail`` is for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"update refused ({code}): {detail}")
        self.code = code
        self.detail = detail


class UpdateGap(UpdateRefused):
    """The update follows one that has not arrived: it starts at ``start`` where ``expected`` comes next."""

    def __init__(self, *, client: int, start: int, expected: int) -> None:
        super().__init__("gap", f"client {client} continues at clock {start}, but {expected} comes next")
        self.client = client
        self.start = start
        self.expected = expected


class DocumentUnreadable(CrdtError):
    """A document holds something that this schema cannot read as its record; its bytes are kept."""

    def __init__(self, *, record: str, field: str, problem: str) -> None:
        super().__init__(f"{record}.{field}: {problem}")
        self.record = record
        self.field = field
        self.problem = problem


class WireError(CrdtError):
    """Bytes that are not a message of this protocol."""


class MalformedFrame(WireError):
    """A frame that does not decode to a message."""


class FrameTooLarge(WireError):
    """A frame, or what it decompresses to, is past the limit that the message names."""

    def __init__(self, *, limit: str, size: int, allowed: int) -> None:
        super().__init__(f"{size:,} bytes is past {limit} ({allowed:,} bytes); send less at a time")
        self.limit = limit
        self.size = size
        self.allowed = allowed


class ProtocolMismatch(WireError):
    """The other side speaks another version of the protocol."""

    def __init__(self, *, ours: int, theirs: int) -> None:
        older = "this program" if ours < theirs else "the other side"
        super().__init__(f"protocol {theirs} at the other side, {ours} here: update {older}")
        self.ours = ours
        self.theirs = theirs
