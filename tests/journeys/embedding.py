"""A Hub in a process of its own that embeds what it writes until it is killed.

``python -m tests.journeys.embedding PATH`` writes some hundred memories, which the default model embeds, and goes on
writing, changing and deleting. It prints a `Step` as a line of JSON for each write that returned, and for how far
embedding is.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

import msgspec

from client_sdk.hub import Hub, Memory
from tests.client_sdk.device import KEY

__all__ = ["MEMORIES", "STOLEN", "Step", "main"]

MEMORIES: Final = 250
STOLEN: Final = "On the trip to Lyon Anna's bike was stolen."
_AT_ONCE: Final = 50
_OLD: Final = 10  # from the first on, each of so many is changed or deleted once it has its vector


class Step(msgspec.Struct):
    """What is so from now on: the summaries of memories, None where one was deleted; how many texts have a vector.

    ``begins``: the memory that is about to be changed or deleted.
    """

    summaries: dict[str, str | None] = {}
    embedded: int = 0
    begins: str = ""


def tell(step: Step) -> None:
    """Say it whole and at once: the next moment may be the last."""
    line = memoryview(msgspec.json.encode(step) + b"\n")
    while line:
        line = line[os.write(1, line) :]


async def live(path: str) -> None:
    """Write, and go on writing while it is embedded."""
    async with Hub.open(path, key=KEY) as hub:
        ids: list[str] = []
        texts = [
            STOLEN,
            *(f"Meeting {number} was about the roof of house {number}." for number in range(1, MEMORIES)),
        ]
        for start in range(0, MEMORIES, _AT_ONCE):
            made = await hub.memories.insert_many(
                Memory(type="event", name="", summary=text) for text in texts[start : start + _AT_ONCE]
            )
            ids += [memory.id for memory in made]
            tell(Step({memory.id: memory.summary for memory in made}))
        number = 0
        while True:
            progress = await hub.client.embedding_progress()
            tell(Step(embedded=progress.done))
            if not progress.done:
                continue
            number += 1
            made = await hub.memories.insert_many(
                [Memory(type="task", name="", summary=f"Call number {number} back.")]
            )
            tell(Step({made[0].id: made[0].summary}))
            if number <= _OLD:
                changed, deleted = ids[2 * number], ids[2 * number + 1]
                tell(Step(begins=changed))
                memory = await hub.memories.update(changed, summary=f"Meeting {number} did not take place.")
                tell(Step({changed: memory.summary}))
                tell(Step(begins=deleted))
                await hub.memories.delete(deleted)
                tell(Step({deleted: None}))


def main() -> None:
    """Live on the file that the command line names."""
    asyncio.run(live(sys.argv[1]))


if __name__ == "__main__":
    main()
