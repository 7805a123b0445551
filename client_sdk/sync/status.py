"""How this device stands with the server: one frozen value, replaced whenever something in it changes; and what went
over the wire so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["State", "Status", "SyncCounts"]

State: TypeAlias = Literal["offline", "connecting", "syncing", "synced", "error"]


@dataclass(frozen=True, slots=True)
class Status:
    """Where the sync of one space stands.

    ``state``: ``offline`` (not connected; it may be trying), ``connecting``, ``syncing`` (something is pending or
    still to be read), ``synced`` (nothing is, as far as the server has said), ``error`` (``last_error`` says what,
    and what to do). ``pending``: updates that the server has not acknowledged. ``cursor`` and ``head``: how far this
    device has read, and the newest position that the server has told of. ``verified``: True when the digests of both
    sides were equal at this very state, False when they differed, None when that is not known (yet).
    """

    state: State = "offline"
    pending: int = 0
    cursor: int = 0
    head: int = 0
    verified: bool | None = None
    last_error: Exception | None = None


@dataclass(slots=True)
class SyncCounts:
    """What went over the wire since the opening: acknowledged ``pushes`` with the updates in them, those of them that
    the server ``refused``, and pages read (``pulls``) with the updates or documents in them.
    """

    pushes: int = 0
    pushed: int = 0
    refused: int = 0
    pulls: int = 0
    pulled: int = 0
