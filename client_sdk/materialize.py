"""Rows from documents: what a change to a document means for its collection's tables.

A change writes only the columns of the fields that it touched; items appended to a list are added at its end, whatever
its length. A document that this schema cannot read (a required field is missing, a value is of another type) has no
row: it stays in the log and replicates, and the quarantine names the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from client_sdk.database import Connection
from client_sdk.outbox import quarantine
from client_sdk.rows import Table
from crdt.contents import Contents
from crdt.errors import DocumentUnreadable
from crdt.records import read, touched_fields
from crdt.schema import Field
from crdt.updates import CheckedUpdate

__all__ = ["Change", "insert_rows", "list_lengths", "readable", "write_row", "write_whole_row"]

Values = Mapping[str, Any]
Row = Sequence[Any]


class Change(msgspec.Struct, frozen=True):
    """One record that a transaction changed. ``fields`` is empty for an inserted or deleted one: all of it.

    Where somebody watches the collection (`Table.is_watched`), ``before`` and ``after`` are its row as it was and is.
    """

    collection: str
    record: str
    kind: Literal["inserted", "updated", "deleted"]
    doc: int
    fields: frozenset[str] = frozenset()
    before: Row | None = None
    after: Row | None = None


def readable(connection: Connection, table: Table, record: str, contents: Contents) -> dict[str, Any] | None:
    """Return a record's values, None if it is deleted or cannot be read; the quarantine says why then."""
    if contents.is_deleted:
        return None
    try:
        return {"id": record, **read(table.schema, contents)}
    except DocumentUnreadable as error:
        quarantine(connection, table.name, record, "unreadable", str(error), "schema", None)
        return None


def insert_rows(connection: Connection, table: Table, rows: Iterable[tuple[int, Values]]) -> list[Change]:
    """Write the rows of records that have none, with their lists' items; return what changed for those who watch."""
    rows = list(rows)
    made = [table.row(doc, values) for doc, values in rows]
    connection.executemany(table.insert, made)
    for name, child in table.lists.items():
        items = [row for doc, values in rows if values[name] for row in child.rows(doc, 0, values[name])]
        if items:
            connection.executemany(child.insert, items)
    if table.text is not None:
        table.text.insert(connection, rows)
    is_watched = table.is_watched
    return [Change(table.name, row[1], "inserted", row[0], after=row if is_watched else None) for row in made]


def write_whole_row(
    connection: Connection, table: Table, doc: int, record: str, contents: Contents, *, had_row: bool
) -> tuple[bool, Change | None]:
    """Write a record's row anew; return whether it has one, and what changed for those who watch."""
    before = table.held(connection, doc) if had_row and table.is_watched else None
    if had_row:
        table.delete(connection, doc)
    values = readable(connection, table, record, contents)
    if values is None:
        return False, Change(table.name, record, "deleted", doc, before=before) if had_row else None
    (inserted,) = insert_rows(connection, table, [(doc, values)])
    if not had_row:
        return True, inserted
    return True, Change(
        table.name, record, "updated", doc, frozenset(values), before=before, after=inserted.after
    )


def write_row(
    connection: Connection,
    table: Table,
    doc: int,
    record: str,
    contents: Contents,
    checked: CheckedUpdate,
    lengths: Mapping[str, int],
    *,
    had_row: bool,
) -> tuple[bool, Change | None]:
    """Bring a row up to date with a document that took one update. ``lengths`` are its lists' before. As above."""
    fields, tombstone = touched_fields(table.schema, checked.touched)
    if not had_row or (tombstone and contents.is_deleted):
        return write_whole_row(connection, table, doc, record, contents, had_row=had_row)
    before = table.held(connection, doc) if table.is_watched else None
    appended = {field: items for field in fields if (items := checked.appended.get(f"list:{field.wire}"))}
    try:
        values = read(table.schema, contents, [field for field in fields if field not in appended])
        for field, items in appended.items():
            first = lengths.get(field.wire, 0)
            table.append(connection, doc, field.name, first, _decoded(table, field, items))
    except DocumentUnreadable:
        return write_whole_row(connection, table, doc, record, contents, had_row=True)
    table.update(connection, doc, values)
    after = table.held(connection, doc) if before is not None else None
    changed = frozenset(field.name for field in fields)
    return True, Change(table.name, record, "updated", doc, changed, before=before, after=after)


def list_lengths(table: Table | None, contents: Contents) -> dict[str, int]:
    """Return how many items each list has, by its name in the document."""
    if table is None:
        return {}
    return {child.field.wire: contents.list_digest(child.field.wire).count for child in table.lists.values()}


def _decoded(table: Table, field: Field, items: Sequence[bytes]) -> list[Any]:
    partial = Contents({}, {}, {}, {field.wire: items}, {})
    return list(read(table.schema, partial, [field])[field.name])
