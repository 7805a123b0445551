"""What the tests of the server share beyond `tests.postgres`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from server.database import Database
from server.embedded import EmbeddedPostgres
from server.session import Meeting
from server.settings import Settings
from tests.postgres import with_database
from tests.server.people import meeting_of

__all__ = ["admin", "empty", "empty_url", "meeting", "open_folder"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user of this machine may enter: pytest's own are closed to all but one."""
    folder = Path(tempfile.mkdtemp(prefix="pjais-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def meeting(database: Database, server_settings: Settings) -> AsyncIterator[Meeting]:
    """The rooms of one server process on a fresh database, running."""
    async with meeting_of(database, server_settings) as meeting:
        yield meeting


@pytest.fixture
async def admin(postgres: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection as the owner of the whole cluster, outside every test's database."""
    connection = await asyncpg.connect(postgres.url)
    yield connection
    await connection.close()


@pytest.fixture
async def empty_url(
    postgres: EmbeddedPostgres, admin: asyncpg.Connection[asyncpg.Record]
) -> AsyncIterator[str]:
    """A database with nothing in it."""
    await admin.execute("DROP DATABASE IF EXISTS empty WITH (FORCE)")
    await admin.execute("CREATE DATABASE empty")
    yield with_database(postgres.url, "empty")
    await admin.execute("DROP DATABASE empty WITH (FORCE)")


@pytest.fixture
async def empty(empty_url: str, server_settings: Settings) -> AsyncIterator[Database]:
    """A connected database with nothing in it."""
    database = await Database.connect(empty_url, server_settings)
    yield database
    await database.close()
