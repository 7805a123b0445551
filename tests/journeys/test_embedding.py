"""A process killed in the middle of embedding leaves what it wrote, and what has no vector then gets one."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path

import msgspec

from client_sdk.embedding import MiniLm
from client_sdk.embedding.embedder import Kind, Vectors
from client_sdk.hub import Hub
from client_sdk.meaning.stored import hash_of
from tests.client_sdk.device import KEY
from tests.journeys.embedding import MEMORIES, STOLEN, Step

__all__: list[str] = []


class Held(MiniLm):
    """The default model, which embeds no passage until it is let, and remembers which it did."""

    def __init__(self) -> None:
        super().__init__()
        self.is_let = asyncio.Event()
        self.texts: list[str] = []

    async def embed(self, texts: Sequence[str], *, kind: Kind = "passage") -> Vectors:
        if kind == "passage":
            await self.is_let.wait()
            self.texts += texts
        return await super().embed(texts, kind=kind)


async def killed_in_the_middle(path: Path) -> dict[str, str]:
    """Let another process write and embed, kill it when half has its vector, and return what was written by id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.journeys.embedding", str(path)), stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    steps: list[Step] = []
    try:
        while not steps or steps[-1].embedded < MEMORIES // 2:
            line = await process.stdout.readline()
            assert line, (await process.communicate())[1].decode()
            steps.append(msgspec.json.decode(line, type=Step))
    finally:
        process.kill()
        told, complaint = await process.communicate()
    assert not complaint, complaint.decode()
    assert process.returncode == -signal.SIGKILL
    steps += [
        msgspec.json.decode(line, type=Step)
        for line in told.splitlines(keepends=True)
        if line.endswith(b"\n")
    ]
    summaries: dict[str, str | None] = {}
    for step in steps:
        summaries |= step.summaries
    assert None in summaries.values()
    summaries.pop(steps[-1].begins, None)  # in doubt
    return {id: summary for id, summary in summaries.items() if summary is not None}


async def hashes(hub: Hub) -> set[bytes]:
    rows = await hub.client.sql("SELECT hash FROM pjais_vectors")
    return {row["hash"] for row in rows}


async def test_killed_in_the_middle_of_embedding_it_goes_on_where_it_was(tmp_path: Path) -> None:
    path, model = tmp_path / "hub.db", Held()
    written = await killed_in_the_middle(path)
    async with Hub.open(path, key=KEY, embedder=model) as hub:
        found = {memory.id: memory.summary for memory in await hub.memories.all()}
        assert written.items() <= found.items(), "a write that had returned is lost"
        texts = {hash_of(text) for text in found.values()}
        left = await hashes(hub)
        assert MEMORIES // 2 <= len(left) < MEMORIES
        model.is_let.set()
        await hub.client.embedded(timeout=60)
        assert await hashes(hub) == texts, "a vector stands for a text that is not there, or a text has none"
        assert {hash_of(text) for text in model.texts} == texts - left, (
            "what had its vector is embedded again"
        )
        progress = await hub.client.embedding_progress()
        assert (progress.done, progress.total, progress.waiting) == (len(found), len(found), 0)
        hits = await hub.memories.search(
            "Someone took her bicycle while she was travelling", mode="meaning", limit=1
        )
        assert [hit.record.summary for hit in hits] == [STOLEN]
    await model.close()
