"""Between records and documents: what a schema's values are as entries, and back.

Writing: `create` turns a record into its creation update, `operations` new values of some fields into the smallest
change of what is there (a map's changed leaves, a set's added and removed elements, the middle of a text). Reading:
`read` turns contents into a record's values, `conflicts` tells which values lost. What the schema does not know
(fields, leaves, attributes of items) stays in the document, untouched.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from crdt.changes import (
    AddElements,
    DeleteText,
    InsertItems,
    InsertText,
    Operation,
    RemoveElements,
    RemoveItems,
    SetRegister,
)
from crdt.contents import Contents
from crdt.errors import DocumentUnreadable, UpdateRefused, ValidationError
from crdt.fields import Kind
from crdt.items import ItemCodec
from crdt.lanes import write_creation
from crdt.limits import UPDATE_ITEMS_MAX
from crdt.schema import NEVER, Field, Record, Schema
from crdt.sealed import Seal, seal_value, sealed_bytes
from crdt.values import (
    BadValue,
    check_plain,
    decode_value,
    element_to_key,
    encode_edit,
    encode_reading,
    encode_value,
    flatten,
    key_to_element,
    leaf_path,
    path_parts,
    shown,
    to_utc,
    unflatten,
)

__all__ = ["conflicts", "create", "encode_items", "operations", "read", "set_elements", "touched_fields"]

_NULL = b"\xc0"
_TIMES = ("created_at", "updated_at")
_UNREADABLE = (msgspec.MsgspecError, BadValue, UnicodeDecodeError, RecursionError, ValueError)


def create(
    schema: Schema,
    record: Record,
    *,
    record_id: str,
    client: int,
    reading: int,
    now: dt.datetime,
    is_chosen: bool,
    seal: Seal | None = None,
) -> tuple[bytes, dict[str, Any], Contents]:
    """Return a record's creation update, its values as `read` will return them, and the contents of its document.

    ``is_chosen`` says that the application chose the id: another device may create the same one, so every entry is
    written under the client's id, with its own reading, and the two merge.

    Raises:
        ValidationError: a value does not fit, or the record is too large for one update; the message names record,
            field, what was wrong and what would be right.
        NotAvailable: a sealed field has a value, and there is no ``seal``.
    """
    checked = schema.validate(record)
    suffix = f"@{client}" if is_chosen else ""
    mark = suffix.encode()
    stamp = encode_reading(reading)
    # Two creations of one id would both write the plain "@", and Yjs would keep one by client id.
    registers: dict[str, bytes] = {} if is_chosen else {"@": stamp}
    entries = [(key.encode(), data) for key, data in registers.items()]  # the registers, as they are written
    sets: dict[str, list[str]] = {}
    counts: dict[str, dict[str, bytes]] = {}
    lists: dict[str, tuple[bytes, ...]] = {}
    texts: dict[str, str] = {}
    values: dict[str, Any] = {"id": record_id}
    for field in schema.fields:
        name, kind, wire = field.name, field.kind, field.wire
        value = getattr(checked, name)
        try:
            if kind is Kind.REGISTER or kind is Kind.SEALED:
                if field.is_time and value is not None:
                    value = now if name in _TIMES and value == NEVER else to_utc(value)
                elif kind is Kind.SEALED and value is not None:
                    value = seal_value(schema, field, value, seal)
                values[name] = value
                if value is not None or is_chosen:  # None too, or another creation's earlier value would show
                    data = encode_edit(reading, encode_value(value)) if is_chosen else encode_value(value)
                    registers[wire + suffix] = data
                    entries.append((field.key + mark, data))
                continue
            values[name] = value
            if not value:
                continue
            if kind is Kind.TEXT:
                encode_value(value)  # refuses what is not Unicode
                texts[wire] = values[name] = str(value)
            elif kind is Kind.COUNTER:
                counts[wire] = {suffix[1:]: encode_value(value)}
            elif kind is Kind.SET:
                sets[wire] = [key + suffix for key in sorted(_set_keys(field, value))]
            elif kind is Kind.MAP:
                for path, leaf in flatten(wire, value):
                    data = encode_edit(reading, encode_value(leaf)) if is_chosen else encode_value(leaf)
                    registers[path + suffix] = data
                    entries.append(((path + suffix).encode(), data))
            elif kind is Kind.LIST:
                lists[wire] = encode_items(schema, field, value)
        except BadValue as error:
            raise _explain(schema, field, error) from None
    _check_count(schema, registers, sets, lists)
    try:
        update = write_creation(
            client,
            entries,
            [(name.encode(), [key.encode() for key in keys]) for name, keys in sets.items()],
            [
                (name.encode(), [(key.encode(), data) for key, data in totals.items()])
                for name, totals in counts.items()
            ],
            [(name.encode(), items) for name, items in lists.items()],
            [(name.encode(), text.encode()) for name, text in texts.items()],
        )
    except UpdateRefused as error:
        raise _too_large(schema, error.detail) from None
    return update, values, Contents(registers, sets, counts, lists, texts)


def operations(
    schema: Schema, contents: Contents, changes: Mapping[str, Any], *, seal: Seal | None = None
) -> list[Operation]:
    """Return what turns contents into the new values of some fields, by name (``settings.theme`` names a map's leaf).

    Raises:
        ValidationError: there is no such field, a value does not fit, or a map is given both whole and by a leaf.
        NotAvailable: a sealed field is given a value, and there is no ``seal``.
    """
    made: list[Operation] = []
    for name, value in changes.items():
        top, dot, below = name.partition(".")
        field = schema.field(top)
        try:
            if not dot:
                made += _field_operations(schema, field, schema.validate_value(name, value), contents, seal)
            elif top in changes:
                raise _invalid(schema, name, f"{top} is set as a whole too", "one of the two")
            else:
                made += _leaf_operations(schema, field, below, value, contents)
        except BadValue as error:
            raise _explain(schema, field, error) from None
    return made


def encode_items(schema: Schema, field: Field, items: Sequence[Any]) -> tuple[bytes, ...]:
    """Return a list's items as bytes, each checked. Raises `ValidationError`."""
    codec = schema.items[field.name]
    made: list[bytes] = []
    where, held = field.name, items
    try:
        for number, item in enumerate(codec.convert(items)):
            where, held = f"{field.name}[{number}]", item
            made.append(codec.encode(item))
    except msgspec.ValidationError as error:
        raise schema.explain(error, root=where, held=held) from None
    except BadValue as error:
        raise _invalid(schema, where + error.path.replace("/", "."), error.problem, error.expected) from None
    return tuple(made)


def set_elements(schema: Schema, field: Field, elements: Iterable[Any]) -> tuple[str, ...]:
    """Return a set's elements as keys, each checked. Raises `ValidationError`."""
    if isinstance(elements, str | bytes | Mapping) or not isinstance(elements, Iterable):
        raise _invalid(schema, field.name, f"got {shown(elements)}", "a set or a list of elements")
    checked = schema.validate_elements(field, list(elements))
    try:
        return tuple(sorted(_set_keys(field, checked)))
    except BadValue as error:
        raise _explain(schema, field, error) from None


def read(schema: Schema, contents: Contents, fields: Collection[Field] | None = None) -> dict[str, Any]:
    """Return the values of a schema's fields (or some of them) by name; sealed ones are their sealed bytes.

    Raises:
        DocumentUnreadable: a required field is missing, or a value is not of the field's type.
    """
    entries = contents.values()
    values: dict[str, Any] = {}
    for field in schema.fields if fields is None else fields:
        kind, name, wire = field.kind, field.name, field.wire
        try:
            if kind is Kind.REGISTER:
                entry = entries.get(wire, _NULL)
                if entry != _NULL:
                    values[name] = _decoder(field).decode(entry)
                elif field.type.optional:
                    values[name] = None
                elif field.required:
                    raise DocumentUnreadable(
                        record=schema.record.__name__, field=name, problem="it is missing"
                    )
                else:
                    values[name] = field.make_default()
            elif kind is Kind.TEXT:
                values[name] = contents.texts.get(wire, "")
            elif kind is Kind.COUNTER:
                values[name] = contents.count(wire)
            elif kind is Kind.SET:
                elements = contents.elements(wire) if wire in contents.sets else ()
                values[name] = {_element(field, key) for key in elements}
            elif kind is Kind.MAP:
                values[name] = unflatten((path, _leaf(path, data)) for path, data in contents.leaves(wire))
            elif kind is Kind.LIST:
                decode = schema.items[name].decode
                values[name] = [decode(item) for item in contents.lists.get(wire, ())]
            else:
                values[name] = sealed_bytes(entries.get(wire))
        except _UNREADABLE as error:
            raise DocumentUnreadable(record=schema.record.__name__, field=name, problem=str(error)) from None
    return values


def conflicts(schema: Schema, contents: Contents, field: str) -> list[Any]:
    """Return the values of a register, or of a map's leaf (``settings.theme``), that lost against the one that counts.

    They are what devices set without having seen one another, the newest first; setting the field anew clears them. Of
    a sealed field they are sealed bytes. Fields of other kinds lose nothing, so there are none.

    Raises:
        ValidationError: there is no such field, or it is a map without a leaf's name.
    """
    top, dot, below = field.partition(".")
    declared = schema.field(top)
    if dot:
        path = _leaf_path(schema, declared, below)
    elif declared.kind is Kind.REGISTER or declared.kind is Kind.SEALED:
        path = declared.wire
    elif declared.kind is Kind.MAP:
        raise _invalid(
            schema, field, "a map's conflicts are those of its leaves", f"a leaf's name, as {field}.theme"
        )
    else:
        return []
    counting, *lost = [register.value for _, register in contents.entries(path)] or [None]
    found: list[Any] = []
    for data in lost:
        if data is None or data == counting:
            continue
        try:
            if declared.kind is Kind.SEALED:
                value = sealed_bytes(data)
            elif data == _NULL and declared.type.optional:
                value = None
            else:
                value = _leaf(path, data) if dot else _decoder(declared).decode(data)
        except _UNREADABLE:  # what this schema cannot read, it cannot show
            continue
        found.append(value)
    return found


def touched_fields(schema: Schema, touched: Mapping[str, Collection[str]]) -> tuple[set[Field], bool]:
    """Return the fields that an update's roots and keys belong to, and whether the tombstone is among them."""
    fields: set[Field] = set()
    tombstone = False
    for root, keys in touched.items():
        if root == "reg":
            for key in keys:
                path = key.rpartition("@")[0] or key
                wire = path.split("/", 1)[0]
                tombstone = tombstone or wire == "$deleted"
                if wire in schema.by_wire:
                    fields.add(schema.by_wire[wire])
        else:
            field = schema.by_wire.get(root.partition(":")[2])
            if field is not None:
                fields.add(field)
    return fields, tombstone


def _field_operations(
    schema: Schema, field: Field, value: Any, contents: Contents, seal: Seal | None
) -> Iterator[Operation]:
    wire = field.wire
    if field.kind is Kind.REGISTER or field.kind is Kind.SEALED:
        if field.is_time and value is not None:
            value = to_utc(value)
        elif field.kind is Kind.SEALED and value is not None:
            value = seal_value(schema, field, value, seal)
        yield SetRegister(wire, encode_value(value))
    elif field.kind is Kind.MAP:
        yield from _map_operations(f"{wire}/", wire, value, contents)
    elif field.kind is Kind.SET:
        new_keys, old_keys = set(_set_keys(field, value)), set(contents.elements(wire))
        if added := tuple(sorted(new_keys - old_keys)):
            yield AddElements(wire, added)
        if removed := tuple(sorted(old_keys - new_keys)):
            yield RemoveElements(wire, removed)
    elif field.kind is Kind.TEXT:
        encode_value(value)  # refuses what is not Unicode
        old = contents.texts.get(wire, "")
        start, old_end, new_end = _middle(old, value)
        if old_end > start:
            yield DeleteText(wire, start, old_end - start)
        if new_end > start:
            yield InsertText(wire, start, value[start:new_end])
    elif field.kind is Kind.LIST:
        new_items = encode_items(schema, field, value)
        codec = schema.items[field.name]
        old_items = [_as_known(codec, item) for item in contents.lists.get(wire, ())]
        start, old_end, new_end = _middle(old_items, new_items)
        if old_end > start:
            yield RemoveItems(wire, start, old_end - start)
        if new_end > start:
            yield InsertItems(wire, start, new_items[start:new_end])
    elif field.kind is Kind.COUNTER:
        raise _invalid(schema, field.name, "a counter is not set", "increment(...)")


def _leaf_operations(
    schema: Schema, field: Field, below: str, value: Any, contents: Contents
) -> Iterator[Operation]:
    prefix = _leaf_path(schema, field, below)
    nested = value
    for part in reversed(below.split(".")):
        nested = {part: nested}
    # What stands as a leaf where this one needs a map: were it to stay, a larger reading could hide this one.
    for end in [place for place, sign in enumerate(prefix) if sign == "/"][1:]:
        if any(register.value is not None for _, register in contents.entries(prefix[:end])):
            yield SetRegister(prefix[:end], None)
    yield from _map_operations(prefix, field.wire, nested, contents)


def _map_operations(prefix: str, wire: str, new_map: Any, contents: Contents) -> Iterator[Operation]:
    """Yield what makes the leaves under ``prefix`` the new map's (a prefix without a slash: a leaf, or a branch)."""
    new = {path: encode_value(leaf) for path, leaf in flatten(wire, new_map)}
    below = prefix if prefix.endswith("/") else f"{prefix}/"
    old = {
        path: register.value
        for path, register in contents.resolved().items()
        if path.startswith(below) or path == prefix
    }
    for path, value in sorted(old.items()):
        if path not in new and value is not None:
            yield SetRegister(path, None)
    for path, value in sorted(new.items()):
        if old.get(path) != value or len(contents.entries(path)) > 1:  # setting it clears a conflict
            yield SetRegister(path, value)


def _leaf_path(schema: Schema, field: Field, below: str) -> str:
    """Return the path of ``below``, a leaf's name with dots, in a map."""
    if field.kind is not Kind.MAP:
        raise _invalid(
            schema, f"{field.name}.{below}", f"{field.name} is a {field.kind.value}", "a map before the dot"
        )
    return leaf_path(field.wire, below.split("."))


def _middle(old: Sequence[Any], new: Sequence[Any]) -> tuple[int, int, int]:
    """Return (start, end in old, end in new) of what differs between two sequences."""
    start, shorter = 0, min(len(old), len(new))
    while start < shorter and old[start] == new[start]:
        start += 1
    tail = 0
    while tail < shorter - start and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return start, len(old) - tail, len(new) - tail


def _as_known(codec: ItemCodec, item: bytes) -> bytes:
    """Return an item's bytes as this schema would write it: one with attributes that it does not know stays equal."""
    try:
        return encode_value(codec.decode(item))
    except _UNREADABLE:
        return item


def _set_keys(field: Field, elements: Iterable[Any]) -> Iterator[str]:
    is_time = field.type.scalar is dt.datetime
    for element in elements:
        yield element_to_key(to_utc(element) if is_time else element)


def _element(field: Field, key: str) -> Any:
    if field.type.scalar is str and key[:1] == key[-1:] == '"' and "\\" not in key:
        return key[1:-1]
    return msgspec.convert(key_to_element(key), field.type.stored)


def _leaf(path: str, data: bytes) -> Any:
    value = decode_value(data)
    check_plain(path, value)
    return value


_DECODERS: dict[Field, msgspec.msgpack.Decoder[Any]] = {}


def _decoder(field: Field) -> msgspec.msgpack.Decoder[Any]:
    """Return the decoder of a register's value; constraints are for writing, what was written is read."""
    decoder = _DECODERS.get(field)
    if decoder is None:
        decoder = _DECODERS[field] = msgspec.msgpack.Decoder(field.type.stored)
    return decoder


def _check_count(
    schema: Schema,
    registers: Mapping[str, bytes],
    sets: Mapping[str, Sequence[str]],
    lists: Mapping[str, Sequence[bytes]],
) -> None:
    """Raise unless everyone's check would take an update with so many entries."""
    entries = len(registers) + len(schema.fields) + sum(map(len, sets.values()))
    longest = max(map(len, lists.values()), default=0)
    if max(entries, longest) > UPDATE_ITEMS_MAX:
        raise _too_large(
            schema, f"{max(entries, longest):,} entries are past UPDATE_ITEMS_MAX ({UPDATE_ITEMS_MAX:,})"
        )


def _too_large(schema: Schema, problem: str) -> ValidationError:
    return _invalid(schema, "*", problem, "a record that fits into one update; add the rest by edits")


def _explain(schema: Schema, field: Field, error: BadValue) -> ValidationError:
    below = ".".join(path_parts(error.path.removeprefix(field.wire))).strip(".")
    name = f"{field.name}{'' if below[:1] in ('', '[') else '.'}{below}"
    return _invalid(schema, name, error.problem, error.expected)


def _invalid(schema: Schema, field: str, problem: str, expected: str) -> ValidationError:
    return ValidationError(record=schema.record.__name__, field=field, problem=problem, expected=expected)
