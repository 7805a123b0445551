"""``pjais-server serve``, run as a command."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

__all__: list[str] = []

COMMAND = [sys.executable, "-c", "from server.cli import main; main()", "serve"]


@contextmanager
def serving(*options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command; yield it and the URL that it prints."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        match = re.fullmatch(r"listening on (http://127\.0\.0\.1:[1-9]\d*)\n", line)
        if match is None:
            process.kill()
            pytest.fail(f"printed {line!r}; {process.communicate()[1]}")
        yield process, match[1]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def stopped(
    process: subprocess.Popen[str], number: signal.Signals, *, within_s: float = 15
) -> tuple[int, str, str]:
    """Send a signal; return exit code and the rest of the output."""
    process.send_signal(number)
    out, err = process.communicate(timeout=within_s)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_one_line_and_stops_cleanly_with_open_sessions(
    open_folder: Path, number: signal.Signals
) -> None:
    """On an embedded Postgres, which stops with it."""
    with serving("--data", str(open_folder / "data")) as (process, url):
        assert httpx.get(f"{url}/ready").status_code == 200
        with connect(url.replace("http", "ws") + "/v1/sync"), connect(url.replace("http", "ws") + "/v1/sync"):
            began = time.monotonic()
            code, out, err = stopped(process, number)
        assert (code, out) == (0, ""), err
        assert "Traceback" not in err
        assert time.monotonic() - began < 10
    assert not (open_folder / "data" / "data" / "postmaster.pid").exists()


def test_the_database_may_be_ones_own(database_url: str) -> None:
    with serving("--database-url", database_url) as (process, url):
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        assert stopped(process, signal.SIGTERM)[0] == 0


def test_settings_come_from_the_environment_too(database_url: str) -> None:
    with serving(PJAIS_DATABASE_URL=database_url, PJAIS_HOST="127.0.0.1") as (process, url):
        assert httpx.get(f"{url}/ready").status_code == 200
        assert stopped(process, signal.SIGTERM)[0] == 0


def failed(*options: str, **environment: str) -> str:
    """Run the command, which cannot start; return what it says."""
    done = subprocess.run(
        [*COMMAND, *options],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("pjais-server: ")
    assert "Traceback" not in done.stderr
    return last


def test_what_keeps_it_from_starting_is_one_clear_line() -> None:
    unreachable = "postgresql://me:secret@127.0.0.1:1/none"
    said = failed("--port", "0", "--database-url", unreachable, PJAIS_CONNECT_TIMEOUT_S="0.2")
    assert "no Postgres at 127.0.0.1:1" in said
    assert "secret" not in said
    assert "PJAIS_DATABASE_URL" in failed("--port", "0", "--database-url", "mysql://x")
    assert "give one" in failed("--port", "0", "--data", "somewhere", "--database-url", unreachable)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}" in failed("--port", port, "--database-url", unreachable)


def test_a_signal_while_it_starts_stops_it() -> None:
    """It would wait for its database for a minute."""
    environment = {**os.environ, "PJAIS_CONNECT_TIMEOUT_S": "60"}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/none"
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", "--database-url", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        silent.settimeout(30)
        silent.accept()[0].close()
        _, out, err = stopped(process, signal.SIGTERM)
    assert out == ""
    assert "Traceback" not in err
