"""The commands that bring records in and out: import, export."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import rich_click as click

from client_sdk.cli.device import Device, command
from client_sdk.transfer import FORMATS, Format, export_to, export_to_file, import_file

__all__ = ["export", "import_"]


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format", type=click.Choice(FORMATS), help="What the file is.  [default: found from its content]"
)
@command
async def import_(device: Device, file: Path, *, format: Format | None) -> None:
    """Import a file: our own export, the conversations.json of a ChatGPT export, or a LoCoMo conversation.

    A file is read and checked as a whole before anything is written. Records that are here already stay as they
    are, so a file can be imported again.
    """
    async with device.open() as hub:
        with device.progress("importing") as on_progress:
            done = await import_file(hub, file, format=format, on_progress=on_progress)
    if device.is_json:
        device.answer(done)
        return
    added = ", ".join(f"{count:,} {name}" for name, count in done.added.items() if count) or "nothing"
    messages = f", with {done.messages:,} messages" if done.messages else ""
    device.say(f"imported {added}{messages} from {file} ({done.format}) in {done.seconds:.1f} s")
    if done.present:
        device.say(f"here already: {_counts(done.present)}")
    if done.left_out:
        device.say(f"left out: {_counts(done.left_out)}")


@click.command()
@click.argument("file", default="-", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--with-secrets", is_flag=True, help="Write sealed fields too, such as API keys, in plain text."
)
@command
async def export(device: Device, file: Path, *, with_secrets: bool) -> None:
    """Export everything that is not deleted, to a file or (-) to standard output.

    The export is plain text: whoever has it can read it. Sealed fields are left out unless --with-secrets is given.
    """
    now = dt.datetime.now(dt.UTC)
    async with device.open() as hub:
        if str(file) == "-":
            await export_to(hub, sys.stdout.buffer, now=now, include_sealed=with_secrets)
            sys.stdout.flush()
            return
        with device.progress("exporting") as on_progress:
            records = await export_to_file(
                hub, file, now=now, include_sealed=with_secrets, on_progress=on_progress
            )
    if device.is_json:
        device.answer({"file": str(file), "records": records})
    else:
        device.say(f"exported {records:,} records to {file}")


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counted.items())
