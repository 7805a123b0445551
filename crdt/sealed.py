"""Sealed fields: a value's bytes on the way to whoever seals them, and what a document holds of them.

The kernel has neither keys nor chance. A `Seal` is handed in: it takes a field and its value as MessagePack, and
returns the bytes that stand in the document's register instead, as MessagePack's bin. They merge as any register does.

Nothing here opens a value, and nothing here shows one: an error tells its type at most.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from crdt.errors import NotAvailable
from crdt.schema import Field, Schema
from crdt.values import BadValue, decode_value, encode_value

__all__ = ["Seal", "seal_value", "sealed_bytes"]

Seal: TypeAlias = Callable[[Field, bytes], bytes]

_NULL = b"\xc0"


def seal_value(schema: Schema, field: Field, value: Any, seal: Seal | None) -> bytes:
    """Return a value (validated, not None) as the bytes that stand for it.

    Raises:
        BadValue: it would not come back from its bytes as it is.
        NotAvailable: nothing was handed in to seal it with.
    """
    if seal is None:
        where = f"{schema.record.__name__}.{field.name}"
        raise NotAvailable(f"{where}: writing a sealed field without a key", "write it through a client")
    try:
        plain = encode_value(value)
        is_same = bool(_decoder(field).decode(plain) == value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        is_same = False
    if not is_same:
        problem = f"got a {type(value).__name__} that would not come back as it is"
        raise BadValue("", problem, f"{field.type.describe()}, valid Unicode and finite numbers")
    return seal(field, plain)


def sealed_bytes(entry: bytes | None) -> bytes | None:
    """Return the sealed bytes of a register's value; None if it has none. What is no bin cannot be opened, as it is."""
    if entry is None or entry == _NULL:
        return None
    try:
        held = decode_value(entry)
    except BadValue:
        return entry
    return held if isinstance(held, bytes) else entry


@lru_cache(maxsize=1024)
def _decoder(field: Field) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(field.type.stored)
