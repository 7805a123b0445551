"""One space of one session: how far it was sent, what is under way, what the device has asked. No I/O.

The window is counted in frames: at most ``PAGES_IN_FLIGHT`` pages are under way, sent and not yet durable on
the device. So a slow device costs this: three pages on the way, and here a few numbers. What it has not read
waits in the log.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from crdt.limits import COLLECTION_NAME_BYTES_MAX, PAGES_IN_FLIGHT, RECORD_ID_BYTES_MAX
from server.errors import MalformedMessage, TooLarge
from server.vectors import Placed

__all__ = ["FETCHES_MAX", "Feed", "Pull", "WantedDocument"]

#: Documents that a device waits for at once; it fetches one for each update that it could not apply.
FETCHES_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class WantedDocument:
    """A `Fetch`: answered when documents stand at ``position``, where the log ended when it was asked."""

    collection: str
    record: str
    position: int


@dataclass(frozen=True, slots=True)
class Pull:
    """A `PullVectors` that waits for its answer: request ``n`` for those of ``model`` at positions > ``after``.

    ``waits``: for there to be any; else it is answered as it stands.
    """

    n: int
    model: str
    after: int
    waits: bool = True

    def moved(self, after: int) -> Pull:
        """The same question, from further on."""
        return replace(self, after=after)


@dataclass(slots=True, kw_only=True)
class Feed:
    """What a session knows of a space. ``name`` is the space as the wire spells it."""

    space: UUID
    name: str
    head: int
    materialized: int
    sent: int
    received: int
    is_paused: bool = False  # the device's cursor belongs to another history: it is sent nothing
    by_documents: bool = False  # until the last documents are sent; then by the log
    own_through: int = 0  # everything between `sent` and here is this session's own pushes
    verify: int | None = None
    fetches: deque[WantedDocument] = field(default_factory=deque)
    in_flight: deque[int] = field(default_factory=deque)
    vectors_head: int = 0
    pull: Pull | None = None
    saved_cursor: int = -1
    saved_at: float = 0.0

    @property
    def has_page(self) -> bool:
        """There is something to send, and the window is open."""
        return not self.is_paused and self.sent < self.head and len(self.in_flight) < PAGES_IN_FLIGHT

    @property
    def has_verified(self) -> bool:
        """The device's question about a digest can be answered, or be dropped because the log has moved on."""
        return self.verify is not None and (self.materialized >= self.verify or self.head > self.verify)

    @property
    def has_document(self) -> bool:
        """A document that the device waits for is there."""
        return bool(self.fetches) and self.fetches[0].position <= self.materialized

    @property
    def has_vectors(self) -> bool:
        """The device waits for vectors, and there may be some."""
        return self.pull is not None and (self.pull.after < self.vectors_head or not self.pull.waits)

    @property
    def is_due(self) -> bool:
        """Something can be sent."""
        return self.has_page or self.has_verified or self.has_document or self.has_vectors

    def note_own(self, after: int, through: int) -> None:
        """Positions ``after`` < p ≤ ``through`` are a push of this session: if nothing is between, they need
        no reading.
        """
        if max(self.sent, self.own_through) == after:
            self.own_through = through

    def note_own_vectors(self, model: str, placed: Placed) -> None:
        """Vectors between these positions came from this session: if nothing is between, they need no reading."""
        self.vectors_head = max(self.vectors_head, placed.head)
        if self.pull is not None and (self.pull.model, self.pull.after) == (model, placed.before):
            self.pull = self.pull.moved(placed.head)

    def note_sent(self, through: int) -> None:
        """A page up to here is under way."""
        self.sent = through
        self.head = max(self.head, through)
        self.in_flight.append(through)

    def note_received(self, position: int) -> None:
        """The device has made everything up to here durable.

        Raises:
            MalformedMessage: it was not sent so far.
        """
        if position > self.sent:
            raise MalformedMessage(f"received position {position} was never sent; {self.sent} was")
        self.received = max(self.received, position)
        while self.in_flight and self.in_flight[0] <= position:
            self.in_flight.popleft()

    def want(self, collection: str, record: str) -> None:
        """Remember a `Fetch`.

        Raises:
            MalformedMessage: there can be no such record.
            TooLarge: the device waits for too many already.
        """
        if not (
            0 < len(collection) <= COLLECTION_NAME_BYTES_MAX
            and 0 < len(record) <= RECORD_ID_BYTES_MAX
            and "\0" not in collection + record  # Postgres takes none
        ):
            raise MalformedMessage("no record has such a name")
        if len(self.fetches) >= FETCHES_MAX:
            raise TooLarge("FETCHES_MAX", size=len(self.fetches) + 1, allowed=FETCHES_MAX)
        self.fetches.append(WantedDocument(collection, record, self.head))
