"""News of a session: what is asked while an answer is being read is not taken for the question that it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from uuid import uuid4

from crdt import wire
from server.database import Connection
from server.session.feed import Feed
from server.session.news import due_messages

__all__: list[str] = []


class Row:
    """A connection whose one row is (head, position, digest, records); something happens while it is read."""

    def __init__(self, row: dict[str, Any], meanwhile: Callable[[], None]) -> None:
        self._row, self._meanwhile = row, meanwhile

    async def fetchrow(self, *_: object) -> Any:
        self._meanwhile()
        return _Record(self._row)


class _Record(dict[str, Any]):
    def __iter__(self) -> Any:
        return iter(self.values())


def feed_at(head: int, materialized: int) -> Feed:
    return Feed(space=uuid4(), name="s", head=head, materialized=materialized, sent=head, received=head)


async def asked(feed: Feed, row: dict[str, Any], meanwhile: Callable[[], None]) -> list[wire.FromServer]:
    connection = cast("Connection", Row(row, meanwhile))
    return await due_messages(connection, feed, device=uuid4(), incarnation=1)


async def test_a_question_asked_while_an_older_one_is_dropped_is_kept() -> None:
    feed = feed_at(1, 0)
    feed.verify = 0
    row = {"head": 1, "position": 0, "digest": bytes(16), "records": 0}
    assert await asked(feed, row, lambda: setattr(feed, "verify", 1)) == []
    assert feed.verify == 1
    feed.materialized = 1
    answers = await asked(feed, {**row, "position": 1, "records": 1}, lambda: None)
    assert answers == [wire.Verified("s", 1, bytes(16), 1)]
    assert feed.verify is None


async def test_a_notice_that_comes_while_the_standing_is_read_is_not_forgotten() -> None:
    feed = feed_at(2, 1)
    feed.verify = 1
    row = {"head": 2, "position": 1, "digest": bytes(16), "records": 0}
    assert await asked(feed, row, lambda: setattr(feed, "materialized", 2)) == []
    assert feed.materialized == 2
