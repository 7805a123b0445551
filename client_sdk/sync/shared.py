"""Sync of a file that several instances have open: one that wants it syncs, and another takes over when that one ends.

Who syncs (the leader) holds the `Board`'s lock, and posts how it stands. The others read that, and try for the lock a
few times a second: it is free as soon as the leader has closed, or died. What they write the leader hears of as of any
commit of another instance, and sends it.

`SharedSwitch.synced` of one that does not lead makes a commit that asks for attention and no more. The leader then has
the server prove once more that both sides are equal, and what it posts for that commit, or a later one, is the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from client_sdk.commit import Committed, Corridor
from client_sdk.errors import SyncElsewhere, SyncTimeout
from client_sdk.sync.board import Board, Posted
from client_sdk.sync.status import Status
from client_sdk.sync.switch import MakeRunner, Switch
from client_sdk.writer import Writer

__all__ = ["SharedSwitch"]

_LOOKS_BETWEEN_TRIES: Final = 6  # at one look in 40 ms: four attempts a second to take over
_ERROR_CHARACTERS_MAX: Final = 1_000


class SharedSwitch(Switch):
    """``require`` raises `NotRegistered`, having looked into the file if need be."""

    def __init__(
        self,
        make: MakeRunner,
        *,
        writer: Writer,
        board: Board,
        require: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__(make, pending=writer.corridor.outbox.pending)
        self._writer = writer
        self._board = board
        self._require = require
        self._is_wanted = False
        self._leads = False  # also while a runner that was told to stop has not
        self._turning = asyncio.Lock()  # one connects or disconnects at a time
        self._posted: Posted | None = None  # by the leader: this instance, or another
        self._error: SyncElsewhere | None = None  # what another leader posted
        self._turned = asyncio.Event()  # set, and replaced, whenever the status may be another
        self._looks = 0

    async def connect(self) -> None:
        """See to it that this file is in sync from now on, by this instance or another; returns at once.

        Raises `NotRegistered`.
        """
        await self._want()

    async def synced(self, timeout: float | None) -> None:
        """Connect, and wait until both sides are in step and proved equal, whoever syncs.

        Raises:
            SyncTimeout: not within ``timeout`` seconds.
            ClientError: it does not come to that without somebody doing something; `SyncElsewhere` where the instance
                that syncs has met an error.
        """
        commits = await self._want()
        try:
            async with asyncio.timeout(timeout):
                while self.runner is None:
                    turned, posted = self._turned, self._posted
                    if posted is not None and posted.commits >= commits:
                        if posted.state == "error":
                            raise SyncElsewhere(posted.error)
                        if posted.state == "synced" and posted.verified:
                            return
                    await turned.wait()
                await self.runner.synced()
        except TimeoutError as error:
            status = self.status
            raise SyncTimeout(
                seconds=timeout or 0, pending=status.pending, behind=status.head - status.cursor
            ) from (status.last_error or error)

    async def disconnect(self) -> None:
        """End the sync here; another instance that wants it goes on."""
        async with self._turning:
            self._is_wanted = False
            await super().disconnect()
            if self._leads:
                self._leads, self._posted = False, None
                self._board.leave()
                self._turn()

    @property
    def status(self) -> Status:
        """How this device stands with the server, whoever syncs."""
        posted = self._posted
        if self.runner is not None or posted is None:
            return super().status
        pending = self._idle.pending
        return Status(
            state="syncing" if posted.state == "synced" and pending else posted.state,
            pending=pending,
            cursor=posted.cursor,
            head=posted.head,
            verified=posted.verified if posted.commits >= self._writer.told else None,
            last_error=self._error,
        )

    async def statuses(self) -> AsyncIterator[Status]:
        """Yield the status now and each time that it changes; who is slow gets the newest."""
        last: Status | None = None
        while True:
            turned, status = self._turned, self.status
            if status != last:
                last = status
                yield status
            else:
                await turned.wait()

    def committed(self, committed: Committed) -> None:
        """Hear of a commit, of this instance or another."""
        super().committed(committed)
        if self.runner is not None and committed.is_foreign and committed.is_call:
            self.runner.retry_now()
        self._turn()

    def look(self) -> None:
        """See how it stands, and take over from a leader that is gone. Called every few milliseconds."""
        if self._leads:
            self._post()
            return
        if (posted := self._board.read()) != self._posted:
            self._posted = posted
            self._error = SyncElsewhere(posted.error) if posted is not None and posted.error else None
            if posted is not None:
                self._writer.corridor.clock.offset_ms = posted.offset_ms
            self._turn()
        self._looks += 1
        if self._looks % _LOOKS_BETWEEN_TRIES:
            return
        if self._is_wanted:
            self._lead()
        elif self._posted is not None:
            self._board.clear()  # if its writer was killed it is true no more

    def close(self) -> None:
        """Give up the board; after `disconnect`."""
        self._board.close()

    async def _want(self) -> int:
        """Connect, and return the number of the commit that calls the leader, if that is another instance."""
        async with self._turning:
            await self._require()
            self._is_wanted = True
            if self.runner is not None:
                await super().connect()
            elif not self._lead():
                return await self._call()
            return 0

    def _lead(self) -> bool:
        if not self._board.take():
            return False
        self._leads, self._posted, self._error = True, None, None
        self._start(lambda _: self._post())
        self._post()
        return True

    def _post(self) -> None:
        runner = self.runner
        if runner is None:
            return
        status, told = runner.status, self._posted
        posted = Posted(
            self._writer.told if runner.is_told or told is None else told.commits,
            status.state,
            status.cursor,
            status.head,
            status.verified,
            "" if status.last_error is None else str(status.last_error)[:_ERROR_CHARACTERS_MAX],
            self._writer.corridor.clock.offset_ms,
        )
        if posted != told:
            self._posted = posted
            self._board.post(posted)
            self._turn()

    def _turn(self) -> None:
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()

    async def _call(self) -> int:
        """Make a commit that calls the leader's attention; return its number."""

        def work(corridor: Corridor) -> int:
            corridor.committed.is_call = True
            return corridor.state.commits + 1

        return await self._writer.run(work, brief=True, is_remote=True)
