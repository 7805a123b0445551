"""Judged search: is the turn that answers a question among the first ones found?

Each turn of a LoCoMo conversation (Maharana et al., ACL 2024) is something to be found; its questions of the
categories 1 to 4 are asked, and **recall at k** is the fraction of a question's evidence turns among the first k,
averaged over the questions. ``LOCOMO`` names the folder with the conversations:

    LOCOMO=folder make bench-search

``plain …`` are what anybody gets without trying: bm25 with porter stemming, the default model, each on
``speaker: text``, and reciprocal ranks of the two. ``recipe …`` are `client_sdk.ranking` over vectors in int8;
``… float32`` is the limit that exact vectors set. ``text``, ``meaning`` and ``hybrid`` are what the SDK itself finds in
a Hub into which the conversation was imported, messages only; ``server …`` what a server finds that holds what that Hub
made: its updates, folded, and its vectors.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt

from client_sdk.embedding import MiniLm, Vectors
from client_sdk.embedding.vectors import dot, quantised, unpacked
from client_sdk.hits import Mode
from client_sdk.hub import Hub
from client_sdk.ranking import CANDIDATES, Neighbours, best, fused, lengths, shared, understood
from client_sdk.transfer import import_file
from loadtests.bench.report import report
from server import log, vectors
from server.database import Connection, Database
from server.embedded import EmbeddedPostgres
from server.log import LogRow
from server.materialize.folding import Folding
from server.materialize.follow import Follower
from server.search import Question, search
from server.settings import load_settings
from server.vectors import Vector

__all__ = ["Conversation", "Judged", "bench_search_quality", "main", "recall", "table"]

Scores: TypeAlias = npt.NDArray[np.float32]
Rows: TypeAlias = Sequence[int]

_KS: Final = (1, 5, 10, 20)
_CATEGORIES: Final = (1, 2, 3, 4)  # 5 are questions that nothing answers
_MODES: Final[tuple[Mode, ...]] = ("text", "meaning", "hybrid")
_FOLDING_BYTES_MAX: Final = 1024**3
_UPDATES: Final = """
SELECT collection, record, pjais_outbox.client, "update"
FROM pjais_outbox JOIN pjais_log USING (position) ORDER BY position
"""
_VECTORS: Final = """
SELECT pjais_vectors.collection, record, position, model, hash, vector
FROM pjais_vectors JOIN pjais_documents USING (doc)
"""
_PLACES: Final = """
SELECT conversations.id, position, json_extract(metadata, '$.diaId')
FROM conversations__messages JOIN conversations USING (doc)
"""
_RECIPROCAL: Final = 60  # Cormack, Clarke and Buettcher, SIGIR 2009


@dataclass(frozen=True)
class Judged:
    asked: str
    evidence: tuple[int, ...]  # row numbers


@dataclass(frozen=True)
class Conversation:
    name: str
    speakers: tuple[str, ...]  # by row
    sessions: tuple[int, ...]
    texts: tuple[str, ...]  # what was said
    captions: tuple[str, ...]  # of a picture that was shown, or empty
    questions: tuple[Judged, ...]
    ids: tuple[str, ...]  # of the turns
    path: Path

    @classmethod
    def read(cls, path: Path) -> Conversation:
        """Read a file. Evidence that names no turn is left out, and a question without any."""
        held = json.loads(path.read_bytes())
        numbers = sorted(int(found[1]) for name in held if (found := re.fullmatch(r"session_(\d+)", name)))
        turns: list[tuple[int, dict[str, Any]]] = [
            (n, turn) for n in numbers for turn in held[f"session_{n}"]
        ]
        row_by_id = {turn["dia_id"]: row for row, (_, turn) in enumerate(turns)}
        questions = []
        for one in held["qa"]:
            ids = re.findall(r"D\d+:\d+", " ".join(one["evidence"]))
            evidence = tuple(dict.fromkeys(row_by_id[id] for id in ids if id in row_by_id))
            if one["category"] in _CATEGORIES and evidence:
                questions.append(Judged(one["question"], evidence))
        return cls(
            name=path.stem,
            speakers=tuple(turn["speaker"] for _, turn in turns),
            sessions=tuple(number for number, _ in turns),
            texts=tuple(turn["text"] for _, turn in turns),
            captions=tuple(turn.get("blip_caption", "") for _, turn in turns),
            questions=tuple(questions),
            ids=tuple(turn["dia_id"] for _, turn in turns),
            path=path,
        )


def recall(found: Sequence[Rows], questions: Sequence[Judged], k: int) -> float:
    """Return the mean fraction of a question's evidence among its first k rows."""
    kept = [
        len(set(rows[:k]) & set(one.evidence)) / len(one.evidence)
        for rows, one in zip(found, questions, strict=True)
    ]
    return sum(kept) / len(kept)


class _FullText:
    """An FTS5 index of texts, in memory."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._rows = len(texts)
        self._index = sqlite3.connect(":memory:")
        self._index.execute("CREATE VIRTUAL TABLE found USING fts5 (text, tokenize = 'porter unicode61')")
        self._index.executemany("INSERT INTO found (rowid, text) VALUES (?, ?)", enumerate(texts))

    def scores(self, match: str, limit: int = -1) -> Scores:
        found = np.zeros(self._rows, np.float32)
        sql = "SELECT rowid, -rank FROM found WHERE found MATCH ? ORDER BY rank LIMIT ?"
        for row, score in self._index.execute(sql, (match, limit)) if match else ():
            found[row] = score
        return found


async def _plain(embedder: MiniLm, conversation: Conversation) -> dict[str, list[Rows]]:
    said = [f"{who}: {text}" for who, text in zip(conversation.speakers, conversation.texts, strict=True)]
    index = _FullText(said)
    asked = [one.asked for one in conversation.questions]
    by_meaning = await embedder.embed(asked, kind="query") @ (await embedder.embed(said)).T
    by_text = [index.scores(" OR ".join(f'"{word}"' for word in re.findall(r"\w+", one))) for one in asked]
    limit = len(said)
    found: dict[str, list[Rows]] = {"plain bm25": [], "plain meaning": [], "plain reciprocal rank": []}
    for text, meaning in zip(by_text, by_meaning, strict=True):
        ranks = np.zeros(limit, np.float32)
        for rows in (best(text, limit), best(meaning + 1, limit)):
            ranks[rows] += 1 / (_RECIPROCAL + 1 + np.arange(len(rows), dtype=np.float32))
        for name, scores in zip(found, (text, meaning + 1, ranks), strict=True):
            found[name].append(best(scores, max(_KS)).tolist())
    return found


async def _ours(embedder: MiniLm, conversation: Conversation) -> dict[str, list[Rows]]:
    shown = zip(conversation.texts, conversation.captions, strict=True)
    texts = [f"{text}\n{caption}" if caption else text for text, caption in shown]
    index, neighbours = _FullText(texts), Neighbours.in_order(conversation.sessions)
    speakers = np.asarray(conversation.speakers)
    questions = [understood(one.asked, set(conversation.speakers)) for one in conversation.questions]
    asked = await embedder.embed([one.text for one in questions], kind="query")
    exact = await embedder.embed(texts)
    small = _cosines(*unpacked(quantised(exact), dimensions=exact.shape[1]), neighbours)
    whole = _cosines(np.ones(len(exact), np.float32), exact, neighbours)
    names = ("recipe text", "recipe meaning", "recipe hybrid", "meaning float32", "hybrid float32")
    found: dict[str, list[Rows]] = {name: [] for name in names}
    for question, vector in zip(questions, asked, strict=True):
        is_named = np.isin(speakers, list(question.names))
        text = shared(index.scores(question.match, CANDIDATES), neighbours)
        for name in names:
            meaning = None if "text" in name else (whole if "float32" in name else small)(vector)
            scores = fused(text=None if "meaning" in name else text, meaning=meaning, is_named=is_named)
            found[name].append(best(scores, max(_KS)).tolist())
    return found


async def _of_the_sdk(embedder: MiniLm, conversation: Conversation, server: _Server) -> dict[str, list[Rows]]:
    """Ask a Hub that holds the conversation as it was imported, and a server that holds what the Hub made."""
    row_by_id = {id: row for row, id in enumerate(conversation.ids)}
    found: dict[str, list[Rows]] = {mode: [] for mode in _MODES}
    with tempfile.TemporaryDirectory() as folder:
        async with Hub.open(Path(folder) / "hub.db", key=bytes(range(32)), embedder=embedder) as hub:
            await import_file(hub, conversation.path)
            await hub.client.embedded(timeout=600)
            for one in conversation.questions:
                for mode in _MODES:
                    hits = await hub.conversations.search(one.asked, mode=mode, limit=2 * max(_KS), around=0)
                    rows = [row_by_id[hit.message.metadata["diaId"]] for hit in hits if hit.message]
                    found[mode].append(rows[: max(_KS)])
            return found | await server.asked(embedder, conversation, hub)


class _Server:
    """The server's tables in a Postgres, with its folding process."""

    def __init__(self, database: Database, folding: Folding) -> None:
        self._database = database
        self._folding = folding

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[_Server]:
        with tempfile.TemporaryDirectory() as folder:
            async with EmbeddedPostgres(Path(folder) / "postgres") as postgres:
                database = await Database.connect(postgres.url, load_settings(database_url=postgres.url))
                folding = Folding(memory_bytes_max=_FOLDING_BYTES_MAX)
                try:
                    await database.migrate()
                    yield cls(database, folding)
                finally:
                    await folding.close()
                    await database.close()

    async def asked(self, embedder: MiniLm, conversation: Conversation, hub: Hub) -> dict[str, list[Rows]]:
        """Ask as a device does: with the question taken apart, and its vector."""
        space = await self._taken(hub)
        row_by_place = {
            (row[0], row[1]): conversation.ids.index(row[2]) for row in await hub.client.sql(_PLACES)
        }
        names = {*conversation.speakers}
        questions = [understood(one.asked, names) for one in conversation.questions]
        asked = await embedder.embed([one.text for one in questions], kind="query")
        found: dict[str, list[Rows]] = {f"server {mode}": [] for mode in _MODES}
        for question, vector in zip(questions, asked, strict=True):
            for mode in _MODES:
                sent = Question(
                    text=question.text,
                    vector=vector.tolist(),
                    model=embedder.model.id,
                    collections=["conversations"],
                    names=sorted(question.names),
                    limit=2 * max(_KS),
                )
                hits = (await search(self._database.connection, space, sent, mode=mode)).hits
                rows = [row_by_place[hit.record_id, hit.part] for hit in hits if hit.part >= 0]
                found[f"server {mode}"].append(rows[: max(_KS)])
        return found

    async def _taken(self, hub: Hub) -> UUID:
        """Take in what a Hub made, as pushes would, and fold it."""
        space = uuid4()
        made = await hub.client.sql(_UPDATES)
        rows = [
            LogRow(space, place, row[0], row[1], space, 1, place, row[2], 0, 0, row[3])
            for place, row in enumerate(made, 1)
        ]
        embedded = [Vector._make(tuple(row)) for row in await hub.client.sql(_VECTORS)]

        async def work(connection: Connection) -> None:
            await connection.execute(
                "INSERT INTO spaces (space_id, account_id, generation, head) VALUES ($1, $1, $1, $2)",
                space,
                len(rows),
            )
            await log.append(connection, rows)
            await vectors.put(connection, space, embedded)

        await self._database.transaction(work)
        await Follower(self._database, self._folding).catch_up()
        async with self._database.connection() as connection:
            await connection.execute("ANALYZE")
        return space


def _cosines(
    scales: Scores, components: npt.NDArray[Any], neighbours: Neighbours
) -> Callable[[Vectors], Scores]:
    length = lengths(scales, components, neighbours)
    return lambda query: shared(dot(scales, components, query), neighbours) / length


def table(figures: dict[str, dict[str, list[float]]]) -> str:
    """Lay figures out, by way of searching and conversation, the mean last."""
    names = list(next(iter(figures.values())))
    lines = [
        f"{'recall at ' + ', '.join(map(str, _KS)):24}" + "".join(f"{name:>27}" for name in [*names, "mean"])
    ]
    for way, by_name in figures.items():
        columns = [*by_name.values(), np.mean(list(by_name.values()), axis=0).tolist()]
        cells = (" ".join(f"{one:5.3f}" for one in column) for column in columns)
        lines.append(f"{way:24}" + "".join(f"{cell:>27}" for cell in cells))
    return "\n".join(lines)


async def bench_search_quality(conversations: Sequence[Conversation]) -> None:
    """Ask every question of every conversation, and print the table and one figure."""
    embedder = MiniLm()
    figures: dict[str, dict[str, list[float]]] = {}
    async with _Server.running() as server:
        for conversation in conversations:
            found = await _plain(embedder, conversation) | await _ours(embedder, conversation)
            found |= await _of_the_sdk(embedder, conversation, server)
            for way, rows in found.items():
                recalls = [recall(rows, conversation.questions, k) for k in _KS]
                figures.setdefault(way, {})[conversation.name] = recalls
    await embedder.close()
    print(table(figures))
    mean = {
        way: float(np.mean([one[_KS.index(10)] for one in by_name.values()]))
        for way, by_name in figures.items()
    }
    report(
        "search quality, recall at 10, hybrid",
        mean["hybrid"],
        "of the evidence turns",
        raw=mean["hybrid float32"],
        ratio=mean["hybrid"] / mean["hybrid float32"],
        target="≥ 0.68, and ≥ 0.98 of exact float32",
        is_reached=mean["hybrid"] >= 0.68 and mean["hybrid"] >= 0.98 * mean["hybrid float32"],
        **{way: one for way, one in mean.items() if not way.startswith("hybrid")},
    )
    report(
        "search quality of the server, recall at 10, hybrid",
        mean["server hybrid"],
        "of the evidence turns",
        raw=mean["hybrid"],
        ratio=mean["server hybrid"] / mean["hybrid"],
        target="≥ 0.98 of the device's",
        is_reached=mean["server hybrid"] >= 0.98 * mean["hybrid"],
    )


def main() -> None:
    """Read the folder that ``LOCOMO`` names."""
    folder = Path(os.environ.get("LOCOMO", "shared/data/locomo"))
    conversations = [Conversation.read(path) for path in sorted(folder.glob("*.json"))]
    if not conversations:
        raise SystemExit(f"{folder} has no conversations: set LOCOMO to the folder with LoCoMo's *.json")
    asyncio.run(bench_search_quality(conversations))


if __name__ == "__main__":
    main()
