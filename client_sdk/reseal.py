"""Sealed values move under the key of the space that their file joins, so that its other devices can open them.

Before a device joins, it seals under a key of its own. With the join, in the same transaction, each such value is
sealed anew under the space's key, as an edit that travels like any other. It says the same as before, so it keeps its
clock reading: where two devices have the same record, the later edit still wins, not the later join. The old key stays
in the file. It opens what was left under it: a field of which several values stand side by side, since writing one
would end the conflict unseen, and collections that this program does not declare, until one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from client_sdk.commit import Change, Corridor
from client_sdk.rows import Table
from client_sdk.seal import NONCE_BYTES, SpaceKey, load_keys, save_keys
from crdt.changes import Operation, SetRegister
from crdt.contents import Contents
from crdt.sealed import sealed_bytes
from crdt.values import encode_value

__all__ = ["read_keys", "reseal", "take_key"]


def take_key(corridor: Corridor, key: SpaceKey) -> None:
    """Put a key in force: keep it first, seal under it what is under another, and tell watchers what opens now."""
    seals = corridor.seals
    if seals.keys[0] == key:
        return
    seals.keys = (key, *(held for held in seals.keys if held != key))
    save_keys(corridor.connection, seals.keys)
    tables = [table for table in corridor.tables.values() if table.sealed]
    reseal(corridor, tables)
    told = {(change.collection, change.record) for change in corridor.committed.changes}
    for table in tables:
        for doc, record in _with_values(corridor, table):
            if (table.name, record) not in told:
                # The row is as it was, and reads as something else.
                row = table.held(corridor.connection, doc) if table.is_watched else None
                fields = frozenset(table.sealed)
                corridor.committed.changes.append(
                    Change(table.name, record, "updated", doc, fields, before=row, after=row)
                )


def read_keys(corridor: Corridor, random: Callable[[int], bytes]) -> None:
    """Read the keys again: another instance on this file put one in force, and sealed everything anew."""
    corridor.seals.keys = load_keys(corridor.connection, random)


def reseal(corridor: Corridor, tables: Iterable[Table]) -> None:
    """Seal under the key in force what these collections hold under another one, deleted records too."""
    if len(corridor.seals.keys) == 1:
        return
    for table in tables:
        if not table.sealed:
            continue
        without_row = corridor.connection.execute(
            "SELECT doc, record FROM pjais_documents WHERE collection = ? AND NOT has_row", (table.name,)
        ).fetchall()
        for doc, record in [*_with_values(corridor, table), *without_row]:
            made = _renewed(corridor, table, record, corridor.documents.get(doc).contents)
            if made:
                corridor.edit_document(table, doc, record, lambda _, made=made: made)  # type: ignore[misc]


def _renewed(corridor: Corridor, table: Table, record: str, contents: Contents) -> list[Operation]:
    made: list[Operation] = []
    for sealed_field in table.sealed.values():
        wire = sealed_field.field.wire
        entries = contents.entries(wire)
        sealed = sealed_bytes(entries[0][1].value) if len(entries) == 1 else None
        if sealed is None:
            continue
        renewed = sealed_field.renew(record, sealed, corridor.sources.random(NONCE_BYTES))
        if renewed is not None:
            made.append(SetRegister(wire, encode_value(renewed), entries[0][1].reading))
    times = contents.entries("updatedAt")
    if made and times:
        made.append(SetRegister("updatedAt", times[0][1].value, times[0][1].reading))
    return made


def _with_values(corridor: Corridor, table: Table) -> list[tuple[int, str]]:
    """Return the documents, and their records, whose row has a sealed value."""
    has_value = " OR ".join(f'"{name}" IS NOT NULL' for name in table.sealed)
    return corridor.connection.execute(f'SELECT doc, id FROM "{table.name}" WHERE {has_value}').fetchall()
