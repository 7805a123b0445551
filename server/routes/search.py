"""Vectors that devices share, and search in everything that a space holds.

A device sends what it embedded (``POST …/vectors``), asks what others did (``GET …/vectors?after=``), and searches
(``POST …/search``) with a question's text, its vector, or both. A vector is unpadded base64url of the bytes of
`crdt.vectors`; a question's vector is plain numbers. A vector that cannot be is refused by its place in the
request, and the others are taken.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
from litestar import Controller, delete, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.status_codes import HTTP_200_OK

from crdt.limits import PUSH_VECTORS_MAX, VECTORS_BODY_BYTES_MAX
from crdt.vectors import BadVector
from server import access, search, vectors
from server.access import Caller
from server.database import Connection, storable
from server.errors import MalformedMessage
from server.routes.common import Body, bytes_of, caller_of, rooms_of, space_of, text_of
from server.search import Condition, Finder, Mode, Question
from server.vectors import SLICE_VECTORS, Placed, Vector

__all__ = [
    "ConditionJson",
    "HitJson",
    "RefusedVector",
    "Search",
    "SearchAnswer",
    "SearchRoutes",
    "SendVectors",
    "StoredVectorJson",
    "VectorJson",
    "VectorsPage",
    "VectorsTaken",
]


class VectorJson(Body, frozen=True, kw_only=True):
    """A part's vector: -1 is the record itself, else an item's place. ``hash`` is that of the text it stands for."""

    collection: str
    record: str
    part: int = -1
    model: str
    hash: str
    vector: str


class StoredVectorJson(VectorJson, frozen=True, kw_only=True):
    """A vector at the position of its last change."""

    position: int


class SendVectors(Body, frozen=True):
    """Vectors to be shared."""

    vectors: list[VectorJson]


class RefusedVector(Body, frozen=True):
    """The vector at this place of the request was not taken."""

    place: int
    code: str
    message: str


class VectorsTaken(Body, frozen=True):
    """What became of them. ``head`` is the position of the space's newest vector."""

    taken: int
    head: int
    refused: list[RefusedVector]


class VectorsPage(Body, frozen=True):
    """Vectors in order of position. Ask with ``through`` as ``after`` for more, until ``isLast``."""

    vectors: list[StoredVectorJson]
    through: int
    is_last: bool


class ConditionJson(Body, frozen=True):
    """What must hold of a field, a path such as ``mood.joy``: all that is given."""

    field: str
    is_: Any = msgspec.field(default=msgspec.UNSET, name="is")
    in_: list[Any] | None = msgspec.field(default=None, name="in")
    has: Any = msgspec.UNSET
    at_least: float | str | None = None
    above: float | str | None = None
    at_most: float | str | None = None
    below: float | str | None = None


class Search(Body, frozen=True):
    """A question: ``text`` and ``vector`` (with its ``model``) as ``mode`` needs them.

    ``names`` are people whom it names: what they said comes before.
    """

    text: str = ""
    vector: list[float] = []
    model: str = ""
    mode: Mode = "hybrid"
    collections: list[str] = []
    filter: list[ConditionJson] = []
    names: list[str] = []
    limit: int = 10


class HitJson(Body, frozen=True):
    """A part of a record that was found; ``foundBy`` names text, meaning or both."""

    collection: str
    record: str
    part: int
    score: float
    found_by: list[Finder]
    snippet: str


class SearchAnswer(Body, frozen=True):
    """Hits, the best first, in what is folded up to ``materialized`` of ``head``."""

    hits: list[HitJson]
    head: int
    materialized: int


class SearchRoutes(Controller):
    """Vectors and search."""

    path = "/v1/spaces/{space:str}"
    tags = ("search",)
    dependencies = {"caller": Provide(caller_of)}
    security = [{"token": []}]

    @post("/vectors", status_code=HTTP_200_OK, request_max_body_size=VECTORS_BODY_BYTES_MAX)
    async def send_vectors(
        self, space: FromPath[str], data: JSONBody[SendVectors], state: State, caller: NamedDependency[Caller]
    ) -> VectorsTaken:
        """Share vectors. The same ones again change nothing."""
        space_id = space_of(space)
        database = rooms_of(state).meeting.database
        async with database.connection() as connection:
            await access.require_spaces(connection, caller.device, [space_id])
        vectors.check_size([len(sent.vector) * 3 // 4 for sent in data.vectors])
        taken: list[Vector] = []
        refused: list[RefusedVector] = []
        for place, sent in enumerate(data.vectors):
            if place % SLICE_VECTORS == 0:
                await asyncio.sleep(0)
            try:
                taken.append(_vector_of(sent))
            except MalformedMessage as error:
                refused.append(RefusedVector(place=place, code=error.code, message=str(error)))
            except BadVector as error:
                refused.append(RefusedVector(place=place, code="bad_vector", message=str(error)))

        async def store(connection: Connection) -> Placed:
            await access.require_spaces(connection, caller.device, [space_id])
            return await vectors.put(connection, space_id, taken)

        placed = await database.transaction(store)
        rooms_of(state).meeting.notify.announce_vectors(space_id, placed.head)
        return VectorsTaken(taken=len(taken), head=placed.head, refused=refused)

    @get("/vectors")
    async def list_vectors(
        self,
        space: FromPath[str],
        state: State,
        caller: NamedDependency[Caller],
        after: FromQuery[int] = 0,
        model: FromQuery[str] = "",
        limit: FromQuery[int] = PUSH_VECTORS_MAX,
    ) -> VectorsPage:
        """List vectors that changed after a position, of a model or of all."""
        if not 1 <= limit <= PUSH_VECTORS_MAX:
            raise MalformedMessage(f"limit is a number from 1 to {PUSH_VECTORS_MAX}")
        if not 0 <= after < 2**63:
            raise MalformedMessage("after is a position: a number from 0 on")
        space_id = space_of(space)
        async with rooms_of(state).meeting.database.connection() as connection:
            await access.require_spaces(connection, caller.device, [space_id])
            part = await vectors.after(
                connection, space_id, after, model=storable(model) or None, limit=limit
            )
        return VectorsPage(
            vectors=[
                StoredVectorJson(
                    collection=one.vector.collection,
                    record=one.vector.record_id,
                    part=one.vector.part,
                    model=one.vector.model,
                    hash=text_of(one.vector.hash),
                    vector=text_of(one.vector.data),
                    position=one.position,
                )
                for one in part.vectors
            ],
            through=part.through,
            is_last=part.is_last,
        )

    @delete("/vectors")
    async def forget_vectors(
        self, space: FromPath[str], state: State, caller: NamedDependency[Caller], model: FromQuery[str]
    ) -> None:
        """Forget all vectors of a model, once another has taken its place."""
        space_id = space_of(space)

        async def forget(connection: Connection) -> bool:
            await access.require_spaces(connection, caller.device, [space_id])
            return await vectors.forget(connection, space_id, storable(model))

        while await rooms_of(state).meeting.database.transaction(forget):
            pass

    @post("/search", status_code=HTTP_200_OK, request_max_body_size=VECTORS_BODY_BYTES_MAX)
    async def search(
        self, space: FromPath[str], data: JSONBody[Search], state: State, caller: NamedDependency[Caller]
    ) -> SearchAnswer:
        """Find records by words, by meaning, or by both."""
        space_id = space_of(space)
        lend = partial(access.searching, rooms_of(state).meeting.database, caller.device, space_id)
        answer = await search.search(lend, space_id, _question_of(data), mode=data.mode)
        return SearchAnswer(
            hits=[
                HitJson(
                    collection=hit.collection,
                    record=hit.record_id,
                    part=hit.part,
                    score=hit.score,
                    found_by=list(hit.found_by),
                    snippet=hit.snippet,
                )
                for hit in answer.hits
            ],
            head=answer.head,
            materialized=answer.materialized,
        )


def _vector_of(sent: VectorJson) -> Vector:
    vector = Vector(
        sent.collection, sent.record, sent.part, sent.model, bytes_of(sent.hash), bytes_of(sent.vector)
    )
    return vectors.checked(vector)


def _question_of(data: Search) -> Question:
    return Question(
        text=data.text,
        vector=data.vector,
        model=data.model,
        collections=data.collections,
        conditions=[
            Condition(
                one.field,
                values=one.in_ if one.is_ is msgspec.UNSET else [one.is_],
                has=one.has,
                at_least=one.at_least,
                above=one.above,
                at_most=one.at_most,
                below=one.below,
            )
            for one in data.filter
        ],
        names=data.names,
        limit=data.limit,
    )
