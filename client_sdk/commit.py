"""The corridor: the one way in which anything becomes true on this device, for local and remote changes alike.

A change is carried out on the database thread, inside one transaction: the document takes the edit, and out
come log, row, digest, and outbox (a local change) or cursor (a remote one). There is no await in between, so
no other change can come between, and a crash leaves all of it or nothing. What is kept in memory beside the
file (documents in use, next numbers, the sum of digests) belongs to that thread and goes back to what it was
when a transaction does not commit.

`Corridor` is that thread's side; each of its verbs needs a transaction to be open. `client_sdk.replica` holds
the remote door, `client_sdk.client` the local one. `Committed` tells those who wait (`watch`, the runner)
what became true, afterwards.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from client_sdk import notices
from client_sdk.database import Connection
from client_sdk.documents import Documents
from client_sdk.errors import DuplicateRecord, RecordNotFound
from client_sdk.log import TAIL_BYTES_MIN, Log
from client_sdk.materialize import Change, insert_rows, list_lengths, readable, write_row, write_whole_row
from client_sdk.outbox import Outbox
from client_sdk.rows import Table
from client_sdk.seal import Seals
from client_sdk.state import State
from crdt.changes import Operation, SetRegister
from crdt.clock import HybridClock
from crdt.contents import DELETED, Contents, add_digests
from crdt.document import Document
from crdt.ids import client_id, incarnation, record_id
from crdt.records import create
from crdt.schema import Record, check_record_id
from crdt.sealed import Seal
from crdt.tip import ItemsUnread, Tip
from crdt.updates import CheckedUpdate, Creation
from crdt.values import encode_value

__all__ = ["Change", "Committed", "Corridor", "Sources"]

R = TypeVar("R", bound=Record)

_TRUE, _FALSE = b"\xc3", b"\xc2"


class Sources(msgspec.Struct, frozen=True):
    """Where time and chance come from: wall time in milliseconds since 1970, and random bytes."""

    now_ms: Callable[[], int]
    random: Callable[[int], bytes]


class Committed(msgspec.Struct):
    """What one transaction made true; or several of other instances on this file (``is_foreign``).

    ``commits`` is the file's count of commits up to this one; listeners hear of them in this order. ``whole``:
    collections of which anything may have changed. ``missed``: what other instances committed since the last one here.
    ``is_call``: see `client_sdk.notices.Notice`.
    """

    changes: list[Change] = []
    is_remote: bool = False
    pending: int = 0
    commits: int = 0
    is_foreign: bool = False
    whole: frozenset[str] = frozenset()
    missed: notices.Heard | None = None
    is_call: bool = False

    @property
    def collections(self) -> frozenset[str]:
        """Those in which something changed, or may have."""
        return self.whole.union(change.collection for change in self.changes)


class Corridor:
    """The writer thread's side. Use it only inside ``Database.write``."""

    def __init__(
        self,
        connection: Connection,
        tables: Mapping[str, Table],
        *,
        seals: Seals,
        opening: int,
        client: int,
        sources: Sources,
        document_bytes_max: int,
        is_shared: bool = False,
    ) -> None:
        self.connection = connection
        self.is_shared = is_shared  # other instances write to this file as well
        self.instance = opening
        self.tables = tables
        self.seals = seals
        self.sources = sources
        self.client = client
        self.incarnation = opening
        self.log = Log(connection)
        self.outbox = Outbox(connection, incarnation=opening, client=client)
        self.state = State.read(connection)
        self.read_through = 0  # a cursor that nothing depends on: it is written with the next transaction
        self.clock = HybridClock(last=self.state.clock)
        self.committed = Committed()
        self.documents = Documents(connection, tables, client=client, bytes_max=document_bytes_max)
        self._before: tuple[Any, ...] = ()
        self._reading = 0
        self._is_all_new = False  # what the transaction touched is not known by document

    # -- The frame of every transaction

    def begin(self) -> None:
        """Remember what to go back to."""
        self.committed = Committed()
        self.documents.begin()
        self._reading = 0
        self._is_all_new = False
        log, outbox = self.log, self.outbox
        self._before = (
            log.next_doc,
            log.next_position,
            outbox.next_n,
            outbox.pending,
            msgspec.structs.replace(self.state),
            self.clock.last,
            self.seals.keys,
            self.incarnation,
            self.client,
        )
        if self.is_shared:
            self._catch_up()
        self.state.cursor = max(self.state.cursor, self.read_through)

    def finish(self) -> Committed:
        """Write the state's row; the last statement before COMMIT. A transaction that only read writes nothing, unless
        other instances are to hear of it.
        """
        state, committed = self.state, self.committed
        state.clock = self.clock.last
        if self.is_shared or committed.changes or state != self._before[4]:
            state.commits += 1
            state.write(self.connection)
        committed.pending, committed.commits = self.outbox.pending, state.commits
        if self.is_shared:
            notices.leave(
                self.connection,
                state.commits,
                instance=self.instance,
                numbers=notices.Numbers(self.log.next_doc, self.log.next_position, self.outbox.pending),
                docs=None if self._is_all_new else self.documents.touched,
                changes=committed.changes,
                is_call=committed.is_call,
            )
        return committed

    def _catch_up(self) -> None:
        """Bring memory up to date with what other instances committed since the last transaction here."""
        heard = notices.hear(self.connection, after=self.state.commits)
        if heard is None:
            return
        self.state = State.read(self.connection)
        self.clock.last = max(self.clock.last, self.state.clock)
        if (numbers := heard.numbers) is None:
            self.log.read_numbers(self.connection)
        else:
            self.log.next_doc, self.log.next_position = numbers.next_doc, numbers.next_position
        self.outbox.pending = heard.pending
        if (docs := heard.docs) is None:
            self.documents.drop_all()
            self._become(*self.outbox.home(self.connection))
        else:
            for doc in docs:
                self.documents.drop(doc)
        self.committed.missed = heard

    def undo(self) -> None:
        """Go back to what was in memory at `begin`: the transaction did not commit."""
        log, outbox = self.log, self.outbox
        (log.next_doc, log.next_position, outbox.next_n, outbox.pending, *rest) = self._before
        self.state, self.clock.last, self.seals.keys, *identity = rest
        self._become(*identity)
        self.documents.undo()

    @property
    def reading(self) -> int:
        """The transaction's one clock reading."""
        if not self._reading:
            self._reading = self.clock.tick(self.sources.now_ms())
        return self._reading

    def now(self) -> dt.datetime:
        """Return the wall time, corrected to the server's, in UTC."""
        milliseconds = self.sources.now_ms() + self.clock.offset_ms
        return dt.datetime.fromtimestamp(milliseconds / 1000, tz=dt.UTC)

    # -- Local changes

    def insert(self, table: Table, records: Sequence[R]) -> list[R]:
        """Write new records and return them as stored.

        Raises:
            ValidationError: a value does not fit; nothing was written.
            DuplicateRecord: a record of that id exists already (deleted ones too); nothing was written.
        """
        name, now, reading = table.name, self.now(), self.reading
        now_ms = self.sources.now_ms()
        made: list[tuple[str, bytes, dict[str, Any], int]] = []
        chosen: set[str] = set()
        for record in records:
            is_chosen = bool(record.id)
            if is_chosen:
                check_record_id(table.schema.record.__name__, record.id)
                if record.id in chosen or self.documents.find(name, record.id) is not None:
                    raise DuplicateRecord(name, record.id)
                chosen.add(record.id)
            new_id = record.id or record_id(now_ms, self.sources.random(10))
            update, values, contents = create(
                table.schema,
                record,
                record_id=new_id,
                client=self.client,
                reading=reading,
                now=now,
                is_chosen=is_chosen,
                seal=self.sealer(table, new_id),
            )
            made.append((new_id, update, values, contents.digest(name, new_id)))
        docs = self.log.add_documents(
            self.connection, [(name, new_id, digest, True) for new_id, _, _, digest in made]
        )
        self._record_local(
            [(doc, name, new_id, update) for doc, (new_id, update, _, _) in zip(docs, made, strict=True)]
        )
        self.committed.changes += insert_rows(
            self.connection, table, [(doc, values) for doc, (_, _, values, _) in zip(docs, made, strict=True)]
        )
        self._add_digests(sum(digest for *_, digest in made), records=len(made))
        return [
            type(record)(**table.opened(values))
            for record, (_, _, values, _) in zip(records, made, strict=True)
        ]

    def edit(
        self,
        table: Table,
        record: str,
        plan: Callable[[Contents], list[Operation]],
        *,
        is_deleted_too: bool = False,
    ) -> tuple[int, Contents]:
        """Change a record: ``plan`` says, from its contents, which operations; return its document number and contents.

        Raises:
            RecordNotFound: there is no such record, or it is deleted (unless that may be).
            ValidationError: from ``plan``; nothing was written.
        """
        doc = table.find(self.connection, record)
        if doc is None and is_deleted_too:
            doc = self.documents.find(table.name, record)
        if doc is None:
            raise RecordNotFound(table.name, record)
        return doc, self.edit_document(table, doc, record, plan)

    def delete(self, table: Table, record: str) -> None:
        """Set a record's tombstone. Raises `RecordNotFound`."""
        self.edit(table, record, lambda _: [SetRegister(DELETED, _TRUE)])

    def restore(self, table: Table, record: str) -> None:
        """Lift a record's tombstone; a record that is not deleted stays as it is. Raises `RecordNotFound`."""
        if table.find(self.connection, record) is not None:
            return
        doc = self.documents.find(table.name, record)
        if doc is None or not self.documents.get(doc).contents.is_deleted:
            raise RecordNotFound(table.name, record)
        self.edit_document(table, doc, record, lambda _: [SetRegister(DELETED, _FALSE)])

    def sealer(self, table: Table, record: str) -> Seal | None:
        """Return what seals the values of a record; None if it has no sealed fields."""
        return table.sealer(record, self.sources.random)

    def edit_document(
        self, table: Table, doc: int, record: str, plan: Callable[[Contents], list[Operation]]
    ) -> Contents:
        """As `edit`, of a document by its number, also where the record has no row. Return its contents."""
        tip = self.documents.tip(doc)
        if tip is not None:
            try:
                return self._edit_held(table, doc, record, plan, tip)
            except ItemsUnread:  # before anything was changed
                pass
        return self._edit_held(table, doc, record, plan, self.documents.use(doc))

    def _edit_held(
        self,
        table: Table,
        doc: int,
        record: str,
        plan: Callable[[Contents], list[Operation]],
        document: Document | Tip,
    ) -> Contents:
        planned = plan(document.contents)
        if not planned:
            return document.contents
        if not any(
            isinstance(operation, SetRegister) and operation.path == "updatedAt" for operation in planned
        ):
            planned = [*planned, SetRegister("updatedAt", encode_value(self.now()))]
        lengths = list_lengths(table, document.contents)
        if isinstance(document, Tip):
            update, checked = document.edit(planned, client=self.client, reading=self.reading)
        else:
            update, checked = document.edit(planned, reading=self.reading)
        self._record_local([(doc, table.name, record, update)])
        self.document_changed(doc, document, checked, lengths)
        return document.contents

    def rehome(self, taken: int | None = None) -> None:
        """Give an incarnation (None: this one), whose client id another has taken, new ones, and so to what
        it has pending.

        Only that one: of another the server may hold what it never acknowledged, which would then be written twice. One
        of which it has acknowledged anything is not taken by another: what is pending under it stays.
        """
        connection, taken = self.connection, taken or self.incarnation
        new, new_incarnation = client_id(self.sources.random(7)), incarnation(self.sources.random(8))
        first, old = connection.execute(
            "SELECT min(n), client FROM pjais_outbox WHERE incarnation = ?", (taken,)
        ).fetchone()
        if first == 1:
            docs = connection.execute(
                "SELECT DISTINCT doc FROM pjais_outbox JOIN pjais_log USING (position) WHERE incarnation = ?",
                (taken,),
            ).fetchall()
            for (doc,) in docs:
                self.log.rename_client(connection, doc, old, new)
            self.outbox.move(connection, taken, new_incarnation, new)
        elif taken == self.incarnation:
            self.outbox.next_n = 1
        if taken == self.incarnation:
            self._become(new_incarnation, new)
        self.documents.drop_all()
        self._is_all_new = True

    def _become(self, new_incarnation: int, client: int) -> None:
        self.incarnation = self.outbox.incarnation = new_incarnation
        self.client = self.outbox.client = self.documents.client = client

    def _record_local(self, updates: Sequence[tuple[int, str, str, bytes]]) -> None:
        client = self.client
        first = self.log.append(self.connection, [(doc, client, update) for doc, _, _, update in updates])
        self.outbox.add(self.connection, first, [(name, record) for _, name, record, _ in updates])

    # -- Documents and what is made from them

    def document_changed(
        self, doc: int, document: Document | Tip, checked: CheckedUpdate | None, lengths: Mapping[str, int]
    ) -> None:
        """Bring digest and row up to date with a document that took one update (None: another whole document).

        ``lengths`` are those of its lists before. Its log is compacted when the tail has outgrown the snapshot.
        """
        connection, contents, row = self.connection, document.contents, self.log.row(self.connection, doc)
        table, record, has_row = self.tables.get(row.collection), row.record, row.has_row
        digest = contents.digest(row.collection, record)
        if table is not None:
            change: Change | None
            if checked is None:
                has_row, change = write_whole_row(connection, table, doc, record, contents, had_row=has_row)
            else:
                try:
                    has_row, change = write_row(
                        connection, table, doc, record, contents, checked, lengths, had_row=has_row
                    )
                except ItemsUnread:  # its row must be made anew
                    self.document_changed(doc, self.documents.use(doc), None, lengths)
                    return
            if change is not None:
                self.committed.changes.append(change)
        self.log.set_row(connection, doc, digest, has_row=has_row)
        self._add_digests(digest - row.digest)
        self.documents.changed(self.log, doc, document)
        self._compact(doc, document)

    def insert_received(
        self, table: Table | None, collection: str, received: Sequence[tuple[str, bytes, Creation]]
    ) -> list[int]:
        """Write records that other devices created, each one update read without pycrdt; return their numbers."""
        made: list[tuple[str, bytes, int, dict[str, Any] | None, int]] = []
        for record, update, creation in received:
            contents = Contents.from_creation(creation)
            values = None if table is None else readable(self.connection, table, record, contents)
            made.append((record, update, creation.client, values, contents.digest(collection, record)))
            self.clock.observe(contents.reading_max(), self.sources.now_ms())
        docs = self.log.add_documents(
            self.connection,
            [(collection, record, digest, values is not None) for record, _, _, values, digest in made],
        )
        self.log.append(
            self.connection,
            [(doc, client, update) for doc, (_, update, client, _, _) in zip(docs, made, strict=True)],
        )
        self._add_digests(sum(digest for *_, digest in made), records=len(made))
        rows = [(doc, values) for doc, (*_, values, _) in zip(docs, made, strict=True) if values is not None]
        if table is not None and rows:
            self.committed.changes += insert_rows(self.connection, table, rows)
        return docs

    def add_document(self, collection: str, record: str, document: Document) -> int:
        """Write a document that has no digest and no row yet, and return its number; `document_changed` follows."""
        (doc,) = self.log.add_documents(self.connection, [(collection, record, 0, False)])
        self.state.records += 1
        self.documents.keep(doc, document)
        return doc

    def write_snapshot(self, doc: int, document: Document, snapshot: bytes) -> None:
        """Let a snapshot stand for all that the log has of a document."""
        self.log.write_snapshot(self.connection, doc, snapshot)
        document.compacted(len(snapshot))
        self.documents.write_tip(self.log, doc, document)

    def _add_digests(self, difference: int, *, records: int = 0) -> None:
        self.state.digest = add_digests(self.state.digest, difference)
        self.state.records += records

    def _compact(self, doc: int, document: Document | Tip) -> None:
        """Write a snapshot when the tail outgrew it: what was read to make it is at most what was written since."""
        if document.tail_bytes > max(TAIL_BYTES_MIN, document.snapshot_bytes):
            if isinstance(document, Tip):
                document = self.documents.use(doc)
            self.write_snapshot(doc, document, document.snapshot())
