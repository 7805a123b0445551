"""What sync needs of the device's copy: a seam that the encrypted file fills (`client_sdk.sync.replica`), and tests
with a list in memory.

Every write is durable when its call returns, and whole: a crash at any point leaves it done or not begun. Hostile
content is the replica's to put into quarantine; it raises `ClientError` only for what a person has to mend (a full
disk).
"""

from __future__ import annotations

from typing import Protocol

from client_sdk.sync.events import OutboxPlace, PendingBatch
from crdt import wire

__all__ = ["Replica"]


class Replica(Protocol):
    """One device's copy of one space, with its outbox."""

    @property
    def incarnation(self) -> int:
        """The number of this opening of the file."""
        ...

    @property
    def client(self) -> int:
        """The client id of this opening of the file."""
        ...

    async def pending_count(self) -> int:
        """Count the updates in the outbox."""
        ...

    async def pending(
        self, after: OutboxPlace | None, *, edits_max: int, bytes_max: int
    ) -> PendingBatch | None:
        """Return the next updates of one incarnation, of consecutive numbers, or None; one at least if there is any.

        ``after`` is None for the outbox's beginning, or the last update of a batch that was returned before and is
        still in the outbox.
        """
        ...

    async def acknowledge(self, incarnation: int, through: int, refusals: list[wire.Refusal]) -> None:
        """Drop these from the outbox, and keep the refused in quarantine."""

    async def apply_page(self, page: wire.Page) -> None:
        """Commit a page and move the cursor to its end, in one transaction; a repeat changes nothing."""

    async def apply_documents(self, documents: wire.Documents) -> None:
        """Commit snapshots and move the cursor to ``through``, unless that is 0."""

    async def cursor(self) -> tuple[str, int]:
        """Return the generation ("" before the first) and the position that are durable."""
        ...

    async def set_generation(self, generation: str) -> None:
        """Keep the generation that the cursor belongs to from now on."""

    async def digest(self) -> tuple[bytes, int]:
        """Return the digest of the records (16 bytes), and their number, as of now."""
        ...

    def observe_server_time(self, offset_ms: int) -> None:
        """Correct the clock: the server's is ahead by this much."""

    async def rehome(self, taken: int | None = None) -> None:
        """Mint a new client id and incarnation, and write what ``taken`` (None: this opening) has pending
        anew under them.
        """
