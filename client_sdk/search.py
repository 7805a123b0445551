"""Search: what a person typed, and the records that it fits by their words and by their meaning, best first.

::

    for hit in await notes.search("green tea"):
        print(hit.score, hit.record.title, hit.snippet)

**By text** (``mode="text"``): every word must be in one record (or in one item of a list); where no record has them
all, any of them will do. The last word is also found as the beginning of a longer one, ``"words in quotes"`` stand side
by side in that order; nothing else that is typed is an operator, and nothing is an error. Case, accents and English
endings do not count. Results are ranked by bm25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework",
2009), a field weighing twice as much as the next one in ``searchable``.

**By meaning** (``mode="meaning"``): the records, or items, whose vectors are nearest to that of the question.
**Hybrid**, the default, fuses both by the recipe of `client_sdk.ranking`, and is search by text where there is no
model. A score is then at most 1.3, and compares within one search. An item is read with those beside it.

**In the whole space** (``scope="space"``): the server is asked, which also knows what is not on this device, by the
device's own vector of the question. What is found and not here yet is brought. Where the server cannot be asked the
device is searched, and the hits' ``scope`` and ``fallback`` say so.

A `Search` does nothing until it is awaited or watched. An empty text finds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import msgspec

from client_sdk.database import Connection
from client_sdk.embedding.errors import EmbeddingProblem
from client_sdk.errors import QueryError, RecordNotFound
from client_sdk.hits import MARKS, SPACE, Asked, Hit, Hits, Mode, Scope
from client_sdk.matching import matched, matched_any
from client_sdk.meaning.errors import MeaningOff, VectorsStay
from client_sdk.meaning.meaning import Asking, live_name
from client_sdk.meaning.stored import hash_of, text_of
from client_sdk.plan import Plan
from client_sdk.source import Source
from client_sdk.text_index import ITEM_BITS, TextIndex, TextTable
from client_sdk.typed import Snippets, Typed, sendable
from crdt import requests
from crdt.limits import SEARCH_HITS_MAX, SEARCH_NAMES_MAX, SEARCH_TEXT_BYTES_MAX
from crdt.schema import Record

if TYPE_CHECKING:
    from client_sdk.hybrid import Placed
    from client_sdk.space import Located

__all__ = ["RANKED_MAX", "Merged", "Search"]

R = TypeVar("R", bound=Record)

_log = logging.getLogger(__name__)

#: How many records that have all words are ranked: the newest. Words that more have say little about which is meant,
#: and ranking 40,000 takes 30 ms where these take 7.
RANKED_MAX: Final = 5_000

# What reciprocal rank fusion adds to a rank (Cormack, Clarke and Büttcher, SIGIR 2009).
_RANK_OFFSET: Final = 60
_LOOKUP_MAX: Final = 500  # rows in one statement: its plan is cached, and SQLite's limit of parameters is far
_BY_TEXT: Final = frozenset({"text"})
_told: set[type[EmbeddingProblem]] = set()  # a program that searches at each key is warned once of each

Found: TypeAlias = tuple[float, int, int, int | None, TextTable]
"""Rank (lower is better), number of the text table, document, position in a list, text table."""


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
        if mode == "meaning" and source.meaning is None:
            raise MeaningOff
        if scope == "space" and limit > SEARCH_HITS_MAX:
            raise QueryError(f'limit is at most {SEARCH_HITS_MAX} with scope="space", not {limit}')
        tables = {name}
        if mode != "text":
            tables.add(live_name(name))
        if scope == "space":
            tables.add(SPACE)
        super().__init__(source, frozenset(tables), scope)
        self._plan = plan
        self._mode = mode
        self._asking: Asking | None = None
        self.is_brief = mode == "text" or source.meaning is None
        if mode != "text" and source.meaning is not None:
            self._asking = source.meaning.asking(plan.table, sendable(text))
        self._text = sendable(text)
        self._index: TextIndex = plan.table.text
        self._typed = Typed.of(text)
        self._limit = limit
        self._snippets = functools.partial(Snippets, marks=marks)
        self._around = around

    async def prepare(self) -> None:
        """Embed the question. Raises `EmbeddingProblem` where there is nothing else to search by."""
        if self._asking is None or not self._typed.parts or not self._limit:
            return
        try:
            await self._asking.prepare()
        except EmbeddingProblem as problem:
            if self._mode == "meaning":
                raise
            if problem.__class__ not in _told:
                _told.add(problem.__class__)
                _log.warning("searching by words only, since there is no model: %s", problem)

    @functools.cached_property
    def _all_shown(self) -> Snippets:
        return self._snippets(self._typed)

    @functools.cached_property
    def _telling_shown(self) -> Snippets:
        return self._snippets(self._typed.telling)

    @property
    def _shown(self) -> Snippets:
        """What shows where the words stand: with a model, which reads a question, those alone that say what about."""
        is_read = self._asking is not None and self._asking.vector is not None
        return self._telling_shown if is_read else self._all_shown

    def prepare_soon(self) -> None:
        """Embed the question in the background."""
        if self._asking is not None and self.source.meaning is not None and self._typed.parts:
            self.source.meaning.prepare_and_stir(self._asking)

    def hits(self, connection: Connection, *, is_all: bool) -> list[Hit[R]]:
        """Return what has all words, or any. Meaning asks once, with all."""
        if not self._typed.parts or not self._limit:
            return []
        if is_all and self._asking is not None and self._asking.question is not None:
            by_meaning = self._by_meaning(connection, self._asking)
            if by_meaning:
                return by_meaning
        if self._mode == "meaning":
            return []  # and hybrid goes on with the words as they were typed, those that ask among them
        found = self._find(connection, is_all=is_all)
        records = self._records(connection, sorted({one[2] for one in found}))
        hits: list[Hit[R]] = []
        for rank, _, doc, position, table in found:
            if doc in records:  # the index is a cache: what it alone knows is not there
                with contextlib.suppress(IndexError):
                    hits.append(self._hit(connection, table, doc, position, -rank, _BY_TEXT, records[doc]))
        return hits

    # -- In the whole space

    async def in_space(self) -> Hits[R]:
        """Return what the server finds. Raises `ServerProblem`, `EmbeddingProblem` or `VectorsStay`."""
        from client_sdk.space import located, said, unknown

        table = self._plan.table
        if not self._typed.parts or not self._limit:
            return Hits(scope="space")
        if self._mode != "text" and not table.schema.shares_vectors:
            raise VectorsStay(table.name)
        await self.prepare()
        conditions, is_all = said(self._plan)
        asked = requests.Search(
            *("", 0, "text", _cut(self._text)),
            collections=[table.name],
            conditions=conditions,
            limit=self._limit if is_all else SEARCH_HITS_MAX,
        )
        if self._asking is not None and self._asking.question is not None:
            assert self._asking.vector is not None
            assert self._asking.model is not None
            asked = msgspec.structs.replace(
                asked,
                mode=self._mode,
                text=_cut(self._asking.question.text),
                vector=self._asking.vector.astype("<f4").tobytes(),
                model=self._asking.model.label,
                names=sorted(self._asking.question.names)[:SEARCH_NAMES_MAX],
            )
        found = await self.source.space.search(asked)
        lacking = await self.source.read(lambda connection: unknown(connection, table, found))
        if lacking:
            await self.source.space.fetch(table.name, lacking)

        def look(connection: Connection) -> Hits[R]:
            missing = len(unknown(connection, table, found)) if lacking else 0
            hits = self._hits_located(connection, located(connection, self._plan, found))
            return Hits(hits, scope="space", missing=missing)

        return await self.source.read(look, brief=False)

    def _hits_located(self, connection: Connection, places: Sequence[Located]) -> list[Hit[R]]:
        records = self._records(connection, sorted({one.doc for one in places}))
        hits: list[Hit[R]] = []
        for one in places:
            found_by, score = frozenset(one.part.found_by), one.part.score
            with contextlib.suppress(IndexError):  # the list is shorter here
                hits.append(
                    self._hit(connection, one.table, one.doc, one.position, score, found_by, records[one.doc])
                )
        return hits[: self._limit]

    # -- By meaning

    async def nearest(self, record: str) -> list[Hit[R]]:
        """Return what is near a record, best first, by the vectors of records; see `Collection.similar`."""
        table, text, asking = self._plan.table, self._index.record, self._asking
        if text is None or asking is None:
            raise QueryError(f"only lists of {table.name} are searchable: search for what their items say")

        def look(connection: Connection) -> tuple[int, str]:
            doc = table.find(connection, record)
            if doc is None:
                raise RecordNotFound(table.name, record)
            ((_, _, held),) = table.searchable(connection, text, (doc,))
            return doc, text_of(text, held)

        doc, words = await self.source.read(look)
        await asking.prepare_near(doc, words)
        return await self.source.read(
            lambda connection: self._by_meaning(connection, asking, tables=(text,), without=(doc,)),
            brief=False,
        )

    def _by_meaning(
        self,
        connection: Connection,
        asking: Asking,
        *,
        tables: Sequence[TextTable] | None = None,
        without: Collection[int] = (),
    ) -> list[Hit[R]]:
        from client_sdk.hybrid import Fused, expressions
        from client_sdk.ranking import CANDIDATES

        where, parameters = self._plan.where()
        rows = f'"{self._plan.table.name}"'
        docs: list[int] | None = None
        if where:  # before anything is scored
            sql = f"SELECT {rows}.doc FROM {rows} WHERE {where}"
            docs = [row[0] for row in connection.execute(sql, parameters)]
            if not docs:
                return []
        question = asking.question if self._mode == "hybrid" else None
        words = [] if question is None else expressions(question, self._typed)
        most = max(CANDIDATES, self._limit)
        by_words = [
            (table, matched_any(connection, self._plan, table, words, limit=most, docs=docs))
            for table in (self._index.tables if tables is None else tables)
        ]
        fused = Fused(asking, by_words, docs, is_text=question is not None, top=self._limit, without=without)
        take = self._limit
        while True:
            placed = fused.best(take)
            hits = self._hits_at(connection, placed)
            if len(hits) >= self._limit or len(placed) < take:
                return hits[: self._limit]
            take *= 2  # some are gone since their vectors were made

    def _hits_at(self, connection: Connection, placed: Sequence[Placed]) -> list[Hit[R]]:
        """Return the hits at some places, without those whose text is another now, unless words found it."""
        records = self._records(connection, sorted({one.doc for one in placed}))
        hits: list[Hit[R]] = []
        for one in placed:
            record = records.get(one.doc)
            if record is None:
                continue
            try:
                hit = self._hit(connection, one.table, one.doc, one.position, one.score, one.found_by, record)
            except IndexError:  # the list is shorter now
                continue
            text = text_of(one.table, record if one.position is None else hit.item)
            if "meaning" in one.found_by and one.hash != hash_of(text):
                if "text" not in one.found_by:
                    continue
                hit = msgspec.structs.replace(hit, found_by=_BY_TEXT)
            hits.append(hit)
        return hits

    # -- By words

    def _find(self, connection: Connection, *, is_all: bool) -> list[Found]:
        plan, limit = self._plan, self._limit
        found: list[Found] = []
        for number, table in enumerate(self._index.tables):
            if is_all:
                rows = matched(connection, plan, table, self._typed.all, limit=limit, newest=RANKED_MAX)
            else:  # rare words must win, however old
                rows = matched_any(connection, plan, table, self._typed.each, limit=limit)
            for rank, rowid in rows:
                if table.list_field:
                    found.append((rank, number, rowid >> ITEM_BITS, rowid & (1 << ITEM_BITS) - 1, table))
                else:
                    found.append((rank, number, rowid, None, table))
        found.sort(key=lambda one: (one[0], one[1], -one[2], -(one[3] or 0)))
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

    def _hit(
        self,
        connection: Connection,
        table: TextTable,
        doc: int,
        position: int | None,
        score: float,
        found_by: frozenset[str],
        record: R,
    ) -> Hit[R]:
        if table.list_field is None or position is None:
            snippet = self._shown.of(table.held(record))
            return Hit(record=record, score=score, snippet=snippet, found_by=found_by)
        first = max(0, position - self._around)
        # Read here, and not from the record: a long list is not loaded for one of its items.
        child = self._plan.table.lists[table.list_field]
        items = child.page(connection, doc, first, position + self._around)
        place = position - first
        return Hit(
            record=record,
            score=score,
            snippet=self._shown.of(table.held(items[place])),
            found_by=found_by,
            field=table.list_field,
            item=items[place],
            position=position,
            before=tuple(items[:place]),
            after=tuple(items[place + 1 :]),
        )


class Merged(Asked[Any]):
    """Several collections searched as one, merged by rank, since their scores do not compare."""

    def __init__(self, searches: Sequence[Search[Any]], *, limit: int) -> None:
        first = searches[0]
        super().__init__(first.source, frozenset().union(*(one.tables for one in searches)), first.scope)
        self._searches = searches
        self._limit = limit

    async def prepare(self) -> None:
        """Embed the question. Raises `EmbeddingProblem`."""
        for search in self._searches:
            await search.prepare()

    def prepare_soon(self) -> None:
        """Embed the question in the background."""
        for search in self._searches:
            search.prepare_soon()

    async def in_space(self) -> Hits[Any]:
        """Return what the server finds. Raises as `Search.in_space`."""
        found = await asyncio.gather(*(search.in_space() for search in self._searches))
        return Hits(self._merged(found), scope="space", missing=sum(hits.missing for hits in found))

    def hits(self, connection: Connection, *, is_all: bool) -> list[Hit[Any]]:
        """Return what has all words, or any."""
        return self._merged([search.hits(connection, is_all=is_all) for search in self._searches])

    def _merged(self, lists: Sequence[Sequence[Hit[Any]]]) -> list[Hit[Any]]:
        ranked = [
            msgspec.structs.replace(hit, score=1 / (_RANK_OFFSET + rank))
            for hits in lists
            for rank, hit in enumerate(hits, 1)
        ]
        return sorted(ranked, key=lambda hit: -hit.score)[: self._limit]


def _cut(text: str) -> str:
    """Return as much of a text as the server takes."""
    return text.encode("utf-8", "replace")[:SEARCH_TEXT_BYTES_MAX].decode("utf-8", "ignore")
