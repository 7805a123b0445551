"""One cluster: made once, started, kept running, stopped.

Starting takes these steps: the folder's lock, an end to leftovers, programs that the owner can run, a cluster
if there is none yet, a free port, the process, its watcher, a first connection. The work is blocking, so that
tests and commands can use it without an event loop (`start_now`, `stop_now`); `start` and `stop` do it in a
thread.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import asyncpg
import structlog

from server.embedded.binaries import BINARIES_FOR_ALL, Binaries, find_binaries, runnable_by
from server.embedded.folder import DataFolder
from server.embedded.leftovers import end_leftovers
from server.embedded.owner import INSTEAD, Owner, account_for_initdb, give, owner_of
from server.errors import EmbeddedFailed

__all__ = ["EmbeddedPostgres"]

_USER: Final = "pjais"
_DATABASE: Final = "postgres"
_HOST: Final = "127.0.0.1"

# Written to postgresql.conf when the cluster is made: the operator may change them there.
_TUNING: Final = {
    "shared_buffers": "128MB",  # one machine, shared with an application; the rest is the system's page cache
    "max_connections": "64",
    "max_wal_size": "2GB",  # under full load a forced flush every few minutes, not every few seconds
    "min_wal_size": "256MB",
    "jit": "off",  # every statement of ours is short: compiling one takes longer than running it
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
# Given to every start, stronger than any file: the promises hang on them.
_PROMISES: Final = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    "logging_collector": "off",
}
# Stops Postgres when we are gone: our end of the pipe closes however we die, and `read` returns.
# PR_SET_PDEATHSIG would tie Postgres to the thread that started it, is cleared by a change of uid, and exists
# on Linux only.
_WATCHER: Final = ["/bin/sh", "-c", 'read -r nothing; kill -INT "$0"']

# Replaying 2 GB of WAL on a slow disk; a process that ends is noticed at once.
_START_TIMEOUT_S: Final = 300.0
_GREETING_TIMEOUT_S: Final = 30.0  # it is ready: only a very busy machine takes longer than milliseconds
_STATE_LINE: Final = 8
_STOP_PATIENCE_S: Final = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
_LOOK_EVERY_S: Final = 0.01
_SUPERVISE_EVERY_S: Final = 0.1
_PORTS_TRIED_MAX: Final = 5

_log = structlog.get_logger("server.embedded")


class EmbeddedPostgres:
    """A Postgres in ``folder``, for this process and those that it gives the URL to.

    ``options`` are further settings of Postgres, stronger than all others; ``binaries`` another installation;
    ``copies`` where root keeps a copy of the programs if the owner of the cluster cannot reach them
    (`server.embedded.binaries`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        options: Mapping[str, str] | None = None,
        binaries: Binaries | None = None,
        copies: Path = BINARIES_FOR_ALL,
    ) -> None:
        self.folder = DataFolder(folder)
        self._options = {**_PROMISES, **(options or {})}
        self._binaries = binaries
        self._copies = copies
        self._guard = threading.Lock()  # start, stop and restart take turns
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._password = ""

    async def start(self) -> str:
        """Start Postgres, wait until it answers, and return its URL. Again, it returns the same URL.

        Raises:
            EmbeddedInUse: another server holds the folder.
            EmbeddedFailed: it does not start; the message says why, what to do, and how its log ends.
        """
        return await asyncio.to_thread(self.start_now)

    async def stop(self) -> None:
        """Stop Postgres cleanly and give the folder free. Without a running Postgres nothing happens."""
        await asyncio.to_thread(self.stop_now)

    async def supervise(self) -> None:
        """Bring Postgres back, under the same URL, whenever it ends by itself. Returns after `stop`.

        Raises:
            EmbeddedFailed: it does not come back.
        """
        while (process := self._process) is not None:
            if process.poll() is not None:
                await asyncio.to_thread(self._bring_back)
            await asyncio.sleep(_SUPERVISE_EVERY_S)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Where it answers, with the password: never log it."""
        return self._url(self._port)

    @property
    def pid(self) -> int | None:
        """The process that was started last, running or not; None before `start` and after `stop`."""
        return self._process.pid if self._process else None

    def _url(self, port: int) -> str:
        # On the loopback there is no TLS: asking for it costs a round trip, and a look for keys in the home folder.
        return f"postgresql://{_USER}:{self._password}@{_HOST}:{port}/{_DATABASE}?sslmode=disable"

    def start_now(self) -> str:
        """`start`, blocking. Not for a thread whose event loop runs."""
        with self._guard:
            if self._process is None:
                self.folder.take()
                try:
                    self._password = self.folder.password()
                    self._launch()
                except BaseException:
                    self.folder.leave()
                    raise
            return self.url

    def stop_now(self) -> None:
        """`stop`, blocking."""
        with self._guard:
            if self._process is None:
                return
            try:
                self._give_up(self._process)
            finally:
                self._process = None
                self.folder.leave()

    def _bring_back(self) -> None:
        with self._guard:
            if self._process is not None and self._process.poll() is not None:
                _log.warning("postgres_ended", exit_code=self._process.returncode)
                self._dismiss_watcher()
                self._launch()

    # The process

    def _launch(self) -> None:
        """Start Postgres on our port, or on a free one if we have none, and wait for its first answer."""
        data = self.folder.data
        if left := end_leftovers(data):
            _log.warning("postgres_leftovers_ended", processes=left)
        owner = owner_of(data)
        binaries = runnable_by(owner, self._binaries or find_binaries(), copies=self._copies)
        if not data.exists():
            self._make_cluster(owner, binaries)
        self._check_version(binaries)
        if owner.uid not in {None, data.stat().st_uid}:
            give(data, owner)  # root brought it back from a backup
        for tried in range(1, _PORTS_TRIED_MAX + 1):
            port = self._port or _free_port()
            began = self.folder.log_size()
            process = self._run(owner, binaries, port)
            try:
                self._watch(process, owner)
                _wait_for_answer(process, data / "postmaster.pid", self._url(port))
            except EmbeddedFailed as error:
                self._give_up(process)
                tail = self.folder.log_tail(began)
                if "could not bind" in tail and not self._port and tried < _PORTS_TRIED_MAX:
                    continue  # another program was quicker
                raise EmbeddedFailed(f"{error.problem}; see {self.folder.log}", log=tail) from error
            except BaseException:
                self._give_up(process)
                raise
            self._process, self._port = process, port
            return

    def _run(self, owner: Owner, binaries: Binaries, port: int) -> subprocess.Popen[bytes]:
        command = [str(binaries.postgres), "-D", owner.name_of(self.folder.data)]
        for name, value in {**self._options, "port": str(port)}.items():
            command += ["-c", f"{name}={value}"]
        try:
            with self.folder.open_log() as log:
                return subprocess.Popen(
                    command,
                    cwd=self.folder.data,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    **owner.process(),
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedFailed(f"cannot run {binaries.postgres}: {error}; {INSTEAD}") from error

    def _watch(self, process: subprocess.Popen[bytes], owner: Owner) -> None:
        self._watcher = subprocess.Popen(
            [*_WATCHER, str(process.pid)], cwd="/", stdin=subprocess.PIPE, **owner.process()
        )

    def _give_up(self, process: subprocess.Popen[bytes]) -> None:
        self._dismiss_watcher()
        _end(process)

    def _dismiss_watcher(self) -> None:
        """End the watcher before the process that it would signal: afterwards the pid may be another's."""
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.wait()
            assert self._watcher.stdin is not None
            self._watcher.stdin.close()
            self._watcher = None

    # The cluster

    def _make_cluster(self, owner: Owner, binaries: Binaries) -> None:
        """Make the cluster aside and move it in place whole, so that an interrupted start leaves none."""
        making = self.folder.path / "initdb"
        shutil.rmtree(making, ignore_errors=True)
        cluster = making / "data"
        cluster.mkdir(mode=0o700, parents=True)
        making.chmod(0o700)
        password = making / "password"
        password.touch(0o600)
        password.write_text(self._password, "ascii")
        maker = account_for_initdb(owner)
        give(making, maker)
        name = maker.name_of(cluster)
        command = [str(binaries.initdb), "-D", name, f"--pwfile={name}/../password", "-U", _USER]
        command += ["-A", "scram-sha-256", "--data-checksums", "--encoding=UTF8", "--locale=C"]
        if binaries.version >= 17:  # the first with a UTF-8 locale that no system library changes
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        for setting, value in _TUNING.items():
            command += ["-c", f"{setting}={value}"]
        try:
            made = subprocess.run(
                command,
                cwd=cluster,
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                **maker.process(),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedFailed(f"cannot run initdb as uid {maker.uid}: {error}; {INSTEAD}") from error
        if made.returncode != 0:
            raise EmbeddedFailed(
                f"initdb could not make a cluster in {self.folder.path}",
                log=made.stderr.decode(errors="replace"),
            )
        give(cluster, owner)
        cluster.rename(self.folder.data)
        shutil.rmtree(making)
        self.folder.sync()

    def _check_version(self, binaries: Binaries) -> None:
        try:
            version = (self.folder.data / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise EmbeddedFailed(
                f"{self.folder.data} is no Postgres cluster: {error.strerror}; restore it from a backup"
            ) from error
        if version != str(binaries.version):
            raise EmbeddedFailed(
                f"{self.folder.data} was made by Postgres {version}, here is {binaries.version}; dump it "
                "with the release that made it, and load the dump into a new folder"
            )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_answer(process: subprocess.Popen[bytes], note: Path, url: str) -> None:
    """Return once a connection with the password was made; raise `EmbeddedFailed` if it cannot be.

    Before anything is sent to the port, ``note`` (postmaster.pid) must say that this process is ready: the port
    may have become another program's.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not _is_ready(process, note):
        if process.poll() is not None:
            raise EmbeddedFailed(f"Postgres ended with exit code {process.returncode} while it started")
        if time.monotonic() > deadline:
            raise EmbeddedFailed(f"Postgres was not ready within {_START_TIMEOUT_S:.0f} s")
        time.sleep(_LOOK_EVERY_S)
    # A loop of our own: the thread's is not touched.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        while (
            problem := runner.run(_greet(url))
        ) is not None:  # a process of its died, and it recovers by itself
            if process.poll() is not None or time.monotonic() > deadline:
                raise EmbeddedFailed(f"Postgres does not answer: {problem}") from problem
            time.sleep(_LOOK_EVERY_S)


def _is_ready(process: subprocess.Popen[bytes], note: Path) -> bool:
    """Read the pid (line 1) and the state (line 8) in postmaster.pid (miscadmin.h, "LOCK_FILE_LINE")."""
    try:
        lines = note.read_text().splitlines()
    except FileNotFoundError:
        return False
    return (
        len(lines) >= _STATE_LINE
        and lines[0] == str(process.pid)
        and lines[_STATE_LINE - 1].strip() == "ready"
    )


async def _greet(url: str) -> Exception | None:
    """Connect with the password; return why that cannot be done just now, or None.

    Raises:
        EmbeddedFailed: it cannot be done at all.
    """
    try:
        connection = await asyncpg.connect(url, timeout=_GREETING_TIMEOUT_S)
    except asyncpg.InvalidPasswordError as error:
        raise EmbeddedFailed(
            "Postgres does not take the password in the file `password`; put the right file back"
        ) from error
    except (ConnectionError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError) as error:
        return error
    except (OSError, asyncpg.PostgresError) as error:
        raise EmbeddedFailed(f"Postgres does not answer: {error}") from error
    await connection.close()
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a postmaster of ours: first cleanly, then at once."""
    for number, patience in _STOP_PATIENCE_S:
        if process.poll() is None:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
