"""Secrets of two people's devices, through a real server: they open on the devices, and are found nowhere else.

What is looked for is one known value, in the forms in which bytes get written down. Beside it a title, which is plain,
is looked for in the same places, and found: so the search can find.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

import client_sdk
from client_sdk import Client, SealedValue
from client_sdk.sync.transport import WebSocketTransport
from crdt import wire
from tests.client_sdk.device import KEY, check_laws
from tests.client_sdk.records import Note, Tag
from tests.journeys.conftest import Opens
from tests.journeys.live import LiveServer, eventually
from tests.postgres import fast_folder

__all__: list[str] = []

SECRET = "geheim-7f3a91c55e0d4b62"
TITLE = "titel-0d9e2c71b8a64f35"


def forms_of(text: str) -> dict[str, bytes]:
    """Return the forms in which a text gets written down, whatever stands around it."""
    data = text.encode()
    shifted = [base64.b64encode(b"x" * shift + data)[4:-4] for shift in range(3)]
    return {
        "plain": data,
        "UTF-16": text.encode("utf-16-le"),
        "hexadecimal": data.hex().encode(),
        "HEXADECIMAL": data.hex().upper().encode(),
        "spaced hexadecimal": data.hex(" ").encode(),
        **{f"base64 at {shift}": form for shift, form in enumerate(shifted)},
    }


def found_in(data: bytes, text: str) -> list[str]:
    return [name for name, form in forms_of(text).items() if form in data]


def places_in(folder: Path, text: str) -> list[str]:
    """Return the files under a folder that hold the text, and how."""
    return [
        f"{path.relative_to(folder)}: {', '.join(found)}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (found := found_in(path.read_bytes(), text))
    ]


class Tapped(WebSocketTransport):
    """A connection whose frames are kept, both ways, as they travel and as they were before compression."""

    frames: list[bytes] = []

    async def send(self, frame: bytes) -> None:
        self.frames += [frame, repr(wire.decode_from_device(frame)).encode()]
        await super().send(frame)

    async def receive(self) -> bytes:
        frame = await super().receive()
        self.frames += [frame, repr(wire.decode_from_server(frame)).encode()]
        return frame


@pytest.fixture
def tapped(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return what goes over every connection from now on."""
    Tapped.frames = []
    monkeypatch.setattr("client_sdk.sync.transport.WebSocketTransport", Tapped)
    return Tapped.frames


@pytest.fixture
async def own_server() -> AsyncIterator[LiveServer]:
    """A server with a Postgres of its own, whose every file is the test's."""
    with fast_folder() as folder:
        async with LiveServer(folder) as server:
            yield server


async def secret_of(client: Client, record: str) -> object:
    note = await client.collection(Note).get(record)
    assert note is not None
    return note.secret


async def in_step(*clients: Client) -> None:
    """Each sends what it has, and takes what the others sent; all are proved equal."""
    for client in (*clients, *clients):
        await client.synced(30)
    assert len({await client.digest() for client in clients}) == 1
    for client in clients:
        assert client.status.verified
        await check_laws(client)


async def test_two_devices_share_secrets_and_edit_them_at_once(server: LiveServer, opens: Opens) -> None:
    a, b = await opens("a"), await opens("b")
    sealed_offline = await b.collection(Note).insert(Note(title="from b", secret="sealed before joining"))
    await b.collection(Note).update(sealed_offline.id, secret="edited before joining")
    await a.register(server.url)
    from_a = await a.collection(Note).insert(Note(title="from a", secret="first"))
    await b.join(server.url, await a.invite())
    await in_step(a, b)
    assert await secret_of(a, sealed_offline.id) == "edited before joining"
    assert await secret_of(b, from_a.id) == "first"

    for client in (a, b):
        await client.disconnect()
    await a.collection(Note).update(from_a.id, secret="a's")
    await b.collection(Note).update(from_a.id, secret="b's, later")
    await in_step(a, b)
    for client in (a, b):
        assert await secret_of(client, from_a.id) == "b's, later"
        assert await client.collection(Note).conflicts(from_a.id, "secret") == ["a's"]

    c = await opens("c")
    await c.join(server.url, await b.invite())
    await in_step(c, a)
    assert await secret_of(c, sealed_offline.id) == "edited before joining"
    assert await secret_of(c, from_a.id) == "b's, later"


async def test_another_space_opens_nothing(server: LiveServer, opens: Opens) -> None:
    a, stranger = await opens("a"), await opens("stranger")
    note = await a.collection(Note).insert(Note(title="t", secret=SECRET))
    await stranger.collection(Note).insert(Note(title="t", secret="theirs"))
    (row,) = await a.sql("SELECT secret FROM notes")
    field = stranger.collection(Note)._table.sealed["secret"]
    found = field.open(note.id, row["secret"])
    assert isinstance(found, SealedValue)
    assert "does not hold" in found.reason


async def test_a_secret_is_in_no_file_no_frame_and_no_log(
    own_server: LiveServer, tapped: list[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "devices"
    folder.mkdir()
    shown = []
    async with (
        client_sdk.open(folder / "a.db", records=[Note, Tag], key=KEY) as a,
        client_sdk.open(folder / "b.db", records=[Note, Tag], key=KEY) as b,
    ):
        early = await b.collection(Note).insert(Note(title=TITLE, secret=SECRET))
        await a.register(own_server.url)
        await b.join(own_server.url, await a.invite())
        many = [Note(title=TITLE, secret=SECRET * 40, body=TITLE * 40) for _ in range(30)]
        made = await a.collection(Note).insert_many(many)
        shown.append(repr(made))
        await in_step(a, b)
        await b.collection(Note).update(made[0].id, secret=f"{SECRET} again")
        with pytest.raises(client_sdk.ValidationError) as caught:
            await b.collection(Note).update(made[0].id, secret={SECRET: SECRET})
        logging.getLogger("application").warning("refused: %s, of %r", caught.value, made[0])
        await in_step(a, b)
        assert await secret_of(a, early.id) == SECRET
        assert await secret_of(a, made[0].id) == f"{SECRET} again"
        in_json = await documents_of(own_server, a)
        while_open = places_in(folder, SECRET) + places_in(folder, TITLE)
    await own_server.stop()

    wire_bytes = b"\n".join(tapped)
    logs = caplog.text.encode() + repr(shown).encode()
    everywhere = {
        "the devices' files": while_open + places_in(folder, SECRET),
        "the server's files and log": places_in(own_server.folder, SECRET),
        "the wire": found_in(wire_bytes, SECRET),
        "the server's JSON": found_in(in_json, SECRET),
        "the devices' logs": found_in(logs, SECRET),
    }
    assert {place: found for place, found in everywhere.items() if found} == {}
    for place in (wire_bytes, in_json, logs):
        assert found_in(place, TITLE), "the search finds what is there"
    assert any("/base/" in place for place in places_in(own_server.folder, TITLE))
    assert any("/pg_wal/" in place for place in places_in(own_server.folder, TITLE))


async def documents_of(server: LiveServer, client: Client) -> bytes:
    """Return the server's JSON of every note, once it has folded them all."""
    token = await client._account.token()
    route = f"{server.url}/v1/spaces/{client.space}/documents?collection=notes"
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=20) as http:

        async def is_folded() -> bool:
            page = (await http.get(route)).json()
            return bool(page["materialized"] == page["head"])

        await eventually(is_folded)
        answer = await http.get(route)
    secrets = [record["value"]["secret"] for record in answer.json()["records"]]
    assert all(type(secret) is str and len(secret) > 60 for secret in secrets)
    return answer.content
