"""What the demo tells: steps, each with what was seen and whether that was promised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = ["Check", "Step", "Table"]


class Check(msgspec.Struct, frozen=True, rename="camel"):
    """One promise, and what each device has instead or as well."""

    what: str
    promised: Any
    laptop: Any
    phone: Any

    @property
    def is_kept(self) -> bool:
        """Whether both devices have what was promised."""
        return bool(self.laptop == self.promised and self.phone == self.promised)


class Table(msgspec.Struct, frozen=True):
    """What a step shows: rows of cells under their names."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Step(msgspec.Struct, frozen=True):
    """One step of the story: its name, what happened, how long it took in seconds."""

    name: str
    told: str
    seconds: float
    table: Table | None = None
    checks: list[Check] = []
