"""The connection to Postgres: one pool, transactions that are retried whole, migrations, and a line that
listens.

`Database.connect` refuses a Postgres that could lose what it acknowledged (``fsync``, ``full_page_writes`` or
``synchronous_commit`` off) or that lacks what the tables need (15, with pgvector 0.8). Every connection
carries timeouts, so that a hung process frees its locks. A connection belongs to one task at a time.

A lost connection is `DatabaseUnavailable` wherever it shows. After it nobody knows whether the last commit
happened; what asks for one is idempotent and asks again.

Migrations are the files ``migrations/NNNN_name.sql``, applied in order in one transaction under an advisory
lock, so any number of processes may start together. What was applied is remembered with its hash: a released
file never changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

import asyncpg
import stamina
from asyncpg.pool import PoolConnectionProxy

from server.errors import DatabaseUnavailable, MigrationChanged, UnsafeDatabase, UnsupportedDatabase
from server.settings import Settings

__all__ = ["Connection", "Database", "Migration", "check_supported", "released_migrations", "storable"]

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"  # generic in the stubs only
T = TypeVar("T")

POSTGRES_VERSION_MIN: Final = 15
VECTOR_VERSION_MIN: Final = (0, 8)
# What must be on for "acknowledged" to mean "survives a crash" (Postgres 18, "Write Ahead Log" settings).
_SAFETY: Final = ("fsync", "full_page_writes", "synchronous_commit")
# Conflicts end within milliseconds; more than this in a row is a hot spot that waiting does not cure.
TRANSACTION_RETRIES: Final = 8
_CONNECT_AGAIN_S: Final = 0.1
# The server's timeout speaks first; this one is for a network that swallows its answer.
_COMMAND_TIMEOUT_EXTRA_S: Final = 5.0
# Of a process's connections: a search may take as long as a statement may, and a push finds one of the others.
_SEARCHES_SHARE: Final = 0.5
_MIGRATION_LOCK: Final = int.from_bytes(b"pjais-mg", "big")
_MIGRATION_NAME: Final = re.compile(r"(\d{4})_\w+\.sql")

_CONFLICTS: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)  # 40001, 40P01
_GONE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,  # of a connection that Postgres ended while nobody used it: "cannot switch to state"
    ConnectionError,
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema: ``number`` from 1, ``name`` as the file, ``sql`` its statements."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The hash of its statements, in hex, whatever the line ends of the checkout."""
        return hashlib.sha256(self.sql.replace("\r\n", "\n").encode()).hexdigest()


def released_migrations() -> tuple[Migration, ...]:
    """Return the migrations of this release, in order."""
    found = [
        Migration(int(match[1]), file.name.removesuffix(".sql"), file.read_text("utf-8"))
        for file in (files("server") / "migrations").iterdir()
        if (match := _MIGRATION_NAME.fullmatch(file.name))
    ]
    return tuple(sorted(found, key=lambda migration: migration.number))


class Database:
    """A pool of connections to one Postgres. `connect` makes it, `close` ends it."""

    def __init__(
        self, url: str, settings: Settings, pool: asyncpg.Pool[asyncpg.Record], application: str
    ) -> None:
        self.pool = pool
        self._url = url
        self._settings = settings
        self._application = application
        self._searches = asyncio.Semaphore(max(1, int(settings.pool_size_max * _SEARCHES_SHARE)))

    @classmethod
    async def connect(cls, url: str, settings: Settings, *, application: str = "pjais-server") -> Self:
        """Return the database behind ``url``, checked. ``application`` is its name in ``pg_stat_activity``.

        Raises:
            DatabaseUnavailable: nothing answers, or it lets us not in, within ``connect_timeout_s``.
            UnsafeDatabase: it may lose what it acknowledged.
            UnsupportedDatabase: it, or pgvector, is too old or absent.
        """
        connection = await _patiently_connected(url, settings.connect_timeout_s)
        try:
            await _check(connection)
        finally:
            await connection.close()
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=settings.pool_size_min,
                max_size=settings.pool_size_max,
                timeout=settings.connect_timeout_s,
                command_timeout=settings.statement_timeout_ms / 1_000 + _COMMAND_TIMEOUT_EXTRA_S,
                server_settings={
                    "application_name": application,
                    "statement_timeout": f"{settings.statement_timeout_ms}ms",
                    "lock_timeout": f"{settings.lock_timeout_ms}ms",
                    "idle_in_transaction_session_timeout": f"{settings.idle_in_transaction_timeout_ms}ms",
                },
            )
        except (OSError, asyncpg.PostgresError) as error:
            raise _unavailable(url, error) from error
        return cls(url, settings, pool, application)

    async def close(self) -> None:
        """Close the pool, once its connections are back."""
        await self.pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection to one task.

        Raises:
            DatabaseUnavailable: none can be had within ``pool_wait_s``, or this one was lost.
        """
        try:
            connection = await self.pool.acquire(timeout=self._settings.pool_wait_s)
        except (OSError, asyncpg.PostgresError, TimeoutError, *_GONE) as error:
            raise _unavailable(self._url, error) from error
        try:
            yield connection
        except (asyncpg.PostgresError, asyncpg.InterfaceError, *_GONE) as error:
            if isinstance(error, _GONE) or _is_lost(connection):
                raise _unavailable(self._url, error) from error
            raise
        finally:
            await self._give_back(connection)

    @asynccontextmanager
    async def connection_for_search(self) -> AsyncIterator[Connection]:
        """Lend a connection to a search: at most half of them are at a time, others wait. Raises as `connection`."""
        try:
            async with asyncio.timeout(self._settings.pool_wait_s):
                await self._searches.acquire()
        except TimeoutError as error:
            raise _unavailable(self._url, error) from error
        try:
            async with self.connection() as connection:
                yield connection
        finally:
            self._searches.release()

    async def _give_back(self, connection: Connection) -> None:
        """Return a connection. What was done with it stands, even if it is lost by now: the pool drops such a one."""
        with contextlib.suppress(
            asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, OSError, *_GONE
        ):
            await self.pool.release(connection)

    async def transaction(
        self, work: Callable[[Connection], Awaitable[T]], *, retries: int = TRANSACTION_RETRIES
    ) -> T:
        """Do ``work`` in one transaction and return what it returned, once that is committed.

        Where Postgres breaks a conflict at our cost (SQLSTATE 40001, 40P01), all of ``work`` is done again,
        up to ``retries`` times: it must do nothing outside the transaction that it would not do twice.

        Raises:
            DatabaseUnavailable: as `connection`; the commit may or may not have happened.
            asyncpg.PostgresError: of ``work``, and the conflict when the retries are used up.
        """
        attempts = stamina.retry_context(
            on=_CONFLICTS,
            attempts=retries + 1,
            timeout=None,
            wait_initial=0.005,
            wait_max=0.5,
            wait_jitter=0.02,
        )
        async for attempt in attempts:
            with attempt:
                async with self.connection() as connection, connection.transaction():
                    result = await work(connection)
        return result

    async def listener(self) -> asyncpg.Connection[asyncpg.Record]:
        """Return a connection outside the pool, for LISTEN: whoever asked for it closes it, and asks again if
        it is lost.

        Raises:
            DatabaseUnavailable: nothing answers.
        """
        try:
            return await asyncpg.connect(
                self._url,
                timeout=self._settings.connect_timeout_s,
                server_settings={
                    "application_name": f"{self._application} listener",
                    # A peer that vanished without a word is noticed after about 10 + 3 × 5 s.
                    "tcp_keepalives_idle": "10",
                    "tcp_keepalives_interval": "5",
                    "tcp_keepalives_count": "3",
                },
            )
        except (OSError, asyncpg.PostgresError, TimeoutError) as error:
            raise _unavailable(self._url, error) from error

    async def migrate(self, migrations: Sequence[Migration] | None = None) -> tuple[str, ...]:
        """Bring the schema to this release (or to ``migrations``) and return the names of what was applied
        now.

        Raises:
            MigrationChanged: an applied migration differs from ours, or is unknown here.
            UnsupportedDatabase: pgvector is not installed in the database, and this user may not install it.
            DatabaseUnavailable: nothing answers.
        """
        ours = released_migrations() if migrations is None else tuple(migrations)
        connection = await _patiently_connected(self._url, self._settings.connect_timeout_s)
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
                return await _apply(connection, ours)
        except asyncpg.InsufficientPrivilegeError as error:
            raise UnsupportedDatabase(
                f"this user may not prepare the database ({error}); let an administrator run CREATE EXTENSION "
                "vector in it, and GRANT ALL ON SCHEMA public to this user"
            ) from error
        except _GONE as error:
            raise _unavailable(self._url, error) from error
        finally:
            await connection.close()


def storable(text: str) -> str:
    """Return a text as Postgres can hold it: with neither NUL nor half of a surrogate pair."""
    return text.replace("\0", " ").encode(errors="replace").decode()


async def _apply(
    connection: asyncpg.Connection[asyncpg.Record], ours: tuple[Migration, ...]
) -> tuple[str, ...]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (number integer PRIMARY KEY, name text NOT NULL, "
        "sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    rows = await connection.fetch("SELECT number, name, sha256 FROM schema_migrations ORDER BY number")
    ours_by_number = {migration.number: migration for migration in ours}
    for row in rows:
        migration = ours_by_number.pop(row["number"], None)
        if migration is None:
            raise MigrationChanged(row["name"], "was applied to this database and is not in this release")
        if migration.sha256 != row["sha256"]:
            raise MigrationChanged(row["name"], "was applied to this database with other contents")
    applied = []
    for migration in ours_by_number.values():
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO schema_migrations (number, name, sha256) VALUES ($1, $2, $3)",
            migration.number,
            migration.name,
            migration.sha256,
        )
        applied.append(migration.name)
    return tuple(applied)


async def _check(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Raise unless this Postgres keeps what it acknowledges, and has what the tables need."""
    for setting in _SAFETY:
        if await connection.fetchval("SELECT current_setting($1)", setting) == "off":
            raise UnsafeDatabase(setting)
    check_supported(
        await connection.fetchval("SELECT current_setting('server_version_num')::integer"),
        await connection.fetchval(
            "SELECT coalesce(installed_version, default_version) FROM pg_available_extensions WHERE name = 'vector'"
        ),
    )


def check_supported(server_version_num: int, vector_version: str | None) -> None:
    """Raise `UnsupportedDatabase` if Postgres (as 150004 for 15.4) or pgvector (None: absent) is too old."""
    if server_version_num // 10_000 < POSTGRES_VERSION_MIN:
        raise UnsupportedDatabase(
            f"Postgres is version {server_version_num // 10_000}; upgrade it to {POSTGRES_VERSION_MIN} or newer"
        )
    wanted = ".".join(map(str, VECTOR_VERSION_MIN))
    if vector_version is None:
        raise UnsupportedDatabase(
            f"Postgres has no pgvector; install pgvector {wanted} or newer on its machine (Debian: the package "
            f"postgresql-{server_version_num // 10_000}-pgvector), or choose a Postgres that has it"
        )
    if tuple(int(part) for part in re.findall(r"\d+", vector_version)[:2]) < VECTOR_VERSION_MIN:
        raise UnsupportedDatabase(
            f"pgvector is version {vector_version}; install {wanted} or newer on Postgres's machine, then run "
            "ALTER EXTENSION vector UPDATE in this database"
        )


async def _patiently_connected(url: str, patience_s: float) -> asyncpg.Connection[asyncpg.Record]:
    """Connect, waiting for a Postgres that is only just starting; never for one that turns us away."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return await asyncpg.connect(url, timeout=patience_s, command_timeout=None)
        except (OSError, asyncpg.CannotConnectNowError, TimeoutError) as error:
            if time.monotonic() + _CONNECT_AGAIN_S > deadline:
                raise _unavailable(url, error) from error
            await asyncio.sleep(_CONNECT_AGAIN_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise _unavailable(url, error) from error


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool took a closed connection back already
        return True


def _unavailable(url: str, error: Exception) -> DatabaseUnavailable:
    """The error for people: where, what, and what to do; never the password."""
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        action = "correct the user and password in the database URL"
    elif isinstance(error, asyncpg.InvalidCatalogNameError):
        action = "create that database, or correct its name in the database URL"
    elif isinstance(error, asyncpg.TooManyConnectionsError):
        action = "raise max_connections in Postgres, or lower PJAIS_POOL_SIZE_MAX"
    elif isinstance(error, TimeoutError):
        action = "see whether it is overloaded, or a firewall stands between; or raise PJAIS_POOL_SIZE_MAX"
    else:
        action = "start Postgres there, or correct the host and port in the database URL"
    return DatabaseUnavailable(
        address=_address(url), problem=str(error) or type(error).__name__, action=action
    )


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or 'localhost'}:{parts.port or 5432}"
    except ValueError:
        return "the address in the database URL"
