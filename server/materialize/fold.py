"""One record: its snapshot and the updates that came, folded into the next snapshot and what is known of it.

Nothing here reads or writes anything. `fold_creation` is pure Python and safe anywhere: most records are one creation
update, which is then the snapshot, without a copy. `fold_record` puts bytes into pycrdt, so it runs in the worker only.

A snapshot is kept only if it can be read again: it is loaded into a fresh document, which must come to the
same digest and the same clocks, and hold only what other ends accept. Of hostile updates that pass every
check, 3 in 100 still made snapshots that reload differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from crdt.contents import Contents
from crdt.document import Document
from crdt.errors import UpdateRefused
from crdt.lanes import read_creation
from crdt.updates import check_snapshot
from server.materialize.view import json_of
from server.materialize.words import Part, texts_of

__all__ = ["Folded", "Outcome", "Refused", "Update", "Work", "fold_creation", "fold_record", "reason_of"]

#: Nobody's client id: nothing is ever written under it.
_NOBODY: Final = 0
_REASON_CHARACTERS_MAX: Final = 300

_pack: Final = msgspec.msgpack.Encoder().encode


class Update(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row of the log."""

    position: int
    client: int
    update: bytes


class Refused(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An update that is not in the document, and why."""

    position: int
    reason: str


class Work(msgspec.Struct, frozen=True, array_like=True):
    """A record to fold. ``snapshot`` is None for a record that has no document yet."""

    collection: str
    record: str
    snapshot: bytes | None
    updates: Sequence[Update]

    @property
    def size(self) -> int:
        """Bytes that are folded."""
        return len(self.snapshot or b"") + sum(len(update.update) for update in self.updates)


class Folded(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A document as it is stored.

    ``position`` is the last update in it, ``clocks`` a MessagePack map from client to next clock, ``digest``
    16 bytes big endian, ``value`` JSON or None, ``texts`` those that words can find.
    """

    position: int
    snapshot: bytes
    clocks: bytes
    digest: bytes
    deleted: bool
    value: str | None
    texts: Sequence[Part] = ()


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What came of a record.

    ``folded`` is None if nothing new is in it. With ``doubt`` nothing of the outcome is to be used: the
    updates have to be folded one by one to find which of them it is about.
    """

    folded: Folded | None = None
    refused: Sequence[Refused] = ()
    doubt: str | None = None


def fold_creation(collection: str, record: str, update: Update) -> Folded | None:
    """Fold a record that is one creation update; return None if this update is not that simple.

    Raises:
        UpdateRefused: it is hostile.
    """
    creation = read_creation(update.update, client=update.client)
    if creation is None:
        return None
    contents = Contents.from_creation(creation)
    digest = contents.digest(collection, record)
    clocks = {creation.client: creation.end}
    return _folded(update.position, update.update, clocks, digest, contents)


def fold_record(work: Work) -> Outcome:
    """Fold updates into a record, in the order of the log.

    A repeat is passed over, what the document refuses is named in the outcome, and the rest goes on. May end
    or hang the process.
    """
    try:
        return _fold(work)
    except UpdateRefused as refused:  # by the document as a whole, not as an update
        return Outcome(doubt=reason_of(refused))
    except MemoryError:
        return Outcome(doubt="memory: folding it takes more than the worker may have")
    except Exception as error:  # noqa: BLE001 - one record must not stop the others
        return Outcome(doubt=f"error: {type(error).__name__}: {error}"[:_REASON_CHARACTERS_MAX])
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # pycrdt's, and not an Exception
            return Outcome(doubt=f"panic: {error}"[:_REASON_CHARACTERS_MAX])
        raise


def reason_of(refused: UpdateRefused) -> str:
    """The reason for people, the code first."""
    return f"{refused.code}: {refused.detail}"[:_REASON_CHARACTERS_MAX]


def _fold(work: Work) -> Outcome:
    document = Document.load(work.snapshot, [], client=_NOBODY)
    all_refused: list[Refused] = []
    position = 0
    for update in work.updates:
        try:
            document.apply(update.update, client=update.client)
        except UpdateRefused as refused:
            if refused.code == "panic":
                raise
            if refused.code != "repeat":
                all_refused.append(Refused(update.position, reason_of(refused)))
        else:
            position = update.position
    if not position:
        return Outcome(None, all_refused)
    snapshot, clocks = document.snapshot(), document.clocks()
    digest = document.contents.digest(work.collection, work.record)
    problem = _problem_on_reload(work, snapshot, clocks, digest)
    if problem is not None:
        return Outcome(doubt=problem)
    return Outcome(_folded(position, snapshot, clocks, digest, document.contents), all_refused)


def _problem_on_reload(work: Work, snapshot: bytes, clocks: dict[int, int], digest: int) -> str | None:
    fresh = Document.load(snapshot, [], client=_NOBODY)
    if fresh.clocks() != clocks:
        return "reload_differs: the snapshot comes back with other clocks"
    if fresh.contents.digest(work.collection, work.record) != digest:
        return "reload_differs: the snapshot comes back with other contents"
    if fresh.snapshot() != snapshot:
        check_snapshot(
            snapshot
        )  # its clocks were read from other bytes: see that these are acceptable as well
    return None


def _folded(
    position: int, snapshot: bytes, clocks: dict[int, int], digest: int, contents: Contents
) -> Folded:
    return Folded(
        position,
        snapshot,
        _pack(clocks),
        digest.to_bytes(16, "big"),
        contents.is_deleted,
        json_of(contents),
        texts_of(contents),
    )
