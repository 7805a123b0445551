"""The embedded Postgres: private, clean, and always startable, whoever was killed before."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from server.embedded import EmbeddedPostgres, cluster, leftovers, owner
from server.errors import EmbeddedFailed, EmbeddedInUse
from tests.postgres import query

__all__: list[str] = []

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

# A server that runs until it is killed, in a process of its own.
SERVER = """
import os, sys
from pathlib import Path
from server.embedded import EmbeddedPostgres
if len(sys.argv) > 2:
    first = EmbeddedPostgres(Path(sys.argv[2]))  # a first run as root: every module is loaded, wherever it stands
    first.start_now()
    first.stop_now()
    os.setgroups([])
    os.setgid(1)
    os.setuid(1)
postgres = EmbeddedPostgres(Path(sys.argv[1]))
print(postgres.start_now(), postgres.pid, postgres._watcher.pid, flush=True)
sys.stdin.read()
postgres.stop_now()
"""


@pytest.fixture
def folder(cluster_folder: Path) -> Path:
    return cluster_folder


@pytest.fixture
def embedded(folder: Path) -> Iterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(folder)
    yield postgres
    postgres.stop_now()


def ended(pid: int, *, timeout_s: float = 30.0) -> bool:
    """Wait until a process, of whatever parent, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with open(descriptor, "rb", buffering=0):  # noqa: PTH123 - a process as a file
        return bool(select.select([descriptor], [], [], timeout_s)[0])


def serve(*arguments: Path) -> tuple[subprocess.Popen[str], str, int, int]:
    """Start a server in a process of its own; return it, its Postgres's URL and pid, and the watcher's pid."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url, pid, watcher = server.stdout.readline().split()
    return server, url, int(pid), int(watcher)


def killed(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.communicate()


async def test_it_starts_answers_stops_and_keeps_what_was_written(embedded: EmbeddedPostgres) -> None:
    url = await embedded.start()
    assert await embedded.start() == url
    assert await query(url, "CREATE TABLE kept AS SELECT 42 AS value", "SELECT value FROM kept") == 42
    await embedded.stop()
    with pytest.raises(OSError, match=r"refused|failed"):
        await asyncpg.connect(url)
    assert await query(await embedded.start(), "SELECT value FROM kept") == 42


async def test_stopping_what_does_not_run_does_nothing(embedded: EmbeddedPostgres) -> None:
    await embedded.stop()
    await embedded.stop()
    assert embedded.pid is None


async def test_it_is_left_when_its_block_is(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as postgres:
        pid = postgres.pid
        assert await query(postgres.url, "SELECT 1") == 1
    assert pid is not None
    assert ended(pid, timeout_s=0)


async def test_it_runs_as_promised(embedded: EmbeddedPostgres) -> None:
    """Checksums, flushes, UTF-8 by bytes, 127.0.0.1 alone, SCRAM, and pgvector at hand."""
    url = await embedded.start()
    connection = await asyncpg.connect(url)
    promised = {
        "data_checksums": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "server_encoding": "UTF8",
        "password_encryption": "scram-sha-256",
        "jit": "off",
        "autovacuum": "on",
        "max_wal_size": "2GB",
    }
    assert {
        name: await connection.fetchval("SELECT current_setting($1)", name) for name in promised
    } == promised
    methods = await connection.fetch("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
    assert [row[0] for row in methods] == ["scram-sha-256"]
    assert await connection.fetchval("SELECT lower('ÄÖ') || upper('é')") == "äöÉ"
    await connection.execute("CREATE EXTENSION vector")
    assert await connection.fetchval("SELECT '[1,2]'::vector <-> '[1,4]'::vector") == 2.0
    await connection.close()


async def test_nobody_gets_in_without_the_password(embedded: EmbeddedPostgres) -> None:
    url = await embedded.start()
    password = (embedded.folder.path / "password").read_text()
    assert password in url
    for wrong in ("wrong", password + "x", password[:-1]):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url.replace(password, wrong))
    with pytest.raises(asyncpg.PostgresError):
        await asyncpg.connect(url.replace(f":{password}", ""), password="")


async def test_the_folder_is_private_and_its_parents_stay_as_they_were(tmp_path: Path) -> None:
    """Even below a folder that is closed to all others, as /root is."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = {parent: parent.stat() for parent in (closed, *closed.parents)}
    async with EmbeddedPostgres(closed / "postgres") as postgres:
        folder = postgres.folder.path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700
        assert {path.name for path in folder.iterdir()} == {"data", "lock", "password", "postgres.log"}
        for name in ("lock", "password", "postgres.log"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
            assert (folder / name).stat().st_uid == os.geteuid()
    for parent, status in before.items():
        now = parent.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (status.st_mode, status.st_uid, status.st_gid)


async def test_a_folder_that_was_opened_to_others_is_closed_again(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    async with EmbeddedPostgres(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_the_key_that_interrupts_the_server_does_not_interrupt_postgres(
    embedded: EmbeddedPostgres,
) -> None:
    """A terminal signals everything in its session's foreground; the server must be able to stop first."""
    await embedded.start()
    assert embedded.pid is not None
    assert os.getsid(embedded.pid) == embedded.pid != os.getsid(0)


@as_root
@on_linux
async def test_under_root_it_runs_with_no_rights(embedded: EmbeddedPostgres) -> None:
    await embedded.start()
    fields = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{embedded.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert fields["Uid"].split() == [str(owner.POSTGRES_UID)] * 4
    assert fields["Gid"].split() == [str(owner.POSTGRES_UID)] * 4
    assert fields["Groups"].strip() == ""
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0


@as_root
async def test_an_ordinary_user_can_run_it_too(open_folder: Path, tmp_path: Path) -> None:
    folder = open_folder / "mine"
    folder.mkdir(mode=0o700)
    os.chown(folder, 1, 1)
    server, url, pid, watcher = serve(folder / "postgres", tmp_path / "first")
    assert await query(url, "SELECT current_setting('data_directory')") == str(folder / "postgres" / "data")
    server.communicate()
    assert server.returncode == 0
    assert ended(pid, timeout_s=0)
    assert ended(watcher, timeout_s=0)


async def test_a_killed_postgres_comes_back_under_the_same_url_with_all_that_was_committed(
    embedded: EmbeddedPostgres,
) -> None:
    url = await embedded.start()
    supervision = asyncio.create_task(embedded.supervise())
    await query(url, "CREATE TABLE kept (value integer)", "SELECT 1")
    for value in range(3):
        await query(url, f"INSERT INTO kept VALUES ({value})", "SELECT 1")
        pid = embedded.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while embedded.pid == pid:  # noqa: ASYNC110 - there is no event: the supervision has no other reader
            await asyncio.sleep(0)
        found = await query(url, "SELECT count(*) FROM kept")
        assert found == value + 1
    await embedded.stop()
    await supervision


async def test_a_postgres_that_cannot_come_back_ends_the_supervision(embedded: EmbeddedPostgres) -> None:
    await embedded.start()
    (embedded.folder.data / "postgresql.conf").write_text("max_connections = none\n")
    assert embedded.pid is not None
    os.kill(embedded.pid, signal.SIGKILL)
    with pytest.raises(EmbeddedFailed, match="max_connections"):
        await embedded.supervise()


@on_linux
async def test_postgres_ends_with_a_killed_server_and_the_next_server_has_its_data(folder: Path) -> None:
    server, url, pid, watcher = serve(folder)
    await query(url, "CREATE TABLE kept AS SELECT 42 AS value", "SELECT 1")
    killed(server)
    assert ended(pid)
    assert ended(watcher)
    async with EmbeddedPostgres(folder) as postgres:
        assert await query(postgres.url, "SELECT value FROM kept") == 42


@on_linux
async def test_a_postgres_that_outlived_its_server_is_ended_by_the_next_start(folder: Path) -> None:
    """The watcher was killed as well, so nothing stopped it."""
    server, url, pid, watcher = serve(folder)
    await query(url, "CREATE TABLE kept AS SELECT 42 AS value", "SELECT 1")
    os.kill(watcher, signal.SIGKILL)
    killed(server)
    assert await query(url, "SELECT value FROM kept") == 42, "it runs on by itself"
    async with EmbeddedPostgres(folder) as postgres:
        assert ended(pid, timeout_s=0)
        assert await query(postgres.url, "SELECT value FROM kept") == 42


@on_linux
async def test_children_that_outlived_a_killed_postmaster_are_ended_by_the_next_start(folder: Path) -> None:
    """Stopped in the middle of its work, a child would hold the shared memory and forbid the start."""
    server, url, pid, watcher = serve(folder)
    connection = await asyncpg.connect(url)
    child = connection.get_server_pid()
    os.kill(child, signal.SIGSTOP)
    for process in (watcher, pid):
        os.kill(process, signal.SIGKILL)
    killed(server)
    assert child in leftovers.postgres_in(folder / "data")
    connection.terminate()
    async with EmbeddedPostgres(folder) as postgres:
        assert ended(child, timeout_s=0)
        assert await query(postgres.url, "SELECT 1") == 1


async def test_a_stale_pid_that_now_belongs_to_another_program_forbids_nothing(folder: Path) -> None:
    async with EmbeddedPostgres(folder):
        note = (folder / "data" / "postmaster.pid").read_text()
    (folder / "data" / "postmaster.pid").write_text("\n".join([str(os.getpid()), *note.split("\n")[1:]]))
    async with EmbeddedPostgres(folder) as postgres:
        assert await query(postgres.url, "SELECT 1") == 1


@on_linux
def test_only_postgres_is_taken_for_a_leftover(tmp_path: Path) -> None:
    """A shell that stands in the data folder is somebody's."""
    shell = subprocess.Popen(["/bin/sh", "-c", "read -r nothing"], cwd=tmp_path, stdin=subprocess.PIPE)
    assert leftovers.end_leftovers(tmp_path) == 0
    assert shell.poll() is None
    shell.communicate(b"\n")


async def test_a_second_server_on_the_same_folder_is_refused(
    embedded: EmbeddedPostgres, folder: Path
) -> None:
    url = await embedded.start()
    with pytest.raises(
        EmbeddedInUse, match=rf"in use by process {os.getpid()}; stop that server, or choose another"
    ):
        await EmbeddedPostgres(folder).start()
    other = subprocess.run(
        [sys.executable, "-c", SERVER, folder], check=False, capture_output=True, text=True
    )
    assert f"EmbeddedInUse: {folder} is in use by process {os.getpid()}" in other.stderr
    assert await query(url, "SELECT 1") == 1


async def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    mode = tmp_path.stat().st_mode
    with pytest.raises(EmbeddedFailed, match="holds something else; choose a new or an empty folder"):
        await EmbeddedPostgres(tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]
    assert tmp_path.stat().st_mode == mode


async def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "postgres").touch()
    with pytest.raises(EmbeddedFailed, match=r"cannot use .*: File exists; choose another"):
        await EmbeddedPostgres(tmp_path / "postgres").start()


async def test_what_an_interrupted_start_left_is_made_anew(embedded: EmbeddedPostgres, folder: Path) -> None:
    half = folder / "initdb" / "data" / "base"
    half.mkdir(parents=True)
    (folder / "lock").touch()
    assert await query(await embedded.start(), "SELECT 1") == 1
    assert not (folder / "initdb").exists()


async def test_a_postgres_that_does_not_start_says_why_and_gives_the_folder_free(folder: Path) -> None:
    with pytest.raises(EmbeddedFailed, match=r"exit code 1 while it started; see .*postgres.log") as failed:
        await EmbeddedPostgres(folder, options={"work_mem": "nonsense"}).start()
    assert 'invalid value for parameter "work_mem"' in failed.value.log
    async with EmbeddedPostgres(folder) as postgres:
        assert await query(postgres.url, "SELECT 1") == 1


async def test_a_cluster_that_cannot_be_made_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cluster._TUNING, "shared_buffers", "nonsense")
    with pytest.raises(EmbeddedFailed, match="initdb could not make a cluster") as failed:
        await EmbeddedPostgres(folder).start()
    assert "shared_buffers" in failed.value.log
    assert not (folder / "data").exists()


async def test_a_port_that_another_program_takes_first_is_given_up_for_another(
    embedded: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = iter([other.getsockname()[1], cluster._free_port()])
        monkeypatch.setattr(cluster, "_free_port", lambda: next(ports))
        assert await query(await embedded.start(), "SELECT 1") == 1


async def test_a_cluster_of_another_version_is_told_before_anything_is_started(folder: Path) -> None:
    async with EmbeddedPostgres(folder):
        pass
    (folder / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedFailed, match="was made by Postgres 16, here is 18; dump it"):
        await EmbeddedPostgres(folder).start()


async def test_a_lost_or_wrong_password_is_told(folder: Path) -> None:
    async with EmbeddedPostgres(folder):
        pass
    (folder / "password").write_text("another")
    with pytest.raises(EmbeddedFailed, match="does not take the password"):
        await EmbeddedPostgres(folder).start()
    (folder / "password").unlink()
    with pytest.raises(EmbeddedFailed, match=r"password is missing, .* put it back"):
        await EmbeddedPostgres(folder).start()


@as_root
async def test_a_cluster_that_root_brought_back_from_a_backup_starts(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as postgres:
        await query(postgres.url, "CREATE TABLE kept AS SELECT 42 AS value", "SELECT 1")
    shutil.copytree(folder / "data", folder / "restored")
    shutil.rmtree(folder / "data")
    (folder / "restored").rename(folder / "data")
    assert (folder / "data").stat().st_uid == 0
    async with EmbeddedPostgres(folder) as postgres:
        assert await query(postgres.url, "SELECT value FROM kept") == 42


async def test_a_long_log_is_set_aside(folder: Path) -> None:
    async with EmbeddedPostgres(folder):
        pass
    with (folder / "postgres.log").open("a") as log:
        log.write("a line of it\n" * 1_000_000)
    async with EmbeddedPostgres(folder):
        pass
    assert (folder / "postgres.log.1").stat().st_size > 12_000_000
    assert (folder / "postgres.log").stat().st_size < 100_000
