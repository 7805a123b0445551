"""Limits in small: a history of some hundred edits meets what a real one meets after a hundred thousand.

Pages and pushes of a few entries, documents instead of the log for a device that is a few edits behind, snapshots of
short tails, documents that leave memory. The limits are put back when the simulation is over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import client_sdk.commit
import client_sdk.documents
import server.log
import server.materialize.batch
import server.rows
import server.session.news

__all__ = ["small"]

_LIMITS: Final[tuple[tuple[Any, str, Any], ...]] = (
    (client_sdk.commit, "TAIL_BYTES_MIN", 500),
    (client_sdk.documents, "_ADDED_BETWEEN_LOOKS", 4),
    (client_sdk.documents, "_LOOKUP_MAX", 3),
    (server.materialize.batch, "_FOLDS_MAX", 6),
    (server.session.news, "_DOCUMENTS_FROM_BEHIND", 12),
)
_DEFAULTS: Final[tuple[tuple[Any, str, Any], ...]] = (
    (server.log.read_after, "entries_max", 7),
    (server.rows.documents_after, "entries_max", 5),
)


@contextlib.contextmanager
def small() -> Iterator[None]:
    """Make the limits small."""
    limits = [(module, name, getattr(module, name)) for module, name, _ in _LIMITS]
    defaults = [(function, name, function.__kwdefaults__[name]) for function, name, _ in _DEFAULTS]
    try:
        for module, name, value in _LIMITS:
            setattr(module, name, value)
        for function, name, value in _DEFAULTS:
            function.__kwdefaults__[name] = value
        yield
    finally:
        for module, name, value in limits:
            setattr(module, name, value)
        for function, name, value in defaults:
            function.__kwdefaults__[name] = value
