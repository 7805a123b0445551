"""``pjais search``: what was said and remembered, found by its words and by what it means.

On a terminal a table, elsewhere a line for each hit, and with ``--json`` one object: ``{"text", "scope", "fallback",
"missing", "hits": [{"collection", "id", "score", "snippet", "found_by", …}]}``, with ``"message"`` and its
``"position"`` where it was found in one, and ``"record"`` for all but conversations. ``"fallback"`` says why the device
was searched where the space was asked for: ``{"code", "message"}``, else null; ``"missing"`` counts what was found and
did not come here in time. Words that were found stand between ``**`` in a snippet.

Texts that have no vector yet, after an import for example, are embedded first, for some seconds at the most.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
import rich_click as click
from rich.table import Table
from rich.text import Text

from client_sdk.cli.device import Device, code_of, command, in_words_of_a_command
from client_sdk.cli.errors import NoSuchPersona
from client_sdk.cli.show import COLLECTIONS
from client_sdk.embedding.errors import EmbeddingProblem
from client_sdk.hits import MARKS, Asked, Hit, Hits, Mode, Scope
from client_sdk.hub import Conversation, Hub
from client_sdk.meaning.errors import EmbeddingTimeout, MeaningOff
from client_sdk.transfer import encode_record
from crdt.schema import schema_of

__all__ = ["search"]

# Private-use characters: they stand in no text that was typed, so that every mark is ours.
_MARKS: Final = ("\ue000", "\ue001")
_LOOK_S: Final = 0.2


@click.command()
@click.argument("text")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Hits at most; 100 of the space.",
)
@click.option(
    "--type", "collection", type=click.Choice(COLLECTIONS), help="Where.  [default: memories, conversations]"
)
@click.option("--persona", help="Only of this persona: its id or its name.")
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "text", "meaning"]),
    default="hybrid",
    show_default=True,
    help="By words, by what they mean, or both.",
)
@click.option(
    "--scope",
    type=click.Choice(["device", "space"]),
    default="device",
    show_default=True,
    help="What is on this device, or all that the server has of your devices.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=10,
    show_default=True,
    help="Seconds at most for texts that are not embedded yet.",
)
@command
async def search(
    device: Device,
    text: str,
    *,
    limit: int,
    collection: str | None,
    persona: str | None,
    mode: Mode,
    scope: Scope,
    wait_s: float,
) -> None:
    """Search memories and conversations, best first: by their words, and by what they mean.

    By words all of them must be there, or if that finds nothing, any. "Words in quotes" stand together.
    """
    if collection == "personas" and persona is not None:
        raise click.UsageError("--persona narrows what belongs to a persona; --type personas searches them")
    async with device.open() as hub:
        persona_id = None if persona is None else await _persona(hub, persona)
        asked: Asked[Any]
        marks = _MARKS if device.out.is_terminal and not device.is_json else MARKS
        if collection is None:
            asked = hub.search(text, persona_id=persona_id, limit=limit, mode=mode, scope=scope, marks=marks)
        else:
            equal = {} if persona_id is None else {"persona_id": persona_id}
            asked = (
                hub.collections[collection]
                .where(**equal)
                .search(text, limit=limit, mode=mode, scope=scope, marks=marks)
            )
        if scope == "space" and hub.client.is_registered:
            await hub.client.connect()  # what is found and is not here comes over it
        if mode != "text" and wait_s:
            await _embedded(device, hub, wait_s)
        hits = await asked
        names = {one.id: one.name for one in await hub.personas.all()}
    if device.is_json:
        device.answer(_json(text, hits))
        return
    if hits.fallback is not None:
        device.note(f"this device alone was searched: {in_words_of_a_command(hits.fallback)}")
    if hits.missing:
        device.note(f"{hits.missing} more were found that did not come to this device in time: search again")
    if not hits:
        device.note("nothing found")
    elif device.out.is_terminal:
        device.out.print(_table(hits, names))
    else:
        for hit in hits:
            device.out.print(
                Text(" · ".join(filter(None, (*_cells(hit, names), hit.snippet)))), soft_wrap=True
            )


def _json(text: str, hits: Hits[Any]) -> dict[str, Any]:
    fallback = None
    if hits.fallback is not None:
        fallback = {"code": code_of(hits.fallback), "message": in_words_of_a_command(hits.fallback)}
    return {
        "text": text,
        "scope": hits.scope,
        "fallback": fallback,
        "missing": hits.missing,
        "hits": [_answer(hit) for hit in hits],
    }


async def _embedded(device: Device, hub: Hub, wait_s: float) -> None:
    """Have texts embedded before they are searched; what has no vector then is found by its words."""
    waiting = asyncio.create_task(hub.client.embedded(wait_s))
    try:
        with device.progress("embedding") as show:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=_LOOK_S)
                if show is not None and not waiting.done():
                    progress = await hub.client.embedding_progress()
                    show(progress.done, progress.total)
        await waiting
    except MeaningOff:
        pass  # the search says so, if that is all that was asked for
    except (EmbeddingTimeout, EmbeddingProblem) as problem:
        device.note(f"some texts are found by their words only: {problem}")
    finally:
        waiting.cancel()


async def _persona(hub: Hub, named: str) -> str:
    """Return the id of a persona that is named by its id or its name. Raises `NoSuchPersona`."""
    found = await hub.personas.where().or_({"id": named}, {"name": named}).first()
    if found is None:
        raise NoSuchPersona(named)
    return found.id


def _answer(hit: Hit[Any]) -> dict[str, Any]:
    collection = schema_of(type(hit.record)).collection
    told: dict[str, Any] = {
        "collection": collection,
        "id": hit.record.id,
        "score": hit.score,
        "snippet": hit.snippet,
        "found_by": sorted(hit.found_by),
    }
    if hit.message is not None:
        told |= {"message": hit.message, "position": hit.position}
    if collection != "conversations":  # one may have thousands of messages
        told["record"] = msgspec.Raw(encode_record(collection, hit.record))
    return told


def _table(hits: list[Hit[Any]], names: dict[str, str]) -> Table:
    table = Table(expand=True, border_style="dim", header_style="bold")
    for column in ("changed", "persona", "where"):
        table.add_column(column, no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("found", ratio=1)
    for hit in hits:
        table.add_row(*map(Text, _cells(hit, names)), _shown(hit.snippet))
    return table


def _cells(hit: Hit[Any], names: dict[str, str]) -> tuple[str, str, str]:
    """Return when it was, whose it is, and where it was found."""
    record, message = hit.record, hit.message
    at = record.updated_at if message is None else message.timestamp or record.updated_at
    if message is not None:
        where = f"{message.role}, message {(hit.position or 0) + 1}"
    else:
        where = "summary" if isinstance(record, Conversation) else record.name
    persona = names.get(getattr(record, "persona_id", None) or "", "")
    return at.astimezone().strftime("%Y-%m-%d %H:%M"), persona, where


def _shown(snippet: str) -> Text:
    """Return a snippet with its marks turned into a style."""
    shown = Text()
    for number, piece in enumerate(snippet.replace(_MARKS[1], _MARKS[0]).split(_MARKS[0])):
        shown.append(piece, style="bold yellow" if number % 2 else "")
    return shown
