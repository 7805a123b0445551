"""The commands about this device and its space: init, status, invite, join, sync."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import rich_click as click
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from client_sdk.cli.device import Device, command
from client_sdk.cli.errors import HubExists
from client_sdk.cli.show import status_text
from client_sdk.hub import Hub
from client_sdk.sync.status import Status

__all__ = ["init", "invite", "join", "standing_of", "status", "sync"]

_SYNC_TIMEOUT_S: Final = 120.0  # a first sync of 100,000 records takes some ten seconds


@click.command()
@click.option(
    "--server", metavar="URL", help="Make a space at this server too, with this device as its first."
)
@command
async def init(device: Device, *, server: str | None) -> None:
    """Make a new Hub: an encrypted file and its key.

    With --server the Hub gets a space there, which other devices can join; that works for a file that is there, too.
    """
    existed = device.path.exists()
    if existed and server is None:
        raise HubExists(device.path)
    async with device.open(may_create=True) as hub:
        if server is not None:
            await hub.client.register(server)
        if device.is_json:
            device.answer(
                {"db": str(device.path), "created": not existed, "server": server, "space": hub.client.space}
            )
            return
        key = f"the key file {device.key_file}" if device.key_file else "the operating system's keyring"
        if not existed:
            device.say(f"made {device.path}; its key is in {key}")
        if server is not None:
            device.say(f"it is the first device of space {hub.client.space} at {server}")


@click.command()
@command
async def status(device: Device) -> None:
    """Show what this device holds, and how it stands with its server. Asks nobody: pjais sync does."""
    async with device.open() as hub:
        known = await _known(device, hub)
    if device.is_json:
        device.answer(known)
        return
    table = Table.grid(padding=(0, 2))
    table.add_row("file", f"{device.path} ({known['bytes']:,} bytes)")
    table.add_row("records", ", ".join(f"{count:,} {name}" for name, count in known["records"].items()))
    table.add_row("space", known["space"] or "none: this device is on its own")
    table.add_row("server", known["server"] or "none: pjais init --server URL makes a space at one")
    table.add_row("pending", f"{known['pending']:,} updates wait to be sent" if known["space"] else "-")
    table.add_row("digest", known["digest"])
    device.out.print(table, highlight=False, soft_wrap=True)


@click.command()
@command
async def invite(device: Device) -> None:
    """Print a code with which one more device can join, within ten minutes."""
    async with device.open() as hub:
        code = await hub.client.invite()
    if device.is_json:
        device.answer({"code": code})
        return
    device.say(code)
    device.note("on the other device, within ten minutes: pjais join URL CODE")


@click.command()
@click.argument("url")
@click.argument("code")
@command
async def join(device: Device, url: str, code: str) -> None:
    """Join another device's space, with the code that pjais invite printed there.

    The Hub's file is made if it is not there; what is in it already goes along.
    """
    async with device.open(may_create=True) as hub:
        await hub.client.join(url, code)
        if device.is_json:
            device.answer({"db": str(device.path), "server": url, "space": hub.client.space})
        else:
            device.say(f"{device.path} is now a device of space {hub.client.space}")
            device.note("pjais sync fetches what the others hold")


@click.command()
@click.option("--follow", is_flag=True, help="Stay in sync until Ctrl-C.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=_SYNC_TIMEOUT_S, show_default=True
)
@command
async def sync(device: Device, *, follow: bool, timeout: float) -> None:
    """Send and fetch until this device and the server are equal, and proved so."""
    async with device.open() as hub:
        client = hub.client
        await client.connect()
        with _shown(device, hub):
            if follow:
                with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C is how it ends
                    await _follow(device, hub)
                return
            await client.synced(timeout=timeout)
        known = {**await _known(device, hub), **standing_of(client.status)}
        if device.is_json:
            device.answer(known)
        else:
            device.say(f"in step with the server, and equal: {sum(known['records'].values()):,} records")


async def _follow(device: Device, hub: Hub) -> None:
    async for standing in hub.client.statuses():
        if device.is_json:
            device.answer(standing_of(standing))
        elif not device.err.is_terminal:
            device.say(status_text(standing).plain)


@contextlib.contextmanager
def _shown(device: Device, hub: Hub) -> Any:
    """Show on a terminal how the sync goes, while it does."""
    if device.is_json or not device.err.is_terminal:
        yield
        return

    class Now:
        def __rich__(self) -> RenderableType:
            return Text.assemble("sync ", status_text(hub.client.status))

    with device.err.status(Now()):
        yield


async def _known(device: Device, hub: Hub) -> dict[str, Any]:
    digest, documents = await hub.client.digest()
    files = [device.path.with_name(device.path.name + suffix) for suffix in ("", "-wal")]
    return {
        "db": str(device.path),
        "bytes": sum(file.stat().st_size for file in files if file.exists()),
        "records": {name: await collection.count() for name, collection in hub.collections.items()},
        "documents": documents,
        "digest": digest,
        "space": hub.client.space,
        "server": hub.client.server_url,
        "pending": hub.client.status.pending,
    }


def standing_of(standing: Status) -> dict[str, Any]:
    """Return a status as JSON has it."""
    return {
        "state": standing.state,
        "pending": standing.pending,
        "cursor": standing.cursor,
        "head": standing.head,
        "verified": standing.verified,
        "lastError": None if standing.last_error is None else str(standing.last_error),
    }
