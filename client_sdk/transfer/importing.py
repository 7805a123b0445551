"""Importing a file: understood as a whole, checked as a whole, then written.

Nothing is written before every record of the file was read and found good, so a bad file leaves nothing behind. A file
of up to ``ATOMIC_RECORDS_MAX`` records and ``ATOMIC_BYTES_MAX`` bytes is one transaction. A longer one is written in
batches; if it is cut short, what is in is whole records, and importing the file again adds the rest. Records whose id
is taken are left as they are, and counted: importing twice adds nothing.

The file's bytes are held in memory once, and a batch of records beside them. Reading and checking happen on another
thread, so that the event loop goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import msgspec

from client_sdk.errors import ImportFailed
from client_sdk.hub import Hub
from client_sdk.transfer.chatgpt import ChatGptFile
from client_sdk.transfer.hub_format import FORMAT, HubFile
from client_sdk.transfer.locomo import LocomoFile
from client_sdk.transfer.source import Entry, JsonFile, Source
from crdt.errors import ValidationError

__all__ = ["ATOMIC_BYTES_MAX", "ATOMIC_RECORDS_MAX", "FORMATS", "Format", "Imported", "import_file"]

Format: TypeAlias = Literal["pjais", "chatgpt", "locomo"]
FORMATS: tuple[str, ...] = get_args(Format)

FILE_BYTES_MAX = 1 << 30  # it is held in memory while it is read: a gibibyte is a lifetime of conversations
ATOMIC_RECORDS_MAX = 2_000  # about half a second of writing, in which nobody else can write
ATOMIC_BYTES_MAX = 16 << 20
_BATCH_RECORDS = 500
_BATCH_BYTES = 2 << 20

Progress: TypeAlias = Callable[[int, int], None]


class Imported(msgspec.Struct, frozen=True):
    """What an import did, counted: by collection what was added and what was there already, what of the file has no
    place in a Hub (``left_out``), and the messages in what was added.
    """

    file: str
    format: Format
    added: dict[str, int]
    present: dict[str, int]
    left_out: dict[str, int]
    messages: int
    is_atomic: bool
    seconds: float


async def import_file(
    hub: Hub, path: Path, *, format: Format | None = None, on_progress: Progress | None = None
) -> Imported:
    """Import a file into the Hub. Its format is found from its content unless it is given.

    ``on_progress`` hears how many records are written, and of how many.

    Raises:
        ImportFailed: the file cannot be read as records; it names the place and the problem. Nothing was written.
    """
    began = time.perf_counter()
    name, source, size = await asyncio.to_thread(_understand, path, format)
    total = await asyncio.to_thread(_check, hub, path, source)
    left_out = dict(source.left_out)
    is_atomic = total <= ATOMIC_RECORDS_MAX and size <= ATOMIC_BYTES_MAX
    added, present = Counter[str](), Counter[str]()
    messages = done = 0
    batches = _batches(source.entries())
    async with hub.client.transaction() if is_atomic else contextlib.nullcontext():
        while batch := await asyncio.to_thread(next, batches, None):
            collection = batch[0].collection
            new, old = await hub.everything[collection].insert_missing(entry.record for entry in batch)
            added[collection] += len(new)
            present[collection] += old
            messages += sum(len(getattr(record, "messages", ())) for record in new)
            done += len(batch)
            if on_progress is not None:
                on_progress(done, total)
    return Imported(
        file=str(path),
        format=name,
        added=dict(added),
        present={collection: count for collection, count in present.items() if count},
        left_out=left_out,
        messages=messages,
        is_atomic=is_atomic,
        seconds=round(time.perf_counter() - began, 3),
    )


def _understand(path: Path, format: Format | None) -> tuple[Format, Source, int]:
    """Read the file and find its format."""
    data = _read(path)
    if data[:4] == b"PK\x03\x04":
        raise ImportFailed(path, "its beginning", "it is a zip archive: unpack it, and import the JSON in it")
    file = JsonFile(path, data.removeprefix(b"\xef\xbb\xbf"))
    whole = file.decode_all(dict[str, msgspec.Raw] | list[msgspec.Raw])
    first = _first(whole)
    if format is None:
        format = _detect(first)
    if format is None:
        raise file.failed(
            "its beginning",
            'it is neither our own export ("format": "pjais-export"), nor a ChatGPT export (an array with "mapping"), '
            'nor LoCoMo ("speaker_a"); name its format with --format if it is one of them',
        )
    elements = whole if isinstance(whole, list) else [msgspec.Raw(file.data)]
    source: Source
    if format == "pjais":
        source = HubFile(file)
    elif format == "chatgpt":
        source = ChatGptFile(file, elements)
    else:
        samples = [
            file.decode(raw, dict[str, msgspec.Raw], f"sample {place}") for place, raw in enumerate(elements)
        ]
        source = LocomoFile(file, samples)
    return format, source, len(data)


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise ImportFailed(
                path, "its end", f"{size:,} bytes is past FILE_BYTES_MAX ({FILE_BYTES_MAX:,}): split it"
            )
        return path.read_bytes()
    except OSError as error:
        raise ImportFailed(path, "its beginning", f"it cannot be read ({error.strerror})") from error


def _first(whole: dict[str, msgspec.Raw] | list[msgspec.Raw]) -> dict[str, msgspec.Raw]:
    if isinstance(whole, dict):
        return whole
    if not whole:
        return {}
    try:
        return msgspec.json.decode(whole[0], type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return {}


def _detect(first: dict[str, msgspec.Raw]) -> Format | None:
    if "collections" in first or first.get("format") == msgspec.Raw(f'"{FORMAT}"'.encode()):
        return "pjais"
    if "mapping" in first:
        return "chatgpt"
    if "speaker_a" in first or "conversation" in first:
        return "locomo"
    return None


def _check(hub: Hub, path: Path, source: Source) -> int:
    """Read every record and check it against its declaration; return how many there are."""
    total = 0
    for entry in source.entries():
        try:
            hub.everything[entry.collection].check(entry.record)
        except ValidationError as error:
            raise ImportFailed(path, entry.where, str(error)) from None
        total += 1
    return total


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Yield the records in batches of one collection, bounded by number and by bytes."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if batch and (
            entry.collection != batch[0].collection
            or len(batch) >= _BATCH_RECORDS
            or size + entry.size > _BATCH_BYTES
        ):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch
