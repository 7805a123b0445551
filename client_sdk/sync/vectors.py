"""Vectors between this device and the server: those made here are shared, those of other devices are taken.

Nothing here is the only copy, so nothing of it decides whether the device is in sync. What the server lacks is known
from the file (`client_sdk.meaning.shared`), whatever was cut off when: once a session begins all vectors are gone
through, and then those of the documents whose vectors changed. Others' vectors are asked for behind a cursor, and taken
when this device has read the log as far as the server, so that their texts are here.

The server may have fewer than this device remembers: it was told to forget a model by a device that has another, or
removed what stood for a record that was deleted, and is back. Each answer tells how many it has; if they are too few
all are shared again, which changes nothing where they are there.

While a session stands, texts that came from another device are left to it for some seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from client_sdk.database import Connection
from client_sdk.embedding.errors import EmbeddingProblem
from client_sdk.errors import ClientError, ClosedClient, ServerRefused
from client_sdk.meaning import shared, stored
from client_sdk.meaning.meaning import Meaning
from client_sdk.meaning.shared import Sent
from client_sdk.sync.errors import NotConnected, ServerBusy, ServerMisbehaved, TransportClosed
from client_sdk.sync.requests import Requests
from crdt import requests
from crdt.errors import FrameTooLarge
from crdt.limits import PUSH_VECTORS_MAX, VECTORS_PAGE_BYTES_TARGET
from crdt.requests import PartVector
from crdt.vectors import SCALE_BYTES

if TYPE_CHECKING:
    from client_sdk.embedding.embedder import Model
    from client_sdk.sync.runner import Runner

__all__ = ["Exchange", "Place"]

_log = logging.getLogger(__name__)

_NAME: Final = "vectors"
_DOCS_AT_ONCE: Final = 100
_CATCH_UP_S_MAX: Final = 10.0
#: After the file could not be written: a full disk is not asked again in a tight loop.
_AGAIN_S: Final = 5.0


class Place(msgspec.Struct, frozen=True):
    """How far the vectors of a space were read: in which of the server's histories, and of which model.

    ``old_model``: the one before it, which the server is to forget once every text has a vector by this one. ``gap``:
    how many of those shared from here the server does not have, and will not.
    """

    space: str = ""
    generation: str = ""
    model: str = ""
    position: int = 0
    old_model: str = ""
    gap: int = 0


class Exchange:
    """Runs while a session stands. ``space`` names the space; ``runner`` is who keeps it."""

    def __init__(
        self,
        asked: Requests,
        meaning: Meaning,
        *,
        space: Callable[[], str],
        runner: Callable[[], Runner | None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._requests = asked
        self._meaning = meaning
        self._space = space
        self._runner = runner
        self._spawn = spawn
        self._task: asyncio.Task[None] | None = None
        self._due: dict[str, dict[int, None]] = {name: {} for name in meaning.tables}
        self._changed = asyncio.Event()
        self._place = Place()
        self._shared = 0  # how many the server should have at least, when that was last counted
        self._held = 0  # how many it has
        asked.listeners.append(self._session)
        meaning.heard = self._heard

    def _session(self, is_open: bool) -> None:
        self._meaning.devices_share(self._is_catching_up if is_open else None)
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if is_open:
            self._task = self._spawn(self._run())

    def _heard(self, collection: str, docs: Sequence[int]) -> None:
        if self._task is not None:
            self._due[collection].update(dict.fromkeys(docs))
            self._changed.set()

    async def _run(self) -> None:
        try:
            await self._caught_up()
            model = (await self._meaning.embedder()).model
            await self._find_place(model)
            self._shared = await self._count(model)
            await self._keep(self._pull_first, model)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep(self._push, model), name="vectors: push")
                tasks.create_task(self._keep(self._pull, model), name="vectors: pull")
                tasks.create_task(self._keep(self._forget, model), name="vectors: forget")
        except* (ClosedClient, NotConnected, TransportClosed, EmbeddingProblem):
            pass  # the next session goes on; without a model there is nothing to share
        except* ClientError as problems:
            _log.warning("vectors are not shared until the next connection: %s", problems.exceptions[0])

    async def _keep(self, work: Callable[[Model], Coroutine[Any, Any, None]], model: Model) -> None:
        """Work until the session ends. What the server refuses ends the work, and is tried in the next session."""
        while True:
            try:
                return await work(model)
            except (ClosedClient, NotConnected, TransportClosed):
                raise
            except EmbeddingProblem:
                return None  # it is said where it is embedded
            except (ServerRefused, FrameTooLarge) as error:
                if not isinstance(error, ServerBusy):
                    _log.warning("vectors are not shared until the next connection: %s", error)
                    return None
                await asyncio.sleep(max(error.after_s, _AGAIN_S))
            except ClientError as error:
                _log.warning("vectors are shared again in %g s: %s", _AGAIN_S, error)
                await asyncio.sleep(_AGAIN_S)

    # -- This device's

    async def _push(self, model: Model) -> None:
        for due in self._due.values():
            due.clear()
        await self._push_all(model)
        await self._make_good(model)
        while True:
            await self._changed.wait()
            self._changed.clear()
            for name, due in self._due.items():
                while due:
                    docs = list(due)[:_DOCS_AT_ONCE]
                    for doc in docs:
                        del due[doc]
                    await self._push_of(name, docs, model)
            await self._make_good(model)

    async def _push_all(self, model: Model) -> None:
        for name, table in self._meaning.tables.items():
            for field in shared.fields_of(table):
                after = (-1, -2)
                while some := await self._unshared(name, model, field, after=after, limit=_at_once(model)):
                    await self._send(name, model, some)
                    after = (some[-1].doc, some[-1].position)

    async def _push_of(self, name: str, docs: Sequence[int], model: Model) -> None:
        for field in shared.fields_of(self._meaning.tables[name]):
            while some := await self._unshared(name, model, field, docs=docs, limit=_at_once(model)):
                await self._send(name, model, some)

    async def _make_good(self, model: Model) -> None:
        """Share everything again if the server has fewer vectors than it should."""
        if self._held >= self._shared - self._place.gap:
            return
        self._shared = await self._count(model)
        if self._held >= self._shared - self._place.gap:
            return
        _log.info("the server has %s of %s vectors: they are shared again", self._held, self._shared)
        await self._meaning.database.write(lambda connection: shared.unmark(connection, model.id))
        await self._push_all(model)
        self._shared = await self._count(model)
        await self._note(gap=max(0, self._shared - self._held))

    async def _count(self, model: Model) -> int:
        tables = self._meaning.tables.values()
        return await self._meaning.database.read(
            lambda connection: shared.count(connection, tables, model.id)
        )

    async def _forget(self, model: Model) -> None:
        """Have the server forget the model before this one, once it has all vectors of this one.

        A device that still uses the old one shares its vectors again, when it next counts them.
        """
        if self._place.old_model:
            await self._meaning.embedded()
            await self._push_all(model)
            await self._requests.ask(
                requests.ForgetVectors(self._space(), 0, self._place.old_model), requests.VectorsTaken
            )
            await self._note(old_model="")

    async def _unshared(self, name: str, model: Model, field: str, **which: Any) -> list[Sent]:
        table = self._meaning.tables[name]
        return await self._meaning.database.read(
            lambda connection: shared.unshared(connection, table, model.id, field, **which)
        )

    async def _send(self, name: str, model: Model, some: Sequence[Sent]) -> None:
        vectors = [one.part for one in some if one.says_something]
        taken: requests.VectorsTaken | None = None
        if vectors:
            await self._caught_up()  # a vector that came before its record would be for nothing
            taken = await self._requests.ask(
                requests.PushVectors(self._space(), 0, model.label, vectors), requests.VectorsTaken
            )
            self._held = taken.held
        await self._meaning.database.write(lambda connection: shared.mark(connection, name, model.id, some))
        if taken is not None and taken.before == self._place.position:  # nobody else's lie between
            await self._note(position=taken.head)

    # -- Others'

    async def _pull_first(self, model: Model) -> None:
        """Take what is there, and hear how many the server has."""
        page = await self._asked(model, waits=False)
        if page.through < self._place.position:  # it has less than was read: what it has now is other
            await self._note(position=0)
            return
        await self._take_page(page, model)

    async def _pull(self, model: Model) -> None:
        while True:
            after = self._place.position  # which a push moves on meanwhile
            page = await self._asked(model, waits=True)
            if not page.vectors or page.through <= after:
                raise ServerMisbehaved(
                    f"{len(page.vectors)} vectors up to {page.through} where those after {after} were asked"
                )
            await self._take_page(page, model)

    async def _asked(self, model: Model, *, waits: bool) -> requests.Vectors:
        pull = requests.PullVectors(self._space(), 0, model.label, self._place.position, waits)
        page = await self._requests.ask(pull, requests.Vectors)
        self._held = page.held
        return page

    async def _take_page(self, page: requests.Vectors, model: Model) -> None:
        came: dict[str, list[PartVector]] = {}
        for one in page.vectors:
            if one.collection in self._meaning.tables:
                came.setdefault(one.collection, []).append(one)
        if came:
            await self._caught_up(page.log_head)
        for name, some in came.items():
            await self._take(name, model, some)
        await self._note(position=max(page.through, self._place.position))

    async def _note(self, **changes: Any) -> None:
        """Keep how far this device is."""
        self._place = place = msgspec.structs.replace(self._place, **changes)
        await self._meaning.database.write(lambda connection: _keep_place(connection, place))

    async def _take(self, name: str, model: Model, came: Sequence[PartVector]) -> None:
        table, database = self._meaning.tables[name], self._meaning.database
        matched = await database.read(
            lambda connection: shared.match(connection, table, model.id, came, dimensions=model.dimensions)
        )
        if matched.taken:
            await database.write(
                lambda connection: stored.write(connection, name, model.id, matched.taken, is_shared=True)
            )
        if matched.docs:
            await self._meaning.arrived(name, matched.docs, matched.lacking)

    async def _caught_up(self, head: int = 0) -> None:
        """Wait until the log is read up to ``head`` and this device's records are sent; for some seconds at most."""
        runner = self._runner()
        if runner is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_S_MAX), contextlib.aclosing(runner.statuses()) as statuses:
                async for status in statuses:
                    if status.cursor >= max(head, status.head) and not status.pending:
                        return

    def _is_catching_up(self) -> bool:
        runner = self._runner()
        return runner is not None and runner.status.cursor < runner.status.head

    # -- How far

    async def _find_place(self, model: Model) -> None:
        space = self._space()

        def read(connection: Connection) -> tuple[str, Place]:
            (generation,) = connection.execute("SELECT generation FROM pjais_state").fetchone()
            row = connection.execute("SELECT value FROM pjais_meta WHERE name = ?", (_NAME,)).fetchone()
            return generation, Place() if row is None else msgspec.msgpack.decode(row[0], type=Place)

        generation, place = await self._meaning.database.read(read)
        history = (space, generation)
        if (place.space, place.generation, place.model) == (*history, model.label):
            self._place = place
            return
        is_another = (place.space, place.generation) != history
        self._place = Place(*history, model.label, old_model="" if is_another else place.model)

        def write(connection: Connection) -> None:
            if is_another:
                shared.unmark(connection)
            _keep_place(connection, self._place)

        await self._meaning.database.write(write)


def _keep_place(connection: Connection, place: Place) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO pjais_meta(name, value) VALUES (?, ?)", (_NAME, msgspec.msgpack.encode(place))
    )


def _at_once(model: Model) -> int:
    """Return how many vectors of a model one push may hold."""
    return min(PUSH_VECTORS_MAX, max(1, VECTORS_PAGE_BYTES_TARGET // (SCALE_BYTES + model.dimensions)))
