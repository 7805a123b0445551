"""``pjais watch``: the newest records of a collection, as they change here and on the other devices.

On a terminal a table that stays true; elsewhere a line for each change; with ``--json`` an object a line:

``{"event": "opened", "collection", "records"}`` first, then ``{"event": "inserted" | "updated", "collection", "id",
"record"}``, ``{"event": "deleted", "collection", "id"}`` and ``{"event": "status", "state", …}``.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import msgspec
import rich_click as click
from rich.live import Live
from rich.text import Text

from client_sdk.cli.device import Device, command
from client_sdk.cli.devices import standing_of
from client_sdk.cli.show import COLLECTIONS, cells, newest_first, status_text
from client_sdk.hub import Hub, HubCollection
from client_sdk.materialize import Change
from client_sdk.transfer import encode_record

__all__ = ["watch"]

_LOOKUP_MAX: Final = 200  # records fetched at a time when many change at once


@click.command()
@click.option("--collection", type=click.Choice(COLLECTIONS), default="conversations", show_default=True)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=15, show_default=True, help="Rows of the table."
)
@command
async def watch(device: Device, *, collection: str, limit: int) -> None:
    """Show a collection as it changes, here and on the other devices. Ctrl-C ends it.

    A device that is in a space is kept in sync meanwhile.
    """
    async with device.open() as hub:
        with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C is how it ends
            await _watch(device, hub, collection, limit)


async def _watch(device: Device, hub: Hub, collection: str, limit: int) -> None:
    records = hub.collections[collection]
    changes = records.changes()  # from here on none is missed
    async with contextlib.aclosing(changes), asyncio.TaskGroup() as tasks:
        if device.is_json:
            device.answer({"event": "opened", "collection": collection, "records": await records.count()})
        if device.out.is_terminal and not device.is_json:
            tasks.create_task(_table(device, hub, collection, changes, limit))
        else:
            tasks.create_task(_lines(device, hub, collection, changes))
        if hub.client.is_registered:
            await hub.client.connect()
            if device.is_json:
                tasks.create_task(_statuses(device, hub))


async def _table(device: Device, hub: Hub, collection: str, changes: Any, limit: int) -> None:
    records: HubCollection[Any] = hub.collections[collection]
    newest = records.order_by("updated_at", "desc").limit(limit).include(*records.schema.lazy)
    shown = asyncio.Event()
    told = ""

    async def follow_changes() -> None:
        nonlocal told
        async for some in changes:
            told = f" · last change: {len(some):,} at once" if len(some) > 1 else f" · last: {some[0].kind}"
            shown.set()

    async def follow_status() -> None:
        async for _ in hub.client.statuses():
            shown.set()

    with Live(console=device.out, screen=False, auto_refresh=False) as live:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow_changes())
            if hub.client.is_registered:
                tasks.create_task(follow_status())
            while True:
                names = {persona.id: persona.name for persona in await hub.personas.all()}
                title = Text.assemble(f"{collection} · {await records.count():,} records · ")
                client = hub.client
                standing = status_text(client.status) if client.is_registered else Text("on its own")
                title.append_text(standing).append(told, style="dim")
                live.update(newest_first(collection, await newest.all(), names, title=title), refresh=True)
                await shown.wait()
                shown.clear()


async def _lines(device: Device, hub: Hub, collection: str, changes: Any) -> None:
    records: HubCollection[Any] = hub.collections[collection]
    async for some in changes:
        held: dict[str, Any] = {}
        for start in range(0, len(some), _LOOKUP_MAX):
            ids = [change.record for change in some[start : start + _LOOKUP_MAX]]
            found = await records.where("id", "in", ids).include(*records.schema.lazy).all()
            held |= {record.id: record for record in found}
        for change in some:
            _line(device, collection, change, held.get(change.record))


def _line(device: Device, collection: str, change: Change, record: Any) -> None:
    if record is None:
        if device.is_json:
            device.answer({"event": "deleted", "collection": collection, "id": change.record})
        else:
            device.say(f"deleted {change.record}")
        return
    kind = "updated" if change.kind == "deleted" else change.kind  # it is back already
    if device.is_json:
        encoded = msgspec.Raw(encode_record(collection, record))
        device.answer({"event": kind, "collection": collection, "id": change.record, "record": encoded})
    else:
        device.say(f"{kind} " + " · ".join(cell for cell in cells(record, {}) if cell))


async def _statuses(device: Device, hub: Hub) -> None:
    async for status in hub.client.statuses():
        device.answer({"event": "status", **standing_of(status)})
