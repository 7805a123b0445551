"""Postgres processes that outlived the server which started them, and how they are ended before the next
start.

Only the holder of the folder's lock may ask, so whatever still runs in the folder is nobody's. On Linux a
process is known by its working folder, which for every Postgres process is the data folder, and by its
program: a pid alone may meanwhile belong to something else, and children may outlive a killed postmaster.
Elsewhere ``postmaster.pid`` has to do. The signals are Postgres's own (postmaster, "Shutting Down the
Server"): INT is fast and clean, QUIT immediate, and what that loses the WAL brings back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from server.errors import EmbeddedFailed

__all__ = ["end_leftovers", "postgres_in"]

_POSTMASTER_FILE: Final = "postmaster.pid"
# Seconds that each signal is given: a fast stop writes back what is dirty, the other two do no work.
_PATIENCE_S: Final = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
_LOOK_EVERY_S: Final = 0.01


def end_leftovers(data: Path) -> int:
    """End every Postgres process in ``data`` and return how many there were.

    Raises:
        EmbeddedFailed: one does not even end on SIGKILL, as when its disk hangs.
    """
    found = postgres_in(data)
    for number, patience in _PATIENCE_S:
        left = _signalled(data, number)
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
            left = postgres_in(data)
        if not left:
            # Its pid may by now be another program's, which Postgres would take for itself.
            (data / _POSTMASTER_FILE).unlink(missing_ok=True)
            return len(found)
    raise EmbeddedFailed(
        f"an earlier Postgres in {data} does not end: processes {sorted(postgres_in(data))}; end them first"
    )


def postgres_in(data: Path) -> set[int]:
    """The pids of the Postgres processes that work in ``data``."""
    if not data.exists():
        return set()
    if not sys.platform.startswith("linux"):
        return _postmaster_elsewhere(data)
    place = data.stat()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it ended, or is another user's
                work = (entry / "cwd").stat()
                if (work.st_dev, work.st_ino) == (place.st_dev, place.st_ino):
                    if (entry / "comm").read_text().strip() == "postgres":
                        found.add(int(entry.name))
    return found


def _signalled(data: Path, number: int) -> set[int]:
    """Signal the postmaster, which ends the others; where there is none any more, they have nothing to finish."""
    found = postgres_in(data)
    postmaster = _recorded(data)
    if postmaster not in found:
        number = signal.SIGKILL
    for pid in found if number == signal.SIGKILL else {postmaster}:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return found


def _recorded(data: Path) -> int:
    """The pid in ``postmaster.pid``, or 0."""
    try:
        return int((data / _POSTMASTER_FILE).read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return 0


def _postmaster_elsewhere(data: Path) -> set[int]:
    pid = _recorded(data)
    if not pid:
        return set()
    shown = subprocess.run(
        ["/bin/ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return {pid} if Path(shown.stdout.strip()).name == "postgres" else set()
