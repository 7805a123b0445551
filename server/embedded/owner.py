"""Who runs Postgres: ourselves, or, when we are root, a uid that nobody else has.

Postgres refuses to run as root. `Owner` says as whom a program is started; the folders that it may write are
given to that uid, the folders above them are not touched. They may even be closed to it: a program is started
inside its folder (the change of folder happens before the change of uid) and is told the folder's name as
``/proc/self/cwd``. Linux follows that link to the folder itself and never walks through the parents
(proc_pid_cwd(5)), so search permission on them is not asked for.
"""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from server.errors import EmbeddedFailed

__all__ = ["INSTEAD", "POSTGRES_UID", "Owner", "account_for_initdb", "give", "owner_of"]

# systemd's table of uids (UIDS-GIDS.md) leaves 65520 to 65533 unused, and no distribution has an account
# there; below 65536, so that containers with their own range of uids map it too.
POSTGRES_UID: Final = 65_520

INSTEAD: Final = "run the server as an ordinary user, or give it a Postgres with --database-url"


@dataclass(frozen=True, slots=True)
class Owner:
    """The uid (and gid) of Postgres; None for our own."""

    uid: int | None

    def process(self) -> dict[str, Any]:
        """The arguments of `subprocess.Popen` that make a process this owner's, and keep Ctrl-C from it."""
        ours: dict[str, Any] = {"start_new_session": True, "env": {"LC_ALL": "C", "PATH": os.defpath}}
        if self.uid is not None:
            ours |= {"user": self.uid, "group": self.uid, "extra_groups": []}
        return ours

    def name_of(self, folder: Path) -> str:
        """What a process of this owner that was started in ``folder`` calls it."""
        return str(folder) if self.uid is None else "/proc/self/cwd"


def owner_of(data: Path) -> Owner:
    """Return who runs, or will run, the cluster in ``data``.

    Raises:
        EmbeddedFailed: the cluster is another user's, or we are root where there is no /proc.
    """
    holder = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        if holder not in {None, os.geteuid()}:
            raise EmbeddedFailed(f"{data} belongs to uid {holder}; run the server as that user, or as root")
        return Owner(None)
    if not sys.platform.startswith("linux"):
        raise EmbeddedFailed(f"Postgres does not run as root, and can give root up only on Linux; {INSTEAD}")
    return Owner(holder or POSTGRES_UID)


def account_for_initdb(owner: Owner) -> Owner:
    """Return as whom to run initdb, which wants a uid with a name in the accounts, unlike Postgres itself.

    Raises:
        EmbeddedFailed: there is no account but root's.
    """
    if owner.uid is None:
        return owner
    accounts = [account for account in pwd.getpwall() if account.pw_uid != 0]
    accounts.sort(key=lambda account: (account.pw_uid != owner.uid, account.pw_name != "nobody"))
    if not accounts:
        raise EmbeddedFailed(f"initdb needs an account that is not root, and /etc/passwd has none; {INSTEAD}")
    return Owner(accounts[0].pw_uid)


def give(folder: Path, owner: Owner) -> None:
    """Make ``folder`` and all in it the owner's. Links are not followed.

    Raises:
        EmbeddedFailed: we may not, as in a container without CAP_CHOWN.
    """
    if owner.uid is None:
        return
    try:
        for place, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(Path(place, name), owner.uid, owner.uid, follow_symlinks=False)
        os.chown(folder, owner.uid, owner.uid, follow_symlinks=False)
    except OSError as error:
        raise EmbeddedFailed(
            f"cannot give {folder} to uid {owner.uid}: {error.strerror}; {INSTEAD}"
        ) from error
