"""A server in a process of its own, as an operator starts it; it can be stopped, killed, and started again in place.

It listens on the same port after each start, so that devices find it again. What it logs is kept: `problems` has
each line that says *error*, for a refused device is none, and a test wants to see that nothing unforeseen happened.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from server.embedded.leftovers import postgres_in

__all__ = ["LiveServer", "eventually", "free_port"]

_START_S_MAX: Final = 60.0
_STOP_S_MAX: Final = 30.0
#: asyncio's, warnings', `sys.unraisablehook`'s, and the command's own last words.
_SIGNS: Final = (
    "never retrieved",
    "never awaited",
    "Exception in callback",
    "Exception ignored",
    "Warning:",
    "pjais-server: ",
)
#: asyncpg's own: when Postgres ends in the middle, nobody asks what became of a COPY, or of giving a connection back.
_OF_ASYNCPG: Final = ("coro=<PoolConnectionHolder.release() done", "exception=ConnectionDoesNotExistError")
_PROGRAM: Final = "from server.cli import main; main()"


class LiveServer:
    """``pjais-server serve`` on the Postgres at ``database_url``, or on an embedded one in ``folder``."""

    def __init__(self, folder: Path, *, database_url: str | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.starts = 0
        self._database_url = database_url
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """Where an embedded Postgres has its cluster."""
        return self.folder / "embedded"

    @property
    def database_url(self) -> str:
        """Where its Postgres answers; of an embedded one only while that runs."""
        if self._database_url is not None:
            return self._database_url
        password = (self.data / "password").read_text()
        port = (self.data / "data" / "postmaster.pid").read_text().splitlines()[3]
        return f"postgresql://pjais:{password}@127.0.0.1:{port}/postgres?sslmode=disable"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_running:
            await self.stop()

    async def start(self) -> str:
        """Start it, and return its address once it listens."""
        return await asyncio.to_thread(self.start_now)

    async def stop(self) -> None:
        """Stop it as an operator does; it must end cleanly."""
        await asyncio.to_thread(self.stop_now)

    async def kill(self) -> None:
        """End it where it stands."""
        assert self.is_running, self._end_of_log()
        await asyncio.to_thread(self._end, signal.SIGKILL)

    def start_now(self) -> str:
        """`start`, blocking."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PJAIS_")}
        arguments = ["serve", "--port", str(self.port)]
        if self._database_url is None:
            arguments += ["--data", str(self.data)]
        else:
            environment["PJAIS_DATABASE_URL"] = self._database_url
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], _START_S_MAX)[0], self._end_of_log()
        line = self._process.stdout.readline()
        assert line.decode().strip() == f"listening on {self.url}", self._end_of_log()
        self.starts += 1
        return self.url

    def stop_now(self) -> None:
        """`stop`, blocking."""
        assert self._end(signal.SIGTERM) == 0, self._end_of_log()

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(number)
        try:
            process.communicate(timeout=_STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return process.returncode

    def _end_of_log(self) -> str:
        return self._log.read_text()[-3_000:]

    def postgres(self) -> tuple[int, list[int]]:
        """Return the processes of the embedded Postgres: its postmaster, and those that serve a connection each."""
        cluster = self.data / "data"
        with suppress(OSError, ValueError):
            postmaster = int((cluster / "postmaster.pid").read_text().partition("\n")[0])
            others = postgres_in(cluster)
            if postmaster in others:
                return postmaster, sorted(pid for pid in others if _is_backend(pid))
        return 0, []

    def log(self) -> list[dict[str, Any]]:
        """Return what it logged, oldest first."""
        lines = self._log.read_text().splitlines()
        return [msgspec.json.decode(line) for line in lines if line.startswith("{")]

    def problems(self) -> list[dict[str, Any]]:
        """Return what it logged as an error, and what Python says of errors that nobody took."""
        lines = [*self._log.read_text().splitlines(), ""]
        found = [
            {"event": f"{line}: {following}"}
            for line, following in pairwise(lines)
            if any(sign in line for sign in _SIGNS) and not any(sign in following for sign in _OF_ASYNCPG)
        ]
        return found + [line for line in self.log() if line["level"] in {"error", "critical"}]


def _is_backend(pid: int) -> bool:
    """Whether a process of Postgres serves a connection: its title names the user, and where that is."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"postgres: pjais ")
    return False


def free_port() -> int:
    """Return a port that nobody has, below those that systems give to outgoing connections."""
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def eventually(
    holds: Callable[[], Awaitable[bool] | bool], *, within_s: float = 20.0, what: Callable[[], object] = str
) -> None:
    """Wait until a condition holds; ``what`` is shown if it does not."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                now = holds()
                if now if isinstance(now, bool) else await now:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what()}") from None
