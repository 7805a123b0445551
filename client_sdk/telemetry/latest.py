"""The newest figures, for those who ask from a thread of theirs: a scrape, an exporter.

Figures are taken on the event loop that the client belongs to. Who asks on another thread waits for it; who asks on the
loop's own cannot, and gets those that were taken last (`Latest.refresh` takes some).
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Final

from client_sdk.errors import ClosedClient

if TYPE_CHECKING:
    from client_sdk.client import Client
    from client_sdk.metrics import Metrics

__all__ = ["Latest"]

_AGE_S_MAX: Final = 1.0  # seconds: an exporter asks once for each instrument, and all are of one look
_PATIENCE_S: Final = 10.0  # seconds: about what a scrape waits


class Latest:
    """What a client's figures were last. Made on the client's event loop."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._taken: tuple[float, Metrics] | None = None

    async def refresh(self) -> Metrics:
        """Take figures now. Raises `ClosedClient`."""
        metrics = await self._client.metrics()
        self._taken = (time.monotonic(), metrics)
        return metrics

    def get(self) -> Metrics | None:
        """Return figures that are at most a second old, or on the loop's own thread those that there are.

        None: there are none, the client is closed, or its loop does not answer within ten seconds.
        """
        taken = self._taken
        if threading.get_ident() == self._loop_thread:
            return None if taken is None else taken[1]
        if taken is not None and time.monotonic() - taken[0] <= _AGE_S_MAX:
            return taken[1]
        if not self._loop.is_running():
            return None
        asked = asyncio.run_coroutine_threadsafe(self.refresh(), self._loop)
        try:
            return asked.result(_PATIENCE_S)
        except (ClosedClient, TimeoutError, CancelledError):
            asked.cancel()
            return None
