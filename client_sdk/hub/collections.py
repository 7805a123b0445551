"""The Hub's four collections: what every collection can, and a few verbs and queries of their own.

Each verb is one change of one record: what belongs together (a use and its time, the archive's flag and its date)
travels together. Times come from the device's clock, corrected to the server's. What the Hub asks for most
(`Personas.active`, `Conversations.recent`, and `Memories.of` in the next room) is a query: run, count or watch it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from client_sdk.collection import Collection
from client_sdk.commit import Committed, Corridor
from client_sdk.errors import QueryError
from client_sdk.hits import MARKS, Mode, Scope
from client_sdk.hub.records import Conversation, Message, Persona, Workflow
from client_sdk.materialize import Change
from client_sdk.query import Query
from client_sdk.rows import ListTable, Table
from client_sdk.search import Search
from crdt.changes import Increment, InsertItems, Operation, SetRegister
from crdt.ids import record_id
from crdt.records import create, encode_items, operations
from crdt.schema import NEVER, Record, check_record_id
from crdt.values import encode_value

__all__ = ["Conversations", "HubCollection", "Personas", "Workflows"]

R = TypeVar("R", bound=Record)

# Bytes of messages in one update: a quarter of what one may have, so that a very long conversation is written as its
# creation and some appends. One message is never cut.
_MESSAGES_BYTES_MAX = 1024 * 1024


class HubCollection(Collection[R]):
    """What the four have in common: `insert_missing` for imports, `changes` for those who watch a whole collection."""

    def __init__(self, base: Collection[R]) -> None:
        super().__init__(base._writer, base._source, base._table)  # noqa: SLF001 - it takes over a collection's parts

    @property
    def table(self) -> Table:
        """Its table in the file."""
        return self._table

    async def insert_missing(self, records: Iterable[R]) -> tuple[list[R], int]:
        """Write those of some records whose id is not taken; return them as stored, and how many were there already.

        All in one transaction (or the block's). A deleted record's id is taken: it stays deleted.

        Raises:
            ValidationError: a value does not fit; nothing was written.
        """
        listed = list(records)

        def work(corridor: Corridor) -> tuple[list[R], int]:
            ids = [record.id for record in listed if record.id]
            taken = {found for found, _ in corridor.documents.find_many(self._table.name, ids)}
            fresh = []
            for record in listed:
                if record.id not in taken:
                    fresh.append(record)
                    if record.id:
                        taken.add(record.id)
            written = self._insert(corridor, fresh) if fresh else []
            return written, len(listed) - len(written)

        return await self._writer.run(work)

    def changes(self) -> AsyncGenerator[list[Change], None]:
        """Yield what changes in this collection from now on, commit by commit, from here or elsewhere.

        Of each record the newest change; who is slow gets one longer list. It has no end: leave it, and ``aclose`` it.
        """
        held: dict[str, Change] = {}
        news = asyncio.Event()

        def hear(committed: Committed) -> None:
            held.update(
                (change.record, change)
                for change in committed.changes
                if change.collection == self._table.name
            )
            if held:
                news.set()

        self._writer.listeners.append(hear)  # here, not in the generator, which begins when it is first asked

        async def told() -> AsyncGenerator[list[Change], None]:
            try:
                while True:
                    await news.wait()
                    news.clear()
                    changes = list(held.values())
                    held.clear()
                    yield changes
            finally:
                self._writer.listeners.remove(hear)

        return told()

    def check(self, record: R) -> None:
        """Check what `insert` would check, and write nothing. Raises `ValidationError`."""
        if record.id:
            check_record_id(self.schema.record.__name__, record.id)
        create(
            self.schema,
            record,
            record_id=record.id or "unnamed",
            client=1,
            reading=1,
            now=NEVER,
            is_chosen=bool(record.id),
            seal=self._table.sealer(record.id, bytes),  # zeros for chance: what it makes is thrown away
        )

    def _insert(self, corridor: Corridor, records: Sequence[R]) -> list[R]:
        return corridor.insert(self._table, records)

    async def _set(self, record: str, counter: str | None, **values: Any) -> R:
        """Set some registers (``...`` stands for now), and count one up, in one change."""

        def work(corridor: Corridor) -> R:
            now = corridor.now()
            timed = {name: now if value is ... else value for name, value in values.items()} | {
                "updated_at": now
            }
            corridor.edit(
                self._table,
                record,
                lambda contents: [
                    *operations(self.schema, contents, timed),
                    *([Increment(self.schema.field(counter).wire, 1)] if counter else []),
                ],
            )
            return self._stored(corridor, record)

        return await self._writer.run(work, brief=True)


class Personas(HubCollection[Persona]):
    """The personas."""

    async def increment_usage(self, persona: str) -> Persona:
        """Count one use, now; return the persona. Raises `RecordNotFound`."""
        return await self._set(persona, "usage_count", last_used=...)

    def active(self) -> Query[Persona]:
        """Return the query for the active personas, the last used first."""
        return self.where(is_active=True).order_by("last_used", "desc")

    async def activate(self, persona: str) -> Persona:
        """Make a persona active; return it. Raises `RecordNotFound`."""
        return await self._set(persona, None, is_active=True)

    async def deactivate(self, persona: str) -> Persona:
        """Make a persona inactive; return it. Raises `RecordNotFound`."""
        return await self._set(persona, None, is_active=False)


class Conversations(HubCollection[Conversation]):
    """The conversations. Messages without an id or a time get them when they are written."""

    def check(self, record: Conversation) -> None:
        """Check what `insert` would check, and write nothing. Raises `ValidationError`."""
        for part in _parts(record.messages):
            super().check(msgspec.structs.replace(record, messages=part))

    async def insert(self, record: Conversation) -> Conversation:
        """Write a new conversation and return it as stored. Raises as `Collection.insert`."""
        return (await self.insert_many([record]))[0]

    async def insert_many(self, records: Iterable[Conversation]) -> list[Conversation]:
        """Write new conversations, all or none of them. Raises as `Collection.insert`."""
        listed = list(records)
        return await self._writer.run(lambda corridor: self._insert(corridor, listed)) if listed else []

    async def append(self, record: str, /, **items: Sequence[Any]) -> None:
        """Append messages; `add_message` for one. Raises as `Collection.append`."""
        if not (set(items) == {"messages"} and all(isinstance(one, Message) for one in items["messages"])):
            await super().append(record, **items)  # it says what is wrong
            return
        await self._writer.run(lambda corridor: self._append(corridor, record, items["messages"]), brief=True)

    async def add_message(self, conversation: str, message: Message) -> Message:
        """Append a message; return it with its id and time. Raises `RecordNotFound`, `ValidationError`."""
        return (
            await self._writer.run(
                lambda corridor: self._append(corridor, conversation, [message]), brief=True
            )
        )[0]

    async def archive(self, conversation: str) -> Conversation:
        """Put a conversation away, now; return it. Raises `RecordNotFound`."""
        return await self._set(conversation, None, is_archived=True, archived_at=...)

    async def unarchive(self, conversation: str) -> Conversation:
        """Bring a conversation back; return it. Raises `RecordNotFound`."""
        return await self._set(conversation, None, is_archived=False, archived_at=None)

    def recent(self, persona: str | None = None, *, page: int = 0, size: int = 50) -> Query[Conversation]:
        """Return the query for conversations that are not archived, of a persona or all, the last changed first.

        ``page`` counts from 0. Their messages are not loaded, unless with ``include("messages")``. Raises `QueryError`.
        """
        query = self.where(is_archived=False)
        if persona is not None:
            query = query.where(persona_id=persona)
        return query.order_by("updated_at", "desc").limit(size).offset(page * size)

    async def messages(
        self,
        conversation: str,
        offset: int = 0,
        limit: int = 50,
        *,
        before: int | None = None,
        after: int | None = None,
    ) -> list[Message]:
        """Return a page of a conversation's messages, oldest first.

        It begins at place ``offset`` (negative: from the end), or is next to a place: ``before`` or ``after`` it.
        Costs what the page costs, however long the conversation. Empty past either end, and where there is none.

        Raises:
            QueryError: both ``before`` and ``after``.
        """
        if before is not None and after is not None:
            raise QueryError("a page of messages is before or after a place, not both")
        child = self._messages_table
        order = "ASC" if before is None else "DESC"
        if before is not None:
            bound, place = "< ?", before
        elif after is not None:
            bound, place = "> ?", after
        elif offset >= 0:
            bound, place = ">= ?", offset
        else:
            bound, place = f'> ? + (SELECT max(position) FROM "{child.name}" WHERE doc = d.doc)', offset
        sql = (
            f'SELECT m.* FROM "{self._table.name}" d JOIN "{child.name}" m ON m.doc = d.doc'
            f" AND m.position {bound} WHERE d.id = ? ORDER BY m.position {order} LIMIT ?"
        )
        rows = await self._writer.read(
            lambda connection: connection.execute(sql, (place, conversation, max(limit, 0))).fetchall(),
            brief=True,
        )
        return [child.value(row[2:]) for row in (rows if before is None else reversed(rows))]

    async def message_count(self, conversation: str) -> int:
        """Return how many messages a conversation has; 0 where there is none."""
        last = f'SELECT max(position) FROM "{self._messages_table.name}" WHERE doc = d.doc'
        sql = f'SELECT ({last}) FROM "{self._table.name}" d WHERE d.id = ?'
        rows = await self._writer.read(lambda c: c.execute(sql, (conversation,)).fetchall(), brief=True)
        return 0 if not rows or rows[0][0] is None else int(rows[0][0]) + 1

    def search(
        self,
        text: str,
        *,
        limit: int = 50,
        mode: Mode = "hybrid",
        scope: Scope = "device",
        marks: tuple[str, str] = MARKS,
        around: int = 1,
        **equal: Any,
    ) -> Search[Conversation]:
        """Search as `Collection.search`. A hit in a message has that, and ``around`` messages on each side of it."""
        plan = self._query().where(**equal).plan
        return Search(
            self._source, plan, text, limit=limit, mode=mode, scope=scope, marks=marks, around=around
        )

    @property
    def _messages_table(self) -> ListTable:
        return self._table.lists["messages"]

    def _append(
        self, corridor: Corridor, record: str, messages: Sequence[Message], *extra: Operation
    ) -> list[Message]:
        stamped: list[Message] = _stamped(corridor, messages)
        for part in _parts(stamped):
            encoded = encode_items(self.schema, self.schema.field("messages"), part)
            planned = [InsertItems("messages", None, encoded), *extra] if encoded else []
            corridor.edit(self._table, record, lambda _, planned=planned: planned)  # type: ignore[misc]
        return stamped

    def _insert(self, corridor: Corridor, records: Sequence[Conversation]) -> list[Conversation]:
        stamped = [
            msgspec.structs.replace(record, messages=_stamped(corridor, record.messages))
            if isinstance(record, Conversation)
            else record
            for record in records
        ]
        parts = [_parts(record.messages) for record in stamped]
        if all(len(part) == 1 for part in parts):
            return super()._insert(corridor, stamped)
        heads = [
            msgspec.structs.replace(record, messages=part[0])
            for record, part in zip(stamped, parts, strict=True)
        ]
        made = super()._insert(corridor, heads)
        for record, part in zip(made, parts, strict=True):
            untouched = SetRegister("updatedAt", encode_value(record.updated_at))
            for some in part[1:]:
                self._append(corridor, record.id, some, untouched)
        return [self._stored(corridor, record.id, None) for record in made]


class Workflows(HubCollection[Workflow]):
    """The workflows."""

    async def record_execution(self, workflow: str) -> Workflow:
        """Count one execution, now; return the workflow. Raises `RecordNotFound`."""
        return await self._set(workflow, "execution_count", last_executed=...)


def _stamped(corridor: Corridor, messages: Any) -> Any:
    """Return messages that all have an id and a time; what is no list is left for the check to refuse."""
    if not isinstance(messages, list | tuple):
        return messages
    now_ms = corridor.sources.now_ms()
    return [
        message
        if not isinstance(message, Message) or (message.id and message.timestamp is not None)
        else msgspec.structs.replace(
            message,
            id=message.id or record_id(now_ms, corridor.sources.random(10)),
            timestamp=message.timestamp or corridor.now(),
        )
        for message in messages
    ]


def _parts(messages: Any) -> list[Any]:
    """Split messages so that each part fits into an update; one part if they all do."""
    if not isinstance(messages, list | tuple):
        return [messages]
    parts: list[list[Message]] = [[]]
    size = 0
    for message in messages:
        length = (
            len(message.content.encode("utf-8", "surrogatepass")) + 200 if isinstance(message, Message) else 0
        )
        if parts[-1] and size + length > _MESSAGES_BYTES_MAX:
            parts.append([])
            size = 0
        parts[-1].append(message)
        size += length
    return parts
