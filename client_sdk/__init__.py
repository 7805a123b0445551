"""An encrypted, offline-first database for one device, with sync: typed records, live queries, no network needed.

``open`` is the door (`client_sdk.opening`). Errors are in `client_sdk.errors`, declarations come from the kernel.
"""

from __future__ import annotations

from client_sdk.client import Client
from client_sdk.collection import Collection
from client_sdk.config import Config
from client_sdk.events import Event, Missed
from client_sdk.hits import Hit, Hits
from client_sdk.keys import KeyFile, OsKeyring
from client_sdk.metrics import Metrics
from client_sdk.opening import open
from client_sdk.query import Query
from client_sdk.search import Search
from client_sdk.storage import StorageAlert
from client_sdk.sync.status import Status
from crdt.errors import SchemaError, ValidationError
from crdt.fields import Counter, Item, Sealed, SealedValue, Text
from crdt.lazy import NotLoaded
from crdt.schema import Record

__all__ = [
    "Client",
    "Collection",
    "Config",
    "Counter",
    "Event",
    "Hit",
    "Hits",
    "Item",
    "KeyFile",
    "Metrics",
    "Missed",
    "NotLoaded",
    "OsKeyring",
    "Query",
    "Record",
    "SchemaError",
    "Sealed",
    "SealedValue",
    "Search",
    "Status",
    "StorageAlert",
    "Text",
    "ValidationError",
    "open",
]
