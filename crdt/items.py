"""The items of a list field: checked before they are written, and again when they are read.

An item is a scalar or a struct. A struct may hold more than a field may (`Any`, nested structs, lists), and a document
may come from anyone; so what a row's column or its JSON could not hold is found here, on the way in and on the way
out: a time without a zone, a number past 64 bits, an infinite one, a map whose keys are not strings.
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from crdt.errors import SchemaError
from crdt.fields import FieldType
from crdt.values import BadValue, check_plain, convert, decode_value, encode_value, shown

__all__ = ["ItemCodec"]


class ItemCodec:
    """How the items of one list field become bytes, and come back."""

    __slots__ = ("_convert_to", "_decoder", "_is_comparable", "_struct", "_suspects")

    def __init__(self, field: FieldType, *, where: str) -> None:
        """Raise `SchemaError` if the item's type is one that cannot be written."""
        self._convert_to: Any = list[field.element]  # type: ignore[name-defined]
        self._struct: type[msgspec.Struct] | None = None
        self._suspects: tuple[str, ...] = ()
        try:
            self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(field.stored)
            if issubclass(field.scalar, msgspec.Struct):
                self._struct = field.scalar
                msgspec.json.schema(field.scalar)  # which every attribute's type must have
                hints = get_type_hints(field.scalar)
                self._suspects = tuple(
                    name for name in field.scalar.__struct_fields__ if not _is_safe(hints[name])
                )
        except (TypeError, NameError) as error:
            raise SchemaError(f"{where}: its items cannot be written: {error}") from None
        self._is_comparable = self._struct is not None and self._struct.__struct_config__.eq

    def convert(self, items: Any) -> list[Any]:
        """Return new items as instances of the item's type. Raises `BadValue` and `msgspec.ValidationError`."""
        converted: list[Any] = convert(items, self._convert_to)
        return converted

    def encode(self, item: Any) -> bytes:
        """Return a converted item's bytes, having looked at what they would be read as.

        Raises:
            BadValue: the item holds something that cannot be written, or would come back as something else.
            msgspec.ValidationError: an attribute does not fit its declaration.
        """
        data = encode_value(item)
        if self._struct is not None:
            read = self.decode(data)
            if self._is_comparable and read != item:
                for name in self._struct.__struct_fields__:
                    held, other = getattr(item, name), getattr(read, name)
                    if held != other:
                        problem = f"got {shown(held)}, which would come back as {shown(other)}"
                        raise BadValue(
                            f"/{name}", problem, "text, a number, a bool, a time, None, a list or a map"
                        )
        return data

    def decode(self, data: bytes) -> Any:
        """Return the item in some bytes, which may be anyone's. Raises `BadValue` and `msgspec.MsgspecError`."""
        item = self._decoder.decode(data)
        for name in self._suspects:
            value = getattr(item, name)
            if isinstance(value, dt.datetime):
                if value.tzinfo is None:
                    raise BadValue(f"/{name}", f"got {value.isoformat()}", "a time with a zone")
            else:
                check_plain(f"/{name}", _builtins(f"/{name}", value))
        return item


def _builtins(path: str, value: Any) -> Any:
    """Return a value as the lists, maps and scalars that JSON would make of it."""
    if type(value) in (int, float, str, bool) or value is None:
        return value
    try:
        return decode_value(encode_value(msgspec.to_builtins(value)))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadValue(path, f"got {shown(value)}: {error}", "what JSON holds") from None


def _is_safe(annotation: Any) -> bool:
    """Whether whatever an attribute of this type decodes to can stand in a row."""
    parts = get_args(annotation) if get_origin(annotation) is not Literal else ()
    if parts:
        return all(_is_safe(part) for part in parts) and get_origin(annotation) is not dict
    if get_origin(annotation) is Literal:
        return True
    return isinstance(annotation, type) and (
        annotation in (str, bool, bytes, type(None)) or issubclass(annotation, enum.Enum)
    )
