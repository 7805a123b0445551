"""The worker as its parent sees it: records go in, outcomes come out, and somebody has to be blamed when it dies.

The worker answers in order, so when it dies the first record without an answer was in its hands. That record
is folded again, alone, one update at a time, each on the snapshot of those before it. An update that ends a
fresh worker, which has never had anything else in its hands, is the poison, and is refused with the way in
which the worker ended. All else goes on.

A worker that somebody else kills (``SIGKILL``: an operator, the system short of memory) says little about its
record, so that record gets several chances. One that cannot even start says nothing about any: that is
`WorkerFailed`, and the records wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

import structlog

from server.materialize.fold import Outcome, Refused, Work
from server.materialize.worker import HEAD_BYTES, frame_of, outcome_of, seconds_for

__all__ = ["Folding", "WorkerFailed"]

#: Honest records take about 0.4 ms, and 0.15 s a MiB.
_CPU_S: Final = 2.0
#: To import pycrdt on a machine that does much else. Then it is not the records' fault.
_START_S_MAX: Final = 60.0
#: Waiting for an answer: the worker's own limit is processor time, this one is for whatever sleeps for ever.
_ANSWER_S_MIN: Final = 30.0
_ANSWER_S_PER_CPU_S: Final = 10.0
#: Workers killed from outside, one after the other with the same single update in their hands, before it is blamed.
_KILLS_BLAMED: Final = 8
#: Bytes that wait in our memory for the worker to answer; a document more than that comes as it comes.
_STREAM_BYTES: Final = 1024 * 1024

_log = structlog.get_logger(__name__)


class WorkerFailed(Exception):
    """The worker does not start. Nothing is known about any record; try again later."""


class _Died(Exception):
    """The worker ended while it had records in its hands."""

    def __init__(self, reason: str, *, is_by_another: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_by_another = is_by_another


class Folding:
    """One worker, started when it is first needed and again after each death. `close` ends it."""

    def __init__(self, *, memory_bytes_max: int, cpu_s: float = _CPU_S) -> None:
        """Take the worker's limits: memory, and processor time for each record and MiB of it begun."""
        self._memory_bytes_max = memory_bytes_max
        self._cpu_s = cpu_s
        self._process: asyncio.subprocess.Process | None = None
        self._is_fresh = True

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while there is none."""
        return None if self._process is None else self._process.pid

    async def fold(self, works: Sequence[Work]) -> tuple[list[Outcome], set[int]]:
        """Return an outcome for each record, none of them in doubt, and the indexes of those that were in trouble.

        Raises:
            WorkerFailed: there is no worker to be had.
        """
        outcomes: list[Outcome] = []
        troubled: set[int] = set()
        while len(outcomes) < len(works):
            try:
                await self._fold_in_order(works, outcomes)
            except _Died as died:
                work = works[len(outcomes)]
                _log.warning(
                    "the worker ended", reason=died.reason, collection=work.collection, record=work.record
                )
                troubled.add(len(outcomes))
                outcomes.append(await self._one_by_one(work))
        for index, outcome in enumerate(outcomes):
            if outcome.doubt is not None:
                troubled.add(index)
                await self.close()  # the doubt may be about a worker that has grown old
                outcomes[index] = await self._one_by_one(works[index])
        return outcomes, troubled

    async def close(self) -> None:
        """End the worker, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            await _end(process)

    async def _one_by_one(self, work: Work) -> Outcome:
        """Fold each update on the snapshot of those before it; refuse those that cannot be."""
        snapshot, folded = work.snapshot, None
        all_refused: list[Refused] = []
        for update in work.updates:
            outcome = await self._alone(Work(work.collection, work.record, snapshot, [update]))
            if outcome.doubt is not None:
                all_refused.append(Refused(update.position, outcome.doubt))
            else:
                all_refused.extend(outcome.refused)
                folded = outcome.folded or folded
                snapshot = snapshot if folded is None else folded.snapshot
        return Outcome(folded, all_refused)

    async def _alone(self, work: Work) -> Outcome:
        """Fold one update with nothing else in the worker's hands."""
        kills = 0
        while True:
            outcomes: list[Outcome] = []
            try:
                await self._fold_in_order([work], outcomes)
            except _Died as died:
                kills += died.is_by_another
                if (self._is_fresh and not died.is_by_another) or kills >= _KILLS_BLAMED:
                    return Outcome(doubt=died.reason)
            else:
                return outcomes[0]

    async def _fold_in_order(self, works: Sequence[Work], outcomes: list[Outcome]) -> None:
        """Have the records from ``len(outcomes)`` on folded, and append what comes of each.

        Raises:
            _Died: with the record that comes next in its hands.
            WorkerFailed: as `fold`.
        """
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        sending = asyncio.create_task(_send(process.stdin, works[len(outcomes) :]))
        try:
            while len(outcomes) < len(works):
                patience_s = _ANSWER_S_MIN + _ANSWER_S_PER_CPU_S * seconds_for(
                    works[len(outcomes)], self._cpu_s
                )
                async with asyncio.timeout(patience_s):
                    outcomes.append(outcome_of(await _read(process.stdout)))
                    self._is_fresh = False
        except TimeoutError:
            await self.close()
            raise _Died("time: no answer within the time that was given", is_by_another=False) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._autopsy(process) from None
        except BaseException:  # cancelled in the middle: its next answers would be taken for others'
            await self.close()
            raise
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _autopsy(self, process: asyncio.subprocess.Process) -> _Died:
        self._process = None
        try:
            async with asyncio.timeout(1.0):  # its output has ended; it has too, or is about to
                code = await process.wait()
        except TimeoutError:
            process.kill()
            code = await process.wait()
        if code == -signal.SIGKILL:
            return _Died("killed: the worker was killed from outside, or memory ran out", is_by_another=True)
        if hasattr(signal, "SIGPROF") and code == -signal.SIGPROF:
            return _Died("time: folding it takes more processor time than it may have", is_by_another=False)
        with contextlib.suppress(ValueError):
            return _Died(
                f"crash: the worker ended by {signal.Signals(-code).name}",
                is_by_another=code == -signal.SIGTERM,
            )
        return _Died(f"crash: the worker ended with exit code {code}", is_by_another=False)

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None:
            return self._process
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "server.materialize.worker",
                str(self._memory_bytes_max),
                str(self._cpu_s),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # pycrdt's panics write a page each
                limit=_STREAM_BYTES,
                env={
                    name: value for name, value in os.environ.items() if not name.startswith(("PJAIS_", "PG"))
                },
            )
        except OSError as error:
            raise WorkerFailed(f"the worker does not start: {error}") from error
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_S_MAX):
                await _read(process.stdout)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            await _end(process)
            raise WorkerFailed(
                "the worker ends at its start, or does not answer; see that PJAIS_MATERIALIZE_MEMORY_BYTES_MAX is at "
                "least 512 MiB, and that the machine has so much memory to give"
            ) from error
        except BaseException:
            await _end(process)
            raise
        self._process, self._is_fresh = process, True
        return process


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def _send(pipe: asyncio.StreamWriter, works: Sequence[Work]) -> None:
    with contextlib.suppress(ConnectionError):  # it died: whoever reads its answers finds out
        for work in works:
            pipe.write(frame_of(work))
            await pipe.drain()


async def _read(pipe: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await pipe.readexactly(HEAD_BYTES), "big")
    return await pipe.readexactly(size)
