"""What a message of the server may say, and what it may not, given what this device knows.

The device trusts the server no more than the server trusts the device. Each function looks at one kind of message,
changes nothing, and raises `ServerMisbehaved` with what was wrong; what passes can be acted on. The bytes of
updates and snapshots are not looked at here: `crdt.updates` does that, and refuses each for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from client_sdk.sync.errors import ServerMisbehaved
from crdt import wire
from crdt.limits import PAGE_ENTRIES_MAX

__all__ = ["Flight", "check_ack", "check_fetched", "check_page", "check_verified", "check_welcome", "require"]

# Positions are SQLite and Postgres integers.
_POSITION_MAX: Final = 2**63 - 1
# Times fit the clock's 48 bits, with room for the drift that is allowed.
_NOW_MS_MAX: Final = 2**47
_DIGEST_BYTES: Final = 16


class Flight(NamedTuple):
    """A push on its way: updates ``first`` to ``last`` of ``incarnation``."""

    incarnation: int
    first: int
    last: int


def require(is_so: bool, problem: str) -> None:
    """Raise `ServerMisbehaved` with ``problem`` unless it is so."""
    if not is_so:
        raise ServerMisbehaved(problem)


def check_welcome(message: wire.Welcome, *, space: str) -> wire.SpaceState:
    """Return what the server has of our space, the only one that we greeted for."""
    require([state.space for state in message.spaces] == [space], "it welcomed us to other spaces")
    state = message.spaces[0]
    require(0 <= message.now_ms < _NOW_MS_MAX, f"its clock says {message.now_ms}")
    require(0 <= state.head <= _POSITION_MAX, f"its head is {state.head}")
    require(bool(state.generation), "its history has no generation")
    require(all(n >= 0 for n in state.held.values()), "it holds fewer than no updates")
    return state


def check_ack(ack: wire.Ack, *, space: str, flights: Sequence[Flight], held: int) -> list[wire.Refusal]:
    """Return the refusals of the oldest push in flight, which the acknowledgement answers.

    ``held`` is how far the server said at `Welcome` that it holds this incarnation: a device whose file was put back
    from a copy may send again less than the server has.
    """
    _check_space(ack.space, space)
    require(bool(flights), "it acknowledged what was not sent")
    flight = flights[0]
    require(ack.incarnation == flight.incarnation, "it acknowledged another incarnation than was sent")
    known = max(held, *(sent.last for sent in flights if sent.incarnation == ack.incarnation))
    require(
        flight.last <= ack.through <= known,
        f"it acknowledged up to {ack.through} where {flight.first} to {flight.last} were sent",
    )
    numbers = [refusal.n for refusal in ack.refusals]
    require(all(1 <= n <= ack.through for n in numbers), "it refused what it did not acknowledge")
    require(_is_increasing(numbers), "its refusals are out of order")
    # Later pushes that ``through`` covers have an Ack of their own to come, with the refusals among them.
    return [refusal for refusal in ack.refusals if flight.first <= refusal.n <= flight.last]


def check_page(page: wire.Page | wire.Documents, *, space: str) -> None:
    """Check a page by itself: whether it continues where the last one ended is the engine's to say."""
    _check_space(page.space, space)
    items: Sequence[wire.Entry | wire.DocumentState]
    items = page.entries if isinstance(page, wire.Page) else page.states
    require(
        0 <= page.after <= page.through <= page.head <= _POSITION_MAX,
        f"a page from {page.after} to {page.through} with its head at {page.head}",
    )
    require(len(items) <= PAGE_ENTRIES_MAX, f"a page of {len(items)} entries")
    require(_is_increasing([page.after, *(item.position for item in items)]), "positions do not increase")
    require(not items or items[-1].position <= page.through, "positions are past the end of their page")


def check_fetched(documents: wire.Documents, *, space: str, wanted: tuple[str, str] | None) -> None:
    """Check the answer to a `Fetch` of ``wanted``, a collection and a record: one document, or none."""
    _check_space(documents.space, space)
    require(wanted is not None, "it sent a document that was not fetched")
    names = [(state.collection, state.record) for state in documents.states]
    require(names in ([], [wanted]), "it sent another document than was fetched")
    require(
        all(0 <= state.position <= _POSITION_MAX for state in documents.states), "a document from nowhere"
    )


def check_verified(message: wire.Verified, *, space: str, cursor: int) -> None:
    """Check a digest: it was asked for at positions up to ``cursor``."""
    _check_space(message.space, space)
    require(0 <= message.position <= cursor, f"a digest at {message.position}, asked for up to {cursor}")
    require(len(message.digest) == _DIGEST_BYTES, f"a digest of {len(message.digest)} bytes")
    require(0 <= message.records <= _POSITION_MAX, f"a digest of {message.records} records")


def _check_space(named: str, ours: str) -> None:
    require(named == ours, f"it spoke of the space {named[:36]!r}")


def _is_increasing(numbers: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))
