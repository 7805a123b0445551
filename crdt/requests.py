"""What travels beside sync on the same session: vectors and searches, as requests and answers.

Requests are numbered by the device; an answer names its request by ``n``, and answers may come in any order.

- `PushVectors` shares vectors; `VectorsTaken` says that they are durable. A space's vectors have their own positions.
- `PullVectors` asks for those after a position; `Vectors` brings the next ones as soon as there are any. A device has
  one such question open for a space: another takes its place.
- `ForgetVectors` removes those of a model that is no longer in use.
- `Search` asks what fits a question; `Found` answers. The device brings the question's vector: the server has no model.
- `Refused` answers a request that cannot be served as it is. It ends nothing.

None of it decides what a record is: vectors can be made again from the texts, so losing one costs time and no data. The
messages are encoded as `crdt.wire` says.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = [
    "Answer",
    "FieldCondition",
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
Operator: TypeAlias = Literal["in", "has", "at least", "above", "at most", "below"]
Scalar: TypeAlias = str | int | float | bool | None


class _Message(msgspec.Struct, array_like=True, frozen=True):
    """A message, or a value inside of one."""


class PartVector(_Message, frozen=True, gc=False):
    """What stands for the text of one part of a record: -1 is the record itself, else an item's place in its list.

    ``hash`` is of that text, ``vector`` as in `crdt.vectors`.
    """

    collection: str
    record: str
    part: int
    hash: bytes
    vector: bytes


class FieldCondition(_Message, frozen=True):
    """What must hold of a field: a path into the record's JSON, such as ``mood.joy``. ``in`` takes a list."""

    field: str
    operator: Operator
    value: Scalar | list[Scalar]


class FoundPart(_Message, frozen=True):
    """A part of a record that was found. ``score`` compares within one search; ``found_by``: "text", "meaning"."""

    collection: str
    record: str
    part: int
    score: float
    found_by: list[str]


class PushVectors(_Message, frozen=True, tag=6):
    """Device → server: vectors that ``model`` made."""

    space: str
    n: int
    model: str
    vectors: list[PartVector]


class PullVectors(_Message, frozen=True, tag=7):
    """Device → server: which vectors of ``model`` changed after a position?"""

    space: str
    n: int
    model: str
    after: int


class ForgetVectors(_Message, frozen=True, tag=9):
    """Device → server: another model has taken the place of this one. Answered as vectors that are pushed."""

    space: str
    n: int
    model: str


class Search(_Message, frozen=True, tag=8):
    """Device → server: what fits this question?

    ``vector`` holds float32, little-endian, by ``model``; ``names`` are people whom the question names, whose names are
    not in ``text``. ``collections``: [] means all.
    """

    space: str
    n: int
    mode: Mode
    text: str
    vector: bytes = b""
    model: str = ""
    names: list[str] = []
    collections: list[str] = []
    conditions: list[FieldCondition] = []
    limit: int = 10


class VectorsTaken(_Message, frozen=True, tag=22):
    """Server → device: they are durable; the newest vector of the space was at ``before``, and is at ``head`` now."""

    n: int
    before: int
    head: int


class Vectors(_Message, frozen=True, tag=23):
    """Server → device: vectors in the order of their positions, all that there are up to ``through``.

    The texts that they stand for, if the server has them, lie in the log up to ``head``.
    """

    n: int
    through: int
    head: int
    vectors: list[PartVector]


class Found(_Message, frozen=True, tag=24):
    """Server → device: the hits, best first, in what is folded up to ``materialized`` of ``head``."""

    n: int
    hits: list[FoundPart]
    head: int
    materialized: int


class Refused(_Message, frozen=True, tag=25):
    """Server → device: this request cannot be served as it is."""

    n: int
    code: str
    message: str


Request = PushVectors | PullVectors | ForgetVectors | Search
Answer = VectorsTaken | Vectors | Found | Refused
