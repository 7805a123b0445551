"""The full-text index of a collection: a cache of its rows' words, written by the transaction that writes the rows.

One FTS5 table holds the searchable fields of a record, a column each, under its document's number; one more for each
searchable list has a row an item, so that a hit names the item, and appending the ten-thousandth costs what the tenth
did. The tables keep no text (``contentless_delete``): FTS5's other way, external content, drifts from its rows in
silence. What they hold can be made again from the rows at any time (`Table.index_again`).

What is indexed: texts as they are, sets as their elements, maps as the texts in them, other values as they are
written; of an item what it names as ``searchable``, or else every attribute declared as ``str`` but ``id`` (a `Literal`
or an `Enum` is a choice, no prose).
Case, accents and English endings do not count. Scripts that leave no space between words are indexed
character by character, and found as a run of them (`spaced`).

::

    pjais_text_notes(f_title, f_body)      pjais_text_notes__messages(f_content), rowid = doc << 24 | position
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from client_sdk.database import Connection
from crdt.errors import SchemaError
from crdt.fields import Kind, field_type
from crdt.schema import Field, Schema
from crdt.words import spaced

__all__ = ["ITEM_BITS", "TextIndex", "TextTable"]

#: The low bits of an item's rowid are its position: sixteen million items a list. Those behind are not indexed, and a
#: list of so many short messages is past what one document may hold (`crdt.limits.DOCUMENT_BYTES_MAX`).
ITEM_BITS: Final = 24
_POSITIONS: Final = 1 << ITEM_BITS

# Part of a declaration's fingerprint: count it up when other words come out of the same record.
_RULES: Final = "rules 2"
_TOKENIZER: Final = "porter unicode61 remove_diacritics 2"

# Bytes of a leaf of FTS5's tree: as many as a row may have in a page of SQLCipher (4,096, less 80 for its seal) without
# running over into a second one, as FTS5's own 4,050 do.
_LEAF_BYTES: Final = 3_960

# A word that FTS5 surely sees as one, or as some: what stands between blanks, with an English letter or a digit in it.
_PROBE: Final = re.compile(r'(?<![^\s"\0])[^\s"\0]{0,40}[A-Za-z0-9][^\s"\0]{0,40}(?![^\s"\0])')


class TextTable:
    """One FTS5 table. ``places`` are the names of its columns: fields, or an item's attributes.

    Columns weigh half of the one before them, from ``weight`` down.
    """

    def __init__(self, name: str, places: Sequence[str], *, weight: float, list_field: str | None) -> None:
        self.name = name
        self.places = tuple(places)
        self.list_field = list_field
        # A list's attributes weigh the same: they are parts of one thing.
        weights = [weight if list_field else max(weight / 2**place, 1.0) for place in range(len(places))]
        columns = [f'"f_{place}"' for place in self.places]  # FTS5 keeps some names, such as rank, for itself
        self.create = (
            f"CREATE VIRTUAL TABLE \"{name}\" USING fts5({', '.join(columns)}, content='',"
            f" contentless_delete=1, tokenize='{_TOKENIZER}')"
        )
        listed = ", ".join(map(str, weights))
        self.settings = [
            f"INSERT INTO \"{name}\"(\"{name}\", rank) VALUES ('rank', 'bm25({listed})')",
            f'INSERT INTO "{name}"("{name}", rank) VALUES (\'pgsz\', {_LEAF_BYTES})',
        ]
        self.insert = (
            f'INSERT OR REPLACE INTO "{name}"(rowid, {", ".join(columns)}) VALUES (?{", ?" * len(columns)})'
        )

    def held(self, value: Any) -> list[str]:
        """Return the texts of a record or an item, as given by attribute or by name, in the columns' order."""
        if isinstance(value, Mapping):
            return [_text(value[place]) for place in self.places]
        if isinstance(value, msgspec.Struct):
            return [_text(getattr(value, place)) for place in self.places]
        return [_text(value)]

    def row(self, rowid: int, value: Any) -> tuple[Any, ...]:
        """Return a row of ``insert``."""
        return (rowid, *map(spaced, self.held(value)))

    def has_ends(self, connection: Connection, rows: str) -> bool:
        """Return whether the first and the last row are those of the table ``rows``. Raises `SqlError` on damage."""
        place = "rowid" if self.list_field is None else f"rowid >> {ITEM_BITS}, rowid & {_POSITIONS - 1}"
        of = "doc" if self.list_field is None else "doc, position"
        limit = f" WHERE position < {_POSITIONS}" if self.list_field else ""
        return all(
            connection.execute(
                f'SELECT {place} FROM "{self.name}_docsize" ORDER BY id {way} LIMIT 1'
            ).fetchone()
            == connection.execute(
                f'SELECT {of} FROM "{rows}"{limit} ORDER BY {of.replace(",", f" {way},")} {way} LIMIT 1'
            ).fetchone()
            for way in ("ASC", "DESC")
        )

    def newest(self, connection: Connection) -> int | None:
        """Return the last row's number, None if there is none."""
        (rowid,) = connection.execute(f'SELECT max(id) FROM "{self.name}_docsize"').fetchone()
        return None if rowid is None else int(rowid)

    def finds(self, connection: Connection, rowid: int, value: Any) -> bool:
        """Return whether a row is found by a word of the record or item that it was made of, if there is a plain one.

        Raises `SqlError` where FTS5 sees damage.
        """
        (averages,) = connection.execute(
            f'SELECT ifnull(max(length(block)), 0) FROM "{self.name}_data" WHERE id = 1'
        ).fetchone()
        if not averages:
            return False
        for place, text in zip(self.places, self.held(value), strict=True):
            if found := _PROBE.search(spaced(text)):
                sql = f'SELECT 1 FROM "{self.name}" WHERE "{self.name}" MATCH ? AND rowid = ?'
                return (
                    connection.execute(sql, (f'"f_{place}" : "{found.group()}"', rowid)).fetchone()
                    is not None
                )
        return True


class TextIndex:
    """The text tables of a collection: ``record`` for its single fields, if any is searchable, ``lists`` by field."""

    def __init__(self, schema: Schema) -> None:
        name = f"pjais_text_{schema.collection}"
        weights = {
            place: 2.0 ** (len(schema.searchable) - 1 - n) for n, place in enumerate(schema.searchable)
        }
        single = [
            place
            for place in schema.searchable
            if place == "id" or schema.by_name[place].kind is not Kind.LIST
        ]
        self.record: TextTable | None = None
        if single:
            self.record = TextTable(name, single, weight=weights[single[0]], list_field=None)
        self.lists = {
            place: TextTable(
                f"{name}__{place}",
                _prose(schema, schema.by_name[place]),
                weight=weights[place],
                list_field=place,
            )
            for place in schema.searchable
            if place not in single
        }
        self.tables = [*([self.record] if self.record else []), *self.lists.values()]
        self.names = [table.name for table in self.tables]

    def statements(self) -> list[str]:
        """Return the statements that make the tables."""
        return [statement for table in self.tables for statement in (table.create, *table.settings)]

    @property
    def rules(self) -> str:
        """What the words depend on beside the statements."""
        return _RULES

    # -- Writing

    def insert(self, connection: Connection, records: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Index records that are not indexed, each by its document's number, with their lists."""
        records = list(records)
        self.insert_records(connection, records)
        for name in self.lists:
            self.insert_items(
                connection,
                name,
                ((doc, place, item) for doc, values in records for place, item in enumerate(values[name])),
            )

    def insert_records(
        self, connection: Connection, records: Iterable[tuple[int, Mapping[str, Any]]]
    ) -> None:
        """Index the single fields of records."""
        if self.record is not None:
            row = self.record.row
            connection.executemany(self.record.insert, [row(doc, values) for doc, values in records])

    def insert_items(self, connection: Connection, field: str, items: Iterable[tuple[int, int, Any]]) -> None:
        """Index items of a list: document, position, item."""
        row = self.lists[field].row
        made = [row(doc << ITEM_BITS | place, item) for doc, place, item in items if place < _POSITIONS]
        if made:
            connection.executemany(self.lists[field].insert, made)

    def replace(self, connection: Connection, doc: int, values: Mapping[str, Any]) -> None:
        """Index a record's single fields anew."""
        assert self.record is not None
        connection.execute(self.record.insert, self.record.row(doc, values))

    def replace_list(self, connection: Connection, doc: int, field: str, items: Iterable[Any]) -> None:
        """Index a list anew."""
        self._delete_list(connection, doc, self.lists[field])
        self.append(connection, doc, field, 0, items)

    def append(self, connection: Connection, doc: int, field: str, first: int, items: Iterable[Any]) -> None:
        """Index items at the end of a list that has ``first`` items."""
        self.insert_items(connection, field, ((doc, place, item) for place, item in enumerate(items, first)))

    def delete(self, connection: Connection, doc: int) -> None:
        """Forget a record."""
        if self.record is not None:
            connection.execute(f'DELETE FROM "{self.record.name}" WHERE rowid = ?', (doc,))
        for table in self.lists.values():
            self._delete_list(connection, doc, table)

    # -- Looking it over

    def make_anew(self, connection: Connection) -> None:
        """Drop the tables, whatever state they are in, and make empty ones."""
        for table in self.tables:
            connection.execute(f'DROP TABLE IF EXISTS "{table.name}"')
        for statement in self.statements():
            connection.execute(statement)

    @staticmethod
    def _delete_list(connection: Connection, doc: int, table: TextTable) -> None:
        first = doc << ITEM_BITS
        connection.execute(
            f'DELETE FROM "{table.name}" WHERE rowid BETWEEN ? AND ?', (first, first | (_POSITIONS - 1))
        )


def _text(value: Any) -> str:
    """Return what is indexed of a value."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, set | frozenset):
        return "\n".join(sorted(map(_text, value)))
    if isinstance(value, Mapping):
        return "\n".join(filter(None, map(_text_below, value.values())))
    if isinstance(value, enum.Enum):
        return str(value.value)
    return str(value)


def _text_below(value: Any) -> str:
    """Return the texts inside a map's leaf."""
    if isinstance(value, Mapping):
        return _text(value)
    if isinstance(value, list):
        return "\n".join(filter(None, map(_text_below, value)))
    return value if isinstance(value, str) else ""


def _prose(schema: Schema, field: Field) -> list[str]:
    """Return the attributes of a list's items that are prose; ``value`` for plain texts."""
    scalar = field.type.scalar
    where = f"{schema.record.__name__}.{field.name}"
    if named := getattr(scalar, "searchable", ()):
        if missing := [name for name in named if not hasattr(scalar, name)]:
            raise SchemaError(
                f"{where}: {scalar.__name__} has no {missing[0]!r}, which it names as searchable"
            )
        return list(named)
    if issubclass(scalar, msgspec.Struct):
        hints = get_type_hints(scalar, include_extras=True)
        found = [
            one.name
            for one in msgspec.structs.fields(scalar)
            if one.name != "id" and _is_prose(hints[one.name], where=where)
        ]
    else:
        found = ["value"] if _is_prose(field.type.element, where=where) else []
    if not found:
        raise SchemaError(f"{where} is searchable, but its items have no text: no attribute is a plain str")
    return found


def _is_prose(annotation: Any, *, where: str) -> bool:
    try:
        kind = field_type(annotation, where=where)
    except SchemaError:  # an item may hold what a field may not
        return False
    return kind.kind in {Kind.REGISTER, Kind.TEXT} and kind.scalar is str and not _is_choice(annotation)


def _is_choice(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return True
    parts = get_args(annotation)
    return any(map(_is_choice, parts[:1] if get_origin(annotation) is Annotated else parts))
