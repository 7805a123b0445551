"""The door to meaning: what is embedded and how far it is, and what a search must know before it reads.

A search is prepared on the event loop (`Asking.prepare`): the vectors of its collection are loaded when it is the first
one, the question is taken apart and embedded. Then it runs on a reader, and can be run again whenever something
changed.

**A change of model.** As long as not every text of a collection has a vector by the new model, the old vectors are
searched, if the old model is at hand to embed the question; what is new is found by its words meanwhile. Then the old
ones are removed.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from client_sdk.database import Database
from client_sdk.embedding.errors import EmbeddingProblem, VectorInvalid
from client_sdk.errors import ClientError
from client_sdk.meaning import stored
from client_sdk.meaning.background import Background, embed
from client_sdk.meaning.errors import EmbeddingTimeout
from client_sdk.rows import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client_sdk.commit import Committed
    from client_sdk.embedding.embedder import Embedder, Kind, Model, Vectors
    from client_sdk.meaning.shelf import Shelf
    from client_sdk.ranking import Question

__all__ = ["Asking", "Meaning", "Progress", "live_name"]

_log = logging.getLogger(__name__)

_QUESTIONS_MAX: Final = 64  # vectors of questions that are kept: 100 KB
_DOCS_MAX: Final = 256  # documents in one statement


def live_name(collection: str) -> str:
    """Return what live searches lean on beside a collection's records: its vectors."""
    return f"pjais_vectors {collection}"


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far embedding is, in texts: of all searchable ones ``done`` have a vector by ``model``.

    A text that was just changed counts as done until that is noticed. ``waiting``: records that are known to wait.
    ``problem``: why it does not go on.
    """

    model: str
    done: int
    total: int
    waiting: int
    problem: ClientError | None = None


class Asking:
    """A question to one collection, and what it takes to answer it; kept up when the model changes."""

    def __init__(self, meaning: Meaning, table: Table, text: str) -> None:
        self.table = table
        self.text = text
        self.question: Question | None = None  # None: not prepared, or there is no model
        self.vector: Vectors | None = None
        self.shelves: dict[str, Shelf] = {}
        self.model: Model | None = None  # of the vector
        self._meaning = meaning

    async def prepare(self) -> None:
        """Load what is needed and embed the question, anew if the model changed. Raises `EmbeddingProblem`."""
        from client_sdk.ranking import understood

        meaning = self._meaning
        embedder = await meaning.searched(self.table)
        shelves = await meaning.shelves(self.table, embedder)
        names = [name for shelf in shelves.values() for name in shelf.speakers]
        question = understood(self.text, names)
        vector = await meaning.vector_of(embedder, question.text)
        self.question, self.vector, self.shelves, self.model = question, vector, shelves, embedder.model

    async def prepare_near(self, doc: int, text: str) -> None:
        """Load what is needed to ask for what is near a record, by its vector or its text. Raises as `prepare`."""
        from client_sdk.meaning.shelf import key_of

        meaning = self._meaning
        embedder = await meaning.searched(self.table)
        shelves = await meaning.shelves(self.table, embedder)
        vector = shelves[""].vector(key_of(doc, -1))
        if vector is None:
            vector = await meaning.vector_of(embedder, text, "passage")
        self.vector, self.shelves = vector, shelves


class _Held:
    """A shelf, and the documents that changed while it is being loaded; None: it is loaded."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.missed: dict[int, None] | None = {}
        self.loading: asyncio.Task[None] | None = None


class Meaning:
    """Meaning on one device. Its methods belong to the event loop.

    ``embedder``: None for the default. ``old_embedder``: the one before, if its vectors are to be searched meanwhile.
    ``spawn`` runs a coroutine until the client is closed, ``stir`` tells live searches to look again.
    ``has_space``: whether a connection is likely, over which other devices share their vectors.
    """

    def __init__(
        self,
        database: Database,
        tables: Mapping[str, Table],
        *,
        embedder: Embedder | None,
        old_embedder: Embedder | None,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        stir: Callable[[str], None],
        has_space: Callable[[], bool],
    ) -> None:
        self.tables = {name: table for name, table in tables.items() if table.text is not None}
        self.database = database
        #: Who shares vectors with other devices: it hears whose changed here.
        self.heard: Callable[[str, Sequence[int]], None] | None = None
        self._embedder = embedder
        self._old_embedder = old_embedder
        self._default: Embedder | None = None
        self._spawn = spawn
        self._stir = stir
        self._searched: dict[str, Embedder] = {}
        self._shelves: dict[tuple[str, str, str], _Held] = {}
        self._questions: dict[tuple[str, Kind, str], Vectors] = {}
        self._asking: weakref.WeakSet[Asking] = weakref.WeakSet()
        self._background = Background(database, self.tables, self, has_space=has_space)
        if self.tables:
            if has_space():
                self._background.patience.expect()
            spawn(self._background.run())

    def committed(self, committed: Committed) -> None:
        """Take note of what a commit changed."""
        self._background.committed(committed)

    # -- How far it is

    async def embedded(self, timeout: float | None = None) -> None:
        """Wait until every searchable text has its vector.

        Raises:
            EmbeddingTimeout: not within ``timeout`` seconds.
            EmbeddingProblem: it cannot come to that.
        """
        if not self.tables:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._background.settled()
        except TimeoutError:
            raise EmbeddingTimeout(timeout or 0, self._background.waiting) from None

    async def progress(self) -> Progress:
        """Return how far it is. Counts the rows."""
        model = (await self.embedder()).model
        done, total = await self.database.read(
            lambda connection: stored.totals(connection, self.tables, model.id)
        )
        background = self._background
        return Progress(
            model=model.name, done=done, total=total, waiting=background.waiting, problem=background.problem
        )

    async def close(self) -> None:
        """Let the default model go. Whoever gave another one keeps it."""
        if self._default is not None:
            await self._default.close()

    # -- What is shared with other devices

    def devices_share(self, is_catching_up: Callable[[], bool] | None) -> None:
        """Other devices share what they embed, or (None) no longer do; see `client_sdk.meaning.patience`."""
        if is_catching_up is None:
            self._background.patience.end()
        else:
            self._background.patience.begin(is_catching_up)

    async def arrived(self, collection: str, docs: Collection[int], lacking: Collection[int]) -> None:
        """Search by vectors that another device made of some documents, which are in the file now.

        ``lacking``: those of them that still lack some.
        """
        await self._hold(collection, list(docs))
        self._background.patience.served(collection, [doc for doc in docs if doc not in lacking])

    # -- What the background tells

    async def embedder(self) -> Embedder:
        """Return what embeds: the default one is made when it is first needed."""
        if self._embedder is None:
            self._embedder = await self._default_embedder()
        return self._embedder

    async def changed(self, collection: str, docs: Sequence[int]) -> None:
        """Search by what the file now holds of some documents, and share it."""
        await self._hold(collection, docs)
        if self.heard is not None:
            self.heard(collection, docs)

    async def _hold(self, collection: str, docs: Sequence[int]) -> None:
        for (name, field, model), held in list(self._shelves.items()):
            if name != collection:
                continue
            if held.missed is not None:
                held.missed.update(dict.fromkeys(docs))
            else:
                await self._take(held.shelf, collection, field, model, docs)
        self._stir(live_name(collection))

    async def finished(self, collection: str, *, is_foreign: bool) -> None:
        """Search by the new model from now on, and forget what others made."""
        if is_foreign:  # what is in memory may lack what another instance wrote
            for key in [key for key in self._shelves if key[0] == collection]:
                del self._shelves[key]
        embedder = await self.embedder()
        self._searched[collection] = embedder
        others = [
            (field, model)
            for field, model in await self._models(self.tables[collection])
            if model != embedder.model.id
        ]
        for asking in [one for one in self._asking if one.table.name == collection and one.question]:
            await asking.prepare()
        for field, model in others:
            remove = partial(stored.remove_model, collection=collection, field=field, model=model)
            self._shelves.pop((collection, field, model), None)
            while await self.database.write(remove):
                pass
        if others:
            self._stir(live_name(collection))

    # -- What a search needs

    def asking(self, table: Table, text: str) -> Asking:
        """Return a question, not prepared yet."""
        asking = Asking(self, table, text)
        self._asking.add(asking)
        return asking

    async def searched(self, table: Table) -> Embedder:
        """Return whose vectors of a collection are searched now."""
        if table.name not in self._searched:
            embedder = await self.embedder()
            held = {model for _, model in await self._models(table)}
            chosen = embedder
            if held - {embedder.model.id}:
                for other in (self._old_embedder, await self._default_embedder()):
                    if other is not None and other.model.id in held - {embedder.model.id}:
                        chosen = other
                        break
            self._searched.setdefault(table.name, chosen)
        return self._searched[table.name]

    async def shelves(self, table: Table, embedder: Embedder) -> dict[str, Shelf]:
        """Return the vectors of a collection by field, in memory."""
        fields = [stored.field_of(text) for text in table.text.tables] if table.text else []
        return {field: await self._shelf(table.name, field, embedder) for field in fields}

    async def vector_of(self, embedder: Embedder, text: str, kind: Kind = "query") -> Vectors:
        """Return the vector of a question, of shape (dimensions,). Raises `EmbeddingProblem`."""
        key = (embedder.model.id, kind, text)
        if key not in self._questions:
            (self._questions[key],) = await embed(embedder, [text], kind)
            if len(self._questions) > _QUESTIONS_MAX:
                del self._questions[next(iter(self._questions))]
        return self._questions[key]

    def prepare_and_stir(self, asking: Asking) -> None:
        """Prepare a question in the background, and have its live search look again."""

        async def prepare() -> None:
            try:
                await asking.prepare()
            except EmbeddingProblem as problem:
                _log.warning("a search that is subscribed to goes by words only: %s", problem)
            self._stir(live_name(asking.table.name))

        self._spawn(prepare())

    # -- Parts

    async def _default_embedder(self) -> Embedder:
        if self._default is None:
            self._default = await asyncio.to_thread(_minilm)
        return self._default

    async def _models(self, table: Table) -> list[tuple[str, str]]:
        """Return which models have vectors of a collection, by field."""
        fields = [stored.field_of(text) for text in table.text.tables] if table.text else []
        return await self.database.read(
            lambda connection: [
                (field, model) for field in fields for model in stored.models(connection, table.name, field)
            ]
        )

    async def _shelf(self, collection: str, field: str, embedder: Embedder) -> Shelf:
        from client_sdk.meaning.shelf import Shelf

        key = (collection, field, embedder.model.id)
        held = self._shelves.get(key)
        if held is None:
            held = self._shelves[key] = _Held(Shelf(embedder.model.dimensions, is_list=bool(field)))
            held.loading = self._spawn(self._load(held, *key))
        if held.missed is not None and held.loading is not None:
            try:
                await asyncio.shield(held.loading)
            except BaseException:
                if held.loading.done():
                    self._shelves.pop(key, None)
                raise
        return held.shelf

    async def _load(self, held: _Held, collection: str, field: str, model: str) -> None:
        from client_sdk.meaning.shelf import ROWS_MAX

        rows = await self.database.read(
            lambda connection: stored.read(connection, collection, field, model, limit=ROWS_MAX)
        )
        try:
            await asyncio.to_thread(held.shelf.fill, rows)
        except VectorInvalid as problem:
            _log.warning("vectors of %s are damaged, and made again: %s", collection, problem)
            good, bad = await asyncio.to_thread(held.shelf.sorted_out, rows)
            gone = [(field, row[0], row[1]) for row in bad]
            await self.database.write(
                lambda connection: stored.write(connection, collection, model, (), gone)
            )
            await asyncio.to_thread(held.shelf.fill, good)
            self._background.look_again(collection)
        while held.missed:  # what was written since
            docs, held.missed = list(held.missed), {}
            await self._take(held.shelf, collection, field, model, docs)
        held.missed = None

    async def _take(self, shelf: Shelf, collection: str, field: str, model: str, docs: Sequence[int]) -> None:
        for start in range(0, len(docs), _DOCS_MAX):
            some = docs[start : start + _DOCS_MAX]
            rows = await self.database.read(
                lambda connection, some=some: stored.read(connection, collection, field, model, some)  # type: ignore[misc]
            )
            await asyncio.to_thread(shelf.replace, some, rows)


def _minilm() -> Embedder:
    from client_sdk.embedding.minilm import MiniLm

    return MiniLm()
