"""What the instances on one file tell one another: each commit leaves a notice, in the same transaction.

A notice says which documents and records the commit touched, and which numbers come next. The others read what came
since they last did (`hear`): at the beginning of each transaction, to bring memory up to date with the file, and every
few milliseconds, to tell the listeners. Notices are kept for a while only: who missed some, or reads of a commit that
touched much, takes it that everything may have changed.

Only openings with ``multi_instance`` leave notices: nobody else is there to read them otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from client_sdk.database import Connection
from client_sdk.materialize import Change

__all__ = ["SCHEMA", "Heard", "Notice", "Numbers", "hear", "leave"]

SCHEMA: Final = (
    """CREATE TABLE pjais_notices(
        number INTEGER PRIMARY KEY,
        instance INTEGER NOT NULL,
        notice BLOB NOT NULL
    )""",
)

_KEPT: Final = 256  # notices: at 1,000 commits a second, ten times as long as between two looks
_BETWEEN_CLEANINGS: Final = 64
_NAMED_MAX: Final = 256  # documents or changes that a notice names: past it, it names the collections


class Numbers(msgspec.Struct, frozen=True, array_like=True):
    """What a writer keeps in memory beside the state: the next document and position, and how much is pending."""

    next_doc: int
    next_position: int
    pending: int


class Notice(msgspec.Struct, frozen=True, array_like=True):
    """What one commit tells. ``docs`` and ``changes`` are None where they would be too many, or are not known.

    ``collections`` are those that changed; ``is_call`` asks who syncs to confirm all up to here with the server.
    """

    numbers: Numbers
    docs: Sequence[int] | None
    changes: Sequence[Change] | None
    collections: Sequence[str]
    is_call: bool = False


class Heard(msgspec.Struct, frozen=True):
    """What came since one last looked, up to the commit ``through``, one at least. None: it may be anything."""

    through: int
    pending: int
    notices: Sequence[Notice] | None

    @property
    def numbers(self) -> Numbers | None:
        """The newest."""
        return None if self.notices is None else self.notices[-1].numbers

    @property
    def docs(self) -> set[int] | None:
        """The documents that changed; None: any may have."""
        found: set[int] = set()
        for notice in self.notices or ():
            if notice.docs is None:
                return None
            found.update(notice.docs)
        return None if self.notices is None else found


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Notice).decode


def leave(
    connection: Connection,
    number: int,
    *,
    instance: int,
    numbers: Numbers,
    docs: Sequence[int] | None,
    changes: Sequence[Change],
    is_call: bool = False,
) -> None:
    """Leave the notice of commit ``number``, which is about to be made."""
    collections = sorted({change.collection for change in changes})
    bare = [msgspec.structs.replace(change, before=None, after=None) for change in changes[: _NAMED_MAX + 1]]
    notice = Notice(
        numbers,
        None if docs is None or len(docs) > _NAMED_MAX else docs,
        None if len(bare) > _NAMED_MAX else bare,
        collections,
        is_call,
    )
    connection.execute(
        "INSERT INTO pjais_notices(number, instance, notice) VALUES (?, ?, ?)",
        (number, instance, _encode(notice)),
    )
    if number % _BETWEEN_CLEANINGS == 0:
        connection.execute("DELETE FROM pjais_notices WHERE number <= ?", (number - _KEPT,))


def hear(connection: Connection, *, after: int, before: int | None = None) -> Heard | None:
    """Return what came after commit ``after``; None if nothing did. It ends before a notice of the instance ``before``.

    Runs in a transaction, or as single statements: it then takes a commit that comes between them along.
    """
    (newest,) = connection.execute("SELECT commits FROM pjais_state").fetchone()
    if newest == after:
        return None
    rows = connection.execute(
        "SELECT number, instance, notice FROM pjais_notices WHERE number > ? ORDER BY number", (after,)
    ).fetchall()
    if not rows or rows[-1][0] < newest or rows[-1][0] != after + len(rows):
        (pending,) = connection.execute("SELECT count(*) FROM pjais_outbox").fetchone()
        return Heard(newest, pending, None)
    notices: list[Notice] = []
    for _, instance, notice in rows:
        if instance == before:
            break
        notices.append(_decode(notice))
    return Heard(after + len(notices), notices[-1].numbers.pending, notices) if notices else None
