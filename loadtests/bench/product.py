"""The product's own targets: 100,000 memories, 1,000 conversations, 100 personas, and a recorded day of use.

A day is made from a seed: somebody opens the application some times, looks at the personas, talks with a few
of them, leafs through memories and conversations. Each screen asks for what it shows, again whenever it is
shown: the queries are those of the screens, with `cached()`, and the writes those that talking makes. Nothing
is embedded meanwhile: that takes a core for many minutes, and has its own benchmark.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from client_sdk.embedding import MiniLm
from client_sdk.hub import Conversation, Hub, Memory, Message, Persona
from loadtests.bench.data import memories
from loadtests.bench.report import percentile, report

__all__ = ["bench_product"]

KEY = bytes(range(32))
PERSONAS, MEMORIES, CONVERSATIONS, MESSAGES = 100, 100_000, 1_000, 40
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LIVE = 1_000


async def bench_product(folder: Path, *, records: int) -> None:
    """Print the product's figures; ``records`` is how many memories there are."""
    path = folder / "hub.db"
    async with Hub.open(path, key=KEY, embedder="off") as hub:
        personas = await _fill(hub, records)
        await _ask(hub, personas)
        await _a_day(hub, personas)
    await asyncio.to_thread(_memory, path, records)
    times = [await asyncio.to_thread(_open_cold, path) for _ in range(5)]
    p50 = statistics.median(times) * 1e3
    report("cold open with import", p50, "ms (p50)", target="<= 400 ms", is_reached=p50 <= 400)


async def _fill(hub: Hub, records: int) -> list[Persona]:
    chance = random.Random(8)
    personas = await hub.personas.insert_many(
        Persona(
            name=f"Persona {n}",
            description="Somebody to talk with.",
            is_active=n % 4 > 0,
            last_used=START + dt.timedelta(minutes=chance.randint(0, 500_000)),
        )
        for n in range(PERSONAS)
    )
    kinds = ("person", "concept", "event", "task", "conversation", "knowledge")
    made = [
        Memory(
            persona_id=personas[n % PERSONAS].id,
            type=kinds[n % 6],  # type: ignore[arg-type]
            name=one.name,
            summary=one.summary,
            content=one.content,
            tags=one.tags,
            importance=one.importance,
            last_accessed=START + dt.timedelta(minutes=chance.randint(0, 500_000)),
        )
        for n, one in enumerate(memories(records))
    ]
    for start in range(0, records, 5_000):
        await hub.memories.insert_many(made[start : start + 5_000])
    talks = [
        Conversation(
            persona_id=personas[n % PERSONAS].id,
            is_archived=n // PERSONAS % 5 == 0,
            messages=[
                Message(
                    role="user" if m % 2 else "assistant", content=made[(n * MESSAGES + m) % records].summary
                )
                for m in range(MESSAGES)
            ],
        )
        for n in range(CONVERSATIONS)
    ]
    for start in range(0, CONVERSATIONS, 200):
        await hub.conversations.insert_many(talks[start : start + 200])
    return personas


async def _timed(work: Callable[[int], Awaitable[Any]], times: int = 60) -> tuple[float, float]:
    """Return the p50 and p99 of a work, in milliseconds."""
    taken = []
    for n in range(times):
        began = time.perf_counter()
        await work(n)
        taken.append((time.perf_counter() - began) * 1e3)
    return percentile(taken, 50), percentile(taken, 99)


async def _ask(hub: Hub, personas: list[Persona]) -> None:
    def of(n: int) -> str:
        return personas[n * 7 % PERSONAS].id

    questions: list[tuple[str, float, Callable[[int], Awaitable[Any]]]] = [
        ("active personas by last use", 5, lambda _: _active(hub).all()),
        ("a persona's memories, the 100 most important", 10, lambda n: _of_persona(hub, of(n)).all()),
        ("recent conversations of a persona", 10, lambda n: _recent(hub, of(n)).all()),
    ]
    for name, most, work in questions:
        p50, p99 = await _timed(work)
        report(name, p50, "ms (p50)", p99=p99, target=f"<= {most:g} ms", is_reached=p50 <= most)


def _active(hub: Hub) -> Any:
    """The personas that are active, the last used first."""
    return hub.personas.where(is_active=True).order_by("last_used", "desc")


def _of_persona(hub: Hub, persona: str) -> Any:
    """A persona's memories, the most important first."""
    memories = hub.memories.where(persona_id=persona).where("importance", ">=", 20)
    return memories.order_by("importance", "desc").order_by("last_accessed", "desc").limit(100)


def _recent(hub: Hub, persona: str) -> Any:
    """A persona's conversations that are not archived, the newest first."""
    talks = hub.conversations.where(persona_id=persona, is_archived=False)
    return talks.order_by("updated_at", "desc").limit(50)


async def _a_day(hub: Hub, personas: list[Persona]) -> None:
    """Live a day of use from a seed, and print how many of its questions the cache answered."""
    chance = random.Random(9)
    cache = hub.client._cache  # noqa: SLF001 - the figures
    before = (cache.counts.hits, cache.counts.misses)
    favourites = chance.choices(personas, k=6)
    writes = 0
    began = time.perf_counter()
    for _ in range(6):  # the application is opened, or comes to the front after a while
        cache.clear()
        await _home(hub)
        for _ in range(chance.randint(2, 5)):
            persona = chance.choice([*favourites, chance.choice(personas)])
            writes += await _visit(hub, chance, persona.id)
            await _home(hub)
    hits, misses = cache.counts.hits - before[0], cache.counts.misses - before[1]
    rate = hits / (hits + misses)
    report(
        "cache hits in a day of use",
        rate * 100,
        "%",
        questions=hits + misses,
        writes=writes,
        dropped=cache.counts.dropped,
        seconds=time.perf_counter() - began,
        target=">= 80 %",
        is_reached=rate >= 0.8,
    )


async def _home(hub: Hub) -> None:
    await _active(hub).cached().all()
    await hub.conversations.where(is_archived=False).order_by("updated_at", "desc").limit(20).cached().all()
    await hub.memories.where(memory_tier="hot").cached().count()


async def _persona_screen(hub: Hub, persona: str) -> None:
    await hub.personas.where(id=persona).cached().first()
    await _of_persona(hub, persona).cached().all()
    await hub.memories.where(persona_id=persona).cached().group_count("type")
    await _recent(hub, persona).cached().all()


async def _visit(hub: Hub, chance: random.Random, persona: str) -> int:
    """Look at a persona and talk with it; return how many writes that made."""
    writes = 0
    await _persona_screen(hub, persona)
    for kind in chance.sample(["person", "event", "task", "knowledge"], chance.randint(0, 2)):  # the tabs
        await _of_persona(hub, persona).where(type=kind).cached().all()
    talk = await _recent(hub, persona).first()
    await hub.personas.increment_usage(persona)
    for _ in range(chance.randint(3, 12)):  # turns: what was said, what came back, and what that reminded of
        await hub.conversations.add_message(talk.id, Message(role="user", content="And then?"))
        remembered = await _of_persona(hub, persona).cached().all()
        await hub.memories.touch(chance.choice(remembered).id)
        await hub.conversations.add_message(talk.id, Message(role="assistant", content="Then it rained."))
        writes += 3
        await _persona_screen(hub, persona)  # beside the talk, shown again as it changes
    if chance.random() < 0.5:
        await hub.memories.insert(Memory(persona_id=persona, type="event", name="It rained"))
        writes += 1
    return writes + 1


def _memory(path: Path, records: int) -> None:
    """Print what a process takes that does nothing else: this file, run as a program."""
    command = [sys.executable, "-m", "loadtests.bench.product", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    now, most, with_model = map(float, done.stdout.split())
    report(
        f"memory with {records:,} records and {LIVE:,} live queries",
        now,
        "MB resident",
        most_ever=most,
        with_a_model=with_model,
        target="< 300 MB, without a model",
        is_reached=now < 300,
    )


async def _be_open(path: str) -> None:
    """Open the file with live queries, and print the MB: resident, the most ever, and with a model loaded."""
    heard = asyncio.Event()
    left = LIVE

    def callback(_found: list[Any]) -> None:
        nonlocal left
        left -= 1
        if not left:
            heard.set()

    async with Hub.open(path, key=KEY, embedder="off") as hub:
        personas = await hub.personas.all()
        for n in range(LIVE):
            persona = personas[n % PERSONAS].id
            query = hub.memories.where(persona_id=persona).where("importance", ">=", n // PERSONAS)
            query.order_by("importance", "desc").limit(20).subscribe(callback)
        await heard.wait()
        now, most = _resident_mb(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        model = MiniLm()
        await model.embed(["what it rained on"], kind="query")
        print(now, most, _resident_mb())
        await model.close()


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def _open_cold(path: Path) -> float:
    """Return the seconds from the start of an interpreter's import to the first screen."""
    program = (
        "import time; began = time.perf_counter(); import asyncio, sys; from client_sdk.hub import Hub\n"
        "async def run():\n"
        "    async with Hub.open(sys.argv[1], key=bytes(range(32)), embedder='off') as hub:\n"
        "        await hub.personas.where(is_active=True).order_by('last_used', 'desc').all()\n"
        "        print(time.perf_counter() - began)\n"
        "asyncio.run(run())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


if __name__ == "__main__":
    asyncio.run(_be_open(sys.argv[1]))
