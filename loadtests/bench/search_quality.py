"""Judged search: is the turn that answers a question among the first ones found?

Each turn of a LoCoMo conversation (Maharana et al., ACL 2024) is something to be found; its questions of the
categories 1 to 4 are asked, and **recall at k** is the fraction of a question's evidence turns among the first k,
averaged over the questions. ``LOCOMO`` names the folder with the conversations:

    LOCOMO=folder make bench-search

``plain …`` are what anybody gets without trying: bm25 with porter stemming, the default model, each on
``speaker: text``, and reciprocal ranks of the two. ``recipe …`` are `client_sdk.ranking` over vectors in int8;
``… float32`` is the limit that exact vectors set. ``text``, ``meaning`` and ``hybrid`` are what the SDK itself finds in
a Hub into which the conversation was imported, messages only.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from client_sdk.embedding import MiniLm, Vectors
from client_sdk.embedding.vectors import dot, quantised, unpacked
from client_sdk.hits import Mode
from client_sdk.hub import Hub
from client_sdk.ranking import CANDIDATES, Neighbours, best, fused, lengths, shared, understood
from client_sdk.transfer import import_file
from loadtests.bench.report import report

__all__ = ["Conversation", "Judged", "bench_search_quality", "main", "recall", "table"]

Scores: TypeAlias = npt.NDArray[np.float32]
Rows: TypeAlias = Sequence[int]

_KS: Final = (1, 5, 10, 20)
_CATEGORIES: Final = (1, 2, 3, 4)  # 5 are questions that nothing answers
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


async def _of_the_sdk(embedder: MiniLm, conversation: Conversation) -> dict[str, list[Rows]]:
    """Ask a Hub that holds the conversation as it was imported."""
    row_by_id = {id: row for row, id in enumerate(conversation.ids)}
    modes: tuple[Mode, ...] = ("text", "meaning", "hybrid")
    found: dict[str, list[Rows]] = {mode: [] for mode in modes}
    with tempfile.TemporaryDirectory() as folder:
        async with Hub.open(Path(folder) / "hub.db", key=bytes(range(32)), embedder=embedder) as hub:
            await import_file(hub, conversation.path)
            await hub.client.embedded(timeout=600)
            for one in conversation.questions:
                for mode in modes:
                    hits = await hub.conversations.search(one.asked, mode=mode, limit=2 * max(_KS), around=0)
                    rows = [row_by_id[hit.message.metadata["diaId"]] for hit in hits if hit.message]
                    found[mode].append(rows[: max(_KS)])
    return found


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
    for conversation in conversations:
        found = await _plain(embedder, conversation) | await _ours(embedder, conversation)
        found |= await _of_the_sdk(embedder, conversation)
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


def main() -> None:
    """Read the folder that ``LOCOMO`` names."""
    folder = Path(os.environ.get("LOCOMO", "shared/data/locomo"))
    conversations = [Conversation.read(path) for path in sorted(folder.glob("*.json"))]
    if not conversations:
        raise SystemExit(f"{folder} has no conversations: set LOCOMO to the folder with LoCoMo's *.json")
    asyncio.run(bench_search_quality(conversations))


if __name__ == "__main__":
    main()
