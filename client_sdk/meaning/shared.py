"""Which vectors the server has, and which of other devices are taken here. Functions on a connection.

A vector is named as `crdt.requests.PartVector` does: by the record's id and a part. Part -1 is the record itself, 0 and
on are the items of its list, where the record has one list of structs: with more a number would not tell which, and
their items are shared by nobody.

A vector of another device is taken where it stands for the very text that is here, and there is none yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from client_sdk.database import Connection
from client_sdk.meaning.stored import Piece, compare, field_of
from client_sdk.rows import Table
from crdt.requests import PartVector
from crdt.vectors import BadVector, unpacked_vector

__all__ = ["Matched", "Sent", "count", "field_of_part", "fields_of", "mark", "match", "unmark", "unshared"]

_NOTHING: Final = bytes(4)  # the scale of a text that says nothing: it is near to nothing, here and anywhere


class Sent(msgspec.Struct, frozen=True):
    """A vector on its way to the server, and where it stands here."""

    field: str
    doc: int
    position: int
    part: PartVector

    @property
    def says_something(self) -> bool:
        """Whether it has a direction. The server takes no others."""
        return self.part.vector[: len(_NOTHING)] != _NOTHING


class Matched(msgspec.Struct, frozen=True):
    """What is wanted of vectors that came. ``docs``: the documents that they name, ``lacking``: those still without."""

    taken: list[tuple[Piece, bytes]]
    docs: list[int]
    lacking: set[int]


def fields_of(table: Table) -> list[str]:
    """Return the fields of `pjais_vectors` that are shared: "" for the records themselves, and a list's name."""
    if not table.schema.shares_vectors or table.text is None:
        return []
    named = ("", _items_of(table))
    return [field for text in table.text.tables if (field := field_of(text)) in named]


def field_of_part(table: Table, part: int) -> str | None:
    """Return the field in which a part stands, None: in nothing that is searchable here."""
    field = "" if part < 0 else _items_of(table)
    return field if table.text and field in [field_of(text) for text in table.text.tables] else None


def unshared(
    connection: Connection,
    table: Table,
    model: str,
    field: str,
    *,
    after: tuple[int, int] = (-1, -2),
    docs: Sequence[int] | None = None,
    limit: int,
) -> list[Sent]:
    """Return vectors that the server lacks: behind a place (document, position), or those of some documents."""
    which, parameters = "(vectors.doc, vectors.position) > (?, ?)", list(after)
    if docs is not None:
        which, parameters = f"vectors.doc IN ({', '.join('?' * len(docs))})", list(docs)
    rows = connection.execute(
        "SELECT vectors.doc, vectors.position, rows.id, vectors.hash, vectors.vector"
        f' FROM pjais_vectors AS vectors JOIN "{table.name}" AS rows ON rows.doc = vectors.doc'
        " WHERE vectors.collection = ? AND vectors.field = ? AND vectors.model = ? AND NOT vectors.is_shared"
        f" AND {which} ORDER BY vectors.doc, vectors.position LIMIT ?",
        (table.name, field, model, *parameters, limit),
    )
    return [
        Sent(field, doc, position, PartVector(table.name, record, position, hash_, vector))
        for doc, position, record, hash_, vector in rows
    ]


def mark(connection: Connection, collection: str, model: str, sent: Iterable[Sent]) -> None:
    """Note that the server has these vectors; not of a text that has another one meanwhile."""
    connection.executemany(
        "UPDATE pjais_vectors SET is_shared = 1"
        " WHERE collection = ? AND field = ? AND model = ? AND doc = ? AND position = ? AND hash = ?",
        [(collection, one.field, model, one.doc, one.position, one.part.hash) for one in sent],
    )


def unmark(connection: Connection, model: str | None = None) -> None:
    """Note that the server has no vectors, of a model or at all: it is another one, or was told to forget."""
    if model is None:
        connection.execute("UPDATE pjais_vectors SET is_shared = 0 WHERE is_shared")
    else:
        connection.execute("UPDATE pjais_vectors SET is_shared = 0 WHERE model = ? AND is_shared", (model,))


def count(connection: Connection, tables: Iterable[Table], model: str) -> int:
    """Return how many vectors of a model the server should have at least. Reads them all."""
    return sum(
        connection.execute(
            "SELECT count(*) FROM pjais_vectors WHERE collection = ? AND field = ? AND model = ? AND is_shared"
            " AND substr(vector, 1, ?) <> ?",
            (table.name, field, model, len(_NOTHING), _NOTHING),
        ).fetchone()[0]
        for table in tables
        for field in fields_of(table)
    )


def match(
    connection: Connection, table: Table, model: str, came: Sequence[PartVector], *, dimensions: int
) -> Matched:
    """Return which of the vectors that came are wanted here. Whether they are vectors at all is looked at first."""
    offered: dict[tuple[str, int, int], PartVector] = {}
    docs: dict[str, int | None] = {}
    for one in came:
        if one.record not in docs:
            docs[one.record] = table.find(connection, one.record)
        doc, field = docs[one.record], field_of_part(table, one.part)
        if doc is None or field is None or not table.schema.shares_vectors:
            continue
        if _is_vector(one.vector, dimensions):
            offered[field, doc, one.part] = one
    known = sorted({doc for _, doc, _ in offered})
    lacking = compare(connection, table, model, known).lacking if known else []
    taken = [
        (piece, found.vector)
        for piece in lacking
        if (found := offered.get((piece.field, piece.doc, piece.position))) is not None
        and found.hash == piece.hash
    ]
    done = {(piece.field, piece.doc, piece.position) for piece, _ in taken}
    still = {one.doc for one in lacking if (one.field, one.doc, one.position) not in done}
    return Matched(taken, known, still)


def _is_vector(data: bytes, dimensions: int) -> bool:
    try:
        return len(unpacked_vector(data)[1]) == dimensions
    except BadVector:
        return False


def _items_of(table: Table) -> str | None:
    lists = [name for name, child in table.lists.items() if child.item is not None]
    return lists[0] if len(lists) == 1 else None
