"""The records of the PajamasWeb AI Hub, and a door to a file that holds them.

Nothing else in this package knows the Hub. `records` says what is kept, `collections` what can be done with it
beyond what every collection can, `hub` opens the file; ``sample.json`` is an invented person's Hub, in the format of
exports.
"""

from __future__ import annotations

from client_sdk.hub.collections import Conversations, HubCollection, Personas, Workflows
from client_sdk.hub.hub import Hub, HubOpening, sample_path
from client_sdk.hub.memories import Memories
from client_sdk.hub.records import Conversation, Memory, Message, Persona, Relation, Workflow
from client_sdk.hub.relations import Related

__all__ = [
    "Conversation",
    "Conversations",
    "Hub",
    "HubCollection",
    "HubOpening",
    "Memories",
    "Memory",
    "Message",
    "Persona",
    "Personas",
    "Related",
    "Relation",
    "Workflow",
    "Workflows",
    "sample_path",
]
