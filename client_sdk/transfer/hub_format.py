"""Our own format: what ``pjais export`` writes, and what reads it back.

One JSON object, in UTF-8. Each record stands on a line of its own, in the order of its id, with the names that
documents have (camelCase), sets as sorted lists, times by RFC 3339 in UTC; maps are sorted by key. Two exports of equal
records are equal, but for the time of the export. Sealed fields are not in it unless they are asked for: the file is
plain text. One that this device cannot open is never in it.

::

    {"format":"pjais-export","version":1,"exported_at":"2026-11-20T09:00:00Z","collections":{
    "personas":[
    {"id":"…","createdAt":"…","updatedAt":"…","name":"Wren",…},
    …
    ],"memories":[…],"relations":[…],"conversations":[…],"workflows":[…]}}

Reading takes any layout of that object. A field that this version does not know is an error, not a loss.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import msgspec

from client_sdk.hub import Hub
from client_sdk.hub.records import Conversation, Memory, Persona, Relation, Workflow
from client_sdk.transfer.source import Entry, JsonFile
from crdt.fields import Kind, SealedValue
from crdt.schema import Record, Schema, schema_of

__all__ = ["FORMAT", "VERSION", "HubFile", "decode_record", "encode_record", "export_chunks"]

FORMAT = "pjais-export"
VERSION = 1

_PAGE = 200  # records read at a time: memory stays flat, however many there are
_PAGE_CONVERSATIONS = 10  # each brings its messages


def _plain(value: Any) -> Any:
    """Return the plain value of a default that was never stored: ``Text()`` or ``Counter(0)``."""
    return str(value) if isinstance(value, str) else int(value)


_json = msgspec.json.Encoder(order="deterministic", enc_hook=_plain)


class _Envelope(msgspec.Struct):
    format: str
    version: int
    collections: dict[str, list[msgspec.Raw]]


class _Codec:
    """One collection's records as JSON objects: a struct with the same fields under their names in documents."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.names = [field.name for field in schema.fields]
        self.sealed = {field.name for field in schema.sealed}
        fields: list[Any] = [("id", str)]
        for field in schema.fields:
            if field.kind is Kind.SEALED:
                fields.append((field.name, field.type.value | msgspec.UnsetType, msgspec.UNSET))
            elif field.required:
                fields.append((field.name, field.type.value))
            else:
                fields.append(
                    (field.name, field.type.value, msgspec.field(default_factory=field.make_default))
                )
        self.struct = msgspec.defstruct(
            schema.record.__name__, fields, kw_only=True, rename="camel", forbid_unknown_fields=True
        )
        self.decoder = msgspec.json.Decoder(self.struct)

    def decode(self, data: Any) -> Record:
        decoded: Any = self.decoder.decode(data)
        values = {name: getattr(decoded, name) for name in self.names}
        given = {name: value for name, value in values.items() if value is not msgspec.UNSET}
        return self.schema.record(id=decoded.id, **given)

    def encode(self, record: Record, *, include_sealed: bool) -> bytes:
        values = {name: getattr(record, name) for name in self.names}
        for name in self.sealed:
            if not include_sealed or isinstance(values[name], SealedValue):
                values[name] = msgspec.UNSET
        return _json.encode(self.struct(id=record.id, **values))


_CODECS: dict[str, _Codec] = {
    codec.schema.collection: codec
    for codec in (_Codec(schema_of(record)) for record in (Persona, Memory, Relation, Conversation, Workflow))
}


def encode_record(collection: str, record: Record, *, include_sealed: bool = False) -> bytes:
    """Return a record of one of the Hub's collections as a JSON object on one line, without its sealed fields."""
    return _CODECS[collection].encode(record, include_sealed=include_sealed)


def decode_record(collection: str, data: bytes) -> Record:
    """Return the record of such an object. Raises `msgspec.DecodeError`."""
    return _CODECS[collection].decode(data)


class HubFile:
    """A file in our own format."""

    def __init__(self, file: JsonFile) -> None:
        self.left_out: Counter[str] = Counter()
        self._file = file
        envelope = file.decode_all(_Envelope)
        if envelope.format != FORMAT:
            raise file.failed("format", f'it is {envelope.format!r:.60}, not "{FORMAT}"')
        if envelope.version != VERSION:
            raise file.failed(
                "version", f"it is {envelope.version}, and this program reads {VERSION}: update the older one"
            )
        unknown = envelope.collections.keys() - _CODECS.keys()
        if unknown:
            raise file.failed(
                "collections",
                f"there is no collection {min(unknown)!r:.60}; there are {', '.join(_CODECS)}",
            )
        self._collections: Mapping[str, list[msgspec.Raw]] = envelope.collections

    def entries(self) -> Iterator[Entry]:
        """Yield the records as they stand in the file, collection by collection."""
        for collection, codec in _CODECS.items():
            for place, raw in enumerate(self._collections.get(collection, ())):
                where = f"{collection}[{place}]"
                try:
                    record = codec.decode(raw)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    self._file.decode(raw, codec.struct, where)  # says what is wrong
                    raise
                if not record.id:
                    raise self._file.failed(where, "its id is empty")
                yield Entry(collection, record, where, len(memoryview(raw)))


async def export_chunks(
    hub: Hub, *, now: dt.datetime, include_sealed: bool = False
) -> AsyncIterator[tuple[int, bytes]]:
    """Yield an export piece by piece, each with the number of its records; joined, they are the file.

    What is written meanwhile may be in it or not: each record is whole.
    """
    stamp = _json.encode(now).decode()
    yield (
        0,
        f'{{"format":"{FORMAT}","version":{VERSION},"exported_at":{stamp},"collections":{{\n'.encode(),
    )
    for number, (name, collection) in enumerate(hub.everything.items()):
        if name == "relations" and not await collection.count():
            continue  # then also a program that knows no relations can read it
        yield 0, f'{"," if number else ""}"{name}":['.encode()
        encode, last = functools.partial(_CODECS[name].encode, include_sealed=include_sealed), ""
        page = _PAGE_CONVERSATIONS if name == "conversations" else _PAGE
        everything = collection.order_by("id").limit(page).include(*_CODECS[name].schema.lazy)
        while records := await everything.where("id", ">", last).all():
            lines = b",\n".join(map(encode, records))
            yield len(records), (b",\n" if last else b"\n") + lines
            last = records[-1].id
        yield 0, b"\n]"
    yield 0, b"}}\n"
