"""One connected device, without its socket: frames in, frames out.

`Session.receive` takes a frame of the device and returns the answers to it; `Session.next_frames` waits until there is
news in a space and returns it. The protocol is in `crdt.wire`; `server.routes` moves the bytes.

A session remembers which spaces have news, never the news: it reads the log at the device's cursor, a page at a time,
and stops when three pages are under way. A device that is far behind gets documents first, when they are fewer than the
updates that they stand for.

Frames are handled in the order in which they came; pushes are put into the queue of `server.admit` in that
order, but a push does not wait for the commit of the one before. What a device may not do ends its session
with a `Failure`, and no other's. Membership is asked again every few seconds, and by `admit` within every
commit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from crdt import errors as kernel
from crdt import requests, wire
from crdt.ids import CLIENT_ID_BITS
from crdt.limits import DECODED_AT_ONCE_BYTES_MAX, PAGE_BYTES_TARGET, SESSION_SPACES_MAX
from server import access, spaces
from server.admit import Admit, Admitted
from server.database import Connection, Database
from server.errors import (
    CannotServe,
    ClientIdTaken,
    CursorAhead,
    DocumentsBehind,
    MalformedMessage,
    NotInSpace,
    ProtocolMismatch,
    ServerError,
    TooLarge,
    Unauthorized,
)
from server.notify import Notify
from server.session.answers import forgotten, pull_of, refused, searched, taken
from server.session.feed import Feed
from server.session.news import UNTIL_THE_END, documents_pay, due_messages

__all__ = ["Meeting", "Session", "failure_of"]

#: A revocation ends an idle session within this; `admit` asks at every commit.
_ACCESS_AGAIN_S: Final = 5.0
#: How often a device's cursor is written down while it reads; at the end of the session always.
_SAVE_CURSOR_S: Final = 5.0
#: The largest Hello, with 64 cursors, is a tenth of this: who is not known yet may not make us unpack more.
_HELLO_BYTES_MAX: Final = 64 * 1024
#: What one turn of news may come to, over all spaces of the session; the others get the next turn.
_NEWS_BYTES_TARGET: Final = 4 * PAGE_BYTES_TARGET
#: After an error of ours a device comes back so late that a bug does not become a storm.
_AGAIN_MS: Final = 10_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Meeting:
    """What all sessions of a process share. ``now`` is wall time, ``monotonic`` measures spans."""

    database: Database
    admit: Admit
    notify: Notify
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic


class Session:
    """One device, from its Hello to its end. Whoever makes it calls `close`; `is_over` says that a Failure was sent."""

    def __init__(self, meeting: Meeting) -> None:
        self._meeting = meeting
        self._is_welcome = False
        self._incarnation = 0
        self._device = UUID(int=0)
        self._feeds: dict[UUID, Feed] = {}
        self._in_order = asyncio.Lock()
        self._news = asyncio.Event()
        self._asked_access_at = 0.0
        self.is_over = False
        #: The frame that told the device why, once it is over by an error.
        self.failure: bytes | None = None

    # -------------------------------------------------------------------------------------------- from the device

    async def receive(self, frame: bytes) -> list[bytes]:
        """Handle a frame and return the answers to it; after a Failure `is_over` is set."""
        return await self.answer(await self.read(frame))

    async def read(self, frame: bytes) -> wire.FromDevice | Exception:
        """Return the message in a frame, or what is wrong with it. For one frame after another."""
        try:
            size = max(len(frame), wire.declared_size(frame))
            if not self._is_welcome and size > _HELLO_BYTES_MAX:
                raise TooLarge("HELLO_BYTES_MAX", size=size, allowed=_HELLO_BYTES_MAX)
            if size > DECODED_AT_ONCE_BYTES_MAX:
                return await asyncio.to_thread(wire.decode_from_device, frame)
            return wire.decode_from_device(frame)
        except Exception as error:  # noqa: BLE001 - it ends the session, in its turn
            return error

    async def answer(self, message: wire.FromDevice | Exception) -> list[bytes]:
        """Handle what `read` returned and return the answers to it; after a Failure `is_over` is set.

        Call it for the messages in their order; it may be called for the next before it has returned for the last.
        """
        try:
            async with self._in_order:
                if self.is_over:
                    return []
                if isinstance(message, Exception):
                    raise message
                answer = await self._begin(message)
            if isinstance(answer, Awaitable):
                answer = await answer
            return [] if answer is None else [wire.encode(answer)]
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends this session alone
            return self._end(error)

    async def _begin(
        self, message: wire.FromDevice
    ) -> wire.FromServer | Awaitable[wire.FromServer | None] | None:
        match message:
            case wire.Hello():
                return await self._welcome(message)
            case _ if not self._is_welcome:
                raise MalformedMessage("a session begins with Hello")
        feed = self._feed(message.space)
        await self._keep_access()
        match message:
            case wire.Push():
                return self._acked(feed, await self._meeting.admit.submit(self._device, feed.space, message))
            case (
                requests.PushVectors() | requests.PullVectors() | requests.ForgetVectors() | requests.Search()
            ):
                return self._answered(feed, message)
            case wire.Received(position=position):
                feed.note_received(position)
                await self._save_cursor(feed)
            case wire.Verify(position=position):
                feed.verify = position
            case wire.Fetch(collection=collection, record=record):
                feed.want(collection, record)
        if feed.is_due:
            self._news.set()
        return None

    async def _acked(self, feed: Feed, admitted: asyncio.Future[Admitted]) -> wire.Ack:
        outcome = await admitted
        if outcome.ack.incarnation == self._incarnation:
            feed.note_own(outcome.after, outcome.through)
        return outcome.ack

    async def _answered(self, feed: Feed, request: requests.Request) -> requests.Answer | None:
        """Answer what is asked beside sync; a pull is answered among the news."""
        meeting = self._meeting
        try:
            match request:
                case requests.PushVectors():
                    answer = await taken(meeting.database, self._device, feed, request)
                    meeting.notify.announce_vectors(feed.space, answer.head)
                    return answer
                case requests.Search():
                    return await searched(meeting.database, self._device, feed, request)
                case requests.ForgetVectors():
                    return await forgotten(meeting.database, self._device, feed, request)
                case requests.PullVectors():
                    feed.pull = pull_of(request)
                    if feed.is_due:
                        self._news.set()
                    return None
        except Exception as error:  # noqa: BLE001 - sorted there
            return refused(request.n, error)

    async def _welcome(self, hello: wire.Hello) -> wire.Welcome:
        if self._is_welcome:
            raise MalformedMessage("a session has one Hello")
        if hello.protocol != wire.PROTOCOL:
            raise ProtocolMismatch(ours=wire.PROTOCOL, theirs=hello.protocol)
        if not (1 <= hello.client < 1 << CLIENT_ID_BITS and 1 <= hello.incarnation < 1 << 63):
            raise MalformedMessage(
                "client and incarnation of a Hello are positive, and of at most 53 and 63 bits"
            )
        if len(hello.cursors) > SESSION_SPACES_MAX:
            raise TooLarge("SESSION_SPACES_MAX", size=len(hello.cursors), allowed=SESSION_SPACES_MAX)
        async with self._meeting.database.connection() as connection:
            caller = await access.caller_of(connection, hello.token, now=self._meeting.now())
            if caller.device != _uuid(hello.device):
                raise Unauthorized("the token is another device's")
            self._device = caller.device
            states = [await self._open(connection, hello, cursor) for cursor in hello.cursors]
        self._is_welcome, self._incarnation = True, hello.incarnation
        self._asked_access_at = self._meeting.monotonic()
        if any(feed.is_due for feed in self._feeds.values()):
            self._news.set()
        return wire.Welcome(wire.PROTOCOL, int(self._meeting.now().timestamp() * 1000), states)

    async def _open(self, connection: Connection, hello: wire.Hello, cursor: wire.Cursor) -> wire.SpaceState:
        """Begin to follow a space for this device."""
        space = _uuid(cursor.space)
        if space in self._feeds:
            raise MalformedMessage(f"space {space} is named twice")
        self._meeting.notify.watch(space, self)  # before the head is read, so that none is missed
        member = await spaces.member(connection, space, self._device)
        if member is None:
            self._meeting.notify.unwatch(space, self)
            raise NotInSpace
        await access.require_spaces(connection, self._device, [space])
        generation = str(member.generation)
        is_paused = cursor.generation not in ("", generation)
        if not is_paused and cursor.position > member.head:
            raise CursorAhead(cursor=cursor.position, head=member.head)
        if cursor.position < 0:
            raise MalformedMessage("a cursor is a position from 0")
        owner = await spaces.owner_of_client(connection, space, hello.client)
        if owner not in (None, (self._device, hello.incarnation)):
            raise ClientIdTaken(hello.client)
        self._feeds[space] = feed = Feed(
            space=space,
            name=str(space),
            head=member.head,
            materialized=member.materialized,
            sent=cursor.position,
            received=cursor.position,
            is_paused=is_paused,
            vectors_head=member.vectors,
        )
        if not is_paused:
            is_amid = feed.sent < member.documents_until and feed.sent != feed.materialized
            if is_amid and feed.sent > feed.materialized:
                raise DocumentsBehind
            feed.by_documents = is_amid or await documents_pay(connection, feed)
            if feed.by_documents:
                await spaces.move_documents_until(connection, space, self._device, UNTIL_THE_END)
        return wire.SpaceState(
            feed.name, generation, member.head, await spaces.held(connection, space, self._device)
        )

    def _feed(self, name: str) -> Feed:
        """Return the feed of a space of this session. Others are told as if they did not exist."""
        feed = self._feeds.get(_uuid(name))
        if feed is None:
            raise NotInSpace
        return feed

    async def _keep_access(self) -> None:
        """Raise if the device was put out of a space, or revoked, since it was last asked."""
        if self._meeting.monotonic() - self._asked_access_at < _ACCESS_AGAIN_S:
            return
        async with self._meeting.database.connection() as connection:
            await access.require_spaces(connection, self._device, self._feeds.keys())
        self._asked_access_at = self._meeting.monotonic()

    async def _save_cursor(self, feed: Feed, *, at_once: bool = False) -> None:
        if feed.is_paused or feed.received == feed.saved_cursor:
            return
        if not at_once and self._meeting.monotonic() - feed.saved_at < _SAVE_CURSOR_S:
            return
        feed.saved_cursor, feed.saved_at = feed.received, self._meeting.monotonic()
        async with self._meeting.database.connection() as connection:
            await spaces.move_cursor(connection, feed.space, self._device, feed.received)

    # ---------------------------------------------------------------------------------------------- to the device

    def on_head(self, space: UUID, head: int) -> None:
        """A log has grown (called by `Notify`)."""
        feed = self._feeds.get(space)
        if feed is not None and head > feed.head:
            feed.head = head
            self._news.set()

    def on_vectors(self, space: UUID, head: int) -> None:
        """There are vectors (called by `Notify`)."""
        feed = self._feeds.get(space)
        if feed is not None and head > feed.vectors_head:
            feed.vectors_head = head
            if feed.is_due:
                self._news.set()

    def on_materialized(self, space: UUID, position: int) -> None:
        """Documents have followed (called by `Notify`)."""
        feed = self._feeds.get(space)
        if feed is not None and position > feed.materialized:
            feed.materialized = position
            if feed.is_due:
                self._news.set()

    async def next_frames(self) -> list[bytes]:
        """Wait for news and return it, one page of each space; [] when the session is over. For one task at a time."""
        while not self.is_over:
            await self._news.wait()
            self._news.clear()
            due = [feed for feed in self._feeds.values() if feed.is_due]
            if not due:
                continue
            frames: list[bytes] = []
            try:
                await self._keep_access()
                async with self._meeting.database.connection() as connection:
                    for feed in due:
                        messages = await due_messages(
                            connection, feed, device=self._device, incarnation=self._incarnation
                        )
                        frames += [wire.encode(message) for message in messages]
                        if feed.space in self._feeds:  # next time after the others
                            self._feeds[feed.space] = self._feeds.pop(feed.space)
                        if sum(map(len, frames)) >= _NEWS_BYTES_TARGET:
                            break
            except Exception as error:  # noqa: BLE001 - as above
                return self._end(error)
            if any(feed.is_due for feed in due):
                self._news.set()
            if frames:
                return frames
        return []

    # ---------------------------------------------------------------------------------------------------- the end

    def _end(self, error: Exception) -> list[bytes]:
        """End the session, and say why if the device does not know yet."""
        if self.is_over:
            return []
        self.is_over = True
        self.failure = wire.encode(failure_of(error))
        self._news.set()
        return [self.failure]

    async def close(self) -> None:
        """Stop following spaces and write down how far the device has read. Fine to call twice."""
        self.is_over = True
        self._news.set()
        for space in self._feeds:
            self._meeting.notify.unwatch(space, self)
        feeds, self._feeds = self._feeds, {}
        try:
            for feed in feeds.values():
                await self._save_cursor(feed, at_once=True)
        except CannotServe as error:  # the device tells its cursor again at its next Hello
            _log.warning("a device's cursor was not written down", problem=str(error))


def failure_of(error: Exception) -> wire.Failure:
    """Return what a device is told of an error; what nobody foresaw goes into the server's log."""
    match error:
        case ServerError():
            return wire.Failure(error.code, error.message_for_device, error.retry_after_ms)
        case kernel.FrameTooLarge():
            return wire.Failure("too_large", str(error))
        case kernel.WireError():
            return wire.Failure("malformed", str(error))
        case _:
            _log.error("a session ended by an error of ours", exc_info=error)
            return wire.Failure("internal", "an error of the server ended this session; try again", _AGAIN_MS)


def _uuid(name: str) -> UUID:
    try:
        return UUID(name)
    except ValueError:
        raise MalformedMessage("spaces and devices are UUIDs of 36 characters") from None
