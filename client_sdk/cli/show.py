"""Records and states as a terminal shows them: a few cells a record, a few words a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from client_sdk.hub.records import Conversation, Memory, Persona, Workflow
from client_sdk.sync.status import Status

__all__ = ["COLLECTIONS", "cells", "newest_first", "status_text"]

COLLECTIONS: Final = ("personas", "memories", "conversations", "workflows")

_COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "personas": ("changed", "name", "active", "uses", "description"),
    "memories": ("changed", "persona", "type", "importance", "name", "summary"),
    "conversations": ("changed", "persona", "about", "messages", "last said"),
    "workflows": ("changed", "name", "runs", "description"),
}
_STATES: Final = {
    "offline": "yellow",
    "connecting": "yellow",
    "syncing": "cyan",
    "synced": "green",
    "error": "red",
}


def cells(record: Any, personas: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a row shows of a record; ``personas`` are names by id."""
    changed = record.updated_at.astimezone().strftime("%Y-%m-%d %H:%M")
    match record:
        case Persona():
            active = "yes" if record.is_active else ""
            return changed, record.name, active, str(record.usage_count), _line(record.description)
        case Memory():
            persona = personas.get(record.persona_id or "", "")
            return changed, persona, record.type, str(record.importance), record.name, _line(record.summary)
        case Conversation():
            last = record.messages[-1] if record.messages else None
            said = f"{last.role}: {_line(last.content)}" if last else ""
            persona = personas.get(record.persona_id or "", "")
            return changed, persona, _line(record.summary), str(len(record.messages)), said
        case Workflow():
            return changed, record.name, str(record.execution_count), _line(record.description)
    raise AssertionError(f"{type(record).__name__} is none of the Hub's records")


def newest_first(
    collection: str, records: Sequence[Any], personas: Mapping[str, str], *, title: Text
) -> Table:
    """Return the table of some records."""
    table = Table(title=title, title_justify="left", expand=True, border_style="dim", header_style="bold")
    for name in _COLUMNS[collection]:
        is_prose = name in ("description", "summary", "about", "last said", "name")
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=3 if is_prose else None)
    for record in records:
        table.add_row(*map(Text, cells(record, personas)))
    return table


def status_text(status: Status) -> Text:
    """Return how a device stands with its server, in a line."""
    text = Text(status.state, style=_STATES[status.state])
    if status.verified:
        text.append(", proved equal", style="green")
    if status.pending:
        text.append(f", {status.pending:,} to send")
    if status.head > status.cursor:
        text.append(f", {status.head - status.cursor:,} to read")
    if status.last_error is not None and status.state in ("offline", "error"):
        text.append(f": {_line(str(status.last_error))}", style="dim")
    return text


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
