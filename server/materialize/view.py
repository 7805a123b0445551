"""A document's contents as JSON, for people, tests and SQL: what ``jsonb`` cannot hold is replaced, in this view only.

`Contents.value` leaves JSON and times; times are written as RFC 3339. NUL becomes U+FFFD, since no text of Postgres
can hold it; of two names that become one by that, the last counts.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from crdt.contents import Contents

__all__ = ["JSON_BYTES_MAX", "json_of"]

#: Past this a record is not shown as JSON: it is rewritten whole with each of its updates, and people read less.
JSON_BYTES_MAX: Final = 4 * 1024 * 1024

_NUL: Final = b"\\u0000"

_encode: Final = msgspec.json.Encoder().encode


def json_of(contents: Contents) -> str | None:
    """Return the contents as JSON text that Postgres takes as jsonb, or None where there is no such view of them."""
    try:
        value = contents.value()
        data = _encode(value)
        if _NUL in data:  # or text that looks like it, which comes to no harm
            data = _encode(_without_nul(value))
    except (TypeError, ValueError, OverflowError, RecursionError):  # UnicodeError is a ValueError
        return None
    return data.decode() if len(data) <= JSON_BYTES_MAX else None


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nul(inner) for inner in value]
    return value
