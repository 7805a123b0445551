"""What a search finds, and who asks: hits, best first, now or each time that they change."""

from __future__ import annotations

import contextlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from client_sdk.database import Connection
from client_sdk.embedding.errors import EmbeddingProblem
from client_sdk.errors import ClientError, ServerProblem
from client_sdk.meaning.errors import VectorsStay
from client_sdk.source import Source, Subscription
from client_sdk.views import Rerun
from crdt.requests import Mode
from crdt.schema import Record

__all__ = ["MARKS", "SPACE", "Asked", "Hit", "Hits", "Mode", "Scope"]

R = TypeVar("R", bound=Record)

Scope: TypeAlias = Literal["device", "space"]

#: What live searches of the space lean on beside their collections: whether the server can be asked.
SPACE: Final = "pjais_space"

#: What stands around a word that was found, in a snippet.
MARKS: Final = ("**", "**")


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


class Hits(list[Hit[R]]):
    """Hits, best first. ``scope``: what was searched; ``fallback``: why not the space, where that was asked for.

    ``missing``: how many the server found that are not on this device and could not be brought; `Client.connect` does.
    """

    def __init__(
        self,
        hits: Iterable[Hit[R]] = (),
        *,
        scope: Scope = "device",
        fallback: ClientError | None = None,
        missing: int = 0,
    ) -> None:
        super().__init__(hits)
        self.scope = scope
        self.fallback = fallback
        self.missing = missing

    def are_as(self, other: Hits[R]) -> bool:
        """Whether there is nothing new to be told."""
        told, others = ((hits.scope, type(hits.fallback), hits.missing) for hits in (self, other))
        return self == other and told == others


class Asked(ABC, Generic[R]):
    """What can be awaited for its hits now, or watched."""

    def __init__(self, source: Source, tables: frozenset[str], scope: Scope) -> None:
        self.source = source
        self.scope = scope
        #: Whether running it may hold the event loop for a moment: comparing vectors may not.
        self.is_brief = source.meaning is None
        #: The collections whose changes matter.
        self.tables = tables

    def __await__(self) -> Generator[Any, None, Hits[R]]:
        """Return the hits, best first. Raises `EmbeddingProblem` where the mode is "meaning" and there is no model."""
        return self._ask().__await__()

    async def watch(self) -> AsyncGenerator[Hits[R], None]:
        """Yield the hits, now and each time that they change; also when a vector arrives. Raises as awaiting it.

        In the scope "space" they are asked for again when something arrives here that could matter.
        """
        if self.scope == "device":
            await self.prepare()
        view: Rerun[Any] = Rerun(self.tables, self._stirred, is_brief=self.is_brief)
        last: Hits[R] | None = None
        async with contextlib.aclosing(self.source.watch(view)) as results:
            async for result in results:
                hits = result if isinstance(result, Hits) else await self._ask()
                if last is None or not hits.are_as(last):
                    last = hits
                    yield hits

    def subscribe(self, callback: Callable[[Hits[R]], Any]) -> Subscription:
        """Call back with the hits, now and each time that they change, until the subscription is closed.

        On the device what words find is told first, and again once the question is embedded.
        """
        view: Rerun[Any] = Rerun(self.tables, self._stirred, is_brief=self.is_brief)
        if self.scope == "device":
            subscription = self.source.subscribe(view, callback)
            self.prepare_soon()
            return subscription
        last: list[Hits[R]] = []

        async def asked(_: object) -> None:
            hits = await self._ask()
            if not last or not hits.are_as(last[0]):
                last[:] = [hits]
                answer = callback(hits)
                if inspect.isawaitable(answer):
                    await answer

        return self.source.subscribe(view, asked)

    @abstractmethod
    async def prepare(self) -> None:
        """Do what cannot be done on a connection: embed the question."""

    @abstractmethod
    def prepare_soon(self) -> None:
        """Do so in the background."""

    @abstractmethod
    async def in_space(self) -> Hits[R]:
        """Return what the server finds. Raises `ServerProblem`, `EmbeddingProblem` or `VectorsStay`."""

    async def _ask(self) -> Hits[R]:
        fallback: ClientError | None = None
        if self.scope == "space":
            try:
                return await self.in_space()
            except (ServerProblem, EmbeddingProblem, VectorsStay) as problem:
                fallback = problem
        await self.prepare()
        return Hits(await self.source.read(self.run, brief=self.is_brief), fallback=fallback)

    def _stirred(self, connection: Connection) -> object:
        """What a live search reads when something changed: of a device its hits, else that something did."""
        return Hits(self.run(connection)) if self.scope == "device" else object()

    def run(self, connection: Connection) -> list[Hit[R]]:
        """Search on a connection: for all words, and where nothing has them all, for any."""
        return self.hits(connection, is_all=True) or self.hits(connection, is_all=False)

    @abstractmethod
    def hits(self, connection: Connection, *, is_all: bool) -> list[Hit[R]]:
        """Return what has all words, or any."""
