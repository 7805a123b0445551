"""The background: searchable texts become vectors, in batches, behind the writes.

Whatever a commit changed is compared with the vectors that are there, by hash, and what lacks one is embedded, a few
texts at a time; between two batches the event loop, the writer and the embedder's thread are free. When a file is
opened every record is compared once, so what a crash left undone is done then. Vectors of what is gone are removed
before anything is embedded.

A write is never waited on, and never waits longer than for the transaction that holds some vectors, about 2 ms. The
work begins `GATHER_S` after there is some: commits in a row are taken together, and a program that only writes
something and ends never loads a model. What another instance on the file wrote is left to it for `LEFT_TO_OTHERS_S`.
What came from another device is left to that one while vectors are shared (`client_sdk.meaning.patience`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

from client_sdk.commit import Committed
from client_sdk.database import Database
from client_sdk.embedding.embedder import Embedder, Kind, Vectors
from client_sdk.embedding.errors import EmbedderFailed, EmbeddingProblem, VectorInvalid
from client_sdk.errors import ClientError, ClosedClient
from client_sdk.meaning import stored
from client_sdk.meaning.patience import LEFT_TO_DEVICES_S, Patience
from client_sdk.meaning.stored import Compared, Piece
from client_sdk.rows import Table

__all__ = ["GATHER_S", "LEFT_TO_OTHERS_S", "Background", "Informed", "embed"]

GATHER_S: Final = 0.1
"""Seconds from a commit until its texts are embedded: far below what a person waits for, and past what a command
takes that writes and ends."""
LEFT_TO_OTHERS_S: Final = 1.0
"""Seconds in which another instance embeds what it wrote, most likely; then whoever comes first does."""
_TEXTS_AT_ONCE: Final = 64  # 0.4 s of MiniLM: what a crash may lose
_DOCS_AT_ONCE: Final = 256  # compared in one read, 3 ms
_DOCS_WITH_LISTS_AT_ONCE: Final = 16
_LOOK_AGAIN_S: Final = 60.0  # after an embedder failed: an endpoint that was away may be back

_log = logging.getLogger(__name__)


class Informed(Protocol):
    """Who hears of it."""

    async def embedder(self) -> Embedder:
        """Return what embeds."""

    async def changed(self, collection: str, docs: Sequence[int]) -> None:
        """Some documents' vectors changed in the file."""

    async def finished(self, collection: str, *, is_foreign: bool) -> None:
        """Every text of a collection has been looked at, and embedded; ``is_foreign``: perhaps by another instance."""


class Background:
    """The work on one file. Its methods belong to the event loop; `run` is a task."""

    def __init__(
        self,
        database: Database,
        tables: Mapping[str, Table],
        informed: Informed,
        *,
        has_space: Callable[[], bool],
    ) -> None:
        self.problem: ClientError | None = None
        self._database = database
        self._tables = tables
        self._informed = informed
        self._has_space = has_space
        self._due: dict[str, dict[int, None]] = {name: {} for name in tables}
        self._scans: dict[str, int] = dict.fromkeys(tables, 0)  # the document up to which all was looked at
        self._left: dict[str, set[int]] = {name: set() for name in tables}  # to other instances, for a while
        self._left_whole: set[str] = set()
        self._foreign: dict[str, set[int]] = {name: set() for name in tables}  # of what is due
        self._foreign_scans: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._gone_through: set[str] = set()  # and some of it is left to other devices
        self._deleted: dict[str, set[int]] = {name: set() for name in tables}
        self._is_over = False
        self._refused: dict[tuple[str, str, int, int, bytes], None] = {}
        self._at_work = 0
        self._wake = asyncio.Event()
        self.patience = Patience(tables, ended=self._nobody_served, turned=self._wake.set)
        self._hurry = asyncio.Event()
        self._settled = asyncio.Event()
        self._is_told = False

    @property
    def waiting(self) -> int:
        """How many records are known to wait; those that no look has reached yet are not among them."""
        return sum(map(len, self._due.values())) + self.patience.count() + self._at_work

    def committed(self, committed: Committed) -> None:
        """Take note of what a commit changed."""
        is_any = False
        for change in committed.changes:
            table = self._tables.get(change.collection)
            if table is None:
                continue
            if change.kind == "updated" and change.fields.isdisjoint(table.schema.searchable):
                continue
            is_any = True
            if committed.is_foreign:
                self._left[change.collection].add(change.doc)
            elif committed.is_remote and self.patience.is_on and table.schema.shares_vectors:
                self.patience.leave(change.collection, [change.doc])
            else:
                self._due[change.collection][change.doc] = None
                if change.kind == "deleted":
                    self._deleted[change.collection].add(change.doc)
        if whole := committed.whole & self._tables.keys():
            is_any = True
            self._left_whole |= whole
        if not is_any:
            return
        if committed.is_foreign:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._left_to_others_s, self._take_up)
        else:
            self._settled.clear()
            self._wake.set()

    @property
    def _left_to_others_s(self) -> float:
        """Seconds that another instance gets; where it syncs, what it fetched it leaves to devices first."""
        return 2 * LEFT_TO_DEVICES_S if self._has_space() else LEFT_TO_OTHERS_S

    def _nobody_served(self, collection: str, docs: Collection[int]) -> None:
        """See to what other devices were given time for."""
        self._due[collection].update(dict.fromkeys(docs))

    def _take_up(self) -> None:
        """See to what was left to others."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for name, docs in self._left.items():
            self._due[name].update(dict.fromkeys(docs))
            self._foreign[name] |= docs
            docs.clear()
        self._scans.update(dict.fromkeys(self._left_whole, 0))
        self._foreign_scans |= self._left_whole
        self._left_whole.clear()
        self._settled.clear()
        self._wake.set()

    def look_again(self, collection: str) -> None:
        """Go through a collection once more: vectors are gone that were there."""
        self._scans[collection] = 0
        self._settled.clear()
        self._wake.set()

    async def settled(self) -> None:
        """Wait until nothing is left to do, or nothing can be done: then raise why."""
        self.problem = None
        for collection, _, doc, _, _ in self._refused:
            self._due[collection][doc] = None
        self._refused.clear()
        if not self.patience.is_on:  # nobody else will
            self.patience.end()
        self._take_up()
        self._hurry.set()
        if not self._is_over:
            await self._settled.wait()
        if self._is_over:
            raise ClosedClient
        if self.problem is not None:
            raise self.problem

    async def run(self) -> None:
        """Work, until it is cancelled or the file is closed."""
        try:
            await self._run()
        finally:
            self._is_over = True
            self._settled.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), GATHER_S)
            self._wake.clear()
            self._hurry.clear()
            is_failed = False
            try:
                while await self._step():
                    pass
            except ClosedClient:
                return
            except ClientError as problem:
                is_failed = True
                self._report(problem)
            is_waiting = self.patience.is_expecting or self.patience.count() > 0
            if is_failed or not (self._wake.is_set() or is_waiting):
                self._settled.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_AGAIN_S if is_failed else None)

    def _report(self, problem: ClientError) -> None:
        self.problem = problem
        if not self._is_told:
            self._is_told = True
            _log.warning("some texts have no vectors, and are found by their words only: %s", problem)

    async def _step(self) -> bool:
        """Do the next piece of work, what was just written first; return whether there was any."""
        await asyncio.sleep(0)
        for name, due in self._due.items():
            if due:
                docs = list(due)[: self._docs_at_once(name)]
                for doc in docs:
                    del due[doc]
                self._at_work = len(docs)
                try:
                    await self._embed(name, docs)
                    if foreign := self._foreign[name].intersection(docs):
                        await self._informed.changed(name, sorted(foreign))
                        self._foreign[name] -= foreign
                except BaseException:
                    due.update(dict.fromkeys(docs))
                    raise
                finally:
                    self._at_work = 0
                return True
        for name, after in self._scans.items():
            if self.patience.is_expecting or (name in self._gone_through and self.patience.count(name)):
                continue
            await self._scan(name, after)
            return True
        return False

    def _docs_at_once(self, name: str) -> int:
        text = self._tables[name].text
        return _DOCS_WITH_LISTS_AT_ONCE if text is not None and text.lists else _DOCS_AT_ONCE

    async def _scan(self, name: str, after: int) -> None:
        table, read = self._tables[name], self._database.read
        if after == 0:
            orphans = await read(lambda connection: stored.orphans(connection, table))
            self._due[name].update(dict.fromkeys(orphans))
        count = self._docs_at_once(name)
        docs = await read(lambda connection: stored.docs_after(connection, table, after, count))
        if docs:
            if self.patience.is_on and table.schema.shares_vectors:
                await self._await(name, docs)
            else:
                await self._embed(name, docs)
            if self._scans.get(name) == after:  # else it begins anew
                self._scans[name] = docs[-1]
        elif self.patience.count(name):
            self._gone_through.add(name)
        elif self._scans.get(name) == after:
            self._gone_through.discard(name)
            await self._informed.finished(name, is_foreign=name in self._foreign_scans)
            if self._scans.get(name) == after:
                del self._scans[name]
                self._foreign_scans.discard(name)

    async def _await(self, name: str, docs: Sequence[int]) -> None:
        """Leave what lacks vectors to other devices, for a while."""
        compared = await self._compared(name, docs)
        self.patience.leave(name, (one.doc for one in compared.lacking))

    async def _compared(self, name: str, docs: Sequence[int]) -> Compared:
        table, model = self._tables[name], (await self._informed.embedder()).model.id
        return await self._database.read(lambda connection: stored.compare(connection, table, model, docs))

    async def _embed(self, name: str, docs: Sequence[int]) -> None:
        embedder = await self._informed.embedder()
        model = embedder.model.id
        compared = await self._compared(name, docs)
        if compared.gone:
            await self._database.write(
                lambda connection: stored.write(connection, name, model, (), compared.gone)
            )
            await self._informed.changed(name, sorted({doc for _, doc, _ in compared.gone}))
        await self._share_again(name, model, docs)
        lacking = [one for one in compared.lacking if self._identity(name, one) not in self._refused]
        for start in range(0, len(lacking), _TEXTS_AT_ONCE):
            pieces = lacking[start : start + _TEXTS_AT_ONCE]
            made = await self._vectors(embedder, name, pieces)
            await self._database.write(
                lambda connection, made=made: stored.write(connection, name, model, made)  # type: ignore[misc]
            )
            await self._informed.changed(name, sorted({one.doc for one, _ in made}))

    async def _share_again(self, name: str, model: str, docs: Sequence[int]) -> None:
        """Of what was deleted and restored before anybody looked, the server has no vectors any more."""
        undone = sorted(self._deleted[name].intersection(docs))
        self._deleted[name].difference_update(docs)
        if undone:
            table = self._tables[name]
            await self._database.write(lambda connection: stored.unshare(connection, table, model, undone))
            await self._informed.changed(name, undone)

    async def _vectors(
        self, embedder: Embedder, name: str, pieces: Sequence[Piece]
    ) -> list[tuple[Piece, bytes]]:
        """Return what can be embedded; a text that makes no vector is left out, and the rest is not."""
        from client_sdk.embedding.vectors import quantised

        try:
            vectors = await embed(embedder, [one.text for one in pieces])
            return list(zip(pieces, quantised(vectors), strict=True))
        except VectorInvalid as problem:
            if len(pieces) == 1:
                self._refused[self._identity(name, pieces[0])] = None
                self._report(problem)
                return []
        made: list[tuple[Piece, bytes]] = []
        for one in pieces:
            made += await self._vectors(embedder, name, [one])
        return made

    @staticmethod
    def _identity(name: str, piece: Piece) -> tuple[str, str, int, int, bytes]:
        return name, piece.field, piece.doc, piece.position, piece.hash


async def embed(embedder: Embedder, texts: Sequence[str], kind: Kind = "passage") -> Vectors:
    """Return the vectors of texts, checked. Raises `EmbeddingProblem`, whatever the embedder raises."""
    from client_sdk.embedding.vectors import checked

    model = embedder.model
    try:
        vectors = await embedder.embed(texts, kind=kind)
    except EmbeddingProblem:
        raise
    except Exception as error:
        raise EmbedderFailed(model.name, f"{type(error).__name__}: {error}") from error
    return checked(vectors, count=len(texts), dimensions=model.dimensions)
