"""The demo's server: a process of its own, which ends with the demo however that ends.

It is started in a session of its own, so that Ctrl-C reaches the demo alone, which stops it cleanly. Its standard
input is a pipe from the demo: if the demo is killed, the pipe ends, and the server stops itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from client_sdk.demo.errors import ServerDidNotStart, ServerNotInstalled

__all__ = ["running_server"]

_START_S_MAX: Final = 60.0  # a slow disk takes ten to make a Postgres cluster
_STOP_S_MAX: Final = 15.0
_NEEDED: Final = ("asyncpg", "litestar", "uvicorn", "structlog", "pydantic_settings")
_LISTENING: Final = "listening on "
_LOG_SHOWN: Final = 300  # characters of its log in an error

# The command, beside a thread that turns the end of standard input into SIGTERM.
_PROGRAM: Final = """
import os, signal, threading
def stop_with_the_demo():
    while os.read(0, 1): pass
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=stop_with_the_demo, daemon=True).start()
from server.cli import main
main()
"""


@contextlib.asynccontextmanager
async def running_server(folder: Path) -> AsyncIterator[str]:
    """Run a server whose data is in ``folder``; give its URL, and stop it at the end.

    Raises:
        ServerNotInstalled, ServerDidNotStart
    """
    for package in _NEEDED:
        if importlib.util.find_spec(package) is None:
            raise ServerNotInstalled(package)
    log = folder.with_name(f"{folder.name}.log")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PJAIS_")}
    with log.open("wb") as log_file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _PROGRAM, "serve", "--port", "0", "--data", str(folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log_file,
            env=settings,
            start_new_session=True,
        )
    try:
        yield await _url(process, log)
    finally:
        await _stop(process)


async def _url(process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None
    problem = "it ended"
    try:
        async with asyncio.timeout(_START_S_MAX):
            async for line in process.stdout:
                text = line.decode(errors="replace").strip()
                if text.startswith(_LISTENING):
                    return text.removeprefix(_LISTENING)
    except TimeoutError:
        problem = f"it did not listen within {_START_S_MAX:g} s"
    said = await asyncio.to_thread(log.read_text, errors="replace")
    raise ServerDidNotStart(problem, said.strip()[-_LOG_SHOWN:])


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask it to stop, and end it if it does not."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S_MAX):
                await process.communicate()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    assert process.stdin is not None
    process.stdin.close()
