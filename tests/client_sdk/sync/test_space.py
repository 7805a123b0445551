"""Asking the space: what is no hit is no hit, and who cannot be asked is named in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from client_sdk import Client
from client_sdk.errors import ServerProblem
from client_sdk.sync import space as space_module
from client_sdk.sync.errors import AnswerLate, NotConnected
from client_sdk.sync.requests import Requests
from client_sdk.sync.space import ServerSpace
from crdt import requests, wire
from crdt.requests import FoundPart
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Note

__all__: list[str] = []

GOOD = FoundPart("notes", "r1", -1, 0.5, ["text"])
NO_HITS = [
    FoundPart("", "r1", -1, 0.5, ["text"]),
    FoundPart("notes", "", -1, 0.5, ["text"]),
    FoundPart("notes", "r" * 300, -1, 0.5, ["text"]),
    FoundPart("notes", "\ud800", -1, 0.5, ["text"]),
    FoundPart("\ud800", "r1", -1, 0.5, ["text"]),
    FoundPart("notes", "r1", 1 << 63, 0.5, ["text"]),
    FoundPart("notes", "r1", -2, 0.5, ["text"]),
    FoundPart("notes", "r1", -1, float("nan"), ["text"]),
    FoundPart("notes", "r1", -1, float("inf"), ["text"]),
]
QUESTION = requests.Search("", 0, "text", "tea", collections=["notes"], limit=100)


class Runner:
    """Stands for a runner that has not connected yet, or has tried."""

    def __init__(self, error: Exception | None = None) -> None:
        self.status = type("Status", (), {"last_error": error})()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db", embedder="off") as client:
        yield client


def space_of(client: Client, beside: Requests, *, runner: Any = None, found: Any = None) -> ServerSpace:
    async def by_http(question: requests.Search) -> requests.Found:
        assert question.space == "space"
        return requests.Found(0, found, 0, 0)

    return ServerSpace(beside, client._writer, space=lambda: "space", runner=lambda: runner, by_http=by_http)


async def test_what_is_no_hit_is_dropped_and_what_comes_twice_counts_once(client: Client) -> None:
    asked = space_of(
        client, Requests(), found=[*NO_HITS, GOOD, GOOD, FoundPart("notes", "r2", 3, 0.1, ["text"])]
    )
    assert [one.record for one in await asked.search(QUESTION)] == ["r1", "r2"]
    assert await space_of(client, Requests(), found=[GOOD] * 1_000).search(QUESTION) == [GOOD]


async def test_a_server_that_is_away_is_named_at_once_and_a_silent_one_in_time(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_module, "_ANSWER_S_MAX", 0.05)
    monkeypatch.setattr(space_module, "_OPENING_S_MAX", 0.01)
    away = ServerProblem("away")
    with pytest.raises(NotConnected) as problem:
        await space_of(client, Requests(), runner=Runner(away)).search(QUESTION)
    assert problem.value.__cause__ is away
    with pytest.raises(NotConnected):
        await space_of(client, Requests(), runner=Runner()).search(QUESTION)

    async def silent(message: wire.FromDevice) -> None:
        assert isinstance(message, requests.Search)

    beside = Requests()
    beside.open(silent)
    with pytest.raises(AnswerLate):
        await space_of(client, beside, runner=Runner()).search(QUESTION)


async def test_hits_that_are_not_here_are_counted(client: Client) -> None:
    note = await client.collection(Note).insert(Note(title="green tea"))
    here = FoundPart("notes", note.id, -1, 0.5, ["text"])
    client._reading.space = space_of(
        client, Requests(), found=[here, FoundPart("notes", "r9", -1, 0.4, ["text"])]
    )
    hits = await client.collection(Note).search("tea", mode="text", scope="space")
    assert [hit.record.id for hit in hits] == [note.id]
    assert (hits.scope, hits.missing, hits.fallback) == ("space", 1, None)
