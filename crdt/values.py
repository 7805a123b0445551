"""Values as bytes: what stands inside a document's buffers, keys and paths.

A value is MessagePack (times as its timestamp extension), so numbers keep their types and one C call reads it. A
register's edit is the two-element array of its clock reading and its value; a removed map leaf is the array of the
reading alone. A map is flattened to leaves: ``settings/theme``; in each part ``~``, ``/`` and ``@`` are written ``~0``,
``~1`` and ``~2`` (after JSON Pointer, RFC 6901), so that ``path@client`` splits at its last ``@``. A set's element is
its JSON.

What comes from elsewhere may be any bytes: `decode_value` reads one value or raises `BadValue`, and `check_plain`
tells whether it is one that rows and JSON can hold.
"""

from __future__ import annotations

import datetime as dt
import enum
import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from crdt.limits import KEY_BYTES_MAX, VALUE_DEPTH_MAX

__all__ = [
    "BadValue",
    "check_plain",
    "convert",
    "decode_value",
    "element_to_key",
    "encode_edit",
    "encode_reading",
    "encode_value",
    "flatten",
    "key_to_element",
    "leaf_path",
    "path_parts",
    "reading_of",
    "shown",
    "split_edit",
    "to_utc",
    "unflatten",
]

_READING = b"\xcf"  # MessagePack's uint 64; every reading since 1970-01-01T00:01:06Z needs it
_EDIT_HEAD = b"\x92\xcf"
_REMOVED_HEAD = b"\x91\xcf"
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_KEY_MARK_BYTES = 20  # of a key, kept free for "@" and a client id
_PLAIN = "text, a number, a bool, None, a list, or a map with keys that are strings"


class BadValue(ValueError):
    """A value that cannot stand in a document: where in it, what was wrong, and what would be right."""

    def __init__(self, path: str, problem: str, expected: str) -> None:
        super().__init__(f"{path}: {problem}; expected {expected}")
        self.path = path
        self.problem = problem
        self.expected = expected


def _plain(value: Any) -> Any:
    """Turn subclasses of text and numbers, as our markers are, into what msgspec writes."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    raise BadValue("", f"got {shown(value)}", "text, a number, a bool, a time, None, a list or a map")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_json = msgspec.json.Encoder(enc_hook=_plain)
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()


def encode_reading(reading: int) -> bytes:
    """Return a clock reading's bytes."""
    return _READING + reading.to_bytes(8, "big")


def encode_value(value: Any) -> bytes:
    """Return a value's bytes.

    Raises:
        BadValue: text that is not Unicode (a lone surrogate), a number or time out of range, nesting without end, or an
            object that is no value at all.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        raise _not_unicode() from None
    except OverflowError:
        raise BadValue(
            "", f"got {shown(value)}", "an integer of 64 bits, a time in the years 1 to 9999"
        ) from None
    except (RecursionError, TypeError, ValueError) as error:
        if isinstance(error, BadValue):
            raise
        raise BadValue(
            "", f"got {shown(value)}: {error}", f"at most {VALUE_DEPTH_MAX} levels of {_PLAIN}"
        ) from None


def decode_value(data: bytes) -> Any:
    """Return the value in some bytes; the bytes may be hostile.

    Raises:
        BadValue: they are not one value.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError, ValueError) as error:
        raise BadValue("", str(error), "one MessagePack value") from None


def encode_edit(reading: int, value: bytes | None) -> bytes:
    """Return a register's entry: its reading and its value's bytes (None: removed)."""
    if value is None:
        return _REMOVED_HEAD + reading.to_bytes(8, "big")
    return _EDIT_HEAD + reading.to_bytes(8, "big") + value


def split_edit(entry: bytes) -> tuple[int, bytes | None] | None:
    """Return the reading and the value's bytes of a register's entry, or None if it is not one."""
    if entry[:2] == _EDIT_HEAD and len(entry) > 10:
        return int.from_bytes(entry[2:10], "big"), bytes(entry[10:])
    if entry[:2] == _REMOVED_HEAD and len(entry) == 10:
        return int.from_bytes(entry[2:10], "big"), None
    return None


def reading_of(entry: bytes) -> int:
    """Return the creation's reading from its entry, 0 if it is not one."""
    return int.from_bytes(entry[1:9], "big") if entry[:1] == _READING and len(entry) == 9 else 0


def element_to_key(element: Any) -> str:
    """Return a set's element as a map key: its JSON.

    Raises:
        BadValue: the key would be past ``KEY_BYTES_MAX``, or the text is not Unicode.
    """
    try:
        data = _json.encode(element)
    except UnicodeEncodeError:
        raise _not_unicode() from None
    except (TypeError, ValueError) as error:
        if isinstance(error, BadValue):
            raise
        raise BadValue("", f"got {shown(element)}: {error}", "text, a number, a bool or a time") from None
    if len(data) > KEY_BYTES_MAX - _KEY_MARK_BYTES:
        expected = f"at most {KEY_BYTES_MAX - _KEY_MARK_BYTES:,} bytes"
        raise BadValue("", f"an element of {len(data):,} bytes", expected)
    return data.decode()


def key_to_element(key: str) -> Any:
    """Return the element that a map key stands for. Raises `BadValue` if it stands for none."""
    try:
        return msgspec.json.decode(key)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadValue(key[:60], str(error), "the JSON of an element") from None


def convert(value: Any, annotation: Any) -> Any:
    """Return a value as what an annotation says.

    Raises:
        msgspec.ValidationError: it does not fit.
        BadValue: it holds text that is not Unicode, or an integer of too many digits to be shown.
    """
    try:
        return msgspec.convert(value, annotation, from_attributes=True)
    except msgspec.ValidationError:  # a ValueError too
        raise
    except UnicodeEncodeError:
        raise _not_unicode() from None
    except ValueError as error:
        raise BadValue("", f"got {shown(value)}: {error}", "a value of the field's type") from None


def to_utc(value: dt.datetime) -> dt.datetime:
    """Return the same time in UTC. Raises `BadValue` if UTC's year is not 1 to 9999."""
    if value.tzinfo is dt.UTC:
        return value
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        raise BadValue(
            "", f"got {value.isoformat()}", "a time that is in the years 1 to 9999 in UTC"
        ) from None


def leaf_path(field: str, parts: Iterable[str]) -> str:
    """Return the path of a map's leaf (or branch): ``("settings", ["a/b"])`` → ``settings/a~1b``."""
    return "/".join((field, *map(_escape, parts)))


def path_parts(path: str) -> list[str]:
    """Return the field's name and the keys that a path leads through."""
    return [_unescape(part) for part in path.split("/")]


def flatten(field: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a map as (path, value); an empty map inside it is a leaf. Lists are leaves.

    Raises:
        BadValue: naming the leaf: a key or value that JSON cannot hold, or nesting past ``VALUE_DEPTH_MAX``.
    """
    stack: list[tuple[str, Any, int]] = [(field, value, 0)]
    while stack:
        path, held, depth = stack.pop()
        if isinstance(held, dict) and (held or depth == 0):
            if depth >= VALUE_DEPTH_MAX:
                raise BadValue(path, "nested too deeply", f"at most {VALUE_DEPTH_MAX} levels")
            for key, inner in held.items():
                if not isinstance(key, str):
                    raise BadValue(path, f"got the key {shown(key)}", "keys that are strings")
                stack.append((f"{path}/{_escape(key)}", inner, depth + 1))
        else:
            _check_path(path)
            check_plain(path, held, depth=depth)
            yield path, held


def unflatten(leaves: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the map of some leaves (path, value), oldest first: of a leaf and a map at one path the later stays."""
    root: dict[str, Any] = {}
    for path, value in leaves:
        _, *branches, leaf = path_parts(path)
        node = root
        for key in branches:
            inner = node.get(key)
            if not isinstance(inner, dict):
                inner = node[key] = {}
            node = inner
        node[leaf] = value
    return root


def check_plain(path: str, value: Any, *, depth: int = 0, is_time_plain: bool = False) -> None:
    """Raise `BadValue` unless a value is what JSON holds: then a row and a JavaScript reader lose nothing of it."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise BadValue(path, f"got {shown(value)}", "an integer of at most 64 bits")
    elif kind is float:
        if not math.isfinite(value):
            raise BadValue(path, f"got {value}", "a finite number")
    elif kind is dict or kind is list:
        if depth >= VALUE_DEPTH_MAX:
            raise BadValue(path, "nested too deeply", f"at most {VALUE_DEPTH_MAX} levels")
        for key, inner in value.items() if kind is dict else enumerate(value):
            if kind is dict and not isinstance(key, str):
                raise BadValue(path, f"got the key {shown(key)}", "keys that are strings")
            check_plain(f"{path}/{key}", inner, depth=depth + 1, is_time_plain=is_time_plain)
    elif isinstance(value, dt.datetime):
        if is_time_plain:
            return
        raise BadValue(path, "got a time", "its text, as by value.isoformat(): a map holds what JSON holds")
    elif isinstance(value, enum.Enum) or not isinstance(value, str):
        raise BadValue(path, f"got {shown(value)}", _PLAIN)


def shown(value: Any) -> str:
    """Return a value's type and how it prints, as far as that fits into a message."""
    try:
        return f"{type(value).__name__} {_repr.repr(value):.80}"
    except Exception:  # noqa: BLE001 - a foreign __repr__ raises what it likes, and integers past 4,300 digits do
        return f"a {type(value).__name__}"


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60


def _not_unicode() -> BadValue:
    return BadValue("", "text with a lone surrogate", "text that is valid Unicode")


def _check_path(path: str) -> None:
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        shown_path = path.encode(errors="replace").decode()
        raise BadValue(shown_path, "a key with a lone surrogate", "text that is valid Unicode") from None
    if size > KEY_BYTES_MAX - _KEY_MARK_BYTES:
        expected = f"at most {KEY_BYTES_MAX - _KEY_MARK_BYTES:,} bytes"
        raise BadValue(path[:60], f"its path has {size:,} bytes", expected)


@lru_cache(maxsize=4096)  # the names of leaves are few, and come again with every record
def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1").replace("@", "~2")


def _unescape(part: str) -> str:
    return part.replace("~2", "@").replace("~1", "/").replace("~0", "~") if "~" in part else part
