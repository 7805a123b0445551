"""An open database for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client_sdk.database import Database
from tests.client_sdk.database.lines import prepare_lines

__all__ = ["database"]


@pytest.fixture
async def database(path: Path, key: bytes) -> AsyncIterator[Database]:
    """Yield an open database with an empty table ``lines``."""
    database = await Database.open(path, key, prepare=prepare_lines)
    yield database
    await database.close()
