"""Long conversations: what one of 100,000 messages costs beside one of ten, freshly opened and in use."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from client_sdk.hub import Conversation, Hub, Message
from loadtests.bench.data import message
from loadtests.bench.report import report

__all__ = ["bench_talks"]

KEY = bytes(range(32))
SHORT: Final = 10
LONG: Final = (10_000, 100_000)
OPENINGS: Final = 5

_OPENED = """
import asyncio, json, sys, time
from client_sdk.hub import Hub, Message
async def main():
    async with Hub.open(sys.argv[1], key=bytes(range(32))) as hub:
        await hub.conversations.messages("short", -50)
        resident = int(open("/proc/self/statm").read().split()[1]) * 4096
        took = {}
        for record in ("warm", "short", "long"):  # the first pays for what is loaded once
            began = time.perf_counter()
            await hub.conversations.add_message(record, Message(role="user", content="first after opening"))
            took[record] = time.perf_counter() - began
        grown = int(open("/proc/self/statm").read().split()[1]) * 4096 - resident
        print(json.dumps([took["short"], took["long"], grown]))
asyncio.run(main())
"""


async def bench_talks(folder: Path) -> None:
    """Print the figures of a conversation of 10,000 and of 100,000 messages, beside one of ten."""
    for length in LONG:
        path = folder / f"talk-{length}.db"
        async with Hub.open(path, key=KEY) as hub:
            await _fill(hub, "warm", SHORT)
            await _fill(hub, "short", SHORT)
            await _fill(hub, "long", length)
            await hub.conversations.archive("short")
        _opened(path, length)
        async with Hub.open(path, key=KEY) as hub:
            await _in_use(hub, length)


async def _fill(hub: Hub, record: str, length: int) -> None:
    await hub.conversations.insert(Conversation(id=record, persona_id="p"))
    for start in range(0, length, 2_000):
        made = [_said(number) for number in range(start, min(length, start + 2_000))]
        await hub.conversations.append(record, messages=made)


def _said(number: int) -> Message:
    made = message(number)
    return Message(id=made.id, role="user", content=made.content, timestamp=made.timestamp)


def _opened(path: Path, length: int) -> None:
    """The first append after the file was opened, each time in a process of its own."""
    command = [sys.executable, "-c", _OPENED, str(path)]
    done = [
        msgspec.json.decode(subprocess.run(command, check=True, capture_output=True).stdout)
        for _ in range(OPENINGS)
    ]
    short, long, grown = (statistics.median(values) for values in zip(*done, strict=True))
    report(
        f"first append after opening, at {length:,} messages",
        long * 1e3,
        "ms (p50)",
        at_10=short * 1e3,
        times_that_at_10=long / short,
        memory_mb=grown / 1e6,
    )


async def _in_use(hub: Hub, length: int) -> None:
    talks = hub.conversations
    verbs: dict[str, Callable[[str], Awaitable[Any]]] = {
        "append": lambda record: talks.add_message(record, Message(role="user", content="one more")),
        "the last page of 50": lambda record: talks.messages(record, -50),
        "a page by place": lambda record: talks.messages(record, before=5_000),
        "how many messages": talks.message_count,
        "open without messages": lambda record: talks.get(record, include=()),
        "archive": talks.archive,
    }
    for what, verb in verbs.items():
        times: dict[str, list[float]] = {"short": [], "long": []}
        for _ in range(100):
            for record, held in times.items():
                began = time.perf_counter()
                await verb(record)
                held.append(time.perf_counter() - began)
        short, long = (statistics.median(held[10:]) for held in times.values())
        is_page = "page" in what  # the short one has fewer messages to read
        report(
            f"{what}, at {length:,} messages",
            long * 1e6,
            "us (p50)",
            target="" if is_page else "<= 1.5 times that at 10",
            is_reached=None if is_page else long / short <= 1.5,
            at_10=short * 1e6,
            times_that_at_10=long / short,
        )
