"""What a device's own outbox and documents say of an operation: the evidence that the ledger is written from.

The person says what was asked for; the outbox says which updates came of it, and the documents what those had seen.
It is read right after the operation, or, where the device died of it, as soon as the file is open again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from client_sdk.client import Client
from crdt.updates import check_shape
from crdt.values import leaf_path, split_edit
from tests.simulation.ledger import Edit, Fact, Intent, Key
from tests.simulation.world import Broken

__all__ = ["edits_of", "identities", "renamed"]

WHOLE = "an operation happens as a whole"

Identity = tuple[int, int]
"""An incarnation, and the client id that it writes under."""


def edits_of(
    client: Client, device: str, incarnation: int, first: int, intents: Sequence[Intent], *, is_doubted: bool
) -> list[Edit]:
    """Return the edits of an operation: one for each intent, numbered from ``first``, or none where it is in doubt.

    Raises `Broken` if there are others.
    """
    corridor = client._writer.corridor
    rows = corridor.connection.execute(
        'SELECT o.n, o.client, o.collection, o.record, l.doc, l."update" FROM pjais_outbox o'
        " JOIN pjais_log l ON l.position = o.position WHERE o.incarnation = ? AND o.n >= ? ORDER BY o.n",
        (incarnation, first),
    ).fetchall()
    if is_doubted and not rows:
        return []
    if len(rows) != len(intents):
        raise Broken(WHOLE, f"{len(rows)} of {len(intents)} edits are in the outbox: {intents}")
    made = []
    for (n, number, collection, record, doc, update), intent in zip(rows, intents, strict=True):
        if collection != intent.collection or intent.record not in (None, record):
            raise Broken(WHOLE, f"an edit of {collection} {record} was to be {intent}")
        shape = check_shape(update, client=number)
        document = corridor.documents.get(doc)
        reading = corridor.clock.last
        made.append(
            Edit(
                device=device,
                incarnation=incarnation,
                client=number,
                n=n,
                start=shape.start,
                end=shape.end,
                key=Key(collection, record),
                reading=reading,
                seen={other: clock for other, clock in document.clocks().items() if other != number},
                facts=tuple(_happened(intent.facts, document.contents.reg, number, reading)),
            )
        )
    return made


def identities(client: Client) -> dict[Identity, int]:
    """Return under which identities something is pending, each with the place of its first update in the log."""
    rows = client._writer.corridor.connection.execute(
        "SELECT incarnation, client, min(position) FROM pjais_outbox GROUP BY incarnation, client"
    ).fetchall()
    return {(incarnation, number): position for incarnation, number, position in rows}


def renamed(before: Mapping[Identity, int], after: Mapping[Identity, int]) -> dict[Identity, Identity]:
    """Return which identities have another name now: their first update is where it was."""
    by_position = {position: identity for identity, position in after.items()}
    return {
        old: by_position[position]
        for old, position in before.items()
        if by_position.get(position, old) != old
    }


def _happened(
    facts: Sequence[Fact], registers: Mapping[str, bytes], client: int, reading: int
) -> Iterator[Fact]:
    """Yield the facts, without leaves that had their value already and no conflict to clear."""
    for fact in facts:
        if fact.kind != "again":
            yield fact
            continue
        field, _, leaf = fact.name.partition(".")
        entry = registers.get(f"{leaf_path(field, leaf.split('.'))}@{client}")
        edit = split_edit(entry) if entry is not None else None
        if edit is not None and edit[0] == reading:
            yield Fact("set", fact.name, fact.value)
