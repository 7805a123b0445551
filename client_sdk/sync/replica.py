"""The device as the runner sees it: the remote door of the corridor, and the outbox.

What the server sends goes through the same `client_sdk.commit` as what the application writes: log, row,
digest and cursor in one transaction on the database thread, where decoding a page costs the event loop
nothing. Bytes from the server are checked like anyone's: what is refused goes to quarantine with its reason,
and the rest of the page goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from client_sdk.commit import Committed, Corridor
from client_sdk.database import Connection
from client_sdk.materialize import list_lengths
from client_sdk.outbox import Outbox, PendingBatch, quarantine
from client_sdk.sync.events import OutboxPlace
from client_sdk.sync.status import SyncCounts
from client_sdk.writer import Writer
from crdt import wire
from crdt.document import Document
from crdt.errors import UpdateRefused
from crdt.lanes import Creation, read_creation
from crdt.limits import COLLECTION_NAME_BYTES_MAX, RECORD_ID_BYTES_MAX

__all__ = ["Replica", "apply_documents", "apply_page"]

_Received = tuple[str, bytes, Creation]

# Entries of a page that is a person's typing rather than a catching-up: about 0.2 ms of work.
_BRIEF_ENTRIES_MAX = 4


class Replica:
    """What the runner needs of the device (`client_sdk.sync.runner.Replica`)."""

    def __init__(self, writer: Writer) -> None:
        self.counts = SyncCounts()
        self._writer = writer
        self._pending = writer.corridor.outbox.pending
        self._positions: dict[OutboxPlace, int] = {}
        writer.listeners.append(self._committed)

    @property
    def incarnation(self) -> int:
        """This opening of the file."""
        return self._writer.corridor.incarnation

    @property
    def client(self) -> int:
        """The client id that this opening writes under."""
        return self._writer.corridor.client

    async def pending_count(self) -> int:
        """Return how many durable updates the server has not acknowledged."""
        if not self._writer.database.is_shared:
            return self._pending
        # Another instance may have written since a commit was last heard of, and what is read next would hold that.
        return await self._writer.database.read(
            lambda connection: int(connection.execute("SELECT count(*) FROM pjais_outbox").fetchone()[0]),
            brief=True,
        )

    async def pending(
        self, after: OutboxPlace | None, *, edits_max: int, bytes_max: int
    ) -> PendingBatch | None:
        """Return the next pending updates after a place, all of one incarnation and consecutive."""
        position = self._positions.get(after, 0) if after is not None else 0
        batch = await self._writer.database.read(
            lambda connection: Outbox.batch(
                connection, after_position=position, edits_max=edits_max, bytes_max=bytes_max
            ),
            brief=True,
        )
        if after is None:
            self._positions.clear()
        if batch is not None:
            place = OutboxPlace(batch.incarnation, batch.first + len(batch.edits) - 1)
            self._positions[place] = batch.last_position
        return batch

    async def acknowledge(self, incarnation: int, through: int, refusals: list[wire.Refusal]) -> None:
        """Drop what the server has."""

        def work(corridor: Corridor) -> int:
            pending = corridor.outbox.pending
            corridor.outbox.acknowledge(corridor.connection, incarnation, through, refusals)
            return pending - corridor.outbox.pending

        dropped = await self._writer.run(work, brief=True, is_remote=True)
        if dropped:
            self.counts.pushes += 1
            self.counts.pushed += dropped
            self.counts.refused += len(refusals)

    async def apply_page(self, page: wire.Page) -> None:
        """Make a page of the log true here, and move the cursor.

        A page without entries (this device's own writes) is not worth a transaction: its cursor goes along with the
        next one. Lost, it only means reading that nothing again.
        """
        if not page.entries:
            self._writer.corridor.read_through = page.through
            return
        is_brief = len(page.entries) <= _BRIEF_ENTRIES_MAX
        await self._writer.run(lambda corridor: apply_page(corridor, page), brief=is_brief, is_remote=True)
        self._pulled(len(page.entries))

    async def apply_documents(self, documents: wire.Documents) -> None:
        """Make a page of snapshots true here, and move the cursor."""
        await self._writer.run(lambda corridor: apply_documents(corridor, documents), is_remote=True)
        self._pulled(len(documents.states))

    async def cursor(self) -> tuple[str, int]:
        """Return the generation and how far this device has read it."""

        def read(connection: Connection) -> tuple[str, int]:
            row = connection.execute("SELECT generation, cursor FROM pjais_state").fetchone()
            return str(row[0]), max(int(row[1]), self._writer.corridor.read_through)

        return await self._writer.database.read(read, brief=True)

    async def set_generation(self, generation: str) -> None:
        """Keep which history is read."""

        def work(corridor: Corridor) -> None:
            corridor.state.generation = generation

        await self._writer.run(work, is_remote=True)

    async def digest(self) -> tuple[bytes, int]:
        """Return the digest of the records (16 bytes) and how many there are, deleted ones too."""

        def read(connection: Connection) -> tuple[bytes, int]:
            row = connection.execute("SELECT digest, records FROM pjais_state").fetchone()
            return bytes(row[0]), int(row[1])

        return await self._writer.database.read(read, brief=True)

    def observe_server_time(self, offset_ms: int) -> None:
        """Correct the clock to the server's."""
        self._writer.corridor.clock.offset_ms = offset_ms

    async def rehome(self, taken: int | None = None) -> None:
        """Move what an incarnation (None: this one) has pending to a new incarnation and client id."""
        await self._writer.run(lambda corridor: corridor.rehome(taken), is_remote=True)
        self._positions.clear()

    def _pulled(self, count: int) -> None:
        self.counts.pulls += 1
        self.counts.pulled += count

    def _committed(self, committed: Committed) -> None:
        self._pending = committed.pending


def apply_page(corridor: Corridor, page: wire.Page) -> None:
    """Take the updates of a page, and move the cursor to its end. What is here already is skipped."""
    if page.through <= corridor.state.cursor:
        return
    known = _known(corridor, [(entry.collection, entry.record) for entry in page.entries])
    fresh: dict[tuple[str, str], _Received] = {}
    for entry in page.entries:
        key = (entry.collection, entry.record)
        if not _is_named_well(corridor, *key, entry.update):
            continue
        if key not in known:
            if key in fresh:
                known |= _insert(corridor, fresh)
            else:
                try:
                    creation = read_creation(entry.update, client=entry.client)
                except UpdateRefused as error:
                    _quarantine(corridor, *key, error, entry.update)
                    continue
                if creation is not None:
                    fresh[key] = (entry.record, entry.update, creation)
                    continue
        _apply_update(corridor, *key, entry.client, entry.update, known)
    _insert(corridor, fresh)
    corridor.state.cursor = page.through


def apply_documents(corridor: Corridor, documents: wire.Documents) -> None:
    """Take whole documents beside what is here, and move the cursor (a fetched document moves none)."""
    if documents.through and documents.through <= corridor.state.cursor:
        return
    known = _known(corridor, [(state.collection, state.record) for state in documents.states])
    fresh: dict[tuple[str, str], _Received] = {}
    for state in documents.states:
        key = (state.collection, state.record)
        if not _is_named_well(corridor, *key, state.snapshot):
            continue
        try:
            if key in known or key in fresh:
                if key in fresh:
                    known |= _insert(corridor, fresh)
                _merge_snapshot(corridor, known[key], state.snapshot)
                continue
            creation = read_creation(state.snapshot, client=None) if _is_single(state.snapshot) else None
            if creation is not None:
                fresh[key] = (state.record, state.snapshot, creation)
                continue
            document = Document(client=corridor.client)
            document.merge_snapshot(state.snapshot)
            _took_snapshot(corridor, corridor.add_document(*key, document), document, state.snapshot)
        except UpdateRefused as error:
            _quarantine(corridor, *key, error, state.snapshot)
    _insert(corridor, fresh)
    if documents.through:
        corridor.state.cursor = documents.through


def _apply_update(
    corridor: Corridor,
    collection: str,
    record: str,
    client: int,
    update: bytes,
    known: dict[tuple[str, str], int],
) -> None:
    key = (collection, record)
    doc = known.get(key)
    if doc is not None and _apply_at_tip(corridor, collection, doc, client, update):
        return
    document = Document(client=corridor.client) if doc is None else corridor.documents.use(doc)
    lengths = list_lengths(corridor.tables.get(collection), document.contents)
    try:
        checked = document.apply(update, client=client)
    except UpdateRefused as error:
        if error.code != "repeat":
            _quarantine(corridor, collection, record, error, update)
        if error.code == "panic" and doc is not None:
            corridor.documents.drop(doc)
        return
    if doc is None:
        doc = known[key] = corridor.add_document(collection, record, document)
    corridor.log.append(corridor.connection, [(doc, client, update)])
    corridor.document_changed(doc, document, checked, lengths)
    corridor.clock.observe(document.contents.reading_max(), corridor.sources.now_ms())


def _apply_at_tip(corridor: Corridor, collection: str, doc: int, client: int, update: bytes) -> bool:
    """Take an update that only goes on at the end of a long document which is not in memory; return whether it was."""
    tip = corridor.documents.tip(doc)
    if tip is None:
        return False
    lengths = list_lengths(corridor.tables.get(collection), tip.contents)
    try:
        checked = tip.take(update, client=client)
    except UpdateRefused:  # the document says why
        return False
    if checked is None:
        return False
    corridor.log.append(corridor.connection, [(doc, client, update)])
    corridor.document_changed(doc, tip, checked, lengths)
    corridor.clock.observe(tip.contents.reading_max(), corridor.sources.now_ms())
    return True


def _merge_snapshot(corridor: Corridor, doc: int, snapshot: bytes) -> None:
    document = corridor.documents.use(doc)
    if _is_single(snapshot):
        creation = read_creation(snapshot, client=None)
        if creation is not None and document.index.next_clock(creation.client) >= creation.end:
            return  # a creation that is here already, whatever came after it
    try:
        document.merge_snapshot(snapshot)
    except UpdateRefused:
        corridor.documents.drop(doc)
        raise
    _took_snapshot(corridor, doc, document, document.snapshot())


def _took_snapshot(corridor: Corridor, doc: int, document: Document, snapshot: bytes) -> None:
    corridor.write_snapshot(doc, document, snapshot)
    corridor.document_changed(doc, document, None, {})
    corridor.clock.observe(document.contents.reading_max(), corridor.sources.now_ms())


def _insert(corridor: Corridor, fresh: dict[tuple[str, str], _Received]) -> dict[tuple[str, str], int]:
    """Write the new records gathered so far, and forget them; return their document numbers."""
    made: dict[tuple[str, str], int] = {}
    for collection in dict.fromkeys(key[0] for key in fresh):
        received = [one for key, one in fresh.items() if key[0] == collection]
        docs = corridor.insert_received(corridor.tables.get(collection), collection, received)
        made |= {(collection, one[0]): doc for one, doc in zip(received, docs, strict=True)}
    fresh.clear()
    return made


def _known(corridor: Corridor, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return the document numbers of those records that are here."""
    found: dict[tuple[str, str], int] = {}
    for collection in {key[0] for key in keys}:
        records = list(dict.fromkeys(record for name, record in keys if name == collection))
        for record, doc in corridor.documents.find_many(collection, records):
            found[collection, record] = doc
    return found


def _is_single(snapshot: bytes) -> bool:
    return snapshot[:1] == b"\x01"


def _is_named_well(corridor: Corridor, collection: str, record: str, update: bytes) -> bool:
    """Whether names from the server can be names; those that cannot go to quarantine."""
    if 0 < len(collection) <= COLLECTION_NAME_BYTES_MAX and 0 < len(record) <= RECORD_ID_BYTES_MAX:
        return True
    error = UpdateRefused(
        "name", f"{len(collection)} and {len(record)} characters are no collection and no record"
    )
    _quarantine(corridor, collection[:COLLECTION_NAME_BYTES_MAX], record[:RECORD_ID_BYTES_MAX], error, update)
    return False


def _quarantine(
    corridor: Corridor, collection: str, record: str, error: UpdateRefused, update: bytes
) -> None:
    quarantine(corridor.connection, collection, record, error.code, error.detail, "pull", update)
