"""The programs in the README run as they stand."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def url(cluster_folder: Path) -> Iterator[str]:
    """Start a server with a Postgres of its own, as `make serve` does."""
    program = Path(sys.executable).with_name("pjais-server")
    command = [str(program), "serve", "--port", "0", "--data", str(cluster_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), line
        yield line.removeprefix("listening on ").strip()
        process.terminate()
        assert process.wait(30) == 0


async def run(program: str, folder: Path) -> str:
    path = folder / "program.py"
    path.write_text(program)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", path, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_one_device_needs_no_server(tmp_path: Path) -> None:
    output = await run(PROGRAMS[0], tmp_path)
    assert "pinned: ['Hello']" in output
    assert "views=1" in output


async def test_two_devices_end_equal(tmp_path: Path, url: str) -> None:
    output = await run(PROGRAMS[1].replace("http://127.0.0.1:8787", url), tmp_path)
    assert "title='from the laptop'" in output
    assert "verified=True" in output


def test_there_are_two_programs() -> None:
    assert len(PROGRAMS) == 2
