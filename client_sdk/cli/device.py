"""What every command shares: which file, which key, how to answer, and how to fail.

Each command has ``--db``, ``--key-file`` and ``--json``. An answer goes to standard output (with ``--json`` one JSON
object, or one a line where a command goes on), everything else to standard error. A failure is one line, or with
``--json`` the object ``{"error": {"code", "message"}}``, on standard error; exit code 1, or 2 where the command was
used wrongly or is not built yet. Ctrl-C ends a command cleanly: 130, or 0 where it is how the command ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from client_sdk.cli.errors import NoSuchHub
from client_sdk.errors import ClientError, KeyringUnavailable, NotRegistered, ServerRefused
from client_sdk.hub import Hub, HubOpening
from client_sdk.keys import KeyFile, KeySource
from crdt.errors import CrdtError, NotAvailable

__all__ = ["Device", "code_of", "command", "default_path", "in_words_of_a_command"]

_FAILED: Final = 1
_USED_WRONGLY: Final = 2
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
_TERMINATED: Final = 143  # 128 + SIGTERM


@dataclass(frozen=True, slots=True)
class Device:
    """The file and key that the options name, and the two ways to speak."""

    path: Path
    key_file: Path | None
    is_json: bool
    out: Console
    err: Console

    @property
    def key(self) -> KeySource:
        """Where the key comes from: the key file if one is named, else the operating system's keyring."""
        return KeyFile(self.key_file) if self.key_file is not None else None

    def open(self, *, may_create: bool = False) -> HubOpening:
        """Open the file. Raises `NoSuchHub` where there is none, unless it may be made."""
        if not self.path.exists():
            if not may_create:
                raise NoSuchHub(self.path)
            if self.path == default_path():
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Hub.open(self.path, key=self.key)

    def answer(self, values: Any) -> None:
        """Print a JSON object on one line of standard output, at once."""
        sys.stdout.write(msgspec.json.encode(values, order="deterministic").decode() + "\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """Print a line for people on standard output."""
        self.out.print(text, soft_wrap=True, highlight=False)

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None] | None]:
        """Show a bar on a terminal; it comes with the first figures, so quick work shows none for long."""
        if self.is_json or not self.err.is_terminal:
            yield None
            return
        columns: list[Any] = [TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Print a line for people on standard error."""
        if not self.is_json:
            self.err.print(text, soft_wrap=True, highlight=False, style="dim")


def default_path() -> Path:
    """Return where the Hub's file is if nothing says otherwise: the user's folder for data of programs."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        chosen = os.environ.get("XDG_DATA_HOME", "")
        base = Path(chosen) if Path(chosen).is_absolute() else Path.home() / ".local" / "share"
    return base / "pjais" / "hub.db"


Work = Callable[..., Coroutine[Any, Any, int | None]]


def command(work: Work) -> Callable[..., NoReturn]:
    """Give a coroutine function the three options, a `Device` as its first argument, and the ways to fail.

    What it returns is the exit code, None for 0.
    """

    @click.option(
        "--db",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="PJAIS_DB",
        help="The Hub's encrypted file; also PJAIS_DB.  [default: pjais/hub.db in your data folder]",
    )
    @click.option(
        "--key-file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="PJAIS_KEY_FILE",
        help="A file with its key; also PJAIS_KEY_FILE.  [default: the operating system's keyring]",
    )
    @click.option("--json", "is_json", is_flag=True, help="Answer in JSON.")
    @functools.wraps(work)
    def run(
        *arguments: Any, db: Path | None, key_file: Path | None, is_json: bool, **options: Any
    ) -> NoReturn:
        device = Device(db or default_path(), key_file, is_json, Console(), Console(stderr=True))
        try:
            code = _run(work(device, *arguments, **options))
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            code = _TERMINATED if isinstance(error, asyncio.CancelledError) else _INTERRUPTED
        except BrokenPipeError:  # whoever reads had enough
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = _FAILED
        except (ClientError, CrdtError) as error:
            _tell(device, error)
            code = _USED_WRONGLY if isinstance(error, NotAvailable) else _FAILED
        sys.exit(code or 0)

    return run


def _run(work: Coroutine[Any, Any, int | None]) -> int | None:
    """Run a command's coroutine; SIGTERM cancels it, as Ctrl-C does, so that what it started is ended."""

    async def main() -> int | None:
        task = asyncio.current_task()
        assert task is not None
        with contextlib.suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            return await work
        except BaseExceptionGroup as group:  # of tasks that ran side by side: the first to fail tells
            raise _first_of(group) from None

    return asyncio.run(main())


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _tell(device: Device, error: Exception) -> None:
    """Print what went wrong, in one line."""
    message = " ".join(in_words_of_a_command(error).split())
    if device.is_json:
        told = {"error": {"code": code_of(error), "message": message}}
        sys.stderr.write(msgspec.json.encode(told).decode() + "\n")
    else:
        device.err.print(f"[bold red]pjais:[/] {_plain(message)}", soft_wrap=True, highlight=False)


def code_of(error: Exception) -> str:
    """Return what a program knows an error by."""
    if isinstance(error, ServerRefused):
        return error.code
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(error).__name__).lower()


def in_words_of_a_command(error: Exception) -> str:
    """Return an error's message, where the SDK's would name Python, in terms of options."""
    match error:
        case KeyringUnavailable():
            return (
                "there is no secret store on this machine to keep the key in: name a file for it with "
                "--key-file PATH, or PJAIS_KEY_FILE; it is made together with the database"
            )
        case NotRegistered():
            return (
                "this device is in no space yet: pjais init --server URL makes one, and pjais join URL CODE enters"
                " another device's"
            )
    return str(error) or type(error).__name__


def _plain(text: str) -> str:
    """Return a text that rich prints as it is."""
    return text.replace("[", r"\[")
