"""Commands whose names stand but which are not built yet: each says so, with exit code 2."""

from __future__ import annotations

from typing import Any

import rich_click as click

from client_sdk.cli.device import Device, command
from client_sdk.errors import NotAvailable

__all__ = ["backup", "doctor", "restore"]


def _later(name: str, what: str, instead: str) -> Any:
    @command
    async def run(_device: Device, **_arguments: Any) -> None:
        raise NotAvailable(f"pjais {name}", instead)

    run.__doc__ = f"{what} (not available yet)."
    everything = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)(run)
    return click.command(name, context_settings={"ignore_unknown_options": True})(everything)


backup = _later(
    "backup", "Write an encrypted copy of the file", "pjais export keeps the records, in plain text"
)
restore = _later("restore", "Bring a backup back", "pjais import reads an export")
doctor = _later("doctor", "Look the file over, and mend it", "pjais status opens it, and says what is wrong")
