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

    __slots__ = ("_columns", "_convert_to", "_decoder", "_struct")

    def __init__(self, field: FieldType, *, where: str) -> None:
        """Raise `SchemaError` if the item's type is one that cannot be written."""
        self._convert_to: Any = list[field.element]  # type: ignore[name-defined]
        self._struct: type[msgspec.Struct] | None = None
        # The attributes to look at, each with the decoder of its JSON if a row holds it as JSON.
        self._columns: list[tuple[str, msgspec.json.Decoder[Any] | None]] = []
        try:
            self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(field.stored)
            if issubclass(field.scalar, msgspec.Struct):
                self._struct = field.scalar
                msgspec.json.schema(field.scalar)  # which every attribute's type must have
                hints = get_type_hints(field.scalar)  # of class variables, too
                for name in field.scalar.__struct_fields__:
                    annotation = hints[name]
                    types = set(get_args(annotation) or (annotation,)) - {type(None)}
                    if not all(map(_is_safe, types)):
                        is_scalar = len(types) == 1 and types <= {int, float, dt.datetime}
                        self._columns.append((name, None if is_scalar else msgspec.json.Decoder(annotation)))
        except (TypeError, NameError) as error:
            raise SchemaError(f"{where}: its items cannot be written: {error}") from None

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
            again = self.decode(data)
            for name in self._struct.__struct_fields__:
                _check_same(
                    name, getattr(item, name), getattr(again, name)
                )  # a tuple for a list is another value
        return data

    def decode(self, data: bytes) -> Any:
        """Return the item in some bytes, which may be anyone's. Raises `BadValue` and `msgspec.MsgspecError`."""
        item = self._decoder.decode(data)
        for name, decoder in self._columns:
            value = getattr(item, name)
            if value is None:
                continue
            if decoder is not None:
                _check_json(name, value, decoder)
            elif not isinstance(value, dt.datetime):
                check_plain(f"/{name}", value)
            elif value.tzinfo is None:
                raise BadValue(f"/{name}", f"got {value.isoformat()}", "a time with a zone")
        return item


def _is_safe(annotation: Any) -> bool:
    """Whether a row can hold whatever an attribute of this type decodes to."""
    return get_origin(annotation) is Literal or (
        isinstance(annotation, type)
        and (annotation in (str, bool, bytes) or issubclass(annotation, enum.Enum))
    )


def _check_json(name: str, value: Any, decoder: msgspec.json.Decoder[Any]) -> None:
    """Raise `BadValue` unless a value comes back from the JSON that a row holds of it."""
    try:
        check_plain(f"/{name}", decode_value(encode_value(msgspec.to_builtins(value))))
        again = decoder.decode(msgspec.json.encode(value))
    except BadValue:
        raise
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise BadValue(f"/{name}", f"got {shown(value)}: {error}", _PLAIN) from None
    if encode_value(again) != encode_value(value):
        _check_same(name, value, again)


def _check_same(name: str, value: Any, again: Any) -> None:
    if value != again:
        raise BadValue(f"/{name}", f"got {shown(value)}, which would come back as {shown(again)}", _PLAIN)


_PLAIN = "text, numbers, bools, None, lists, and maps with keys that are strings"
