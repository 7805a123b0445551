"""The door: open an encrypted file, or make it.

::

    async with client_sdk.open("notes.db", records=[Note]) as client:
        notes = client.collection(Note)
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from client_sdk.client import Client
from client_sdk.commit import Corridor, Sources
from client_sdk.config import Config
from client_sdk.database import Connect, Connection, Database, connect_sqlcipher
from client_sdk.errors import QueryError
from client_sdk.keys import KeySource, derive_key, resolve_key
from client_sdk.migrate import join, prepare, rebuild
from client_sdk.reseal import reseal
from client_sdk.rows import Table
from client_sdk.seal import Seals, load_keys
from client_sdk.sync.account import Account
from client_sdk.sync.board import Board
from client_sdk.writer import Writer
from crdt.ids import client_id, incarnation
from crdt.schema import Record, schema_of

if TYPE_CHECKING:
    from client_sdk.embedding.embedder import Embedder

__all__ = ["SYSTEM", "Opening", "open"]

SYSTEM: Final = Sources(now_ms=lambda: time.time_ns() // 1_000_000, random=os.urandom)
"""The machine's own time and chance."""

DEFAULT_EMBEDDER: Embedder | Literal["off"] | None = None
"""What embeds where nothing is said; None is the default model. A seam for tests, most of which need no model."""


class Opening:
    """What `open` returns: use it as ``async with``, or await it and call `Client.close` yourself."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Client]]) -> None:
        self._make = make
        self._client: Client | None = None

    def __await__(self) -> Generator[Any, None, Client]:
        """Open the file."""
        return self._make().__await__()

    async def __aenter__(self) -> Client:
        """Open the file."""
        self._client = client = await self
        return client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        if self._client is not None:
            await self._client.close()


def open(
    path: str | os.PathLike[str],
    *,
    records: Iterable[type[Record]],
    key: KeySource = None,
    config: Config | None = None,
    sources: Sources = SYSTEM,
    connect: Connect = connect_sqlcipher,
    multi_instance: bool = False,
    embedder: Embedder | Literal["off"] | None = None,
    old_embedder: Embedder | None = None,
) -> Opening:
    """Open the encrypted file at ``path``, or make it, for some record classes.

    ``key``: 32 bytes, ``KeyFile(path)``, or ``OsKeyring(...)`` (the default). ``sources`` (time and chance)
    and ``connect`` are seams for tests.

    ``multi_instance``: other instances may have the file open as well, in this process or another, if all say so and
    name the same record classes. Each sees within 50 ms what the others commit, and one of them syncs for all.

    ``embedder``: what turns texts into vectors for search by meaning. The default model needs nothing and is loaded
    when it is first needed; "off": nothing is embedded. ``old_embedder``: the one before, to search by the vectors that
    it made until there are new ones; the default model is known without. Whoever gives one closes it.

    Raises, when entered: `SchemaError`, `WrongKey`, `DamagedFile`, `NotADatabase`, `NewerFile`, `FileInUse`,
    `DeclaredOtherwise`, `FileUnreachable`, `ReadOnlyFile`, `DiskFull`, and the `KeyProblem` errors.
    """
    named = tuple(records)
    chosen = DEFAULT_EMBEDDER if embedder is None else embedder

    async def make() -> Client:
        raw = await asyncio.to_thread(resolve_key, key, path)
        writer, tables = await _opened(
            Path(path), raw, named, config or Config(), sources, connect, multi_instance
        )
        try:
            account = await Account.load(writer, sources.random)
            board = None
            if multi_instance:
                board = Board(writer.database.path, derive_key(raw, b"sync status"), sources.random)
            return Client(writer, tables, account, sources, board, chosen, old_embedder)
        except BaseException:
            await writer.database.close()
            raise

    return Opening(make)


async def _opened(
    path: Path,
    key: bytes,
    records: tuple[type[Record], ...],
    config: Config,
    sources: Sources,
    connect: Connect,
    multi_instance: bool,
) -> tuple[Writer, dict[type[Record], Table]]:
    """Open the file and bring its tables up to date; return who writes it, and the tables."""
    seals = Seals()
    tables = {record: Table(schema_of(record), seals) for record in records}
    by_name = {table.name: table for table in tables.values()}
    if len(by_name) != len(tables):
        raise QueryError("two of the record classes name the same collection")
    if config.switch_interval_ms:
        sys.setswitchinterval(min(sys.getswitchinterval(), config.switch_interval_ms / 1_000))
    stale: list[Table] = []
    database = await Database.open(
        path,
        key,
        config=config,
        connect=connect,
        prepare=lambda connection: stale.extend(prepare(connection, by_name.values(), path)),
        multi_instance=multi_instance,
        join=lambda connection: join(connection, by_name.values(), path),
    )
    try:

        def enter(connection: Connection) -> Corridor:
            seals.keys = load_keys(connection, sources.random)
            corridor = Corridor(
                connection,
                by_name,
                seals=seals,
                opening=incarnation(sources.random(8)),
                client=client_id(sources.random(7)),
                sources=sources,
                document_bytes_max=config.hot_document_bytes,
                is_shared=multi_instance,
            )
            corridor.begin()
            rebuild(corridor, stale)
            reseal(corridor, stale)
            corridor.finish()
            return corridor

        writer = Writer(database, await database.write(enter))
        database.admit()
        return writer, tables
    except BaseException:
        await database.close()
        raise
