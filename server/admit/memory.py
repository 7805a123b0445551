"""What this process remembers of those who write: how far each is numbered, and their clock in each record.

An update must go on where the same client left off in the same record. The log knows, but asking it for every update
would cost more than writing it; so each writer's clocks are kept here, filled from the log when one is missing.

What is remembered holds only while nobody else has written for that incarnation: the device may have gone to another
server process and come back. So it is kept with the number that it belongs to (``through``), and thrown away when the
row that the transaction has locked says another. Nothing is remembered before its commit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from server.admit.decide import RecordKey

__all__ = ["Writer", "WriterKey", "Writers"]

#: About 300 bytes each: 200,000 are 60 MB, the records that all devices of one process touch in a busy while.
_CLOCKS_MAX: Final = 200_000


class WriterKey(NamedTuple):
    """One incarnation of a device, writing into a space."""

    space: UUID
    device: UUID
    incarnation: int


@dataclass(slots=True)
class Writer:
    """Clocks as of number ``through``. ``is_complete``: a record that is missing in ``clocks`` was never written."""

    through: int
    is_complete: bool
    clocks: dict[RecordKey, int] = field(default_factory=dict)


class Writers:
    """The writers that were heard of last, bounded by the number of their clocks."""

    def __init__(self, *, clocks_max: int = _CLOCKS_MAX) -> None:
        self._clocks_max = clocks_max
        self._clocks_count = 0
        self._by_key: OrderedDict[WriterKey, Writer] = OrderedDict()

    def recall(self, key: WriterKey, *, through: int) -> Writer:
        """Return what is known at ``through``, the number in the locked row: an empty writer if nothing is."""
        writer = self._by_key.get(key)
        if writer is not None and writer.through == through:
            return writer
        if writer is not None:
            self.forget(key)
        return Writer(through=through, is_complete=through == 0)

    def learn(self, key: WriterKey, writer: Writer, clocks: Mapping[RecordKey, int]) -> None:
        """Add clocks that are durable at ``writer.through``; the least recently heard are let go."""
        self._clocks_count -= len(self._by_key[key].clocks) if key in self._by_key else 0
        writer.clocks.update(clocks)
        self._clocks_count += len(writer.clocks)
        self._by_key[key] = writer
        self._by_key.move_to_end(key)
        while self._clocks_count > self._clocks_max and len(self._by_key) > 1:
            _, oldest = self._by_key.popitem(last=False)
            self._clocks_count -= len(oldest.clocks)
        if self._clocks_count > self._clocks_max:  # this one alone: its oldest records are asked for again
            kept = list(writer.clocks.items())[-self._clocks_max // 2 :]
            writer.clocks = dict(kept)
            writer.is_complete = False
            self._clocks_count = len(kept)

    def forget(self, key: WriterKey) -> None:
        """Let go of a writer, known or not."""
        writer = self._by_key.pop(key, None)
        if writer is not None:
            self._clocks_count -= len(writer.clocks)

    def __len__(self) -> int:
        return self._clocks_count
