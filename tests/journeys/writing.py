"""A device in a process of its own, that writes and syncs until it is killed: ``python -m tests.journeys.writing``.

It takes a `Life` as a line of JSON from standard input, opens the file, tells what it holds, and is then told which
`Work` each writer goes on with. It prints a `Step` as a line of JSON for each thing that happens: ``opened``, ``begin``
before a write, and ``done`` once that has returned.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from typing import Any

import msgspec

import client_sdk
from client_sdk import Client
from tests.client_sdk.device import KEY
from tests.client_sdk.records import Note, Tag
from tests.journeys.work import SHARED, Held, Work, held_by_title, ids_of, perform

__all__ = ["Doubt", "Life", "Step", "main"]


class Life(msgspec.Struct):
    """How to live: on which file, with what chance, at what pace."""

    path: str
    seed: int
    pause_s: float = 0.004


class Doubt(msgspec.Struct):
    """A write that began."""

    writer: str
    operation: dict[str, Any]


class Step(msgspec.Struct):
    """What happened; one of them is set."""

    opened: dict[str, Held] | None = None
    begin: Doubt | None = None
    done: str | None = None


def tell(step: Step) -> None:
    """Say it whole and at once: the next moment may be the last."""
    line = memoryview(msgspec.json.encode(step) + b"\n")
    while line:
        line = line[os.write(1, line) :]


async def live(life: Life) -> None:
    """Open, sync, and write for each of the works."""
    async with client_sdk.open(life.path, records=[Note, Tag], key=KEY) as client:
        await client.connect()
        tell(Step(opened=await held_by_title(client)))
        line = await asyncio.to_thread(sys.stdin.buffer.readline)
        async with asyncio.TaskGroup() as writers:
            for number, work in enumerate(msgspec.json.decode(line, type=list[Work])):
                chance = random.Random(life.seed * 1_000 + number)
                writers.create_task(write(client, work, chance, life.pause_s))


async def write(client: Client, work: Work, chance: random.Random, pause_s: float) -> None:
    """Write without end."""
    ids = ids_of(work.records)
    shared = await client.collection(Note).where(title=SHARED).first()
    assert shared is not None
    ids[SHARED] = shared.id
    while True:
        operation = work.choose(chance)
        tell(Step(begin=Doubt(work.writer, operation)))
        await perform(client, operation, ids)
        tell(Step(done=work.writer))
        work.apply(operation)
        work.learn(ids)
        await asyncio.sleep(chance.random() * pause_s)


def main() -> None:
    """Live as standard input says."""
    asyncio.run(live(msgspec.json.decode(sys.stdin.buffer.readline(), type=Life)))


if __name__ == "__main__":
    main()
