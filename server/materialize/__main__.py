"""``python -m server.materialize``: the process that folds documents out of the log.

It finds the database in ``PJAIS_DATABASE_URL``; ``--database-url`` is for those who do not mind that every
user of the machine can read it. It steps back for whoever commits (``nice``), stops cleanly on SIGTERM and
SIGINT, and ends by itself when its standard input is a pipe that ends: then whoever started it is gone.
Started any other way, by an operator, it stays.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import stat
import sys
from collections.abc import Callable
from typing import Final

import structlog

from server.database import Database
from server.errors import ServerError, SettingsError
from server.materialize.folding import Folding
from server.materialize.follow import Follower
from server.settings import Settings, load_settings

__all__ = ["main"]

#: Admitting pushes comes first: at 5, a process gets a third of the processor beside one at 0.
_NICE: Final = 5


def main() -> int:
    """Run the process and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m server.materialize", description="Folds documents out of the log."
    )
    parser.add_argument("--database-url", help="better in PJAIS_DATABASE_URL, where nobody reads it")
    _log_to_stderr()
    try:
        # One connection folds; a second one looks at what lags. The listening one is outside the pool.
        settings = load_settings(
            database_url=parser.parse_args().database_url, pool_size_min=1, pool_size_max=2
        )
        if settings.database_url is None:
            raise SettingsError(
                ("PJAIS_DATABASE_URL: materialization needs the database that the server uses",)
            )
        if hasattr(os, "nice"):  # Windows has none
            os.nice(_NICE)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(settings, settings.database_url.get_secret_value()))
    except ServerError as error:
        print(f"server.materialize: {error}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    return 0


async def _run(settings: Settings, url: str) -> None:
    """Follow the log until a signal, or the end of whoever started this process."""
    following = asyncio.current_task()
    assert following is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, following.cancel)
    folding = Folding(memory_bytes_max=settings.materialize_memory_bytes_max)
    try:
        await _watch_starter(following.cancel)
        database = await Database.connect(url, settings, application="pjais-materialize")
        try:
            await Follower(database, folding).run()
        finally:
            await folding.close()
            await database.close()
    except asyncio.CancelledError:
        following.uncancel()


async def _watch_starter(on_end: Callable[[], object]) -> None:
    class Starter(asyncio.Protocol):
        def connection_lost(self, _error: Exception | None) -> None:
            on_end()

    mode = os.fstat(0).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):  # uvloop makes sockets
        await asyncio.get_running_loop().connect_read_pipe(Starter, os.fdopen(0, "rb", buffering=0))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # Windows has none
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    sys.exit(main())
