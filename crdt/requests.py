"""What travels beside sync on the same session: vectors and searches, as requests and answers.

Requests are numbered by the device; an answer names its request by ``n``, and answers may come in any order.

- `PushVectors` shares vectors; `VectorsTaken` says that they are durable. A space's vectors have their own positions.
- `PullVectors` asks for those after a position; `Vectors` brings the next ones as soon as there are any. A device has
  one such question open for a space: another takes its place.
- `ForgetVectors` removes those of a model that is no longer in use.
- `Search` asks what fits a question; `Found` answers. The device brings the question's vector: the server has no model.
- `Refused` answers a request that is not served. It ends nothing.

None of it decides what a record is: vectors can be made again from the texts, so losing one costs time and no data. The
messages are encoded as `crdt.wire` says.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from crdt.limits import (
    PUSH_VECTORS_MAX,
    SEARCH_COLLECTIONS_MAX,
    SEARCH_CONDITIONS_MAX,
    SEARCH_HITS_MAX,
    SEARCH_NAMES_MAX,
    SEARCH_TEXT_BYTES_MAX,
    SEARCH_VALUES_MAX,
    VECTOR_DIMENSIONS_MAX,
    VECTOR_HASH_BYTES_MAX,
    VECTOR_MODEL_BYTES_MAX,
)
from crdt.vectors import SCALE_BYTES

__all__ = [
    "Answer",
    "FieldCondition",
    "Finder",
    "ForgetVectors",
    "Found",
    "FoundPart",
    "Mode",
    "Operator",
    "PartVector",
    "PullVectors",
    "PushVectors",
    "Refused",
    "Request",
    "Scalar",
    "Search",
    "Vectors",
    "VectorsTaken",
]

Mode: TypeAlias = Literal["hybrid", "text", "meaning"]
Finder: TypeAlias = Literal["text", "meaning"]
Operator: TypeAlias = Literal["in", "has", "at least", "above", "at most", "below"]
Scalar: TypeAlias = str | int | float | bool | None


# What is longer than its limit is no message, and costs nothing: lengths are read before what they count.
Model: TypeAlias = Annotated[str, Meta(max_length=VECTOR_MODEL_BYTES_MAX)]
Position: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Part: TypeAlias = Annotated[int, Meta(ge=-1, lt=1 << 31)]
Value: TypeAlias = Scalar | Annotated[list[Scalar], Meta(max_length=SEARCH_VALUES_MAX)]


class _Message(msgspec.Struct, array_like=True, frozen=True):
    """A message, or a value inside of one."""


class PartVector(_Message, frozen=True, gc=False):
    """What stands for the text of one part of a record: -1 is the record itself, else an item's place in its list.

    ``hash`` is of that text, ``vector`` as in `crdt.vectors`.
    """

    collection: str
    record: str
    part: Part
    hash: Annotated[bytes, Meta(max_length=VECTOR_HASH_BYTES_MAX)]
    vector: Annotated[bytes, Meta(max_length=SCALE_BYTES + VECTOR_DIMENSIONS_MAX)]


class FieldCondition(_Message, frozen=True):
    """What must hold of a field: a path into the record's JSON, such as ``mood.joy``. ``in`` takes a list."""

    field: str
    operator: Operator
    value: Value


class FoundPart(_Message, frozen=True):
    """A part of a record that was found, and by what. ``score`` compares within one search."""

    collection: str
    record: str
    part: Part
    score: float
    found_by: Annotated[list[Finder], Meta(min_length=1, max_length=2)]


class PushVectors(_Message, frozen=True, tag=6):
    """Device → server: vectors that ``model`` made."""

    space: str
    n: int
    model: Model
    vectors: Annotated[list[PartVector], Meta(max_length=PUSH_VECTORS_MAX)]


class PullVectors(_Message, frozen=True, tag=7):
    """Device → server: which vectors of ``model`` changed after a position? ``waits``: until there are any."""

    space: str
    n: int
    model: Model
    after: Position
    waits: bool = True


class ForgetVectors(_Message, frozen=True, tag=9):
    """Device → server: another model has taken the place of this one. Answered as vectors that are pushed."""

    space: str
    n: int
    model: Model


class Search(_Message, frozen=True, tag=8):
    """Device → server: what fits this question?

    ``vector`` holds float32, little-endian, by ``model``; ``names`` are people whom the question names, whose names are
    not in ``text``. ``collections``: [] means all.
    """

    space: str
    n: int
    mode: Mode
    text: Annotated[str, Meta(max_length=SEARCH_TEXT_BYTES_MAX)]
    vector: Annotated[bytes, Meta(max_length=4 * VECTOR_DIMENSIONS_MAX)] = b""
    model: Model = ""
    names: Annotated[list[str], Meta(max_length=SEARCH_NAMES_MAX)] = []
    collections: Annotated[list[str], Meta(max_length=SEARCH_COLLECTIONS_MAX)] = []
    conditions: Annotated[list[FieldCondition], Meta(max_length=SEARCH_CONDITIONS_MAX)] = []
    limit: int = 10


class VectorsTaken(_Message, frozen=True, tag=22):
    """Server → device: they are durable; the newest vector of the space was at ``before``, and is at ``head`` now.

    ``held``: how many of the model the space has.
    """

    n: int
    before: Position
    head: Position
    held: int


class Vectors(_Message, frozen=True, tag=23):
    """Server → device: vectors in the order of their positions, all that there are up to ``through``.

    ``held``: how many of the model the space has. The texts that they stand for, if the server has them, lie in the log
    up to ``log_head``.
    """

    n: int
    through: Position
    log_head: Position
    held: int
    vectors: Annotated[list[PartVector], Meta(max_length=PUSH_VECTORS_MAX)]


class Found(_Message, frozen=True, tag=24):
    """Server → device: the hits, best first, in what is folded up to ``materialized`` of ``head``."""

    n: int
    hits: Annotated[list[FoundPart], Meta(max_length=SEARCH_HITS_MAX)]
    head: Position
    materialized: Position


class Refused(_Message, frozen=True, tag=25):
    """Server → device: this request is not served. ``retry_after_ms``: None where asking again cannot help."""

    n: int
    code: str
    message: str
    retry_after_ms: int | None = None


Request = PushVectors | PullVectors | ForgetVectors | Search
Answer = VectorsTaken | Vectors | Found | Refused
