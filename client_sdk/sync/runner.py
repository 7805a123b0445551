"""Does what the engine decides: the only place where sync meets the network, the file, the clock and chance.

`Runner.feed` obeys one event to the end: the instructions that it led to are carried out in order, and what came of
each is fed back, until nothing is left to do. A simulation drives a device with `dial`, `deliver`, `feed` and a
transport of its own. `start` and `stop` run the same in the background, with a connection that is made again whenever
it ends: after a jittered backoff, or at once when somebody asks (`retry_now`).

Receiving goes on while a page is being applied, up to `_INBOX_MAX` messages. A failure of the file (a full disk) or of
the server becomes a status; a bug is shown as a status too, and then crashes the task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from client_sdk.errors import ClientError, SyncTimeout
from client_sdk.sync import frames, inbox
from client_sdk.sync.backoff import delays
from client_sdk.sync.device import Replica
from client_sdk.sync.engine import Engine
from client_sdk.sync.errors import ServerMisbehaved, TransportClosed
from client_sdk.sync.events import (
    Acknowledge,
    Acknowledged,
    Applied,
    ApplyDocuments,
    ApplyPage,
    BatchLoaded,
    Close,
    Committed,
    Confirm,
    Connected,
    Dialling,
    DigestRead,
    Event,
    Failed,
    Instruction,
    LoadPending,
    Lost,
    ObserveTime,
    ReadDigest,
    Received,
    Rehome,
    RenewToken,
    Report,
    Send,
    SetGeneration,
    Stopped,
    Tick,
    Wanted,
)
from client_sdk.sync.requests import Requests
from client_sdk.sync.status import Status
from client_sdk.sync.transport import Transport
from crdt import requests, wire
from crdt.errors import FrameTooLarge, WireError
from crdt.limits import PAGES_IN_FLIGHT, PUSHES_IN_FLIGHT

__all__ = ["Replica", "Runner"]

_log = logging.getLogger(__name__)

# A commit ends a wait that has lasted this long: what a person writes is worth a try, a thousand writes are not worth
# a thousand tries.
_PATIENCE_S: Final = 1.0
_TICK_S: Final = 5.0  # how often the engine looks whether an answer is overdue
# How long a stop waits for what is under way (a page being committed) before it is cancelled.
_STOP_S_MAX: Final = 5.0
# What an honest server may have sent and we have not looked at: its window of pages, our acks, and a few others.
_INBOX_MAX: Final = PAGES_IN_FLIGHT + PUSHES_IN_FLIGHT + 4


class Runner:
    """Keeps ``replica`` in step with the server that ``connect`` connects to.

    ``token`` brings a token for `Hello`; it is called with True when the last one was refused. ``now_ms`` is the
    wall clock, ``random`` gives numbers from 0 to 1 for the backoff. ``on_status`` hears each new status. ``beside``:
    what else is asked on the session.
    """

    def __init__(
        self,
        replica: Replica,
        connect: Callable[[], Awaitable[Transport]],
        *,
        space: str,
        device: str,
        token: Callable[[bool], Awaitable[str]],
        now_ms: Callable[[], int],
        random: Callable[[], float],
        on_status: Callable[[Status], None] | None = None,
        software: str = "",
        beside: Requests | None = None,
    ) -> None:
        self.engine = Engine(space=space, device=device, software=software)
        self.ending: Close | None = None  # how the last session ended; None while one is open
        self._replica = replica
        self._connect = connect
        self._token = token
        self._now_ms = now_ms
        self._random = random
        self._on_status = on_status
        self._beside = beside or Requests()
        self._transport: Transport | None = None
        self._is_token_refused = False
        self._turn = asyncio.Lock()  # one event at a time
        self._turned = asyncio.Event()  # set, and replaced, whenever `synced` may come to another answer
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()  # something for the session, or for the pause between two, to look at
        self._room = asyncio.Event()
        self._inbox: deque[Event | Exception] = deque()  # of this session, from the server
        self._wishes: deque[Event] = deque()  # from this device
        self._commits = self._commits_told = 0
        self._is_stopping = False
        self._is_called = False
        self._tick_at = 0.0

    # ------------------------------------------------------------------------------------------- status

    @property
    def status(self) -> Status:
        """The newest status."""
        return self.engine.status

    @property
    def is_told(self) -> bool:
        """Whether the status is that of a device with all its commits that `committed` has heard of."""
        return self._commits_told == self._commits

    async def statuses(self) -> AsyncGenerator[Status, None]:
        """Yield the status now, and then each time it has changed; who is slow gets the newest."""
        last: Status | None = None
        while True:
            turned = self._turned
            if self.status != last:
                last = self.status
                yield last
            else:
                await turned.wait()

    async def synced(self, timeout: float | None = None, *, verified: bool = True) -> None:
        """Wait until nothing is pending, everything is read, and the server has proved both sides equal just now.

        Without ``verified`` the proof is not waited for, and neither is what the server has not told of yet.

        Raises:
            SyncTimeout: not within ``timeout`` seconds.
            ClientError: it does not come to that without somebody doing something: the status' last error.
        """
        try:
            async with asyncio.timeout(timeout):
                if verified:
                    await self.feed(Confirm())
                while True:
                    turned, status = self._turned, self.status
                    is_old = self._is_called and self.ending is not None  # it is tried again just now
                    if status.state == "error" and status.last_error is not None and not is_old:
                        raise status.last_error
                    if status.state == "synced" and self.is_told and (status.verified or not verified):
                        return
                    await turned.wait()
        except TimeoutError as error:
            if isinstance(error, SyncTimeout):
                raise
            status = self.status
            raise SyncTimeout(
                seconds=timeout or 0, pending=status.pending, behind=status.head - status.cursor
            ) from status.last_error

    def _turn_over(self) -> None:
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()

    # ------------------------------------------------------------------------------------- step by step

    async def dial(self) -> None:
        """Open a session: connect and say Hello. Where that fails, `ending` says how to go on."""
        self.ending = None
        await self.feed(Dialling())
        try:
            token = await self._token(self._is_token_refused)
            self._is_token_refused = False
            self._transport = await self._connect()
        except ClientError as error:
            await self.feed(Lost(error))
            return
        commits = self._commits
        try:
            generation, position = await self._replica.cursor()
            pending = await self._replica.pending_count()
        except ClientError as error:
            await self.feed(Failed(error))
            return
        hello = Connected(
            token=token,
            incarnation=self._replica.incarnation,
            client=self._replica.client,
            generation=generation,
            position=position,
            pending=pending,
            now_ms=self._now_ms(),
        )
        await self.feed(hello)
        self._commits_told = commits

    async def deliver(self, frame: bytes) -> None:
        """Obey one frame of the server."""
        if (event := await self._understand(frame)) is not None:
            await self.feed(event)

    async def feed(self, event: Event) -> None:
        """Obey one event to the end. Not to be called from within the replica: that would wait for itself."""
        async with self._turn:
            events = deque([event])
            while events:
                for instruction in self.engine.handle(events.popleft()):
                    result = await self._attempt(instruction)
                    if result is not None:
                        events.append(result)
            if not self._beside.is_open and self.status.state in {"syncing", "synced"}:
                self._beside.open(self._send)

    async def _send(self, message: wire.FromDevice) -> None:
        if self._transport is not None:
            await self._transport.send(await frames.encode(message))

    async def _attempt(self, instruction: Instruction) -> Event | None:
        try:
            return await self._obey(instruction)
        except TransportClosed as error:
            return Lost(error)
        except ClientError as error:
            return Failed(error)
        except FrameTooLarge as error:
            # The server would have said the same.
            return Received(wire.Failure("too_large", str(error)), self._now_ms())

    async def _obey(self, instruction: Instruction) -> Event | None:
        replica = self._replica
        match instruction:
            case Send(message):
                await self._send(message)
            case LoadPending(after, edits_max, bytes_max):
                return BatchLoaded(await replica.pending(after, edits_max=edits_max, bytes_max=bytes_max))
            case Acknowledge(incarnation, through, refusals):
                await replica.acknowledge(incarnation, through, refusals)
                return Acknowledged(await replica.pending_count())
            case ApplyPage(page):
                await replica.apply_page(page)
                return Applied(page.through)
            case ApplyDocuments(documents):
                await replica.apply_documents(documents)
                return Applied(documents.through)
            case ReadDigest():
                digest, records = await replica.digest()
                return DigestRead(digest, records, await replica.pending_count())
            case SetGeneration(generation):
                await replica.set_generation(generation)
            case ObserveTime(offset_ms):
                replica.observe_server_time(offset_ms)
            case Rehome(taken):
                await replica.rehome(taken)
            case RenewToken():
                self._is_token_refused = True
            case Report(status):
                self._publish(status)
            case Close():
                self.ending = instruction
                await self._hang_up()
        return None

    async def _understand(self, frame: bytes) -> Event | None:
        try:
            message = await frames.decode(frame)
        except WireError as error:
            return Failed(ServerMisbehaved(str(error)))
        if isinstance(message, requests.Answer):
            self._beside.answer(message)
            return None
        return Received(message, self._now_ms())

    def _publish(self, status: Status) -> None:
        self._turn_over()
        if self._on_status is not None:
            try:
                self._on_status(status)
            except Exception:  # noqa: BLE001 - a listener's bug is the listener's: sync goes on
                _log.exception("on_status raised")

    async def _hang_up(self) -> None:
        self._beside.close()
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    # ---------------------------------------------------------------------------------- in the background

    def start(self) -> None:
        """Begin to run in the background; does nothing if it does already."""
        if self._task is None or self._task.done():
            self._is_stopping = False
            self._task = asyncio.get_running_loop().create_task(self.run(), name="sync")

    async def stop(self) -> None:
        """End cleanly: what is being made durable is, and the server is told goodbye."""
        self._is_stopping = True
        self._news.set()
        if self._task is not None:
            _, late = await asyncio.wait({self._task}, timeout=_STOP_S_MAX)
            if late:
                self._task.cancel()
                await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.exception()  # if it crashed, the log and the status have said so

    def committed(self) -> None:
        """Hear that the outbox has something new. Called after each local commit; returns at once."""
        self._commits += 1
        self._news.set()

    def want(self, collection: str, record: str) -> None:
        """Fetch a record's whole document, as soon as there is a connection. Returns at once."""
        self._wishes.append(Wanted(collection, record))
        self._news.set()

    def retry_now(self) -> None:
        """Dial now rather than later, also after an error that waits for somebody to act."""
        self._is_called = True
        self._news.set()

    async def run(self) -> None:
        """Stay in sync until `stop`, or until this task is cancelled."""
        waits = delays(self._random)
        try:
            while not self._is_stopping:
                await self._session()
                ending = self.ending or Close(None, retry=True)
                waits = delays(self._random) if ending.healthy else waits
                delay_s = (ending.delay_ms or 0) / 1000
                if ending.delay_ms != 0:
                    delay_s += next(waits)
                await self._pause(delay_s, is_hopeless=not ending.retry, is_fixed=ending.delay_ms is not None)
            await self.feed(Stopped())
        except asyncio.CancelledError:
            for instruction in self.engine.handle(Stopped()):
                if isinstance(instruction, Report):
                    self._publish(instruction.status)
            raise
        except Exception as bug:
            _log.exception("sync crashed")
            await self.feed(Failed(bug))
            raise
        finally:
            await self._hang_up()

    async def _session(self) -> None:
        self._inbox.clear()
        self._is_called = False
        await self.dial()
        transport = self._transport
        if transport is None:
            return
        listener = asyncio.get_running_loop().create_task(self._listen(transport), name="sync listener")
        try:
            while self.ending is None:
                await self._step()
        finally:
            listener.cancel()
            await asyncio.wait({listener})

    async def _listen(self, transport: Transport) -> None:
        try:
            while True:
                event = await self._understand(await transport.receive())
                if event is None:
                    continue
                while len(self._inbox) >= _INBOX_MAX:
                    self._room.clear()
                    await self._room.wait()
                self._inbox.append(event)
                self._news.set()
        except TransportClosed as error:
            self._inbox.append(Lost(error))
        except Exception as bug:  # noqa: BLE001 - the session raises it
            self._inbox.append(bug)
        self._news.set()

    async def _step(self) -> None:
        """Obey what comes next: this device's news first, then the server's, one of each in turn."""
        loop = asyncio.get_running_loop()
        if self._is_stopping:
            await self.feed(Stopped())
            return
        is_idle = not await self._tell()
        if self._inbox:
            event = inbox.take(self._inbox)
            self._room.set()
            if isinstance(event, Exception):
                raise event
            await self.feed(event)
        elif loop.time() >= self._tick_at:
            self._tick_at = loop.time() + _TICK_S
            await self.feed(Tick(int(loop.time() * 1000)))
        elif is_idle:
            await self._wait(self._tick_at - loop.time())

    async def _tell(self) -> bool:
        """Tell the engine what this device did or wishes; say whether there was anything."""
        if self._wishes:
            await self.feed(self._wishes.popleft())
            return True
        if self._commits_told == self._commits:
            return False
        commits = self._commits
        try:
            await self.feed(Committed(await self._replica.pending_count()))
        except ClientError as error:
            await self.feed(Failed(error))
        self._commits_told = commits
        self._turn_over()
        return True

    async def _wait(self, seconds: float | None) -> None:
        """Wait for news, that long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    async def _pause(self, delay_s: float, *, is_hopeless: bool, is_fixed: bool) -> None:
        """Wait before dialling again: until somebody asks, if it is hopeless; for all of a fixed time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        until = began + delay_s
        while not (self._is_stopping or self._is_called):
            has_told = await self._tell()
            now = loop.time()
            if not is_hopeless and now >= until:
                return
            if has_told and not is_fixed:
                until = min(until, began + _PATIENCE_S)
            await self._wait(None if is_hopeless else max(until - now, 0))
