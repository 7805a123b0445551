"""The words between the engine and the runner: what happened (events), and what to do about it (instructions).

The runner carries out the instructions of one event in order, and feeds what came of each back as an event:

======================  ====================================  =====================================
instruction             the runner                            and feeds back
======================  ====================================  =====================================
`Send`                  encodes the message, sends it         `Lost`, if the connection is gone
`LoadPending`           reads one batch from the outbox       `BatchLoaded`
`Acknowledge`           drops what is acknowledged            `Acknowledged`, once durable
`ApplyPage`             commits a page of the log             `Applied`, once durable
`ApplyDocuments`        commits snapshots                     `Applied`, once durable
`ReadDigest`            reads the digest of the records       `DigestRead`
`SetGeneration`         keeps which history is read
`ObserveTime`           corrects the clock
`Rehome`                moves pending work to a new identity
`RenewToken`            asks for a fresh token next time
`Report`                publishes the status
`Close`                 closes the connection; waits; redials  `Dialling`, when it tries again
======================  ====================================  =====================================

When the device itself cannot do it (a full disk), it feeds `Failed` instead.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from client_sdk.sync.status import Status
from crdt import wire

__all__ = [
    "Acknowledge",
    "Acknowledged",
    "Applied",
    "ApplyDocuments",
    "ApplyPage",
    "BatchLoaded",
    "Close",
    "Committed",
    "Confirm",
    "Connected",
    "Dialling",
    "DigestRead",
    "Event",
    "Failed",
    "Instruction",
    "LoadPending",
    "Lost",
    "ObserveTime",
    "OutboxPlace",
    "PendingBatch",
    "ReadDigest",
    "Received",
    "Rehome",
    "RenewToken",
    "Report",
    "Send",
    "SetGeneration",
    "Stopped",
    "Tick",
    "Wanted",
]


class OutboxPlace(NamedTuple):
    """A place in the outbox: the update number ``n`` of ``incarnation``."""

    incarnation: int
    n: int


class PendingBatch(Protocol):
    """Consecutive pending updates of one incarnation, numbered from ``first``, all written under ``client``."""

    @property
    def incarnation(self) -> int:
        """Which opening of the file wrote them."""
        ...

    @property
    def client(self) -> int:
        """The client id that they were written under."""
        ...

    @property
    def first(self) -> int:
        """The number of the first of them."""
        ...

    @property
    def edits(self) -> list[wire.Edit]:
        """The updates, at least one."""
        ...


# --------------------------------------------------------------------------------------------------- events


class Dialling(msgspec.Struct, frozen=True):
    """A connection is being made."""


class Connected(msgspec.Struct, frozen=True):
    """The connection stands. All that the device knows of itself comes along, read afresh.

    ``generation`` and ``position`` are the cursor; ``pending`` counts the outbox; ``now_ms`` is the device's own
    wall clock, uncorrected.
    """

    token: str
    incarnation: int
    client: int
    generation: str
    position: int
    pending: int
    now_ms: int


class Received(msgspec.Struct, frozen=True):
    """A message of the server arrived, at ``now_ms`` by the device's own wall clock."""

    message: wire.FromServer
    now_ms: int


class Lost(msgspec.Struct, frozen=True):
    """The connection ended, or could not be made."""

    error: Exception


class Failed(msgspec.Struct, frozen=True):
    """The device could not do what it was told, or could not understand a frame: ``error`` says why."""

    error: Exception


class Stopped(msgspec.Struct, frozen=True):
    """The application wants no sync any more."""


class Committed(msgspec.Struct, frozen=True):
    """Local writes became durable; the outbox now holds ``pending`` updates."""

    pending: int


class BatchLoaded(msgspec.Struct, frozen=True):
    """What `LoadPending` found: None when nothing is pending after that place."""

    batch: PendingBatch | None


class Acknowledged(msgspec.Struct, frozen=True):
    """What `Acknowledge` said is durable; the outbox now holds ``pending`` updates."""

    pending: int


class Applied(msgspec.Struct, frozen=True):
    """A page, or documents, with this ``through`` are durable."""

    through: int


class DigestRead(msgspec.Struct, frozen=True):
    """The digest of the records, and how many there are. ``pending`` was counted after the digest was read."""

    digest: bytes
    records: int
    pending: int


class Wanted(msgspec.Struct, frozen=True):
    """A record's update could not be applied: its whole document is wanted."""

    collection: str
    record: str


class Confirm(msgspec.Struct, frozen=True):
    """Somebody wants to know for certain: verify once more, even what is verified."""


class Tick(msgspec.Struct, frozen=True):
    """Time passes: ``now_ms`` on any clock that only moves forward."""

    now_ms: int


Event: TypeAlias = (
    Dialling
    | Connected
    | Received
    | Lost
    | Failed
    | Stopped
    | Committed
    | BatchLoaded
    | Acknowledged
    | Applied
    | DigestRead
    | Wanted
    | Confirm
    | Tick
)


# --------------------------------------------------------------------------------------------- instructions


class Send(msgspec.Struct, frozen=True):
    """Send this message."""

    message: wire.FromDevice


class LoadPending(msgspec.Struct, frozen=True):
    """Read the next batch of the outbox: after that place, or from its beginning."""

    after: OutboxPlace | None
    edits_max: int
    bytes_max: int


class Acknowledge(msgspec.Struct, frozen=True):
    """The server has ``incarnation`` up to ``through``: drop it from the outbox, keep the refusals."""

    incarnation: int
    through: int
    refusals: list[wire.Refusal]


class ApplyPage(msgspec.Struct, frozen=True):
    """Commit this page: it begins exactly at the cursor."""

    page: wire.Page


class ApplyDocuments(msgspec.Struct, frozen=True):
    """Commit these snapshots: they begin exactly at the cursor, or (``after`` = ``through`` = 0) move no cursor."""

    documents: wire.Documents


class ReadDigest(msgspec.Struct, frozen=True):
    """Read the digest of the records as they are now, and then count the outbox."""


class SetGeneration(msgspec.Struct, frozen=True):
    """The cursor belongs to this history from now on."""

    generation: str


class ObserveTime(msgspec.Struct, frozen=True):
    """The server's clock is ahead of ours by this much (negative: behind)."""

    offset_ms: int


class Rehome(msgspec.Struct, frozen=True):
    """Mint a new client id and incarnation, and write what ``incarnation`` (None: this opening) has pending
    anew under them.
    """

    incarnation: int | None = None


class RenewToken(msgspec.Struct, frozen=True):
    """The token was refused: get a new one before the next connection."""


class Report(msgspec.Struct, frozen=True):
    """Publish this status."""

    status: Status


class Close(msgspec.Struct, frozen=True):
    """Close the connection.

    ``retry``: dial again, ``delay_ms`` milliseconds later at the earliest (0: at once; None: as the backoff says);
    without it, only when somebody asks. ``healthy``: the server had answered and kept to the protocol, so the
    backoff begins anew.
    """

    error: Exception | None
    retry: bool
    delay_ms: int | None = None
    healthy: bool = False


Instruction: TypeAlias = (
    Send
    | LoadPending
    | Acknowledge
    | ApplyPage
    | ApplyDocuments
    | ReadDigest
    | SetGeneration
    | ObserveTime
    | Rehome
    | RenewToken
    | Report
    | Close
)
