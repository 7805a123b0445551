"""Records as SQL: one table a collection, one column a field, a child table for each list field.

Rows are made from documents and can be made again from them; they are what queries and ``client.sql`` read. A
deleted record has no row. Times are integer microseconds since 1970, sets and maps JSON text, an `Enum` its
value. A sealed field is its sealed bytes, opened when a record is made of the row.

::

    notes(doc INTEGER PRIMARY KEY, id TEXT, created_at INTEGER, …)      notes__messages(doc, position, id, role, …)

A collection's table is made anew when its declaration changed since the file was last opened (`prepare`). What is
searchable is indexed by the same verbs that write the rows (`client_sdk.text_index`).
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast, get_type_hints

import msgspec

from client_sdk.database import Connection, SqlError
from client_sdk.errors import QueryError
from client_sdk.seal import NONCE_BYTES, SealedField, Seals
from client_sdk.text_index import ITEM_BITS, TextIndex, TextTable
from crdt.errors import SchemaError
from crdt.fields import FieldType, Kind, field_type
from crdt.schema import Field, Record, Schema
from crdt.sealed import Seal

__all__ = ["Column", "ListTable", "Table", "from_sql", "to_sql"]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_PAGE: Final = 1_000  # rows in memory at once while the text index is made anew
_json = msgspec.json.Encoder(order="deterministic")

Encode = Callable[[Any], Any]


def to_sql(value: Any) -> Any:
    """Return a Python value as SQL holds it: what `Table` does by column, for the parameters of a query."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dt.datetime):
        return _time_to_sql(value)
    if isinstance(value, set | frozenset):
        return _json.encode(value).decode()
    if isinstance(value, dict | list):
        return _json.encode(value).decode()
    return value


def from_sql(microseconds: int) -> dt.datetime:
    """Return the time that a row holds, in UTC."""
    return _EPOCH + dt.timedelta(microseconds=microseconds)


class Column(msgspec.Struct, frozen=True, eq=False):
    """One column: its name, SQL type, and its two conversions (None: as it is)."""

    name: str
    affinity: str
    encode: Encode | None
    decode: Encode | None


class ListTable:
    """The child table of a list field: a row an item, in order."""

    def __init__(self, collection: str, field: Field) -> None:
        self.field = field
        self.name = f"{collection}__{field.name}"
        scalar = field.type.scalar
        self.item: type[Any] | None = None
        if issubclass(scalar, msgspec.Struct):
            self.item = scalar
            hints = get_type_hints(scalar, include_extras=True)
            self.columns = [
                _loose_column(info.name, hints[info.name]) for info in msgspec.structs.fields(scalar)
            ]
        else:
            self.columns = [_column("value", field.type)]
        names = [f'"{column.name}"' for column in self.columns]
        self.insert = (
            f'INSERT INTO "{self.name}"(doc, position, {", ".join(names)}) VALUES (?, ?{", ?" * len(names)})'
        )
        self.select = f'SELECT doc, {", ".join(names)} FROM "{self.name}"'
        self._select_behind = (
            f'SELECT doc, position, {", ".join(names)} FROM "{self.name}"'
            " WHERE (doc, position) > (?, ?) ORDER BY doc, position LIMIT ?"
        )
        self.select_places = f'SELECT position, doc, {", ".join(names)} FROM "{self.name}"'
        self.create = (
            f'CREATE TABLE "{self.name}"(doc INTEGER NOT NULL, position INTEGER NOT NULL, '
            + ", ".join(f'"{column.name}" {column.affinity}' for column in self.columns)
            + ", PRIMARY KEY (doc, position)) WITHOUT ROWID"
        )

    def rows(self, doc: int, first: int, items: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of some items, the first of them at position ``first``."""
        for position, item in enumerate(items, first):
            held = [getattr(item, column.name) for column in self.columns] if self.item else [item]
            yield (doc, position, *_encoded(self.columns, held))

    def page(self, connection: Connection, doc: int, first: int, last: int) -> list[Any]:
        """Return the items of a document from place ``first`` to ``last``, those that there are."""
        rows = connection.execute(
            f"{self.select} WHERE doc = ? AND position BETWEEN ? AND ? ORDER BY position", (doc, first, last)
        )
        return [self.value(row[1:]) for row in rows]

    def pages(self, connection: Connection, size: int) -> Iterator[list[tuple[int, int, Any]]]:
        """Yield all records' items in order, ``size`` at a time: document, position, item."""
        place = (-1, -1)
        while rows := connection.execute(self._select_behind, (*place, size)).fetchall():
            yield [(row[0], row[1], self.value(row[2:])) for row in rows]
            place = rows[-1][:2]

    def value(self, row: Sequence[Any]) -> Any:
        """Return the item of a row's columns."""
        held = [
            value if column.decode is None or value is None else column.decode(value)
            for column, value in zip(self.columns, row, strict=True)
        ]
        if self.item is None:
            return held[0]
        return self.item(**dict(zip([column.name for column in self.columns], held, strict=True)))


class Table:
    """A collection's table, and the child tables of its list fields. ``seals`` hold the keys of sealed fields."""

    def __init__(self, schema: Schema, seals: Seals | None = None) -> None:
        self.schema = schema
        seals = seals or Seals()
        self.sealed = {field.name: SealedField(seals, schema.collection, field) for field in schema.sealed}
        self.name = schema.collection
        self.columns = [
            _column(field.name, field.type) for field in schema.fields if field.kind is not Kind.LIST
        ]
        self.by_name = {column.name: column for column in self.columns}
        self.lists = {
            field.name: ListTable(self.name, field) for field in schema.fields if field.kind is Kind.LIST
        }
        names = ", ".join(f'"{column.name}"' for column in self.columns)
        self.insert = f'INSERT INTO "{self.name}"(doc, id, {names}) VALUES (?, ?{", ?" * len(self.columns)})'
        self.select = f'SELECT "{self.name}".doc, "{self.name}".id, {names} FROM "{self.name}"'
        self.text = TextIndex(schema) if schema.searchable else None
        #: Whether somebody watches: what changes then says how its row was and is. Set on the event loop.
        self.is_watched = False
        self._names = [column.name for column in self.columns]
        self._places = {name: place for place, name in enumerate(self._names, 2)}
        self._decoders = [
            (place, column.decode) for place, column in enumerate(self.columns) if column.decode is not None
        ]
        self._sealed = [(self._names.index(name), sealed) for name, sealed in self.sealed.items()]
        self._encoders = [(column.name, column.encode) for column in self.columns]

    # -- Declaring

    def statements(self) -> list[str]:
        """Return the statements that make the tables and their indexes."""
        columns = "".join(f', "{column.name}" {column.affinity}' for column in self.columns)
        made = [f'CREATE TABLE "{self.name}"(doc INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE{columns})']
        for index in self.schema.indexes:
            listed = ", ".join(f'"{name}"' for name in index)
            made.append(f'CREATE INDEX "{self.name}_by_{"_and_".join(index)}" ON "{self.name}"({listed})')
        made += [child.create for child in self.lists.values()]
        return [*made, *(self.text.statements() if self.text else ())]

    @property
    def names(self) -> list[str]:
        """The tables that ``statements`` makes."""
        made = [self.name, *(child.name for child in self.lists.values())]
        return [*made, *(self.text.names if self.text else ())]

    @property
    def fingerprint(self) -> str:
        """A hash of the declaration: another one means that the tables are made anew."""
        declared = [*self.statements(), *([self.text.rules] if self.text else [])]
        return hashlib.sha256("\n".join(declared).encode()).hexdigest()

    # -- Writing

    def row(self, doc: int, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return a record's row."""
        row = [doc, values["id"]]
        for name, encode in self._encoders:
            value = values[name]
            row.append(value if encode is None or value is None else encode(value))
        return tuple(row)

    def update(self, connection: Connection, doc: int, values: Mapping[str, Any]) -> None:
        """Write some fields' new values (list fields are replaced whole)."""
        scalars = [self.by_name[name] for name in values if name in self.by_name]
        if scalars:
            assignments = ", ".join(f'"{column.name}" = ?' for column in scalars)
            encoded = _encoded(scalars, [values[column.name] for column in scalars])
            connection.execute(f'UPDATE "{self.name}" SET {assignments} WHERE doc = ?', (*encoded, doc))
        for name, child in self.lists.items():
            if name in values:
                connection.execute(f'DELETE FROM "{child.name}" WHERE doc = ?', (doc,))
                connection.executemany(child.insert, child.rows(doc, 0, values[name]))
                if self.text is not None and name in self.text.lists:
                    self.text.replace_list(connection, doc, name, values[name])
        if self.text is not None and self.text.record is not None:
            places = self.text.record.places
            if any(name in values for name in places):
                ((_, _, held),) = self.searchable(connection, self.text.record, (doc,))
                self.text.replace(connection, doc, held)

    def append(self, connection: Connection, doc: int, field: str, first: int, items: Iterable[Any]) -> None:
        """Write items at the end of a list that has ``first`` items."""
        child, items = self.lists[field], list(items)
        connection.executemany(child.insert, child.rows(doc, first, items))
        if self.text is not None and field in self.text.lists:
            self.text.append(connection, doc, field, first, items)

    def delete(self, connection: Connection, doc: int) -> None:
        """Remove a record's rows."""
        connection.execute(f'DELETE FROM "{self.name}" WHERE doc = ?', (doc,))
        for child in self.lists.values():
            connection.execute(f'DELETE FROM "{child.name}" WHERE doc = ?', (doc,))
        if self.text is not None:
            self.text.delete(connection, doc)

    def is_indexed(self, connection: Connection) -> bool:
        """Return whether the text index begins and ends where the rows do, and finds the newest by a word.

        It costs the same however many there are; damage in between is not seen.
        """
        try:
            for text in self.text.tables if self.text else ():
                if not text.has_ends(
                    connection, self.lists[text.list_field].name if text.list_field else self.name
                ):
                    return False
                newest = text.newest(connection)
                if newest is not None and not text.finds(
                    connection, newest, self._value_at(connection, text, newest)
                ):
                    return False
        except SqlError:
            return False
        return True

    def index_again(self, connection: Connection) -> None:
        """Make the text index anew from the rows, some at a time."""
        if self.text is None:
            return
        self.text.make_anew(connection)
        if self.text.record is not None:
            last = -1
            while rows := connection.execute(
                f"{self.select} WHERE doc > ? ORDER BY doc LIMIT {_PAGE}", (last,)
            ).fetchall():
                self.text.insert_records(connection, [(row[0], self._values(row)) for row in rows])
                last = rows[-1][0]
        for name in self.text.lists:
            for page in self.lists[name].pages(connection, _PAGE):
                self.text.insert_items(connection, name, page)

    def _value_at(self, connection: Connection, text: TextTable, rowid: int) -> Any:
        """Return what a row of a text table was made of: the values of a record, or an item."""
        if text.list_field is None:
            return self._values(self.held(connection, rowid) or ())
        doc, position = rowid >> ITEM_BITS, rowid & ((1 << ITEM_BITS) - 1)
        (item,) = self.lists[text.list_field].page(connection, doc, position, position)
        return item

    # -- Sealed fields

    def sealer(self, record_id: str, random: Callable[[int], bytes]) -> Seal | None:
        """Return what seals the values of a record; None if it has no sealed fields."""
        if not self.sealed:
            return None
        return lambda field, plain: self.sealed[field.name].seal(record_id, plain, random(NONCE_BYTES))

    def opened(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a record's values with the sealed ones opened."""
        if not self.sealed:
            return values
        opened = {name: sealed.open(values["id"], values[name]) for name, sealed in self.sealed.items()}
        return {**values, **opened}

    # -- Reading

    def find(self, connection: Connection, record_id: str) -> int | None:
        """Return the document number of a record that has a row."""
        found = connection.execute(f'SELECT doc FROM "{self.name}" WHERE id = ?', (record_id,)).fetchone()
        return None if found is None else int(found[0])

    def included(self, names: Iterable[str]) -> frozenset[str]:
        """Return names of lists to load, checked. Raises `QueryError`."""
        asked = names if isinstance(names, str) else tuple(names)
        for name in asked:
            if isinstance(asked, str) or name not in self.lists:
                known = ", ".join(map(repr, self.lists)) or "none"
                raise QueryError(
                    f"{self.name}: include takes the names of lists, not {asked!r:.60}; there are {known}"
                )
        return frozenset(asked)

    def place(self, name: str) -> int:
        """Return where a column stands in a row of ``select``."""
        return self._places[name]

    def held(self, connection: Connection, doc: int) -> Sequence[Any] | None:
        """Return the row of ``select`` of a document, None if it has none."""
        found: Sequence[Any] | None = connection.execute(f"{self.select} WHERE doc = ?", (doc,)).fetchone()
        return found

    def loaded(self, include: Collection[str] | None) -> list[str]:
        """Return which lists come with a record: those that are not lazy, and ``include`` (None: all)."""
        lazy = self.schema.lazy
        return [name for name in self.lists if include is None or name not in lazy or name in include]

    def records(
        self, connection: Connection, rows: Sequence[Sequence[Any]], include: Collection[str] | None = ()
    ) -> list[Record]:
        """Return the records of rows of ``select``, their lists read beside, lazy ones as `loaded` says."""
        docs = [row[0] for row in rows]
        lists = {name: self._lists(connection, self.lists[name], docs) for name in self.loaded(include)}
        if not lists:
            return [self.record(row, {}) for row in rows]
        return [
            self.record(row, {name: items.get(row[0], []) for name, items in lists.items()}) for row in rows
        ]

    def record(self, row: Sequence[Any], lists: Mapping[str, list[Any]]) -> Record:
        """Return the record of a row of ``select`` and of its lists; lazy ones that are not given are not loaded."""
        fields = {**self.schema.lazy, **self._values(row), **lists}
        for place, sealed in self._sealed:
            fields[self._names[place]] = sealed.open(row[1], row[place + 2])
        return self.schema.record(**fields)

    def _values(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return the values of a row of ``select`` by name, without lists, and sealed ones as they are."""
        held = list(row[2:])
        for place, decode in self._decoders:
            if held[place] is not None:
                held[place] = decode(held[place])
        return {"id": row[1], **dict(zip(self._names, held, strict=True))}

    def searchable(
        self, connection: Connection, text: TextTable, docs: Sequence[int]
    ) -> Iterator[tuple[int, int, Any]]:
        """Yield what of some documents' rows a text table indexes: document, position (-1: the record), and values."""
        places = ", ".join("?" * len(docs))
        if text.list_field is not None:
            child = self.lists[text.list_field]
            for row in connection.execute(f"{child.select_places} WHERE doc IN ({places})", docs):
                if row[0] < 1 << ITEM_BITS:
                    yield row[1], row[0], child.value(row[2:])
            return
        listed = ", ".join(f'"{name}"' for name in text.places)
        decoders = [None if name == "id" else self.by_name[name].decode for name in text.places]
        for row in connection.execute(
            f'SELECT doc, {listed} FROM "{self.name}" WHERE doc IN ({places})', docs
        ):
            yield (
                row[0],
                -1,
                {
                    name: value if decode is None or value is None else decode(value)
                    for name, value, decode in zip(text.places, row[1:], decoders, strict=True)
                },
            )

    @staticmethod
    def _lists(connection: Connection, child: ListTable, docs: Sequence[int]) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for start in range(0, len(docs), 500):
            some = docs[start : start + 500]
            places = ", ".join("?" * len(some))
            for row in connection.execute(
                f"{child.select} WHERE doc IN ({places}) ORDER BY doc, position", some
            ):
                found.setdefault(row[0], []).append(child.value(row[1:]))
        return found


def _encoded(columns: Sequence[Column], values: Sequence[Any]) -> list[Any]:
    return [
        value if column.encode is None or value is None else column.encode(value)
        for column, value in zip(columns, values, strict=True)
    ]


def _time_to_sql(value: dt.datetime) -> int:
    return (value - _EPOCH) // _MICROSECOND


def _json_to_sql(value: Any) -> str:
    return _json.encode(value).decode()


def _enum_to_sql(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _column(name: str, kind: FieldType) -> Column:
    scalar = kind.scalar
    if kind.kind is Kind.SET:
        return Column(name, "TEXT", _json_to_sql, msgspec.json.Decoder(set[scalar]).decode)  # type: ignore[valid-type]
    if kind.kind is Kind.MAP:
        return Column(name, "TEXT", _json_to_sql, msgspec.json.Decoder(dict[str, Any]).decode)
    if kind.kind is Kind.SEALED:
        return Column(name, "BLOB", None, None)
    if scalar is dt.datetime:
        return Column(name, "INTEGER", _time_to_sql, from_sql)
    if scalar is bool:
        return Column(name, "INTEGER", None, bool)
    if issubclass(scalar, enum.Enum):
        return Column(name, kind.affinity, _enum_to_sql, scalar)
    return Column(name, kind.affinity, None, None)


def _loose_column(name: str, annotation: Any) -> Column:
    """Return the column of an item's attribute; what no scalar column holds is JSON."""
    try:
        kind = field_type(annotation, where=name)
    except SchemaError:  # an item may hold what a field may not
        kind = None
    if kind is None or kind.kind is Kind.LIST:
        decoder = msgspec.json.Decoder(annotation)
        return Column(name, "TEXT", _json_to_sql, cast("Encode", decoder.decode))
    return _column(name, kind)
