"""``pjais-server serve``: the server as a command.

On standard output there is one line, ``listening on http://HOST:PORT``, when devices can come; everything else is a log
on standard error. SIGINT and SIGTERM stop it cleanly within a few seconds: open sessions are closed (code 1012: the
device comes back), what is being committed is committed, Postgres is stopped. An error at the start is one clear line
and exit code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

import rich_click as click
import structlog
import uvicorn
from litestar import Litestar

from crdt.limits import FRAME_BYTES_MAX
from server.app import create_app
from server.errors import ServerError, SettingsError
from server.settings import Settings, load_settings

__all__ = ["main", "serve"]

#: A device that vanished without a word is noticed after 20 to 40 s.
_PING_EVERY_S: Final = 20.0
_PING_TIMEOUT_S: Final = 20.0
#: Sessions have this long to end when the server stops.
_STOP_PATIENCE_S: Final = 3
#: Bytes that a peer does not take for so long end its connection, also once it was closed (Linux).
_UNACKNOWLEDGED_MS_MAX: Final = 30_000


@click.group()
@click.version_option(package_name="pjais-sync")
def main() -> None:
    """The meeting place of encrypted devices: takes what they did, keeps it in Postgres, tells the others."""


@main.command()
@click.option("--host", help="Address to listen on; 0.0.0.0 for every interface.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="TCP port; 0: a free one.  [default: 8787]")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the embedded Postgres, which runs when no database URL is given.",
)
@click.option(
    "--database-url", help="A Postgres of your own; better in PJAIS_DATABASE_URL, where nobody reads it."
)
def serve(host: str | None, port: int | None, data: Path | None, database_url: str | None) -> None:
    """Serve until stopped. Every option can be set as PJAIS_… in the environment, and more: see the README."""
    _log_to_stderr()
    is_well = False
    try:
        if data is not None and database_url is not None:
            raise SettingsError(
                ("--data is for the embedded Postgres, --database-url for your own: give one",)
            )
        settings = load_settings(host=host, port=port, data=data, database_url=database_url)
        if data is not None:  # said here, it is stronger than a URL in the environment
            settings = settings.model_copy(update={"database_url": None})
        with _listener(settings) as listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
            is_well = runner.run(_serve(settings, listener))
    except* ServerError as errors:  # the application's task groups raise groups
        _give_up(str(_first(errors)))
    if not is_well:
        _give_up("a part of the server ended by an error; the log above says which, start it again")


async def _serve(settings: Settings, listener: socket.socket) -> bool:
    """Serve on the socket until a signal. False: a part of the server ended before."""
    loop = asyncio.get_running_loop()
    failed = asyncio.Event()
    main_task = asyncio.current_task()
    assert main_task is not None
    server: _Server | None = None

    def stop() -> None:
        """End: at once while opening, by the book while serving."""
        if server is None:
            main_task.cancel()
        else:
            server.should_exit = True

    def fail() -> None:
        failed.set()
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    app = create_app(settings, on_failure=fail)
    try:
        async with app.lifespan():
            server = _Server(_uvicorn(app))
            await server.serve(sockets=[listener])
    except asyncio.CancelledError:
        if main_task.uncancel() > 0:
            raise
    return not failed.is_set()


class _Server(uvicorn.Server):
    """Uvicorn, which says one line when it listens, and leaves signals to `_serve`."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        host, port = sockets[0].getsockname()[:2]
        print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _uvicorn(app: Litestar) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",  # opened around the server, so that its errors keep their types
        ws="websockets-sansio",
        ws_max_size=FRAME_BYTES_MAX,
        ws_ping_interval=_PING_EVERY_S,
        ws_ping_timeout=_PING_TIMEOUT_S,
        ws_per_message_deflate=False,  # frames are compressed already
        timeout_graceful_shutdown=_STOP_PATIENCE_S,
        log_config=None,
        access_log=False,
        server_header=False,
    )


def _listener(settings: Settings) -> socket.socket:
    """Bind before anything starts: a taken port is told at once, and port 0 gets its number.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # its connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS_MAX)
        listener.bind(address)
    except OSError as error:
        problem = error.strerror or str(error)
        place = f"{settings.host}, port {settings.port}"
        raise SettingsError(
            (f"cannot listen on {place}: {problem}; choose another with --host and --port",)
        ) from error
    return listener


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # Windows has none
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _log_to_stderr() -> None:
    """Log on standard error: for people on a terminal, else a JSON object a line."""
    is_terminal = sys.stderr.isatty()
    rendered: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        ]  # no values of variables
        if is_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *rendered,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # One write a line: the processes of a server share this stream.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )


def _first(errors: BaseExceptionGroup[ServerError]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _give_up(problem: str) -> NoReturn:
    print(f"pjais-server: {problem}", file=sys.stderr)
    sys.exit(1)
