"""What changed between two results, record by record, in steps that a list on a screen can take.

A step is told with its places in the list as the steps before it have left it. Done in order they make the new result:
first what left (from the end), then what moved, then what came. As few records as can be are moved: those outside of a
longest run that kept its order (patience sorting; M. Fredman, "On computing the length of longest increasing
subsequences", Discrete Mathematics 11, 1975).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise
from typing import Generic, TypeAlias, TypeVar

import msgspec

from crdt.schema import Record

__all__ = ["Added", "Changed", "Difference", "Moved", "Removed", "difference", "differences"]

R = TypeVar("R", bound=Record)


class Added(msgspec.Struct, Generic[R], frozen=True):
    """A record came, at ``place``."""

    place: int
    record: R


class Removed(msgspec.Struct, Generic[R], frozen=True):
    """A record left, from ``place``; it is shown as it last was."""

    place: int
    record: R


class Moved(msgspec.Struct, Generic[R], frozen=True):
    """A record went from ``source`` to ``place``, counted without it."""

    source: int
    place: int
    record: R


class Changed(msgspec.Struct, Generic[R], frozen=True):
    """The record at ``place`` has other values."""

    place: int
    record: R


Difference: TypeAlias = Added[R] | Removed[R] | Moved[R] | Changed[R]


async def differences(results: AsyncGenerator[list[R], None]) -> AsyncGenerator[list[Difference[R]], None]:
    """Yield what makes each result from the one before; from nothing for the first."""
    held: list[R] = []
    try:
        async for result in results:
            yield difference(held, result)
            held = result
    finally:
        await results.aclose()


def difference(old: Sequence[R], new: Sequence[R]) -> list[Difference[R]]:
    """Return the steps from one list to another; a record is in each at most once."""
    place_by_id = {record.id: place for place, record in enumerate(new)}
    steps: list[Difference[R]] = []
    now = list(old)
    for place in range(len(now) - 1, -1, -1):
        if now[place].id not in place_by_id:
            steps.append(Removed(place, now.pop(place)))
    steps += _moves(now, place_by_id)
    held = {record.id: record for record in now}
    for place, record in enumerate(new):
        before = held.get(record.id)
        if before is None:
            steps.append(Added(place, record))
        elif before is not record and before != record:
            steps.append(Changed(place, record))
    return steps


def _moves(now: list[R], place_by_id: dict[str, int]) -> list[Difference[R]]:
    """Bring a list into the order of its records' new places, and return the moves that did it."""
    wanted = [place_by_id[record.id] for record in now]
    settled = set(_longest_run(wanted))
    steps: list[Difference[R]] = []
    # Those that move are placed one after the other among those that are in order already.
    for target in sorted(set(wanted) - settled):
        source = wanted.index(target)
        record, _ = now.pop(source), wanted.pop(source)
        place = next((at for at, one in enumerate(wanted) if one in settled and one > target), len(wanted))
        now.insert(place, record)
        wanted.insert(place, target)
        settled.add(target)
        if place != source:
            steps.append(Moved(source, place, record))
    return steps


def _longest_run(numbers: Sequence[int]) -> list[int]:
    """Return a longest increasing subsequence of different numbers."""
    if all(one < other for one, other in pairwise(numbers)):
        return list(numbers)
    tails: list[int] = []
    before: dict[int, int | None] = {}
    for number in numbers:
        place = bisect_left(tails, number)
        before[number] = tails[place - 1] if place else None
        tails[place : place + 1] = [number]
    run: list[int] = []
    last: int | None = tails[-1] if tails else None
    while last is not None:
        run.append(last)
        last = before[last]
    return run[::-1]
