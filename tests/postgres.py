"""A real Postgres for every test that asks: one embedded cluster a test process, one fresh migrated database
a test.

A cluster is made once for each process of the run, and only when a test asks. It is the one that users get,
settings and all, but its folder is in memory where the system has a place for that: a killed process loses
nothing there either, only a power cut would, and no test cuts the power. On a machine whose disk was busy a
database, a copy of the migrated one, took 26 ms to make in memory and 556 ms on the disk (206 ms through the
WAL).
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from server.database import Database
from server.embedded import EmbeddedPostgres
from server.settings import Settings, load_settings

__all__ = [
    "cluster_folder",
    "database",
    "database_url",
    "fast_folder",
    "migrated_database",
    "postgres",
    "query",
    "run",
    "server_settings",
    "with_database",
]

T = TypeVar("T")

_TEMPLATE = "migrated"
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES_MIN = 2 * 1024**3  # 60 MB a cluster; a container's 64 MB of shared memory will not do
_numbers = itertools.count(1)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop of its own, and leave the test's loop alone."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


async def query(url: str, *statements: str) -> object:
    """Run the statements and return the last one's first value."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1])
    finally:
        await connection.close()


def with_database(url: str, name: str) -> str:
    """Return the URL of another database of the same Postgres."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A private folder, in memory if there is room for it."""
    is_roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES_MIN
    folder = Path(tempfile.mkdtemp(prefix="pjais-test-", dir=_MEMORY if is_roomy else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def cluster_folder() -> Iterator[Path]:
    """Where a test may make a cluster of its own."""
    with fast_folder() as folder:
        yield folder / "postgres"


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The Postgres of this test process. Tests that stop or kill one start their own."""
    with fast_folder() as folder:
        cluster = EmbeddedPostgres(folder / "postgres")
        cluster.start_now()
        yield cluster
        cluster.stop_now()


@pytest.fixture(scope="session")
def migrated_database(postgres: EmbeddedPostgres) -> str:
    """The URL of a migrated database, to be copied: nobody may be connected to it."""

    async def make() -> str:
        admin = await asyncpg.connect(postgres.url)
        await admin.execute(f"CREATE DATABASE {_TEMPLATE}")
        await admin.close()
        url = with_database(postgres.url, _TEMPLATE)
        database = await Database.connect(url, load_settings())
        await database.migrate()
        await database.close()
        return url

    return run(make())


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, migrated_database: str) -> Iterator[str]:
    """The URL of a fresh, migrated database of this test's own."""
    name = f"test_{next(_numbers)}"
    is_in_memory = postgres.folder.path.is_relative_to(_MEMORY)
    strategy = (
        "FILE_COPY" if is_in_memory else "WAL_LOG"
    )  # the one flushes each file, the other writes all twice
    run(query(postgres.url, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY {strategy}", "SELECT 1"))
    yield with_database(postgres.url, name)
    run(query(postgres.url, f"DROP DATABASE {name} WITH (FORCE)", "SELECT 1"))


@pytest.fixture
def server_settings(tmp_path: Path) -> Settings:
    """Settings for a server in a test: any free port, few connections, no long waits."""
    return load_settings(port=0, data=tmp_path / "data", pool_size_min=1, pool_size_max=8, pool_wait_s=10.0)


@pytest.fixture
async def database(database_url: str, server_settings: Settings) -> AsyncIterator[Database]:
    """A connected, migrated, empty database."""
    database = await Database.connect(database_url, server_settings, application="pjais-test")
    yield database
    await database.close()
