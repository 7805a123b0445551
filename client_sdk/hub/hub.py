"""The Hub's door: one encrypted file with its four collections.

::

    async with Hub.open("hub.db") as hub:
        wren = await hub.personas.insert(Persona(name="Wren"))
        await hub.personas.increment_usage(wren.id)
        await hub.client.connect()
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from client_sdk.client import Client
from client_sdk.hits import MARKS, Mode, Scope
from client_sdk.hub.collections import Conversations, HubCollection, Personas, Workflows
from client_sdk.hub.memories import Memories
from client_sdk.hub.records import Conversation, Memory, Persona, Relation, Workflow
from client_sdk.opening import SYSTEM, Opening
from client_sdk.opening import open as open_client
from client_sdk.search import Merged
from crdt.schema import Record

if TYPE_CHECKING:
    from client_sdk.commit import Sources
    from client_sdk.config import Config
    from client_sdk.embedding.embedder import Embedder
    from client_sdk.keys import KeySource

__all__ = ["Hub", "HubOpening", "sample_path"]


class Hub:
    """An open Hub. ``client`` is the device underneath: sync, transactions and SQL are there."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.personas = Personas(client.collection(Persona))
        self.memories = Memories(client.collection(Memory), client.collection(Relation))
        self.conversations = Conversations(client.collection(Conversation))
        self.workflows = Workflows(client.collection(Workflow))

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        key: KeySource = None,
        config: Config | None = None,
        sources: Sources = SYSTEM,
        multi_instance: bool = False,
        embedder: Embedder | Literal["off"] | None = None,
        old_embedder: Embedder | None = None,
    ) -> HubOpening:
        """Open the Hub's file at ``path``, or make it. Options and errors are those of `client_sdk.open`."""
        records: tuple[type[Record], ...] = (Persona, Memory, Relation, Conversation, Workflow)
        opening = open_client(
            path,
            records=records,
            key=key,
            config=config,
            sources=sources,
            multi_instance=multi_instance,
            embedder=embedder,
            old_embedder=old_embedder,
        )
        return HubOpening(opening)

    @property
    def collections(self) -> dict[str, HubCollection[Any]]:
        """The four by name, in the order in which records lean on one another: personas first."""
        return {
            "personas": self.personas,
            "memories": self.memories,
            "conversations": self.conversations,
            "workflows": self.workflows,
        }

    @property
    def everything(self) -> dict[str, HubCollection[Any]]:
        """All that the file keeps, by name, in that order: the four, and the relations between memories."""
        return {
            "personas": self.personas,
            "memories": self.memories,
            "relations": self.memories.relations,
            "conversations": self.conversations,
            "workflows": self.workflows,
        }

    def search(
        self,
        text: str,
        *,
        persona_id: str | None = None,
        limit: int = 50,
        mode: Mode = "hybrid",
        scope: Scope = "device",
        marks: tuple[str, str] = MARKS,
    ) -> Merged:
        """Search memories and conversations (of one persona, or of all), best first: await it, or ``watch`` it.

        Raises as `Query.search`.
        """
        equal = {} if persona_id is None else {"persona_id": persona_id}
        searched: tuple[HubCollection[Any], ...] = (self.memories, self.conversations)
        searches = [
            one.search(text, limit=limit, mode=mode, scope=scope, marks=marks, **equal) for one in searched
        ]
        return Merged(searches, limit=limit)

    async def close(self) -> None:
        """End the sync and close the file. A second call does nothing."""
        await self.client.close()


class HubOpening:
    """What `Hub.open` returns: use it as ``async with``, or await it and call `Hub.close` yourself."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._hub: Hub | None = None

    def __await__(self) -> Generator[Any, None, Hub]:
        """Open the file."""
        client = yield from self._opening.__await__()
        return Hub(client)

    async def __aenter__(self) -> Hub:
        """Open the file."""
        self._hub = await self
        return self._hub

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        if self._hub is not None:
            await self._hub.close()


def sample_path() -> Path:
    """Return where the sample is: an invented person's Hub, in the export format."""
    return Path(__file__).with_name("sample.json")
