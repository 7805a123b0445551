"""One of several instances on a file, in a process of its own: ``python -m tests.journeys.instance PATH NAME``.

It opens the file and prints ``open``, then does what each line of its standard input says and answers with a line:

* ``write COUNT``: that many times a tag of its name and the next number, and each tenth time a line in the shared note;
  answers the number after each tag that is durable
* ``stamp``: one tag; answers with the monotonic time just before and just after its commit
* ``connect``, ``synced``: as `Client` has it; answers with the state
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen

import client_sdk
from client_sdk import Client
from tests.client_sdk.device import KEY
from tests.client_sdk.records import Line, Note, Tag

__all__ = ["SHARED", "Instance", "main"]

SHARED = "shared"


class Instance:
    """The other end: a test's hold on such a process."""

    def __init__(self, path: Path, name: str) -> None:
        command = [sys.executable, "-m", "tests.journeys.instance", str(path), name]
        self.process = Popen(command, stdin=PIPE, stdout=PIPE)

    async def line(self) -> str:
        """Wait for its next line."""
        assert self.process.stdout is not None
        return (await asyncio.to_thread(self.process.stdout.readline)).decode().strip()

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order.encode() + b"\n")
        self.process.stdin.flush()

    async def ask(self, order: str) -> str:
        self.tell(order)
        return await self.line()

    def kill(self) -> int:
        """End it where it stands; return the last number that it said was durable."""
        self.process.kill()
        left, _ = self.process.communicate()
        whole = left[: left.rfind(b"\n") + 1].split()
        return int(whole[-1]) if whole else 0

    async def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await asyncio.to_thread(self.process.wait, 60) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


def answer(*words: object) -> None:
    """Say it whole and at once: the next moment may be the last."""
    os.write(1, " ".join(map(str, words)).encode() + b"\n")


async def live(path: str, name: str) -> None:
    """Obey standard input until it ends."""
    async with client_sdk.open(path, records=[Note, Tag], key=KEY, multi_instance=True) as client:
        answer("open")
        written = 0
        while order := (await asyncio.to_thread(sys.stdin.readline)).split():
            match order:
                case ["write", count]:
                    for number in range(written, written + int(count)):
                        await write(client, name, number)
                    written += int(count)
                case ["stamp"]:
                    began = time.monotonic()
                    await client.collection(Tag).insert(Tag(name=name))
                    answer(began, time.monotonic())
                case ["connect"]:
                    await client.connect()
                    answer(client.status.state)
                case ["synced"]:
                    await client.synced(60)
                    answer(client.status.state)


async def write(client: Client, name: str, number: int) -> None:
    """Write one tag, and now and then in what all share."""
    await client.collection(Tag).insert(Tag(name=f"{name} {number}"))
    answer(number + 1)
    if number % 10 == 0:
        notes = client.collection(Note)
        await notes.append(SHARED, lines=[Line(id=f"{name} {number}", content="x" * 400)])
        await notes.increment(SHARED, views=1)


def main() -> None:
    """Live as the command line says."""
    asyncio.run(live(*sys.argv[1:]))


if __name__ == "__main__":
    main()
