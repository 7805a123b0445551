"""Search by text: what a person typed, and the records that it fits, best first.

::

    for hit in await notes.search("green tea"):
        print(hit.score, hit.record.title, hit.snippet)

Every word must be in one record (or in one item of a list); where no record has them all, any of them will do. The last
word is also found as the beginning of a longer one, ``"words in quotes"`` stand side by side in that order; nothing
else that is typed is an operator, and nothing is an error. Case, accents and English endings do not count. Results are
ranked by bm25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009), a field weighing twice as much
as the next one in ``searchable``. An empty text finds nothing.

A `Search` does nothing until it is awaited or watched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from client_sdk.database import Connection
from client_sdk.errors import NotAvailable, QueryError
from client_sdk.plan import Plan
from client_sdk.source import Source, Subscription
from client_sdk.text_index import ITEM_BITS, TextIndex, TextTable
from client_sdk.typed import Snippets, Typed
from client_sdk.views import Rerun
from crdt.schema import Record

__all__ = ["MARKS", "Asked", "Hit", "Merged", "Mode", "Scope", "Search"]

R = TypeVar("R", bound=Record)

Mode: TypeAlias = Literal["hybrid", "text", "meaning"]
Scope: TypeAlias = Literal["device", "space"]

#: What stands around a word that was found, in a snippet.
MARKS: Final = ("**", "**")

# What reciprocal rank fusion adds to a rank (Cormack, Clarke and Büttcher, SIGIR 2009).
_RANK_OFFSET: Final = 60
_LOOKUP_MAX = 500  # rows in one statement: its plan is cached, and SQLite's limit of parameters is far

Found: TypeAlias = tuple[
    float, int, int, int | None, TextTable
]  # rank (lower is better), table, doc, position


class Hit(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """A record that was found; ``score`` is higher for a better one, and compares within one search.

    ``snippet``: a stretch of the text that was found, with marks around the words. Where an item of a list was found,
    ``field`` is the list's name, ``position`` the item's place from 0, ``item`` the item, and ``before`` and ``after``
    those beside it, as many as were asked for.
    """

    record: R
    score: float
    snippet: str
    found_by: frozenset[str]
    field: str | None = None
    item: Any = None
    position: int | None = None
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()

    @property
    def message(self) -> Any:
        """The item that was found, None if it was a field of the record itself."""
        return self.item

    @property
    def around(self) -> tuple[Any, ...]:
        """The items just before and after it, in order."""
        return (*self.before, *self.after)


class Asked(ABC, Generic[R]):
    """What can be awaited for its hits now, or watched."""

    def __init__(self, source: Source, tables: frozenset[str]) -> None:
        self.source = source
        #: The collections whose changes matter.
        self.tables = tables

    def __await__(self) -> Generator[Any, None, list[Hit[R]]]:
        """Return the hits, best first."""
        return self.source.read(self.run).__await__()

    def watch(self) -> AsyncGenerator[list[Hit[R]], None]:
        """Yield the hits, now and each time that they change."""
        return self.source.watch(Rerun(self.tables, self.run))

    def subscribe(self, callback: Callable[[list[Hit[R]]], Any]) -> Subscription:
        """Call back with the hits, now and each time that they change, until the subscription is closed."""
        return self.source.subscribe(Rerun(self.tables, self.run), callback)

    def run(self, connection: Connection) -> list[Hit[R]]:
        """Search on a connection: for all words, and where nothing has them all, for any."""
        return self.hits(connection, is_all=True) or self.hits(connection, is_all=False)

    @abstractmethod
    def hits(self, connection: Connection, *, is_all: bool) -> list[Hit[R]]:
        """Return what has all words, or any."""


class Search(Asked[R]):
    """A search of a collection. Its arguments are checked when it is made."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        text: str,
        *,
        limit: int = 50,
        mode: Mode = "hybrid",
        scope: Scope = "device",
        marks: tuple[str, str] = MARKS,
        around: int = 0,
    ) -> None:
        name = plan.table.name
        if plan.table.text is None:
            raise QueryError(f"nothing of {name} is searchable: declare it with searchable=[...]")
        if plan.order or plan.after is not None or plan.limit is not None or plan.offset:
            raise QueryError(
                "a search has its own order and limit: search(text, limit=...) of a plain where()"
            )
        if not isinstance(text, str):
            raise QueryError(f"search takes a text, not {text!r:.60}")
        for what, count in (("limit", limit), ("around", around)):
            if type(count) is not int or count < 0:
                raise QueryError(f"{what} takes a whole number from 0 on, not {count!r:.60}")
        if mode not in ("hybrid", "text", "meaning") or scope not in ("device", "space"):
            raise QueryError(
                'mode is "hybrid", "text" or "meaning", and scope "device" or "space",'
                f" not {mode!r:.60} and {scope!r:.60}"
            )
        if mode == "meaning":
            raise NotAvailable('search(mode="meaning")', 'mode="text" searches by words')
        if scope == "space":
            raise NotAvailable('search(scope="space")', "what is on this device is searched without it")
        super().__init__(source, frozenset({name}))
        self._plan = plan
        self._index: TextIndex = plan.table.text
        self._typed = Typed.of(text)
        self._limit = limit
        self._snippets = Snippets(self._typed, marks)
        self._around = around

    def hits(self, connection: Connection, *, is_all: bool) -> list[Hit[R]]:
        """Return what has all words, or any."""
        if not self._typed.parts or not self._limit:
            return []
        found = self._find(connection, self._typed.all if is_all else self._typed.any)
        records = self._records(connection, sorted({one[2] for one in found}))
        return [self._hit(connection, one, records[one[2]]) for one in found]

    def _find(self, connection: Connection, expression: str) -> list[Found]:
        where, parameters = self._plan.where()
        rows = self._plan.table.name
        found: list[Found] = []
        for number, table in enumerate(self._index.tables):
            doc = f'"{table.name}".rowid' + (f" >> {ITEM_BITS}" if table.list_field else "")
            # CROSS JOIN: words first, in the order of their rank, and then filtered until there are enough.
            sql = (
                f'SELECT "{table.name}".rank, "{table.name}".rowid FROM "{table.name}"'
                f' CROSS JOIN "{rows}" ON "{rows}".doc = {doc} WHERE "{table.name}" MATCH ?'
                f'{f" AND {where}" if where else ""} ORDER BY "{table.name}".rank LIMIT ?'
            )
            for rank, rowid in connection.execute(sql, (expression, *parameters, self._limit)):
                if table.list_field:
                    place = rowid & ((1 << ITEM_BITS) - 1)
                    found.append((rank, number, rowid >> ITEM_BITS, place, table))
                else:
                    found.append((rank, number, rowid, None, table))
        found.sort(key=lambda one: (one[0], one[1], one[2], one[3] or 0))
        return found[: self._limit]

    def _records(self, connection: Connection, docs: Sequence[int]) -> dict[int, R]:
        table = self._plan.table
        records: dict[int, R] = {}
        for start in range(0, len(docs), _LOOKUP_MAX):
            some = docs[start : start + _LOOKUP_MAX]
            places = ", ".join("?" * len(some))
            rows = connection.execute(f"{table.select} WHERE doc IN ({places})", some).fetchall()
            records |= zip((row[0] for row in rows), self._plan.records(connection, rows), strict=True)
        return records

    def _hit(self, connection: Connection, found: Found, record: R) -> Hit[R]:
        rank, _, doc, position, table = found
        if table.list_field is None or position is None:
            return Hit(
                record=record,
                score=-rank,
                snippet=self._snippets.of(table.held(record)),
                found_by=frozenset({"text"}),
            )
        first = max(0, position - self._around)
        # Read here, and not from the record: a long list is not loaded for one of its items.
        child = self._plan.table.lists[table.list_field]
        items = child.page(connection, doc, first, position + self._around)
        place = position - first
        return Hit(
            record=record,
            score=-rank,
            snippet=self._snippets.of(table.held(items[place])),
            found_by=frozenset({"text"}),
            field=table.list_field,
            item=items[place],
            position=position,
            before=tuple(items[:place]),
            after=tuple(items[place + 1 :]),
        )


class Merged(Asked[Any]):
    """Several collections searched as one, merged by rank, since their scores do not compare."""

    def __init__(self, searches: Sequence[Search[Any]], *, limit: int) -> None:
        super().__init__(searches[0].source, frozenset().union(*(one.tables for one in searches)))
        self._searches = searches
        self._limit = limit

    def hits(self, connection: Connection, *, is_all: bool) -> list[Hit[Any]]:
        """Return what has all words, or any."""
        ranked = [
            msgspec.structs.replace(hit, score=1 / (_RANK_OFFSET + rank))
            for search in self._searches
            for rank, hit in enumerate(search.hits(connection, is_all=is_all), 1)
        ]
        return sorted(ranked, key=lambda hit: -hit.score)[: self._limit]
