"""What the tests of a device share: a key, and a place for its file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

__all__ = ["key", "path"]


@pytest.fixture
def key() -> bytes:
    """Return a database key: any 32 bytes do, and the same ones make a failure repeatable."""
    return hashlib.sha256(b"a key of the tests").digest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database goes; nothing is there yet."""
    return tmp_path / "notes.db"
