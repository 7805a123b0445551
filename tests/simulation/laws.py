"""The laws: what must hold in the end, when the faults have stopped and everything has settled.

1. **It settles.** Every device comes to ``synced`` and ``verified`` within a bounded time, with nothing pending.
2. **All are equal**: the devices' digests, the server's digest, and the values themselves.
3. **Nothing is lost.** Everything in the ledger that is owed is there, and nothing else is.
4. **One log row for each edit**: none twice, none missing, none that nobody made, positions and clocks without gaps.
5. **A device's edits stand in their order** in the log, across its openings: none comes before what it builds on.
6. **No honest update is refused**, by the server or a device.
7. **Files are consistent**: rows, digest and outbox follow from the log, and a file opened anew says the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from client_sdk.commit import Corridor
from client_sdk.errors import ClientIdTaken, ServerLostData, ServerRefused
from client_sdk.sync.errors import ServerMisbehaved
from crdt.contents import Contents
from crdt.document import Document
from crdt.errors import DocumentUnreadable
from crdt.records import read
from crdt.schema import schema_of
from tests.client_sdk.device import check_laws
from tests.simulation.ledger import DELETED, REMOVED, Edit, Key, Ledger, expected_of
from tests.simulation.records import KINDS, Line
from tests.simulation.values import flat
from tests.simulation.world import Broken, where

if TYPE_CHECKING:
    from tests.simulation.device import Device
    from tests.simulation.server import Server

__all__ = ["LAWS", "SETTLES", "UNFORESEEN", "check_all", "check_ending", "is_settled"]

SETTLES = "it settles"
EQUAL = "all are equal"
KEPT = "nothing is lost"
ONE_ROW = "one log row for each edit"
IN_ORDER = "a device's edits stand in their order"
HONEST = "no honest update is refused"
FILES = "rows, digest and outbox follow from the log"
UNFORESEEN = "nothing unforeseen happens"
LAWS = (SETTLES, EQUAL, KEPT, ONE_ROW, IN_ORDER, HONEST, FILES, UNFORESEEN)

#: What a server may end a session with where neither side is wrong.
_EXCUSED = frozenset(
    {"unauthorized", "database_unavailable", "cannot_serve", "space_busy", "out_of_order", "documents_behind"}
)
_SCHEMAS = {schema_of(record).collection: schema_of(record) for record in KINDS}


def check_ending(name: str, error: Exception | None, *, may_be_taken: bool) -> None:
    """Check that a session ended by an accident, and not because one side did what it may not. Raises `Broken`."""
    if isinstance(error, ClientIdTaken):
        if not may_be_taken:
            raise Broken("client ids are not used twice", f"{name}: {error}")
    elif isinstance(error, ServerMisbehaved | ServerLostData) or (
        isinstance(error, ServerRefused) and error.code not in _EXCUSED
    ):
        raise Broken("both sides keep to the protocol", f"{name}: {error!r} {error}")


def is_settled(device: Device, head: int) -> bool:
    """Whether a device is in step, as far as it can know, with a log that ends at ``head``."""
    runner = device.runner
    if runner is None or device.client is None:
        return False
    status = runner.status
    return (
        status.state == "synced" and status.verified is True and status.cursor == head and status.pending == 0
    )


async def check_all(devices: Sequence[Device], server: Server, ledger: Ledger) -> int:
    """Check every law but the first; return how many rows the log has. Raises `Broken`."""
    await _no_refusals(devices, server)
    positions = await _log(server, ledger)
    _ordered(devices, positions)
    await _equal(devices, server)
    documents = await _documents(devices[0])
    _kept(documents, ledger.present(positions))
    for device in devices:
        assert device.client is not None
        held = await _documents(device)
        for key in documents:
            if held.get(key) != documents[key]:
                raise Broken(
                    EQUAL, f"{key} at {device.name}: {held.get(key)}; at {devices[0].name}: {documents[key]}"
                )
        try:
            await check_laws(device.client)
        except AssertionError as error:
            raise Broken(FILES, f"{device.name}: {where(error)}") from error
    return len(positions)


async def _no_refusals(devices: Sequence[Device], server: Server) -> None:
    for row in await server.rows(
        "SELECT n, collection, record_id, code, detail FROM refusals WHERE space_id = $1"
    ):
        raise Broken(HONEST, f"the server refused {tuple(row)}")
    for row in await server.rows(
        "SELECT position, collection, record_id, reason FROM quarantine WHERE space_id = $1"
    ):
        raise Broken(HONEST, f"the server could not fold {tuple(row)}")
    for device in devices:
        assert device.client is not None
        for found in await device.client.sql(
            "SELECT collection, record, code, detail, source FROM pjais_quarantine"
        ):
            raise Broken(HONEST, f"{device.name} has in quarantine {tuple(found)}")


async def _equal(devices: Sequence[Device], server: Server) -> None:
    (row,) = await server.rows(
        "SELECT head, position, digest, records FROM spaces JOIN materializations USING (space_id) WHERE space_id = $1"
    )
    if row["position"] != row["head"]:
        raise Broken(SETTLES, f"the log ends at {row['head']}, and is folded up to {row['position']}")
    for device in devices:
        assert device.client is not None
        _, cursor = await device.client._replica.cursor()
        if cursor != row["head"]:
            raise Broken(FILES, f"{device.name} has read up to {row['head']}, and would go on from {cursor}")
        digest, records = await device.client.digest()
        if (digest, records) != (row["digest"].hex(), row["records"]):
            raise Broken(
                EQUAL,
                f"{device.name}: {records} records {digest}; server: {row['records']} {row['digest'].hex()}",
            )


async def _log(server: Server, ledger: Ledger) -> dict[tuple[str, int, int], int]:
    """Return the position of each edit by its number."""
    rows = await server.rows(
        "SELECT position, device_id, incarnation, n, client_id, collection, record_id, clock_start, clock_end"
        " FROM log WHERE space_id = $1 ORDER BY position"
    )
    ends: Counter[tuple[int, Key]] = Counter()
    numbers = [(str(row["device_id"]), row["incarnation"], row["n"]) for row in rows]
    twice = [number for number, count in Counter(numbers).items() if count > 1]
    if twice:
        raise Broken(ONE_ROW, f"{len(twice)} edits are in the log twice, as {twice[0]}")
    by_number = {edit.number: edit for edit in ledger.edits}
    for place, (row, number) in enumerate(zip(rows, numbers, strict=True), 1):
        key = Key(row["collection"], row["record_id"])
        edit = by_number.get(number)
        if row["position"] != place:
            raise Broken(ONE_ROW, f"position {place} is missing")
        if row["clock_start"] != ends[row["client_id"], key]:
            raise Broken(
                ONE_ROW, f"client {row['client_id']} goes on in {key} at {row['clock_start']}, out of turn"
            )
        ends[row["client_id"], key] = row["clock_end"]
        if edit is None:
            raise Broken(ONE_ROW, f"nobody made {tuple(row)}")
        found = (key, row["client_id"], row["clock_start"], row["clock_end"])
        if found != (edit.key, edit.client, edit.start, edit.end):
            raise Broken(ONE_ROW, f"{tuple(row)} was made as {edit}")
    logged = {number: place for place, number in enumerate(numbers, 1)}
    missing = [edit for edit in ledger.edits if not edit.is_loose and edit.number not in logged]
    if missing:
        raise Broken(KEPT, f"{len(missing)} edits returned and are not in the log, as {missing[0]}")
    return logged


def _ordered(devices: Sequence[Device], positions: Mapping[tuple[str, int, int], int]) -> None:
    for device in devices:
        made = [edit for edit in device.made if edit.number in positions]
        for before, after in pairwise(made):
            if positions[before.number] > positions[after.number]:
                raise Broken(
                    IN_ORDER, f"{device.name} made {after} after {before}, and it is in the log before"
                )


async def _documents(device: Device) -> dict[Key, Contents]:
    """Return everything that a device's log says, read anew."""

    def read_all(corridor: Corridor) -> dict[Key, Contents]:
        found: dict[Key, Contents] = {}
        for doc, collection, record in corridor.connection.execute(
            "SELECT doc, collection, record FROM pjais_documents ORDER BY collection, record"
        ).fetchall():
            stored = corridor.log.read(corridor.connection, doc)
            found[Key(collection, record)] = _Comparable.of(
                Document.load(stored.snapshot, stored.tail, client=1).contents
            )
        return found

    assert device.client is not None
    return await device.client._writer.run(read_all)


class _Comparable(Contents):
    """Contents that are equal when everything in them is, order of lists included."""

    @classmethod
    def of(cls, plain: Contents) -> _Comparable:
        return cls(plain.reg, plain.sets, plain.counts, plain.lists, plain.texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Comparable) and self._all() == other._all()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._all())

    def _all(self) -> tuple[Any, ...]:
        sets = {name: sorted(keys) for name, keys in self.sets.items() if keys}
        counts = {name: dict(totals) for name, totals in self.counts.items() if totals}
        lists = {name: items for name, items in self.lists.items() if items}
        return dict(self.reg), sets, counts, lists, {name: text for name, text in self.texts.items() if text}


def _kept(documents: dict[Key, Contents], edits: Sequence[Edit]) -> None:
    by_key: dict[Key, list[Edit]] = {}
    for edit in edits:
        by_key.setdefault(edit.key, []).append(edit)
    if by_key.keys() != documents.keys():
        raise Broken(
            KEPT, f"{by_key.keys() ^ documents.keys()} are written and not there, or there and not written"
        )
    for key, made in by_key.items():
        contents = documents[key]
        expected = expected_of(made)
        try:
            found = read(_SCHEMAS[key.collection], contents)
        except DocumentUnreadable as error:
            raise Broken(KEPT, f"{key} cannot be read: {error}") from error
        leaves = {f"settings.{name}": value for name, value in flat(found.get("settings", {})).items()}
        for name, value in expected.registers.items():
            if name == DELETED:
                held: Any = contents.is_deleted
            else:
                held = leaves.get(name, REMOVED) if "." in name else found[name]
            if held != value:
                raise Broken(
                    KEPT, f"{key} {name} is {held!r}, and {value!r} was written last; {_writes(made, name)}"
                )
        for name, elements in expected.sets.items():
            if found[name] != elements:
                raise Broken(KEPT, f"{key} {name} is {found[name]}, and should be {elements}")
        for name, total in expected.counts.items():
            if found[name] != total:
                raise Broken(KEPT, f"{key} {name} is {found[name]}, and its increments come to {total}")
        for name, pieces in expected.pieces.items():
            pieces_held = [item.id if isinstance(item, Line) else item for item in found[name]]
            if Counter(pieces_held) != pieces:
                raise Broken(KEPT, f"{key} {name} lacks {pieces - Counter(pieces_held)} or has too much")
            _in_order(key, name, pieces_held, expected.orders[name])


def _in_order(key: Key, name: str, held: list[Any], orders: Sequence[Sequence[Any]]) -> None:
    place = {piece: index for index, piece in enumerate(held)}
    for put in orders:
        places = [place[piece] for piece in put if piece in place]
        if places != sorted(places):
            raise Broken(KEPT, f"{key} {name}: {put} stand in another order")


def _writes(edits: Sequence[Edit], name: str) -> list[str]:
    return [
        f"n={edit.n} client={edit.client} reading={edit.reading} {fact.value!r}"
        for edit in edits
        for fact in edit.facts
        if fact.name == name
    ]
