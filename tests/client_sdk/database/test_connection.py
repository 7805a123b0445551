"""A file appears whole, its files are closed to others and show nothing, and a crash leaves a write whole or absent."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from client_sdk.config import Config
from client_sdk.database import Connection, Database, Role, SqlError, connect_sqlcipher
from client_sdk.errors import FileUnreachable, NotADatabase
from tests.client_sdk.database.lines import ALWAYS, add, count, fill, prepare_lines, problem_of

__all__: list[str] = []


async def test_a_folder_is_no_database(tmp_path: Path, key: bytes) -> None:
    with pytest.raises(NotADatabase, match="a folder"):
        await Database.open(tmp_path, key)


async def test_a_folder_that_is_not_there_is_asked_for(tmp_path: Path, key: bytes) -> None:
    with pytest.raises(FileUnreachable, match="Make the folder"):
        await Database.open(tmp_path / "missing" / "notes.db", key)


async def test_a_log_without_its_file_is_not_written_into_a_new_one(path: Path, key: bytes) -> None:
    log = path.with_name(path.name + "-wal")
    log.write_bytes(b"commits of a file that is gone")
    assert "still holds commits" in str(await problem_of(path, key))
    assert log.exists()
    assert not path.exists()


async def test_a_creation_that_was_cut_short_is_begun_again(path: Path, key: bytes) -> None:
    path.with_name(path.name + ".new").write_bytes(b"half a page")
    await fill(path, key, 1)
    assert not path.with_name(path.name + ".new").exists()


async def test_a_schema_that_fails_leaves_nothing_open(path: Path, key: bytes) -> None:
    def prepare(connection: Connection) -> None:
        prepare_lines(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Database.open(path, key, prepare=prepare)
    database = await Database.open(path, key)
    with pytest.raises(SqlError, match="no such table"):
        await database.read(count)
    await database.close()


async def test_no_plain_text_stands_in_any_file(path: Path, key: bytes) -> None:
    secret = "a secret that nobody else may read"
    database = await Database.open(path, key, prepare=prepare_lines)

    def write(connection: Connection) -> None:
        connection.executemany(
            "INSERT INTO lines (text) VALUES (?)", ((f"{secret} {n}",) for n in range(5_000))
        )
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS sorted AS SELECT text FROM lines ORDER BY text")

    def look() -> None:
        files = [file for file in path.parent.iterdir() if file.is_file()]
        assert {file.name for file in files} >= {"notes.db", "notes.db-wal"}
        for file in files:
            content = file.read_bytes()
            assert b"secret" not in content
            assert b"lines" not in content, "nor the schema"
            assert b"SQLite" not in content
            assert key not in content
            assert key.hex().encode() not in content

    await database.write(write)
    look()

    def fail(connection: Connection) -> None:
        write(connection)
        look()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(fail)
    await database.close()


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
async def test_every_file_is_its_owners_alone(database: Database, path: Path) -> None:
    await database.write(add("one"))
    names = {file.name for file in path.parent.iterdir()}
    assert names == {"notes.db", "notes.db-wal", "notes.db-shm", "notes.db.lock"}
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


class Crash(BaseException):
    """The process is gone."""


class Crashing:
    """A connection that stops before its ``k``-th statement, and for ever."""

    def __init__(self, connection: Connection, countdown: int) -> None:
        self._connection = connection
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def _step(self) -> None:
        self._countdown -= 1
        if self._countdown < 0:
            raise Crash

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        self._step()
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        self._step()
        return self._connection.executemany(sql, parameters)


async def test_a_crash_before_any_statement_leaves_a_write_whole_or_absent(
    tmp_path: Path, key: bytes
) -> None:
    outcomes = []
    for statement in range(200):
        path = tmp_path / f"{statement}.db"

        def connect(path: Path, *, role: Role, config: Config, at: int = statement) -> Connection:
            connection = connect_sqlcipher(path, role=role, config=config)
            return Crashing(connection, at) if role == "writer" and path.suffix == ".db" else connection

        database: Database | None = None
        returned = False
        try:
            database = await Database.open(path, key, config=ALWAYS, connect=connect, prepare=prepare_lines)
            await database.write(lambda connection: [add(str(n))(connection) for n in range(3)], brief=True)
            returned = True
        except Crash:
            pass
        finally:
            if database is not None:
                await database.close()
        database = await Database.open(path, key, prepare=prepare_lines)
        found = await database.read(count)
        await database.close()
        assert found in {0, 3}
        assert found == 3 or not returned
        outcomes.append((found, returned))
        if returned:
            break
    assert outcomes[-1] == (3, True)
    assert outcomes.count((0, False)) > 15, "every statement was tried"
