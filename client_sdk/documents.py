"""Documents in use: found by record, read from the file once, held in memory while they are edited.

They belong to the writer's thread. What a transaction touches is let go if it does not commit, and read anew from the
file, which knows nothing of it.

A long document that is not in memory is edited at its tip (`crdt.tip`), which is written beside it now and then; the
few updates since are read with it. A document is held, or its tip is, never both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from client_sdk.database import Connection
from client_sdk.log import Log
from client_sdk.rows import Table
from crdt.document import Document
from crdt.tip import Tip

__all__ = ["Documents"]

_LOOKUP_MAX = 500  # ids in one statement: its plan is cached, and SQLite's limit of parameters is far
_TIP_ITEMS_MIN = 500  # items of a list, below which a document is read in a few milliseconds
_TIP_UPDATES_MAX = (
    64  # updates until a tip is written again, and their bytes: what an opening reads beside it
)
_TIP_LACKS_BYTES_MAX = 32 * 1024
_TIPS_MAX = 256  # held in memory, each up to 64 KB
_ADDED_BETWEEN_LOOKS = 64  # documents after which their bytes are added up


class Documents:
    """The documents in memory, at most about ``bytes_max`` bytes of them."""

    def __init__(
        self, connection: Connection, tables: Mapping[str, Table], *, client: int, bytes_max: int
    ) -> None:
        self.connection = connection
        self.tables = tables
        self.client = client
        self._bytes_max = bytes_max
        self._held: OrderedDict[int, Document] = OrderedDict()
        self._touched: set[int] = set()
        self._tips: OrderedDict[int, Tip] = OrderedDict()
        self._written: dict[
            int, tuple[int, int]
        ] = {}  # updates since a tip was written, and the tail's bytes then
        self._added = 0

    def begin(self) -> None:
        """A transaction begins."""
        self._touched.clear()

    @property
    def touched(self) -> list[int]:
        """The documents that the transaction read or changed."""
        return list(self._touched)

    def undo(self) -> None:
        """It did not commit: let go of what it touched."""
        for doc in self._touched:
            self.drop(doc)

    def find(self, collection: str, record: str) -> int | None:
        """Return the number of a record's document, deleted ones too; None if there is none."""
        table = self.tables.get(collection)
        doc = table.find(self.connection, record) if table else None
        return doc if doc is not None else Log.find_without_row(self.connection, collection, record)

    def find_many(self, collection: str, records: Sequence[str]) -> Iterable[tuple[str, int]]:
        """Yield (record, document number) of those that have a document, deleted ones too."""
        table = self.tables.get(collection)
        for start in range(0, len(records), _LOOKUP_MAX):
            some = records[start : start + _LOOKUP_MAX]
            places = ", ".join("?" * len(some))
            if table is not None:
                yield from self.connection.execute(
                    f'SELECT id, doc FROM "{table.name}" WHERE id IN ({places})', some
                ).fetchall()
            yield from self.connection.execute(
                "SELECT record, doc FROM pjais_documents"
                f" WHERE NOT has_row AND collection = ? AND record IN ({places})",
                (collection, *some),
            ).fetchall()

    def use(self, doc: int) -> Document:
        """Return a document that is about to change: if the transaction does not commit, it is read anew."""
        self._touched.add(doc)
        return self.get(doc)

    def get(self, doc: int) -> Document:
        """Return a document, from memory or from the file."""
        document = self._held.get(doc)
        if document is None:
            self._tips.pop(doc, None)
            stored = Log.read(self.connection, doc)
            document = Document.load(stored.snapshot, stored.tail, client=self.client)
            self.keep(doc, document)
        else:
            self._held.move_to_end(doc)
        return document

    def keep(self, doc: int, document: Document) -> None:
        """Hold a document that the transaction made or read, and let the least used go when they are too many."""
        self._touched.add(doc)
        self._held[doc] = document
        self._held.move_to_end(doc)
        self._added += 1
        if self._added % _ADDED_BETWEEN_LOOKS == 0:
            total = sum(held.bytes for held in self._held.values())
            while total > self._bytes_max and len(self._held) > 1:
                total -= self._held.popitem(last=False)[1].bytes

    def drop(self, doc: int) -> None:
        """Let a document go from memory."""
        self._held.pop(doc, None)
        self._tips.pop(doc, None)
        self._written.pop(doc, None)

    def drop_all(self) -> None:
        """Let every document go from memory."""
        self._held.clear()
        self._tips.clear()
        self._written.clear()

    # -- Tips

    def tip(self, doc: int) -> Tip | None:
        """Return the tip of a document that is about to change; None if it is in memory, or has no tip."""
        if doc in self._held:
            return None
        tip = self._tips.get(doc)
        if tip is None:
            stored = Log.read_tip(self.connection, doc)
            if stored is None:
                return None
            tip = Tip.from_bytes(stored.tip)
            tail_bytes = tip.tail_bytes
            if not all(tip.take(update, client=client) for client, update in stored.tail):
                return None
            self._tips[doc] = tip
            self._written[doc] = len(stored.tail), tail_bytes
            if len(self._tips) > _TIPS_MAX:
                self._tips.popitem(last=False)
        self._tips.move_to_end(doc)
        self._touched.add(doc)
        return tip

    def changed(self, log: Log, doc: int, document: Document | Tip) -> None:
        """Note that a document took an update: if it is long, its tip is written now and then."""
        updates, tail_bytes = self._written.get(doc, (_TIP_UPDATES_MAX, 0))
        if updates < _TIP_UPDATES_MAX and document.tail_bytes - tail_bytes <= _TIP_LACKS_BYTES_MAX:
            self._written[doc] = updates + 1, tail_bytes
        elif isinstance(document, Tip) or _is_long(document):
            self.write_tip(log, doc, document)

    def write_tip(self, log: Log, doc: int, document: Document | Tip) -> None:
        """Write a document's tip as of now."""
        tip: Tip | None
        if isinstance(document, Tip):
            tip = document
        elif _is_long(document):
            tip = Tip.of(
                document.index,
                document.contents,
                snapshot_bytes=document.snapshot_bytes,
                tail_bytes=document.tail_bytes,
            )
        else:
            tip = None
        log.write_tip(self.connection, doc, None if tip is None else tip.to_bytes())
        self._written[doc] = 0, document.tail_bytes


def _is_long(document: Document) -> bool:
    return any(len(items) >= _TIP_ITEMS_MIN for items in document.contents.lists.values())
