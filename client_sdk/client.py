"""An open device: everything that the application does with its file begins here.

::

    async with client_sdk.open("notes.db", records=[Note]) as client:
        notes = client.collection(Note)
        note = await notes.insert(Note(title="Hello"))

The client works with no network. `register` or `join` gives it a space at a server, `connect` keeps it in step in the
background; nothing else changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from client_sdk.advisor import Advisor
from client_sdk.collection import Collection
from client_sdk.commit import Sources
from client_sdk.errors import ClientError, ClosedClient, QueryError
from client_sdk.hits import SPACE
from client_sdk.instances import Lookout
from client_sdk.meaning.errors import MeaningOff
from client_sdk.meaning.meaning import Meaning, Progress
from client_sdk.observing import Observing
from client_sdk.reading import Reading
from client_sdk.rows import Table
from client_sdk.sql import SqlRow, run_sql, tables_read
from client_sdk.sync.account import Account
from client_sdk.sync.board import Board
from client_sdk.sync.replica import Replica
from client_sdk.sync.requests import Requests
from client_sdk.sync.shared import SharedSwitch
from client_sdk.sync.space import ServerSpace
from client_sdk.sync.status import Status
from client_sdk.sync.switch import Switch
from client_sdk.sync.vectors import Exchange
from client_sdk.views import Rerun
from client_sdk.workload import Workload
from client_sdk.writer import Transaction, Writer
from crdt.schema import Record

if TYPE_CHECKING:
    from client_sdk.embedding.embedder import Embedder
    from client_sdk.sync.runner import Runner

__all__ = ["Client"]

R = TypeVar("R", bound=Record)

_log = logging.getLogger(__name__)


class Client(Observing):
    """An open device. Made by `open`; its methods belong to the event loop that opened it."""

    def __init__(
        self,
        writer: Writer,
        tables: dict[type[Record], Table],
        account: Account,
        sources: Sources,
        board: Board | None = None,
        embedder: Embedder | Literal["off"] | None = None,
        old_embedder: Embedder | None = None,
    ) -> None:
        self._replica = Replica(writer)
        named = {table.name: table for table in tables.values()}
        super().__init__(writer, named, self._replica.counts, now_ms=sources.now_ms)
        self._tables = tables
        self._account = account
        self._sources = sources
        self._workload = Workload(writer.database, self._watches.spawn)
        self._meaning: Meaning | None = None
        if embedder != "off":
            self._meaning = Meaning(
                writer.database,
                self._watches.tables,
                embedder=embedder,
                old_embedder=old_embedder,
                spawn=self._watches.spawn,
                stir=self._watches.stir,
                has_space=lambda: account.membership is not None,
            )
            writer.listeners.append(self._meaning.committed)
        self._requests = Requests()
        self._requests.listeners.append(lambda _: self._watches.stir(SPACE))
        space = ServerSpace(
            self._requests,
            writer,
            space=lambda: account.require().space,
            runner=lambda: self._switch.runner,
            by_http=account.search,
        )
        self._reading = Reading(writer, self._watches, self._workload, self._cache, self._meaning, space)
        self.advisor = Advisor(writer.database, self._workload, self._watches.tables)
        if writer.database.config.advisor == "automatic":
            self._workload.saved = self.advisor.apply
        if self._meaning is not None:
            Exchange(
                self._requests,
                self._meaning,
                space=lambda: account.require().space,
                runner=lambda: self._switch.runner,
                spawn=self._watches.spawn,
            )
        self._switch = Switch(self._make_runner, pending=writer.corridor.outbox.pending)
        self._lookout: Lookout | None = None
        writer.listeners.append(self._watches.committed)
        writer.listeners.append(self._workload.committed)
        if board is not None:
            self._switch = shared = SharedSwitch(
                self._make_runner, writer=writer, board=board, require=self._require_membership
            )

            def look() -> None:
                shared.look()
                if shared.runner is None:  # another instance syncs: what it posts is all there is to hear
                    self._status_changed(shared.status)

            self._lookout = Lookout(writer, learn=account.reload, also=look)
        writer.listeners.append(self._switch.committed)

    # -- Records

    def collection(self, record: type[R]) -> Collection[R]:
        """Return the collection of a record class that was named in `open`.

        Raises:
            QueryError: it was not.
        """
        table = self._tables.get(record)
        if table is None:
            known = ", ".join(one.__name__ for one in self._tables)
            raise QueryError(
                f"{record.__name__} was not opened: name it in open(records=[...]); there are {known}"
            )
        return Collection(self._writer, self._reading, table)

    def transaction(self) -> Transaction:
        """``async with client.transaction():`` - several writes, one commit, one notice to watchers; all or nothing."""
        return Transaction(self._writer)

    async def sql(self, statement: str, parameters: Iterable[Any] = ()) -> list[SqlRow]:
        """Return the rows of any SQL that only reads. A row is a tuple whose columns are also found by name.

        Times are integer microseconds since 1970 (parameters are converted), sets and maps are JSON text.

        Raises:
            ReadOnlySql: it would write.
            QueryError: SQLite does not understand it.
        """
        listed = tuple(parameters)
        return await self._writer.read(lambda connection: run_sql(connection, statement, listed))

    async def watch_sql(
        self, statement: str, parameters: Iterable[Any] = ()
    ) -> AsyncGenerator[list[SqlRow], None]:
        """Yield the rows of any SQL that only reads, now and each time that they change. Raises as `sql`."""
        listed = tuple(parameters)
        tables = await self._writer.database.read(
            lambda connection: tables_read(connection, statement, listed)
        )
        view = Rerun(tables, lambda connection: run_sql(connection, statement, listed))
        async with contextlib.aclosing(self._watches.watch(view)) as results:
            async for rows in results:
                yield rows

    # -- Meaning

    async def embedded(self, timeout: float | None = None) -> None:
        """Wait until every searchable text has its vector. Searches work meanwhile.

        Raises `EmbeddingTimeout` after ``timeout`` seconds, `EmbeddingProblem` if it cannot come to that, `MeaningOff`.
        """
        await self._require_meaning().embedded(timeout)

    async def embedding_progress(self) -> Progress:
        """Return how many of all searchable texts have their vectors. Counts the rows. Raises `MeaningOff`."""
        return await self._require_meaning().progress()

    def _require_meaning(self) -> Meaning:
        if self._meaning is None:
            raise MeaningOff
        return self._meaning

    # -- Sync

    async def register(self, url: str) -> None:
        """Make an account and its space at the server, with this device as the first.

        Raises `AlreadyRegistered`, `ServerUnreachable`, `ServerRefused`.
        """
        await self._account.register(url)

    async def invite(self) -> str:
        """Return a code with which one more device can join within ten minutes. Raises `NotRegistered`,
        `ServerUnreachable`.
        """
        return await self._account.invite()

    async def join(self, url: str, code: str) -> None:
        """Join the space of the device that made the code. What is in this file already goes along.

        Raises `AlreadyRegistered`, `InvitationInvalid`, `InvitationExpired`, `InvitationUsed`, `ServerUnreachable`.
        """
        await self._account.join(url, code)

    async def connect(self) -> None:
        """Stay in sync in the background from now on; returns at once. Raises `NotRegistered`.

        With ``multi_instance`` one of the instances that are connected syncs the file for all.
        """
        await asyncio.to_thread(_import_sync)
        await self._switch.connect()

    async def synced(self, timeout: float | None = None) -> None:
        """Wait until both sides are in step and proved equal. Connects if need be.

        Raises:
            SyncTimeout: not within ``timeout`` seconds.
            ClientError: it cannot come to that without somebody doing something: `status`'s last error.
        """
        await asyncio.to_thread(_import_sync)
        await self._switch.synced(timeout)

    async def disconnect(self) -> None:
        """End the sync; writes go on, and are sent when the device is connected again."""
        await self._switch.disconnect()

    @property
    def status(self) -> Status:
        """How this device stands with the server."""
        return self._switch.status

    async def statuses(self) -> AsyncIterator[Status]:
        """Yield the status now and each time that it changes, while connected; who is slow gets the newest."""
        async for status in self._switch.statuses():
            yield status

    @property
    def is_registered(self) -> bool:
        """Whether this device has a space at a server."""
        return self._account.membership is not None

    @property
    def space(self) -> str | None:
        """The space that this device is in."""
        return None if self._account.membership is None else self._account.membership.space

    @property
    def server_url(self) -> str | None:
        """The server of that space."""
        return None if self._account.membership is None else self._account.membership.url

    async def digest(self) -> tuple[str, int]:
        """Return the digest of all records (hexadecimal) and how many there are, deleted ones too: equal on
        equal devices.
        """
        digest, records = await self._replica.digest()
        return digest.hex(), records

    # -- Ending

    async def close(self) -> None:
        """End the sync and the watchers, and close the file. A second call does nothing."""
        await self.disconnect()
        if self._lookout is not None:
            await self._lookout.close()
        self._switch.close()
        self._cache.clear()
        try:
            await self._workload.save()
        except ClosedClient:
            pass
        except ClientError:  # a full disk: closing is more
            _log.warning("the figures of the query advisor were not saved", exc_info=True)
        finally:
            await self._watches.close()
            await self._stop_telling()
            if self._meaning is not None:
                await self._meaning.close()
            await self._writer.database.close()

    # -- Parts

    @property
    def _runner(self) -> Runner | None:
        return self._switch.runner

    def _make_runner(self, on_status: Callable[[Status], None] | None) -> Runner:
        from client_sdk.sync.runner import Runner
        from client_sdk.sync.transport import WebSocketTransport

        membership = self._account.require()

        def told(status: Status) -> None:
            self._status_changed(status)
            if on_status is not None:
                on_status(status)

        return Runner(
            self._replica,
            lambda: WebSocketTransport.connect(membership.url),
            space=membership.space,
            device=membership.device,
            token=self._account.token,
            now_ms=self._sources.now_ms,
            random=random.random,
            on_status=told,
            software="pjais-sync",
            beside=self._requests,
        )

    async def _require_membership(self) -> None:
        await self._account.reload()
        self._account.require()


def _import_sync() -> None:
    """Import what only a device that connects needs: 40 ms, in a thread, instead of with everything."""
    import client_sdk.sync.runner
    import client_sdk.sync.transport  # noqa: F401
