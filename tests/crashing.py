"""A connection that dies before a chosen statement, as a process would: nothing after it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from client_sdk.config import Config
from client_sdk.database import Connection, Cursor, Role, connect_sqlcipher

__all__ = ["Crash", "Fuse"]


class Crash(BaseException):
    """The process has died."""


class Fuse:
    """Counts the writer's statements, and blows before the one that it is set to.

    Give `connect` to ``client_sdk.open``. A blown fuse kills every connection made through it.
    """

    def __init__(self) -> None:
        self.count = 0
        self.is_blown = False
        self._at: int | None = None
        self._raw: list[Connection] = []

    def set(self, statements: int | None) -> None:
        """Blow before the statement number ``statements`` from now (0 is the next one); None: never."""
        self.count, self._at = 0, statements

    def connect(self, path: Path, *, role: Role, config: Config) -> Connection:
        """Make a connection, as `connect_sqlcipher` does."""
        raw = connect_sqlcipher(path, role=role, config=config)
        self._raw.append(raw)
        return _Fused(raw, self if role == "writer" else None)

    def pass_one(self) -> None:
        """Count a statement, or blow."""
        if self.is_blown or (self._at is not None and self.count >= self._at):
            self.is_blown = True
            raise Crash
        self.count += 1


class _Fused:
    """The part of a connection that the SDK uses."""

    def __init__(self, raw: Any, fuse: Fuse | None) -> None:
        self._raw = raw
        self._fuse = fuse
        self.set_progress_handler: Callable[..., None] = raw.set_progress_handler
        self.set_authorizer: Callable[..., None] = raw.set_authorizer
        self.create_function: Callable[..., None] = raw.create_function
        self.interrupt: Callable[[], None] = raw.interrupt
        self.close: Callable[[], None] = raw.close

    @property
    def in_transaction(self) -> bool:
        return bool(self._raw.in_transaction)

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        if self._fuse is not None:
            self._fuse.pass_one()
        return self._raw.execute(sql, parameters)  # type: ignore[no-any-return]

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Cursor:
        if self._fuse is not None:
            self._fuse.pass_one()
        return self._raw.executemany(sql, parameters)  # type: ignore[no-any-return]
