"""The encrypted file: one writer, several readers, whole transactions in one hop, one owner at a time, or several who
share.

What it promises:

- `Database.write` runs a function in one transaction. When it returns, the transaction is durable (by `Config`'s
  ``synchronous``); when it raises, nothing of it happened; when its task is cancelled, it is one of the two, and
  over. Transactions happen in the order in which they were handed in.
- `Database.read` runs a function on one consistent state of the file, beside the writer.
- Nothing stands on the disk in plain text: SQLCipher under a raw 256-bit key, temporary tables in memory.
- Errors are typed (`client_sdk.errors`): a full disk, a wrong key, damage. Nothing is deleted on any of them.

What it refuses: a second opening of the same file unless all share it (`lock`), and to guess whether a file is damaged
or the key is wrong (`pages` finds out). Look into `lane` for the threads.

**Brief transactions run where they are.** A hop to the thread and back costs about 100 µs, where a commit costs 150 to
200 with its fsync and 30 without (`Config.synchronous`), and a read by key 15. So what says that it is ``brief`` runs
on the caller's thread when the connection is idle: a read under a budget of virtual machine steps, past which it is
begun again on a thread; a write as long as commits are quick, so that a slow disk never holds the event loop twice.

**The log is copied into the file between transactions**, on the thread, not inside a commit: a commit never waits for
it unless it comes at that moment.

**Several openings** (``multi_instance``) take turns at writing by SQLite's lock. The event loop never waits for it: a
brief transaction that finds it taken moves to the thread, which tries again every millisecond (SQLite's own waits grow
to 100 ms: whoever writes in a loop would keep the others out).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeAlias, TypeVar

from client_sdk.config import Config
from client_sdk.database.connection import (
    Connect,
    Connection,
    Cursor,
    LockTaken,
    Role,
    configure,
    connect_sqlcipher,
    create,
    find_damage,
    transaction,
)
from client_sdk.database.lane import Job, Lane
from client_sdk.database.lock import FileLock
from client_sdk.database.pages import diagnose, key_specification
from client_sdk.database.problems import IntegrityError, SqlError, errors_of, problem_of_system
from client_sdk.errors import ClosedClient, DamagedFile, FileInUse, KeyInvalid

__all__ = [
    "Connect",
    "Connection",
    "Cursor",
    "Database",
    "IntegrityError",
    "Role",
    "SqlError",
    "connect_sqlcipher",
]

T = TypeVar("T")
Prepare: TypeAlias = Callable[[Connection], object]

_log = logging.getLogger(__name__)

_KEY_BYTES: Final = 32
_STEPS_BETWEEN_LOOKS: Final = 1_000  # virtual machine steps, about 50 µs where the pages are in memory
_READ_HERE_MS_MAX: Final = 2.0  # milliseconds that a brief read may hold the caller's thread before it moves
_BRIEF_BEFORE_YIELD: Final = 16  # brief transactions, about 3 ms, after which other tasks get their turn
_QUICK_AGAIN_AFTER: Final = 64  # commits in a row that were quick, after which brief ones run here again
_COMMITS_BETWEEN_LOOKS: Final = 32  # commits after which the length of the log is looked at (3 µs)


class _TookTooLong(Exception):
    """A brief read was not."""


class Database:
    """An open encrypted file. Made by `open`; its methods belong to the event loop that opened it."""

    def __init__(
        self, path: Path, key: bytes, config: Config, connect: Connect, *, is_shared: bool = False
    ) -> None:
        self.path = path.resolve()  # two names of one file have one lock
        self.config = config
        self.is_shared = is_shared
        self._key = key
        self._connect = connect
        self._lock: FileLock | None = None
        self._specification = ""
        self._writer: Lane | None = None
        self._readers: list[Lane] = []
        self._glancer: Lane | None = None
        self._idle: list[Lane] = []
        self._waiting: deque[Job[Any]] = deque()
        self._closed: asyncio.Future[None] | None = None
        self._brief_in_a_row = 0
        self._quick_needed = 0
        self._commits = 0
        self._damage = ""
        self._wal_pages = 0
        self._wal_pages_due = config.wal_pages

    # ------------------------------------------------------------------------------------------ open and close

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        key: bytes,
        *,
        config: Config | None = None,
        connect: Connect = connect_sqlcipher,
        prepare: Prepare | None = None,
        multi_instance: bool = False,
        join: Prepare | None = None,
    ) -> Self:
        """Open the file at ``path`` under a 32-byte key, and make it if it is not there.

        ``prepare`` runs first, in a write transaction of its own: the place for the schema. Of several openings with
        ``multi_instance`` only one that is alone prepares, and keeps the others waiting until `admit`; one that is not
        runs ``join`` in its place.

        Raises `FileInUse`, `WrongKey`, `DamagedFile`, `NotADatabase`, `FileUnreachable`, `ReadOnlyFile`, `DiskFull`,
        `DiskFailed`, `KeyInvalid`, and what those functions raise; then nothing stays open or locked.
        """
        if len(key) != _KEY_BYTES:
            raise KeyInvalid(f"a key is {_KEY_BYTES} random bytes, and this one has {len(key)}")
        database = cls(Path(path), bytes(key), config or Config(), connect, is_shared=multi_instance)
        await database._open(prepare, join)
        return database

    async def _open(self, prepare: Prepare | None, join: Prepare | None) -> None:
        name = self.path.name
        self._writer = Lane(partial(self._open_writer, prepare, join), name=f"{name} writer")
        try:
            await self._writer.open()
            for number in range(self.config.readers):
                reader = Lane(partial(self._open_connection, "reader"), name=f"{name} reader {number + 1}")
                self._readers.append(reader)
                await reader.open()
            if self.is_shared:
                self._glancer = Lane(partial(self._open_connection, "reader"), name=f"{name} glancer")
                await self._glancer.open()
        except BaseException:
            await self.close()
            raise
        self._idle = list(self._readers)

    def _open_writer(self, prepare: Prepare | None, join: Prepare | None) -> Connection:
        self._lock = (FileLock.share if self.is_shared else FileLock.own)(self.path)
        try:
            if self._lock.is_alone and not self.path.exists():
                create(self.path, self._key, connect=self._connect, config=self.config)
            if self.path.is_dir() or not self.path.stat().st_size:  # SQLite would fill an empty file
                raise diagnose(self.path, self._key)
            self._specification = key_specification(self.path, self._key)
        except OSError as error:
            raise problem_of_system(error, self.path) from error
        try:
            connection = self._open_connection("writer", prepare if self._lock.is_alone else join)
        except DamagedFile as error:
            raise diagnose(self.path, self._key, error.detail) from error
        if self.is_shared:
            connection.execute("PRAGMA busy_timeout = 0")  # `transaction` waits for the lock, where it may
        return connection

    def admit(self) -> None:
        """Let other instances open the file: what had to be done alone is done. Raises `FileInUse`."""
        if self.is_shared and self._lock is not None:
            self._lock.admit()

    def _open_connection(self, role: Role, prepare: Prepare | None = None) -> Connection:
        with errors_of(self.path):
            connection = self._connect(self.path, role=role, config=self.config)
            try:
                configure(
                    connection,
                    self.path,
                    key_specification=self._specification,
                    role=role,
                    config=self.config,
                )
                if prepare is not None:
                    wait_s = self.config.busy_timeout_ms / 1_000 if self.is_shared else None
                    transaction(connection, "BEGIN IMMEDIATE", prepare, wait_s=wait_s)
            except BaseException:
                connection.close()
                raise
        return connection

    async def close(self) -> None:
        """Let what was handed in end, close every connection and give the lock back. A second call does nothing.

        A cancellation is raised when all that has happened.
        """
        if self._closed is not None:
            await asyncio.shield(self._closed)
            return
        self._closed = asyncio.get_running_loop().create_future()
        while self._waiting:
            self._waiting.popleft().fail(ClosedClient("this database"))
        cancelled: asyncio.CancelledError | None = None
        for lane in (
            *self._readers,
            self._glancer,
            self._writer,
        ):  # the last to close copies the log into the file
            try:
                if lane is not None:
                    await lane.finish()
            except asyncio.CancelledError as cancellation:
                cancelled = cancellation
            except SqlError:
                _log.warning("a connection to %s was closed with an error", self.path, exc_info=True)
        if self._lock is not None:
            self._lock.release()
        self._closed.set_result(None)
        if cancelled is not None:
            raise cancelled

    @property
    def is_open(self) -> bool:
        """Whether it can be written and read: from `open` until `close` is called."""
        return self._closed is None

    # ------------------------------------------------------------------------------------------------- write

    async def write(
        self,
        function: Callable[[Connection], T],
        *,
        brief: bool = False,
        after: Callable[[T], None] | None = None,
        undo: Callable[[], None] | None = None,
        waits: bool = False,
    ) -> T:
        """Run ``function`` in one transaction on the writer, and return its result once that is durable.

        It must not keep the connection, begin or end a transaction, or go on after an error other than
        `IntegrityError`. If it raises, whatever it raises, the transaction is undone. ``brief`` says that it runs a
        handful of statements, and so may run on this thread. ``after`` is called with the result, on this thread,
        once the transaction is durable, even if the waiting task was cancelled meanwhile; in order of transactions.
        ``undo`` is called where ``function`` ran, before the next transaction, if this one did not commit.

        ``waits`` says that it waits for something from the event loop, and so never runs on this thread.

        A cancellation is raised when the transaction has ended: to know which way, use ``after``. Raises
        `ClosedClient`, `DiskFull`, `DiskFailed`, `ReadOnlyFile`, `DamagedFile` and `FileInUse` (a lock of another
        program's).
        """
        writer = self._writer_if_open()
        task = partial(self._commit, function, brief=brief, undo=undo)
        if not waits and not writer.jobs and self._runs_here(brief=brief):
            with contextlib.suppress(LockTaken):
                result = task(writer.raw, is_here=True)
                if after is not None:
                    after(result)
                self._tend(writer)
                await self._take_turns()
                return result
        job = Job(task, after=after)
        job.released = self._tend
        writer.submit(job)
        return await job.wait()

    def _writer_if_open(self) -> Lane:
        if self._closed is not None or self._writer is None:
            raise ClosedClient("this database")
        return self._writer

    def _runs_here(self, *, brief: bool) -> bool:
        match self.config.inline:
            case "always":
                return True
            case "quick":
                return brief and not self._quick_needed
            case "never":
                return False

    def _commit(
        self,
        function: Callable[[Connection], T],
        connection: Connection,
        *,
        brief: bool,
        undo: Callable[[], None] | None,
        is_here: bool = False,
    ) -> T:
        began = time.perf_counter()
        wait_s = (0 if is_here else self.config.busy_timeout_ms / 1_000) if self.is_shared else None
        try:
            if self._damage:  # after it SQLCipher answers with whatever: no memory, read only
                raise DamagedFile(self.path, f"{self._damage}; this opening takes no more writes")
            with errors_of(self.path):
                result = transaction(connection, "BEGIN IMMEDIATE", function, undo=undo, wait_s=wait_s)
        except DamagedFile as error:
            self._damage = self._damage or error.detail
            raise
        except FileInUse as error:
            raise FileInUse(self.path, pid=None, waited_s=wait_s) from error
        if brief:
            slow = (time.perf_counter() - began) * 1_000 > self.config.inline_ms_max
            self._quick_needed = _QUICK_AGAIN_AFTER if slow else max(0, self._quick_needed - 1)
        self._commits += 1
        if not brief or not self._commits % _COMMITS_BETWEEN_LOOKS:
            with contextlib.suppress(SqlError):  # the commit stands, whatever this says
                self._wal_pages = connection.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()[1]
        return result

    def _tend(self, writer: Lane) -> None:
        """Have the log copied into the file once it is long, after the transactions that are waiting."""
        if self._wal_pages < self.config.wal_pages:
            self._wal_pages_due = self.config.wal_pages  # it began anew
        elif self._wal_pages >= self._wal_pages_due and self._closed is None:
            self._wal_pages_due += self.config.wal_pages  # if a reader holds it up, not at once again
            if self.config.inline == "always":
                self._copy_log(writer.raw)
            else:
                writer.submit(Job(self._copy_log))

    def _copy_log(self, connection: Connection) -> None:
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except SqlError:
            _log.warning("copying the log of %s into it failed; it is tried again", self.path, exc_info=True)

    async def _take_turns(self) -> None:
        self._brief_in_a_row += 1
        if self._brief_in_a_row >= _BRIEF_BEFORE_YIELD:
            self._brief_in_a_row = 0
            await asyncio.sleep(0)

    # -------------------------------------------------------------------------------------------------- read

    async def read(self, function: Callable[[Connection], T], *, brief: bool = False) -> T:
        """Run ``function`` on a reader, where all its statements see one state of the file, and return its result.

        ``brief`` says that it is quick where indexes serve it; then it may run on this thread, and be begun again on
        another if it is not (so it must have no other effects). A cancelled read is interrupted. Raises
        `ClosedClient`, `DamagedFile` and `DiskFailed`; a statement that writes raises ``sqlcipher3``'s error.
        """
        self._writer_if_open()
        task = partial(self._look, function)
        if self._idle and (self.config.inline == "always" or (brief and self.config.inline == "quick")):
            with contextlib.suppress(_TookTooLong):
                result = self._look_here(task, self._idle[-1].raw)
                await self._take_turns()
                return result
        job = Job(task)
        job.released = self._next_reader
        if self._idle:
            self._idle.pop().submit(job)
        else:
            self._waiting.append(job)
        return await job.wait(stop=partial(self._stop, job))

    def _look(self, function: Callable[[Connection], T], connection: Connection) -> T:
        with errors_of(self.path, reading=True):
            return transaction(connection, "BEGIN", function)

    def _look_here(self, task: Callable[[Connection], T], connection: Connection) -> T:
        if self.config.inline == "always":
            return task(connection)
        deadline = time.perf_counter() + _READ_HERE_MS_MAX / 1_000
        is_late = False

        def look_at_the_time() -> int:
            nonlocal is_late
            is_late = time.perf_counter() > deadline
            return is_late

        connection.set_progress_handler(look_at_the_time, _STEPS_BETWEEN_LOOKS)
        try:
            return task(connection)
        except SqlError as error:
            if is_late:
                raise _TookTooLong from error
            raise
        finally:
            connection.set_progress_handler(None, 0)

    def _next_reader(self, reader: Lane) -> None:
        if self._waiting:
            reader.submit(self._waiting.popleft())
        else:
            self._idle.append(reader)

    def _stop(self, job: Job[Any]) -> bool:
        if job.lane is None:
            self._waiting.remove(job)
            return True
        with contextlib.suppress(SqlError):  # closed meanwhile
            job.lane.raw.interrupt()
        return False

    def glance(self, function: Callable[[Connection], T]) -> T:
        """Run a few statements that read at once, on this thread and a connection that is only for that; each sees the
        newest commit, of any instance.

        For an opening with ``multi_instance`` only. Raises as `read`.
        """
        self._writer_if_open()
        assert self._glancer is not None
        with errors_of(self.path, reading=True):
            return function(self._glancer.raw)

    # --------------------------------------------------------------------------------------------- maintain

    async def maintain(self, function: Callable[[Connection], T]) -> T:
        """Run ``function`` on the writer's thread outside any transaction: for ``VACUUM``, a backup, ``rekey``."""

        def run(connection: Connection) -> T:
            with errors_of(self.path):
                return function(connection)

        job = Job(run)
        self._writer_if_open().submit(job)
        return await job.wait()

    async def check(self) -> tuple[str, ...]:
        """Return what is wrong with the file, a line each; nothing if it is sound.

        Every page's seal, then the trees and indexes in them, then foreign keys. Reads the whole file on the
        writer's thread, about 70 MB a second, and writes wait.
        """
        return await self.maintain(self._check)

    def _check(self, connection: Connection) -> tuple[str, ...]:
        with contextlib.suppress(SqlError):  # no room: then what is still in the log is not looked at
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        apart = self._open_connection("reader")  # one that has met damage never writes again
        with contextlib.closing(apart):
            return find_damage(apart)
