"""Watches what other instances on this file commit, and tells it here.

Every `LOOK_S` it asks for the file's count of commits: one indexed read of a page that is in memory, on a connection
that is only for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from client_sdk.errors import ClosedClient, FileProblem
from client_sdk.notices import hear
from client_sdk.writer import Writer

__all__ = ["LOOK_S", "Lookout"]

# Seconds between two looks: so late is another's commit told at most, of the 100 ms that a person does not notice. To
# wake up and look costs a process that does nothing else 0.6 % of a core; every 25 ms it would be 0.9 %.
LOOK_S: Final = 0.04

_log = logging.getLogger(__name__)


class Lookout:
    """Looks until it is closed. ``learn`` is called when something was found and told, ``also`` at each look."""

    def __init__(
        self, writer: Writer, *, learn: Callable[[], Awaitable[None]], also: Callable[[], None]
    ) -> None:
        self._writer = writer
        self._learn = learn
        self._also = also
        self._task = asyncio.get_running_loop().create_task(self._run(), name="lookout")

    def look(self) -> bool:
        """Tell the listeners what is new, and return whether anything is. Raises `FileProblem` and `ClosedClient`."""
        writer = self._writer
        heard = writer.database.glance(
            lambda connection: hear(connection, after=writer.told, before=writer.corridor.instance)
        )
        if heard is not None:
            writer.hear(heard)
        return heard is not None

    async def close(self) -> None:
        """Look no more."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if self.look():
                    await self._learn()
                self._also()
            except ClosedClient:
                return
            except FileProblem:
                _log.warning("looking for other instances' commits failed; it goes on", exc_info=True)
