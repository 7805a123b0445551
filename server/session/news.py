"""What a session sends of its own accord: pages of the log, documents, digests. Each read at the device's cursor."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from crdt import wire
from server import log, rows, spaces
from server.database import Connection
from server.session.answers import next_vectors
from server.session.feed import Feed

__all__ = ["UNTIL_THE_END", "documents_pay", "due_messages"]

#: A device that is at most this far behind gets the log: about two pages of it.
_DOCUMENTS_FROM_BEHIND: Final = 4_000
#: Documents are sent if they are fewer than this part of the updates that they stand for: each is a whole document.
_DOCUMENTS_PART_MAX: Final = 0.5
#: ``documents_until`` while documents are being sent and nobody knows yet where they will end.
UNTIL_THE_END: Final = (1 << 63) - 1


async def documents_pay(connection: Connection, feed: Feed) -> bool:
    """Whether documents are the shorter way for a device that is this far behind."""
    behind = feed.materialized - feed.sent
    if behind <= _DOCUMENTS_FROM_BEHIND:
        return False
    worth = int(behind * _DOCUMENTS_PART_MAX)
    return await rows.count_after(connection, feed.space, feed.sent, at_most=worth) < worth


async def due_messages(
    connection: Connection, feed: Feed, *, device: UUID, incarnation: int
) -> list[wire.FromServer]:
    """Return what is due in one space: at most one page, a digest, one document and some vectors."""
    messages: list[wire.FromServer] = []
    if feed.has_page:
        if feed.by_documents:
            messages.append(await _documents(connection, feed, device))
        else:
            messages.append(await _page(connection, feed, (device, incarnation)))
    if feed.has_document:
        messages.append(await _wanted(connection, feed))
    if feed.has_verified:
        messages.extend(await _verified(connection, feed))
    if (
        feed.has_vectors
        and feed.pull is not None
        and (some := await next_vectors(connection, feed, feed.pull))
    ):
        messages.append(some)
    return messages


async def _page(connection: Connection, feed: Feed, own: tuple[UUID, int]) -> wire.Page:
    """The log after the cursor, without what this session pushed itself."""
    after, head = feed.sent, feed.head
    start = max(after, feed.own_through)
    if start >= head:
        part = log.LogSlice([], head)
    else:
        part = await log.read_after(connection, feed.space, start, head=head, but_for=own)
    feed.note_sent(part.through)
    return wire.Page(feed.name, after, part.through, feed.head, part.entries)


async def _documents(connection: Connection, feed: Feed, device: UUID) -> wire.Documents:
    """The next documents. After the last the log goes on, and a cursor that has come so far stands on firm ground."""
    after = feed.sent
    part = await rows.documents_after(connection, feed.space, after)
    if part.is_last:
        await spaces.move_documents_until(connection, feed.space, device, part.through)
        feed.by_documents = False
    feed.note_sent(part.through)
    return wire.Documents(feed.name, after, part.through, feed.head, part.states)


async def _wanted(connection: Connection, feed: Feed) -> wire.Documents:
    wanted = feed.fetches.popleft()
    state = await rows.document_of(connection, feed.space, wanted.collection, wanted.record)
    return wire.Documents(feed.name, 0, 0, feed.head, [] if state is None else [state])


async def _verified(connection: Connection, feed: Feed) -> list[wire.FromServer]:
    """The digest at the position that was asked for, or nothing if the log has moved on: then the device asks again."""
    asked, known = feed.verify, feed.materialized
    stands = await rows.standing(connection, feed.space)
    if feed.materialized == known:  # else a notice came meanwhile, and is newer
        feed.materialized = stands.materialized
    if stands.head == asked and stands.materialized != asked:
        return []  # documents are on their way: `Notify` tells when they are there
    if feed.verify == asked:  # else the device has asked anew meanwhile, and waits for that answer
        feed.verify = None
    if asked is None or stands.head != asked:
        return []
    return [wire.Verified(feed.name, asked, stands.digest, stands.records)]
