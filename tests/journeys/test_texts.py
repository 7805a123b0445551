"""Texts in many languages, an empty one and one of a megabyte go from a device to its server, and are found there."""

from __future__ import annotations

from typing import Final

import httpx

from client_sdk import Client
from tests.client_sdk.meaning.test_hostile import LANGUAGES, MEGABYTE
from tests.client_sdk.records import Note
from tests.journeys.conftest import Opens
from tests.journeys.live import LiveServer, eventually

__all__: list[str] = []

_FOLDED_S_MAX: Final = 30.0


async def found_at(server: LiveServer, client: Client, text: str) -> list[str]:
    """Return the ids of what the server finds by words."""
    headers = {"Authorization": f"Bearer {await client._account.token()}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as http:
        answer = await http.post(f"/v1/spaces/{client.space}/search", json={"text": text, "mode": "text"})
        assert answer.is_success, answer.text
        return [hit["record"] for hit in answer.json()["hits"]]


async def test_what_a_device_writes_in_any_language_its_server_finds(
    server: LiveServer, opens: Opens
) -> None:
    client = await opens("a")
    await client.register(server.url)
    await client.connect()
    notes = client.collection(Note)
    made = await notes.insert_many(Note(title=title) for title, _ in LANGUAGES)
    long = await notes.insert(Note(title="", body="word " * (MEGABYTE // 5)))
    await notes.insert(Note(title=""))
    last = await notes.insert(Note(title="last"))
    await client.synced(30)

    async def is_folded() -> bool:
        return await found_at(server, client, "last") == [last.id]

    await eventually(is_folded, within_s=_FOLDED_S_MAX)
    for note, (title, word) in zip(made, LANGUAGES, strict=True):
        assert (await found_at(server, client, title))[0] == note.id
        assert note.id in await found_at(server, client, word)
    assert await found_at(server, client, "word") == [long.id]
