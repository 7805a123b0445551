"""Sync, switched on and off by the application: what `client_sdk.client` does with a runner.

`Switch` is for an opening that owns its file; `client_sdk.sync.shared` for one of several instances.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, TypeAlias

from client_sdk.commit import Committed
from client_sdk.sync.status import Status

if TYPE_CHECKING:
    from client_sdk.sync.runner import Runner

__all__ = ["MakeRunner", "Switch"]

MakeRunner: TypeAlias = "Callable[[Callable[[Status], None] | None], Runner]"
"""Makes a runner that tells each new status; it raises `NotRegistered`."""


class Switch:
    """``runner`` is there while sync is on, here."""

    def __init__(self, make: MakeRunner, *, pending: int) -> None:
        self.runner: Runner | None = None
        self._make = make
        self._idle = Status(pending=pending)

    async def connect(self) -> None:
        """Stay in sync in the background from now on; returns at once. Raises `NotRegistered`."""
        if self.runner is None:
            self._start(None)
        else:
            self.runner.start()
            self.runner.retry_now()

    async def synced(self, timeout: float | None) -> None:
        """Connect, and wait until both sides are in step and proved equal. Raises as `Runner.synced`."""
        await self.connect()
        assert self.runner is not None
        await self.runner.synced(timeout)

    async def disconnect(self) -> None:
        """End the sync."""
        runner, self.runner = self.runner, None
        if runner is not None:
            await runner.stop()
            self._idle = dataclasses.replace(runner.status, state="offline", pending=self._idle.pending)

    @property
    def status(self) -> Status:
        """How this device stands with the server."""
        return self._idle if self.runner is None else self.runner.status

    async def statuses(self) -> AsyncIterator[Status]:
        """Yield the status now and each time that it changes, while connected."""
        if self.runner is None:
            yield self.status
            return
        async for status in self.runner.statuses():
            yield status

    def committed(self, committed: Committed) -> None:
        """Hear of a commit: what waits to be sent is sent."""
        if self.runner is not None and not committed.is_remote:
            self.runner.committed()
        if self._idle.pending != committed.pending:
            self._idle = dataclasses.replace(self._idle, pending=committed.pending, verified=None)

    def close(self) -> None:
        """End; after `disconnect`."""

    def _start(self, on_status: Callable[[Status], None] | None) -> None:
        self.runner = self._make(on_status)
        self.runner.start()
