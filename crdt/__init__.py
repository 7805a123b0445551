"""The shared kernel: documents, how they merge, and the messages that carry their updates.

Both ends import it, and it imports neither. It does no I/O and has no clock or randomness of its own: time, random
bytes and ids come in by the door. Start with `schema` (what a record is), then `document` and `updates`.
"""

from __future__ import annotations

__all__: list[str] = []
