"""What a device asks beside sync: its vectors shared, those of others brought, a search. The messages: `crdt.requests`.

A request that cannot be served is refused by itself, and ends nothing: neither its own fault does, nor a statement that
Postgres gives up, nor a moment without Postgres. Only who may not be here ends the session.
"""

from __future__ import annotations

import asyncio
from array import array
from functools import partial
from typing import Final, TypeGuard
from uuid import UUID

import asyncpg
import structlog

from crdt import requests
from crdt.vectors import BadVector
from server import access, rows, search, vectors
from server.database import Connection, Database, storable
from server.errors import MalformedMessage, NotInSpace, ServerError, Unauthorized, UnknownDevice
from server.search import Condition, Question
from server.session.feed import Feed, Pull
from server.vectors import SLICE_VECTORS, Placed, Vector

__all__ = ["forgotten", "next_vectors", "pull_of", "refused", "searched", "taken"]

_FLOAT_BYTES: Final = 4
#: After an error of ours a device asks again so late that a bug does not become a storm.
_AGAIN_MS: Final = 10_000

_log = structlog.get_logger(__name__)


def refused(n: int, error: Exception) -> requests.Refused:
    """Return the answer to a request that failed.

    Raises the error if the device may not be here, or if nobody foresaw it: it ends the session. What Postgres gave up,
    or did not take, goes into the server's log.
    """
    match error:
        case NotInSpace() | Unauthorized() | UnknownDevice():
            raise error
        case BadVector():
            return requests.Refused(n, "bad_vector", str(error))
        case ServerError():
            return requests.Refused(n, error.code, error.message_for_device, error.retry_after_ms)
        case asyncpg.PostgresError() | asyncpg.InterfaceError() | TimeoutError():
            _log.error("a request failed in Postgres", exc_info=error)
            return requests.Refused(
                n, "internal", "an error of the server ended this request; ask again later", _AGAIN_MS
            )
        case _:
            raise error


async def taken(
    database: Database, device: UUID, feed: Feed, push: requests.PushVectors
) -> requests.VectorsTaken:
    """Store a device's vectors. What it pushed itself it is not sent.

    Raises:
        NotInSpace: it may not.
        BadVector, MalformedMessage, ModelMismatch, TooLarge: none is stored.
    """
    vectors.check_size([len(one.vector) for one in push.vectors])
    sent = []
    for place, one in enumerate(push.vectors):
        if place % SLICE_VECTORS == 0:
            await asyncio.sleep(0)
        sent.append(
            vectors.checked(Vector(one.collection, one.record, one.part, push.model, one.hash, one.vector))
        )

    async def store(connection: Connection) -> tuple[Placed, int]:
        await access.require_spaces(connection, device, [feed.space])
        placed = await vectors.put(connection, feed.space, sent)
        return placed, await vectors.held(connection, feed.space, push.model)

    placed, held = await database.transaction(store)
    feed.note_own_vectors(push.model, placed)
    return requests.VectorsTaken(push.n, placed.before, placed.head, held)


async def forgotten(
    database: Database, device: UUID, feed: Feed, asked: requests.ForgetVectors
) -> requests.VectorsTaken:
    """Remove the vectors of a model. Raises `NotInSpace`."""

    async def forget(connection: Connection) -> bool:
        await access.require_spaces(connection, device, [feed.space])
        return await vectors.forget(connection, feed.space, storable(asked.model))

    while await database.transaction(forget):
        pass
    return requests.VectorsTaken(asked.n, feed.vectors_head, feed.vectors_head, 0)


def pull_of(asked: requests.PullVectors) -> Pull:
    """Return what a device waits for from now on."""
    return Pull(asked.n, storable(asked.model), asked.after, waits=asked.waits)


async def next_vectors(connection: Connection, feed: Feed, pull: Pull) -> requests.Vectors | None:
    """Return the next vectors that a device asked for; None if there are none yet, and it goes on waiting."""
    head = feed.vectors_head
    part = await vectors.after(connection, feed.space, pull.after, model=pull.model)
    if not part.vectors and pull.waits:
        if pull is feed.pull:
            feed.pull = pull.moved(max(head, pull.after))  # those up to here are another model's
        return None
    if pull is feed.pull:
        feed.pull = None
    # Past the last of them lie other models', which are not to be gone through again. Whoever has read further than the
    # space goes (it was restored) is told by it.
    through = part.through
    if part.is_last:
        through = max(head, part.through) if part.vectors else head
    return requests.Vectors(
        pull.n,
        through,
        (await rows.standing(connection, feed.space)).head,
        await vectors.held(connection, feed.space, pull.model),
        [
            requests.PartVector(
                one.vector.collection,
                one.vector.record_id,
                one.vector.part,
                one.vector.hash,
                one.vector.data,
            )
            for one in part.vectors
        ],
    )


async def searched(database: Database, device: UUID, feed: Feed, asked: requests.Search) -> requests.Found:
    """Answer a question. Raises as `server.search.search`, and `NotInSpace`."""
    lend = partial(access.searching, database, device, feed.space)
    answer = await search.search(lend, feed.space, _question(asked), mode=asked.mode)
    return requests.Found(
        asked.n,
        [
            requests.FoundPart(hit.collection, hit.record_id, hit.part, hit.score, list(hit.found_by))
            for hit in answer.hits
        ],
        answer.head,
        answer.materialized,
    )


def _question(asked: requests.Search) -> Question:
    if len(asked.vector) % _FLOAT_BYTES:
        raise MalformedMessage("the question's vector is float32, four bytes each")
    return Question(
        text=asked.text,
        vector=array("f", asked.vector).tolist(),
        model=asked.model,
        collections=asked.collections,
        conditions=[_condition(one) for one in asked.conditions],
        names=asked.names,
        limit=asked.limit,
    )


def _condition(one: requests.FieldCondition) -> Condition:
    value = one.value
    if one.operator == "in" and isinstance(value, list):
        return Condition(one.field, values=value)
    if not isinstance(value, list):
        match one.operator:
            case "has":
                return Condition(one.field, has=value)
            case "at least" if _is_bound(value):
                return Condition(one.field, at_least=value)
            case "above" if _is_bound(value):
                return Condition(one.field, above=value)
            case "at most" if _is_bound(value):
                return Condition(one.field, at_most=value)
            case "below" if _is_bound(value):
                return Condition(one.field, below=value)
    raise MalformedMessage(f"a condition {one.operator!r} does not take such a value")


def _is_bound(value: requests.Scalar) -> TypeGuard[str | int | float]:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
