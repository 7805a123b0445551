"""What the tests of the encrypted file share: lines of text, a way to hold a transaction, and other processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client_sdk.config import Config
from client_sdk.database import Connection, Database
from client_sdk.errors import FileProblem

__all__ = [
    "ALWAYS",
    "NEVER",
    "WRITER",
    "Gate",
    "add",
    "count",
    "fill",
    "open_gate",
    "prepare_lines",
    "problem_of",
    "run_program",
    "texts",
]


NEVER = Config(inline="never")
ALWAYS = Config(inline="always")


def prepare_lines(connection: Connection) -> None:
    """Make the one table of these tests."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS lines (number INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT"
    )


def add(text: str) -> Callable[[Connection], int | None]:
    """Return a transaction that adds one line and returns its number."""
    return lambda connection: connection.execute("INSERT INTO lines (text) VALUES (?)", (text,)).lastrowid


def texts(connection: Connection) -> list[str]:
    """Return all lines in order."""
    return [text for (text,) in connection.execute("SELECT text FROM lines ORDER BY number")]


def count(connection: Connection) -> int:
    """Return how many lines there are."""
    found: int = connection.execute("SELECT count(*) FROM lines").fetchone()[0]
    return found


async def fill(path: Path, key: bytes, lines: int) -> None:
    """Make a closed file with so many lines of 400 bytes, ten to a page."""
    database = await Database.open(path, key, prepare=prepare_lines)
    await database.write(
        lambda connection: connection.executemany(
            "INSERT INTO lines (text) VALUES (?)",
            ((f"line {number} ".ljust(400, "."),) for number in range(lines)),
        )
    )
    await database.close()


async def problem_of(path: Path, key: bytes) -> FileProblem:
    """Return the error with which opening fails."""
    with pytest.raises(FileProblem) as caught:
        await Database.open(path, key, prepare=prepare_lines)
    return caught.value


class Gate:
    """A function of a transaction that waits until the test lets it go on."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, connection: Connection) -> int | None:
        self.hold(connection)
        return add("behind the gate")(connection)

    def hold(self, _: Connection) -> None:
        self.began.set()
        assert self.go_on.wait(30)

    async def entered(self) -> None:
        await asyncio.to_thread(self.began.wait, 30)


@contextmanager
def open_gate() -> Iterator[Gate]:
    """Yield a gate that is open in the end, whatever the test does."""
    gate = Gate()
    try:
        yield gate
    finally:
        gate.go_on.set()


def run_program(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Run a program of a test in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


WRITER = """
import asyncio, sys
from pathlib import Path
from client_sdk.config import Config
from client_sdk.database import Database
from tests.client_sdk.database.lines import prepare_lines

async def main():
    database = await Database.open(
        Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), prepare=prepare_lines,
        config=Config(synchronous=sys.argv[3], inline=sys.argv[4], wal_pages=64),
    )
    while True:
        number = await database.write(
            lambda c: c.execute("INSERT INTO lines (text) VALUES (?)", ("x" * 300,)).lastrowid, brief=True)
        print(number, flush=True)

asyncio.run(main())
"""
