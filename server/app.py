"""The application: the only place that knows every room, and in which order they open and close.

Opening: Postgres (embedded, if no URL is set), the pool, migrations under their lock, then what runs beside
the requests: the group commit, the notices, the sweep of expired tokens, and the process that folds
documents. Closing goes back the same way. What runs beside must not end by itself: if it does, that is a bug,
and the server stops rather than serving without it (``on_failure``).

The folding process (``python -m server.materialize``) is one that may die: hostile bytes, a memory limit. It
is started again with jittered backoff and stopped with the server; sync goes on meanwhile. It finds the
database in its environment, not in its arguments, which every user of the machine can read; and it ends by
itself when its standard input ends, which the system sees to should this process be killed.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import asyncpg
import structlog
from litestar import Litestar
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from server import devices
from server.admit import Admit
from server.database import Database
from server.embedded import EmbeddedPostgres
from server.errors import CannotServe
from server.notify import Notify
from server.routes import BODY_BYTES_MAX, ROUTES, Rooms, error_handlers
from server.search import indexes
from server.session import Meeting
from server.settings import Settings

__all__ = ["create_app"]

#: Expired tokens and challenges go within this time of their end.
_SWEEP_EVERY_S: Final = 60.0
#: A space that has become large is searched more slowly until then.
_TEND_EVERY_S: Final = 60.0
#: The folding process: how long it may take to end, and how fast it comes back after it died.
_FOLDING_END_S: Final = 5.0
_FOLDING_AGAIN_S_MIN: Final = 0.2
_FOLDING_AGAIN_S_MAX: Final = 30.0
#: A folding process that lived this long was well: the next death begins with the short wait again.
_FOLDING_WELL_S: Final = 60.0

_log = structlog.get_logger(__name__)


def create_app(
    settings: Settings,
    *,
    folds: bool = True,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    on_failure: Callable[[], None] = lambda: None,
) -> Litestar:
    """Return the application; its lifespan opens and closes everything.

    Args:
        settings: without a database URL, Postgres is started in the data folder.
        folds: start the process that folds documents; False where another server does it, or a test.
        now: the wall clock.
        on_failure: called once if something that runs beside the requests has ended: stop, and start again.

    The lifespan raises `CannotServe` if the server cannot start.
    """

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with _postgres(settings, on_failure) as url, _database(url, settings) as database:
            notify = Notify(database.listener)
            admit = Admit(database, notify.announce, settings)
            app.state.rooms = Rooms(Meeting(database, admit, notify, now=now), settings)
            beside: list[Coroutine[Any, Any, None]] = [notify.run(), admit.run(), _sweep(database, now)]
            beside.append(_tend_indexes(database, settings.search_index_from))
            if folds:
                beside.append(_keep_folding(url))
            async with _running(beside, on_failure):
                yield

    return Litestar(
        route_handlers=list(ROUTES),
        lifespan=[lifespan],
        exception_handlers=error_handlers,
        request_max_body_size=BODY_BYTES_MAX,
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="PajamasWeb sync",
            version=version("pjais-sync"),
            description="Accounts and invitations of a sync server, and its records as JSON. Devices sync at /v1/sync.",
            use_handler_docstrings=True,
            render_plugins=[JsonRenderPlugin()],  # the others load scripts from elsewhere
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
        ),
    )


@asynccontextmanager
async def _postgres(settings: Settings, on_failure: Callable[[], None]) -> AsyncIterator[str]:
    """Yield the database's URL: the one that is set, or that of an embedded Postgres."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    embedded = EmbeddedPostgres(settings.data)
    try:
        url = await embedded.start()
        async with _running([embedded.supervise()], on_failure):
            yield url
    finally:  # also of a start that was cancelled: its thread goes on until Postgres runs
        await embedded.stop()


@asynccontextmanager
async def _database(url: str, settings: Settings) -> AsyncIterator[Database]:
    database = await Database.connect(url, settings)
    try:
        applied = await database.migrate()
        if applied:
            _log.info("migrations applied", names=applied)
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def _running(
    work: list[Coroutine[Any, Any, None]], on_failure: Callable[[], None]
) -> AsyncIterator[None]:
    """Run everything beside the block; cancel it after."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            _log.critical(
                "a part of the server has ended; the server stops",
                part=task.get_name(),
                exc_info=task.exception(),
            )
            on_failure()

    tasks = [asyncio.create_task(part, name=getattr(part, "__qualname__", None)) for part in work]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in reversed(tasks):
            task.remove_done_callback(ended)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sweep(database: Database, now: Callable[[], datetime]) -> None:
    """Delete what has expired, again and again."""
    while True:
        try:
            async with database.connection() as connection:
                await devices.sweep(connection, now=now())
        except CannotServe as error:
            _log.warning("expired tokens were not swept", problem=str(error))
        await asyncio.sleep(_SWEEP_EVERY_S)


async def _tend_indexes(database: Database, size_min: int) -> None:
    """Give large spaces indexes of their own, again and again."""
    while True:
        try:
            await indexes.tend(database.listener, size_min)
        except (CannotServe, asyncpg.PostgresError, OSError) as error:
            _log.warning("indexes of large spaces were not tended", problem=str(error))
        await asyncio.sleep(_TEND_EVERY_S)


async def _keep_folding(url: str) -> None:
    """Keep the folding process running."""
    loop = asyncio.get_running_loop()
    wait_s = _FOLDING_AGAIN_S_MIN
    while True:
        began = loop.time()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "server.materialize",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,  # the server's own standard output is one line
            env={**os.environ, "PJAIS_DATABASE_URL": url},
            start_new_session=True,  # Ctrl-C in a terminal is for the server, which then ends it
        )
        try:
            code = await process.wait()
        finally:
            await _end(process)
        if loop.time() - began > _FOLDING_WELL_S:
            wait_s = _FOLDING_AGAIN_S_MIN
        _log.warning(
            "the folding process has ended and is started again", exit_code=code, in_s=round(wait_s, 1)
        )
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter is no secret
        wait_s = min(wait_s * 2, _FOLDING_AGAIN_S_MAX)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the folding process: ask, wait, insist."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _FOLDING_END_S)
    except TimeoutError:
        process.kill()
        await process.wait()
