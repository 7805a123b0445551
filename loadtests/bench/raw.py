"""The raw limit: the very statements and bytes that the SDK wrote, replayed through plain ``sqlcipher3``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlcipher3 import dbapi2

from client_sdk.config import Config
from client_sdk.database import Connection, Cursor, Role, connect_sqlcipher

__all__ = ["Recorder", "open_raw", "replay"]

Statement = tuple[str, Any, bool]


class Recorder:
    """Records what the writer executes while ``is_on``; give `connect` to ``client_sdk.open``."""

    def __init__(self) -> None:
        self.is_on = False
        self.statements: list[Statement] = []

    def connect(self, path: Path, *, role: Role, config: Config) -> Connection:
        """Make a connection that is listened to."""
        raw = connect_sqlcipher(path, role=role, config=config)
        return _Heard(raw, self) if role == "writer" else raw


class _Heard:
    def __init__(self, raw: Any, recorder: Recorder) -> None:
        self._raw = raw
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        if self._recorder.is_on:
            self._recorder.statements.append((sql, parameters, False))
        return self._raw.execute(sql, parameters)  # type: ignore[no-any-return]

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Cursor:
        listed = list(parameters)
        if self._recorder.is_on:
            self._recorder.statements.append((sql, listed, True))
        return self._raw.executemany(sql, listed)  # type: ignore[no-any-return]


def open_raw(path: Path, key: bytes, *, synchronous: str) -> Any:
    """Open a file with the same settings as the SDK, and nothing else of it."""
    connection = dbapi2.connect(str(path), isolation_level=None, cached_statements=512)
    connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    for pragma in (
        "temp_store = MEMORY",
        "mmap_size = 0",
        f"cache_size = {-(Config().cache_bytes >> 10)}",
        "journal_mode = WAL",
        f"synchronous = {synchronous}",
        f"wal_autocheckpoint = {Config().wal_pages}",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def replay(connection: Any, statements: list[Statement]) -> list[float]:
    """Run recorded statements; return the seconds of each transaction."""
    times: list[float] = []
    began = time.perf_counter()
    for sql, parameters, is_many in statements:
        if sql.startswith("BEGIN"):
            began = time.perf_counter()
        if is_many:
            connection.executemany(sql, parameters)
        else:
            cursor = connection.execute(sql, parameters)
            if sql.startswith("SELECT"):
                cursor.fetchall()
        if sql == "COMMIT":
            times.append(time.perf_counter() - began)
    return times
