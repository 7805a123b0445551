"""The command that shows what takes up room in a Hub's file: metrics."""

from __future__ import annotations

import sys

import rich_click as click
from rich.table import Table

from client_sdk.cli.device import Device, command
from client_sdk.metrics import Metrics

__all__ = ["metrics"]


@click.command()
@click.option("--prometheus", is_flag=True, help="Answer in Prometheus' text format.")
@command
async def metrics(device: Device, *, prometheus: bool) -> None:
    """Show what takes up room in this device's file.

    What an application that has the file open does and how long it takes, it asks its own client.
    """
    if prometheus:
        from client_sdk.telemetry import prometheus as telemetry

        async with device.open() as hub:
            sys.stdout.write(await telemetry.text(hub.client))
        return
    async with device.open() as hub:
        found = await hub.client.metrics()
    if device.is_json:
        device.answer(found)
        return
    device.out.print(_room(found), highlight=False)
    storage = found.storage
    facts = Table.grid(padding=(0, 2))
    facts.add_row("file", f"{storage.file_bytes:,} bytes, {storage.free_bytes:,} of them free for use")
    facts.add_row("its log", f"{storage.wal_bytes:,} bytes")
    facts.add_row("disk", f"{storage.disk_free_bytes:,} bytes are free")
    facts.add_row(
        "pending", f"{found.sync.pending:,} updates wait to be sent; read up to {found.sync.cursor:,}"
    )
    device.out.print(facts, highlight=False, soft_wrap=True)


def _room(found: Metrics) -> Table:
    table = Table(border_style="dim", header_style="bold")
    table.add_column("collection")
    for name in ("records", "rows, bytes", "indexes, bytes", "log, bytes"):
        table.add_column(name, justify="right")
    for name, one in found.collections.items():
        numbers = (one.records, one.data_bytes, one.index_bytes, one.log_bytes)
        table.add_row(name, *(f"{number:,}" for number in numbers))
    return table
