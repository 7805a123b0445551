"""Exporting: everything that is not deleted, in our own format, page by page.

A file appears whole or not at all: it is written beside its place, flushed to the disk, and then renamed. Only its
owner can read it, for it is plain text. Sealed fields are left out unless ``include_sealed`` asks for them.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from client_sdk.errors import DiskFailed, DiskFull, FileUnreachable
from client_sdk.hub import Hub
from client_sdk.transfer.hub_format import export_chunks

__all__ = ["export_to", "export_to_file"]

Progress = Callable[[int, int], None]


async def export_to(
    hub: Hub,
    out: BinaryIO,
    *,
    now: dt.datetime,
    include_sealed: bool = False,
    on_progress: Progress | None = None,
) -> int:
    """Write an export, of the time ``now``, to an open binary file; return how many records it has."""
    total = sum([await collection.count() for collection in hub.everything.values()])
    done = 0
    async for records, chunk in export_chunks(hub, now=now, include_sealed=include_sealed):
        out.write(chunk)
        done += records
        if on_progress is not None:
            on_progress(done, total)
    return done


async def export_to_file(
    hub: Hub,
    path: Path,
    *,
    now: dt.datetime,
    include_sealed: bool = False,
    on_progress: Progress | None = None,
) -> int:
    """Write an export to a file, over one that is there; return how many records it has.

    Raises:
        FileUnreachable: the folder is not there, or does not let us write.
        DiskFull, DiskFailed: what was there before is still there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            records = await export_to(
                hub, out, now=now, include_sealed=include_sealed, on_progress=on_progress
            )
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
    except OSError as error:
        raise _problem(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return records


def _problem(path: Path, error: OSError) -> Exception:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(path)
    if error.errno == errno.EIO:
        return DiskFailed(path, error.strerror or "")
    return FileUnreachable(path, error.strerror or str(error))
