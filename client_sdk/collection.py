"""A collection: the verbs on the records of one type. Each is one transaction unless ``client.transaction()`` is open.

Writes return when they are durable. The record that a verb returns is the record as stored; of the lists declared lazy
it has those that the verb named, so that no verb costs what a long list would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Collection as AnyCollection
from typing import Any, Generic, TypeVar

from client_sdk.commit import Corridor
from client_sdk.database import Connection
from client_sdk.errors import RecordNotFound
from client_sdk.hits import MARKS, Hit, Mode, Scope
from client_sdk.plan import Plan
from client_sdk.query import Query, Source
from client_sdk.rows import Table
from client_sdk.search import Search
from client_sdk.writer import Writer
from crdt.changes import (
    AddElements,
    DeleteText,
    Increment,
    InsertItems,
    InsertText,
    Operation,
    RemoveElements,
    RemoveItems,
)
from crdt.contents import Contents
from crdt.errors import ValidationError
from crdt.fields import Kind
from crdt.records import conflicts, encode_items, operations, read, set_elements
from crdt.schema import Field, Record, Schema
from crdt.values import encode_value

__all__ = ["Collection"]

R = TypeVar("R", bound=Record)

_INT64_MAX = (1 << 63) - 1


class Collection(Generic[R]):
    """The records of one type. Ask with `where`, `order_by`, `limit`; write with the verbs below."""

    def __init__(self, writer: Writer, source: Source, table: Table) -> None:
        self._writer = writer
        self._source = source
        self._table = table

    @property
    def schema(self) -> Schema:
        """What the record's class declares."""
        return self._table.schema

    # -- Asking

    def where(self, *condition: Any, **equal: Any) -> Query[R]:
        """Return a query for the records that fit; see `Query.where`."""
        return self._query().where(*condition, **equal)

    def order_by(self, field: str, direction: Any = "asc") -> Query[R]:
        """Return a query for all records, sorted."""
        return self._query().order_by(field, direction)

    def limit(self, count: int) -> Query[R]:
        """Return a query for the first records by age."""
        return self._query().limit(count)

    def offset(self, count: int) -> Query[R]:
        """Return a query for all but the first records by age."""
        return self._query().offset(count)

    async def all(self) -> list[R]:
        """Return every record, oldest first."""
        return await self._query().all()

    async def first(self) -> R | None:
        """Return the oldest record, or None."""
        return await self._query().first()

    async def count(self) -> int:
        """Return how many records there are."""
        return await self._query().count()

    def watch(self) -> Any:
        """Watch every record; see `Query.watch`."""
        return self._query().watch()

    def subscribe(self, callback: Callable[[list[R]], Any]) -> Any:
        """Subscribe to every record; see `Query.subscribe`."""
        return self._query().subscribe(callback)

    def search(
        self,
        text: str,
        *,
        limit: int = 50,
        mode: Mode = "hybrid",
        scope: Scope = "device",
        marks: tuple[str, str] = MARKS,
        **equal: Any,
    ) -> Search[R]:
        """Search by text, among the records whose fields equal ``equal``, best first: ``await notes.search("tea")``.

        See `client_sdk.search` and `Query.search`, which takes any condition.
        """
        query = self._query().where(**equal)
        return query.search(text, limit=limit, mode=mode, scope=scope, marks=marks)

    async def similar(self, record: str, *, limit: int = 10, **equal: Any) -> list[Hit[R]]:
        """Return the records whose meaning is nearest to that of one of them, best first, without it.

        ``equal`` narrows them as in `search`. What says nothing is near to nothing.

        Raises:
            RecordNotFound: there is no such record.
            MeaningOff: the client was opened with ``embedder="off"``.
            EmbeddingProblem: the record has no vector yet, and the model does not make one.
            QueryError: no field of the record but lists is searchable.
        """
        plan = self._query().where(**equal).plan
        return await Search[R](self._source, plan, "", limit=limit, mode="meaning").nearest(record)

    async def get(self, record: str, *, include: Iterable[str] | None = None) -> R | None:
        """Return a record by its id, or None if there is none here (or it is deleted).

        ``include`` names which of the lists declared lazy are loaded: all of them (None), or none (``()``).

        Raises:
            QueryError: it names something else.
        """
        lists = None if include is None else self._table.included(include)

        def read(connection: Connection) -> R | None:
            return self._read(connection, record, lists)

        return await self._writer.read(read, brief=True)

    async def conflicts(self, record: str, field: str) -> list[Any]:
        """Return the values that lost where devices set a register at once, newest first; setting it anew clears them.

        Raises:
            RecordNotFound: there is no such record.
            ValidationError: there is no such field.
        """

        def work(corridor: Corridor) -> list[Any]:
            doc = self._table.find(corridor.connection, record)
            if doc is None:
                raise RecordNotFound(self._table.name, record)
            contents = corridor.documents.get(doc).contents
            lost = conflicts(self.schema, contents, field)
            sealed = self._table.sealed.get(field)
            if sealed is None:
                return lost
            counting = sealed.open(record, read(self.schema, contents, [sealed.field])[field])
            return [value for value in (sealed.open(record, one) for one in lost) if value != counting]

        return await self._writer.run(work, brief=True)

    # -- Writing

    async def insert(self, record: R) -> R:
        """Write a new record and return it as stored, with its id and times.

        Raises:
            ValidationError: a value does not fit its field.
            DuplicateRecord: the id is taken.
        """
        made: list[R] = await self._writer.run(
            lambda corridor: corridor.insert(self._table, (record,)), brief=True
        )
        return made[0]

    async def insert_many(self, records: Iterable[R]) -> list[R]:
        """Write new records, all or none of them, and return them as stored. Raises as `insert`."""
        listed = list(records)
        if not listed:
            return []
        return await self._writer.run(lambda corridor: corridor.insert(self._table, listed))

    async def update(self, record: str, /, **values: Any) -> R:
        """Set fields to new values and return the record as stored.

        Sets, maps, lists and texts are changed by what differs, so that other devices' edits of the rest
        stay. A map's leaf is named with a dot: ``update(id, **{"settings.theme": "dark"})``.

        Raises:
            RecordNotFound: there is no such record.
            ValidationError: a value does not fit its field; nothing was changed.
        """
        seal = self._writer.corridor.sealer(self._table, record)
        lists = [name for name in values if name in self._table.lists]
        return await self._change(
            record, lambda contents: operations(self.schema, contents, values, seal=seal), include=lists
        )

    async def increment(self, record: str, /, **by: int) -> R:
        """Add to counters (negative numbers subtract) and return the record. Raises as `update`."""
        fields = [(self._field(name, Kind.COUNTER, "increment"), amount) for name, amount in by.items()]

        def plan(contents: Contents) -> list[Operation]:
            made: list[Operation] = []
            for field, amount in fields:
                if type(amount) is not int or abs(contents.count(field.wire) + amount) > _INT64_MAX:
                    raise self._invalid(
                        field, f"got {amount!r:.60}", "a whole number that keeps the sum in 64 bits"
                    )
                made.append(Increment(field.wire, amount))
            return made

        return await self._change(record, plan)

    async def add(self, record: str, /, **elements: Iterable[Any]) -> R:
        """Add elements to sets and return the record. Raises as `update`."""
        made: list[Operation] = []
        for name, added in elements.items():
            field = self._field(name, Kind.SET, "add")
            made.append(AddElements(field.wire, set_elements(self.schema, field, added)))
        return await self._change(record, lambda _: made)

    async def remove(self, record: str, /, **elements: Iterable[Any]) -> R:
        """Remove elements from sets and return the record. An add that is not here yet stays. Raises
        as `update`.
        """
        made: list[Operation] = []
        for name, removed in elements.items():
            field = self._field(name, Kind.SET, "remove")
            made.append(RemoveElements(field.wire, set_elements(self.schema, field, removed)))

        def plan(contents: Contents) -> list[Operation]:
            held = [
                RemoveElements(one.name, kept)
                for one in made
                if isinstance(one, RemoveElements)
                and (
                    kept := tuple(
                        element for element in one.elements if element in contents.elements(one.name)
                    )
                )
            ]
            return list(held)

        return await self._change(record, plan)

    async def append(self, record: str, /, **items: Sequence[Any]) -> None:
        """Append items to lists. Costs what the items cost, however long the list. Raises as `update`."""
        made: list[Operation] = []
        for name, added in items.items():
            field = self._field(name, Kind.LIST, "append")
            if added:
                made.append(InsertItems(field.wire, None, encode_items(self.schema, field, added)))
        await self._writer.run(
            lambda corridor: corridor.edit(self._table, record, lambda _: made), brief=True
        )

    async def remove_items(self, record: str, field: str, index: int, count: int = 1) -> R:
        """Remove ``count`` items of a list from ``index`` on, and return the record. Raises as `update`."""
        declared = self._field(field, Kind.LIST, "remove_items")

        def plan(contents: Contents) -> list[Operation]:
            length = len(contents.lists.get(declared.wire, ()))
            self._within(declared, index, count, length, "items")
            return [RemoveItems(declared.wire, index, count)] if count else []

        return await self._change(record, plan, include=[field])

    async def edit_text(
        self,
        record: str,
        field: str,
        *,
        insert: tuple[int, str] | None = None,
        delete: tuple[int, int] | None = None,
    ) -> R:
        """Edit a text in place and return the record: ``delete=(start, count)`` first, then ``insert=(index, text)``.

        Places count characters (code points) from 0. Edits that other devices make meanwhile stay, character
        by character.

        Raises:
            RecordNotFound: there is no such record.
            ValidationError: the field is no text, or a place is outside of it; nothing was changed.
        """
        declared = self._field(field, Kind.TEXT, "edit_text")

        def plan(contents: Contents) -> list[Operation]:
            made: list[Operation] = []
            length = len(contents.texts.get(declared.wire, ""))
            if delete is not None:
                self._within(declared, *delete, length, "characters")
                length -= delete[1]
                if delete[1]:
                    made.append(DeleteText(declared.wire, *delete))
            if insert is not None:
                index, text = insert
                self._within(declared, index, 0, length, "characters")
                if not isinstance(text, str):
                    raise self._invalid(declared, f"got {type(text).__name__}", "text to insert")
                held = contents.texts.get(declared.wire, "")
                if delete is not None:
                    held = held[: delete[0]] + held[delete[0] + delete[1] :]
                encode_value(self.schema.validate_value(declared.name, held[:index] + text + held[index:]))
                if text:
                    made.append(InsertText(declared.wire, index, text))
            return made

        return await self._change(record, plan)

    async def delete(self, record: str) -> None:
        """Delete a record on every device; `restore` brings it back. Raises `RecordNotFound`."""
        await self._writer.run(lambda corridor: corridor.delete(self._table, record), brief=True)

    async def restore(self, record: str) -> R:
        """Bring a deleted record back, with what other devices did to it meanwhile. Raises `RecordNotFound`."""

        def work(corridor: Corridor) -> R:
            corridor.restore(self._table, record)
            return self._stored(corridor, record)

        return await self._writer.run(work, brief=True)

    # -- Parts

    def _query(self) -> Query[R]:
        return Query(self._source, Plan(self._table))

    async def _change(
        self, record: str, plan: Callable[[Contents], list[Operation]], *, include: Sequence[str] = ()
    ) -> R:
        def work(corridor: Corridor) -> R:
            corridor.edit(self._table, record, plan)
            return self._stored(corridor, record, include)

        return await self._writer.run(work, brief=True)

    def _stored(self, corridor: Corridor, record: str, include: Sequence[str] | None = ()) -> R:
        stored = self._read(corridor.connection, record, include)
        if stored is None:
            raise RecordNotFound(self._table.name, record)
        return stored

    def _read(self, connection: Connection, record: str, include: AnyCollection[str] | None) -> R | None:
        rows = connection.execute(f"{self._table.select} WHERE id = ?", (record,)).fetchall()
        found = self._table.records(connection, rows, include)
        return found[0] if found else None  # type: ignore[return-value]

    def _field(self, name: str, kind: Kind, verb: str) -> Field:
        field = self.schema.field(name)
        if field.kind is not kind:
            raise self._invalid(field, f"it is a {field.kind.value}", f"a {kind.value} field for {verb}()")
        return field

    def _within(self, field: Field, start: int, count: int, length: int, unit: str) -> None:
        if (
            type(start) is not int
            or type(count) is not int
            or not (start >= 0 and count >= 0 and start + count <= length)
        ):
            raise self._invalid(
                field, f"got {count!r} from {start!r} on", f"a place within its {length} {unit}"
            )

    def _invalid(self, field: Field, problem: str, expected: str) -> ValidationError:
        return ValidationError(
            record=self.schema.record.__name__, field=field.name, problem=problem, expected=expected
        )
