"""A full disk and a file that may not be written are called so, and nothing is half done."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client_sdk.config import Config
from client_sdk.database import Connection, Database, Role
from client_sdk.errors import DiskFull, ReadOnlyFile
from tests.client_sdk.database.lines import add, count, fill, prepare_lines, run_program, texts

__all__: list[str] = []


@pytest.mark.parametrize("inline", ["never", "always"])
async def test_a_full_disk_undoes_the_write_and_the_database_goes_on_when_there_is_room(
    path: Path, key: bytes, inline: Any
) -> None:
    database = await Database.open(path, key, config=Config(inline=inline), prepare=prepare_lines)
    await database.write(add("before"))
    (pages,) = await database.maintain(lambda connection: connection.execute("PRAGMA page_count").fetchone())
    await database.maintain(
        lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    )
    for _ in range(3):
        with pytest.raises(DiskFull, match="undone as a whole"):
            await database.write(lambda connection: [add("x" * 3_000)(connection) for _ in range(10)])
        assert await database.read(texts) == ["before"]
    await database.maintain(
        lambda connection: connection.execute("PRAGMA max_page_count = 4294967294").fetchone()
    )
    await database.write(lambda connection: [add("x" * 3_000)(connection) for _ in range(10)])
    assert await database.read(count) == 11
    await database.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs rights that this user has not; the test above needs none")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_file_system_that_is_really_full_is_one_too(small_disk: Path, key: bytes) -> None:
    database = await Database.open(small_disk / "notes.db", key, prepare=prepare_lines)
    filler = small_disk / "filler"
    known = 0
    with pytest.raises(DiskFull):
        while True:
            await database.write(lambda connection: [add("x" * 3_000)(connection) for _ in range(5)])
            known += 5
            if not filler.exists() and known >= 10:
                filler.write_bytes(bytes(1_000_000))
    assert await database.read(count) == known
    filler.unlink()
    await database.write(add("room again"))
    assert await database.read(count) == known + 1
    assert await database.check() == ()
    await database.close()


async def test_a_file_that_may_only_be_read_says_so_when_it_is_written(path: Path, key: bytes) -> None:
    await fill(path, key, 3)

    def connect(path: Path, *, role: Role, config: Config) -> Connection:
        connection: Connection = read_only(path, config)
        return connection

    def read_only(path: Path, config: Config) -> Any:
        from sqlcipher3 import dbapi2 as sqlcipher

        return sqlcipher.connect(
            f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )

    database = await Database.open(path, key, connect=connect)
    assert await database.read(count) == 3
    with pytest.raises(ReadOnlyFile):
        await database.write(add("no"))
    await database.close()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may become another user"
)
def test_a_folder_that_may_only_be_read_says_so_at_once(tmp_path: Path, key: bytes) -> None:
    folder = tmp_path
    while folder != folder.parent:  # pytest's folders are closed to others
        folder.chmod(0o755)
        folder = folder.parent
        if folder.stat().st_uid != 0 or folder.stat().st_mode & stat.S_ISVTX:
            break
    program = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from client_sdk.database import Database\n"
        "os.setuid(65534)\n"
        "try:\n"
        "    asyncio.run(Database.open(Path(sys.argv[1]), bytes(32)))\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )
    output, errors = run_program(program, tmp_path / "notes.db").communicate(timeout=60)
    assert output == b"ReadOnlyFile\n", errors.decode()
