"""Vectors and search over HTTP, with the folding process beside: from a device's update to another device's hit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pycrdt
import pytest

from crdt import wire
from crdt.limits import (
    PUSH_VECTORS_MAX,
    SEARCH_CHARACTERS_MAX,
    SEARCH_COLLECTIONS_MAX,
    SEARCH_NAMES_MAX,
    SEARCH_VALUES_MAX,
    VECTOR_DIMENSIONS_MAX,
    VECTORS_BODY_BYTES_MAX,
)
from crdt.values import encode_edit
from crdt.vectors import packed_vector
from server.database import Database
from server.settings import Settings
from tests.server.people import Device, creation, eventually
from tests.server.serving import Key, Running, opened, running_app, speaking, text

__all__: list[str] = []


@pytest.fixture
async def running(database_url: str, server_settings: Settings) -> AsyncIterator[Running]:
    async with running_app(database_url, server_settings) as running:
        yield running


@pytest.fixture
async def folding(database_url: str, server_settings: Settings) -> AsyncIterator[Running]:
    async with running_app(database_url, server_settings, folds=True) as running:
        yield running


def vector_json(record: str, *steps: int, **other: Any) -> dict[str, Any]:
    scale = sum(step * step for step in steps) ** -0.5 if any(steps) else 1.0
    vector = text(packed_vector(scale, list(steps)))
    return {
        "collection": "notes",
        "record": record,
        "part": -1,
        "model": "small",
        "hash": text(b"h"),
        "vector": vector,
    } | other


async def sent(running: Running, device: Device, *vectors: Any, space: object = None) -> httpx.Response:
    return await running.http.post(
        f"/v1/spaces/{space or device.space}/vectors", json={"vectors": vectors}, headers=bearer(device)
    )


async def asked(running: Running, device: Device, **body: Any) -> httpx.Response:
    return await running.http.post(f"/v1/spaces/{device.space}/search", json=body, headers=bearer(device))


def bearer(device: Device) -> dict[str, str]:
    return {"Authorization": f"Bearer {device.token}"}


def code(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert set(body) == {"code", "message"}, body
    return answer.status_code, body["code"]


async def push(running: Running, device: Device, *edits: wire.Edit, first: int = 1) -> None:
    async with speaking(running, device) as say:
        await say.send(device.push(first, edits))
        while not isinstance(message := await say.next(), wire.Ack):
            pass
        assert message.refusals == []


async def hits(running: Running, device: Device, **body: Any) -> list[tuple[str, int]]:
    answer = await asked(running, device, **body)
    assert answer.is_success, answer.text
    return [(hit["record"], hit["part"]) for hit in answer.json()["hits"]]


async def test_a_record_of_one_device_is_found_by_another_that_holds_nothing_of_it(folding: Running) -> None:
    async with opened(folding) as (first, second):
        await push(
            folding, first, wire.Edit("notes", "r1", creation(first.client, title="Her bike was stolen"))
        )
        assert (await sent(folding, first, vector_json("r1", 1, 2, 3))).json() == {
            "taken": 1,
            "head": 1,
            "refused": [],
        }
        question = {"text": "stolen bikes", "vector": [1, 2, 3], "model": "small"}
        await eventually(lambda: finds(folding, second, "r1", **question))
        (hit,) = (await asked(folding, second, **question)).json()["hits"]
        assert (hit["foundBy"], hit["snippet"]) == (["text", "meaning"], "Her bike was stolen")
        page = await folding.http.get(f"/v1/spaces/{second.space}/vectors", headers=bearer(second))
        assert page.json() == {
            "vectors": [vector_json("r1", 1, 2, 3) | {"position": 1}],
            "through": 1,
            "isLast": True,
        }


async def finds(running: Running, device: Device, record: str, **question: Any) -> bool:
    return (record, -1) in await hits(running, device, **question)


async def test_a_record_whose_deletion_is_acknowledged_is_gone_from_the_next_search(folding: Running) -> None:
    device = await folding.register(Key())
    document: pycrdt.Doc[pycrdt.Map[bytes]] = pycrdt.Doc(client_id=device.client)
    registers = document.get("reg", type=pycrdt.Map)
    with document.transaction():
        registers["@"] = msgspec.msgpack.encode(1)
        registers["title"] = msgspec.msgpack.encode("a bike")
    await push(folding, device, wire.Edit("notes", "r1", document.get_update()))
    await sent(folding, device, vector_json("r1", 1, 2))
    question = {"text": "bike", "vector": [1, 2], "model": "small"}
    await eventually(lambda: finds(folding, device, "r1", **question))
    before = document.get_state()
    registers[f"$deleted@{device.client}"] = encode_edit(2, b"\xc3")
    await push(folding, device, wire.Edit("notes", "r1", document.get_update(before)), first=2)
    for mode in ("hybrid", "text", "meaning"):
        assert await hits(folding, device, mode=mode, **question) == []


async def test_texts_are_found_but_no_ids_and_nothing_sealed(folding: Running, database: Database) -> None:
    device = await folding.register(Key())
    values = {
        "title": "visible",
        "id": "identity",
        "personaId": "persona",
        "secret": b"sealed bytes, long enough to be words",
        "mood": {"note": "inner"},
        "count": 7,
    }
    await push(folding, device, wire.Edit("notes", "r1", creation(device.client, **values)))
    await eventually(lambda: finds(folding, device, "r1", text="visible", mode="text"))
    async with database.connection() as connection:
        stored = [tuple(row) for row in await connection.fetch("SELECT part, body FROM texts")]
    assert stored in ([(-1, "visible")], [(-1, "visible\ninner")], [(-1, "inner\nvisible")])


async def test_who_said_it_and_conditions_are_asked_for_as_json(folding: Running) -> None:
    device = await folding.register(Key())
    for n, who in enumerate(("Anna", "Ben")):
        made = creation(device.client, title="a bike", speaker=who, n=n)
        await push(folding, device, wire.Edit("notes", who, made), first=n + 1)
        await sent(folding, device, vector_json(who, 1, 2))
    question = {"text": "bike", "vector": [1, 2], "model": "small"}
    await eventually(lambda: finds(folding, device, "Ben", **question))
    for who in ("Anna", "Ben"):
        answer = (await asked(folding, device, names=[who, "\0"], **question)).json()
        assert [hit["score"] for hit in answer["hits"]] == pytest.approx([1.3, 1.0])
        assert answer["hits"][0]["record"] == who
    for bound, found in (
        ({"above": 0}, "Ben"),
        ({"atMost": 0}, "Anna"),
        ({"atLeast": 1}, "Ben"),
        ({"below": 1}, "Anna"),
    ):
        assert await hits(folding, device, filter=[{"field": "n", **bound}], **question) == [(found, -1)]
    for many in (
        {"names": ["x"] * (SEARCH_NAMES_MAX + 1)},
        {"collections": ["x"] * (SEARCH_COLLECTIONS_MAX + 1)},
        {"filter": [{"field": "n", "in": [1] * (SEARCH_VALUES_MAX + 1)}]},
        {"filter": [{"field": "n", "is": "x" * (SEARCH_CHARACTERS_MAX + 1)}]},
        {"vector": [1] * (VECTOR_DIMENSIONS_MAX + 1)},
    ):
        assert code(await asked(folding, device, **question | many)) == (413, "too_large"), many


async def test_one_bad_vector_is_refused_by_its_place_and_the_others_are_taken(running: Running) -> None:
    device = await running.register(Key())
    good, odd = vector_json("r1", 1, 2), vector_json("r2", 1, 2)
    wrong = [
        vector_json("r", 0, 0),
        odd | {"vector": text(b"\xff\xff\xff\xff\x01")},
        odd | {"vector": text(b"abc")},
        odd | {"vector": "not base64!"},
        odd | {"part": -2},
        odd | {"part": 2**31},
        odd | {"record": ""},
        odd | {"record": "x" * 201},
        odd | {"model": "nul\0"},
        odd | {"hash": ""},
        odd | {"hash": text(bytes(65))},
    ]
    answer = (await sent(running, device, good, *wrong)).json()
    assert answer["taken"] == 1
    assert [(one["place"], one["code"]) for one in answer["refused"]] == [
        (place, "bad_vector" if place <= 3 else "malformed") for place in range(1, len(wrong) + 1)
    ]
    assert (await sent(running, device, good)).json() == {"taken": 1, "head": 1, "refused": []}
    assert code(await sent(running, device, vector_json("r3", 1, 2, 3))) == (409, "model_mismatch")
    wanted = await asked(running, device, text="x", vector=[1, 2], model="large")
    assert code(wanted) == (409, "model_mismatch")
    assert "'small' with 2 dimensions" in wanted.json()["message"]


async def test_a_model_is_forgotten_when_another_has_taken_its_place(running: Running) -> None:
    device = await running.register(Key())
    await sent(running, device, vector_json("r1", 1, 2), vector_json("r1", 1, 2, 3, model="new"))
    route = f"/v1/spaces/{device.space}/vectors"
    gone = await running.http.delete(route, params={"model": "small"}, headers=bearer(device))
    assert gone.status_code == 204
    left = (await running.http.get(route, headers=bearer(device))).json()["vectors"]
    assert [one["model"] for one in left] == ["new"]


async def test_huge_and_hostile_bodies_are_refused_and_the_server_goes_on(running: Running) -> None:
    device = await running.register(Key())
    many = [vector_json(f"r{n}", 1, 2) for n in range(PUSH_VECTORS_MAX + 1)]
    assert code(await sent(running, device, *many)) == (413, "too_large")
    assert (await sent(running, device, *many[:-1])).json()["taken"] == PUSH_VECTORS_MAX
    big = vector_json("x" * VECTORS_BODY_BYTES_MAX, 1, 2)
    assert code(await sent(running, device, big)) == (413, "too_large")
    chance = random.Random(4)
    for route in ("vectors", "search"):
        for body in (
            b"",
            b"[" * 100_000,
            b'{"vectors": 1}',
            b'{"vectors": [1], "text": 1}',
            b'{"vectors": [{}], "vector": [NaN]}',
            b'{"vectors": null, "filter": [{"field": "\\ud800", "is": 1e999}]}',
            b'{"vectors": {}, "text": "x", "mode": "all"}',
            *(chance.randbytes(chance.randrange(2_000)) for _ in range(20)),
        ):
            answer = await running.http.post(
                f"/v1/spaces/{device.space}/{route}", content=body, headers=bearer(device)
            )
            assert answer.status_code == 400, (route, body[:100], answer.text)
    route = f"/v1/spaces/{device.space}/vectors"
    for wrong in ({"after": -1}, {"after": 2**63}, {"after": "x"}, {"limit": 0}, {"limit": 501}):
        answer = await running.http.get(route, params=wrong, headers=bearer(device))
        assert code(answer) == (400, "malformed"), wrong
    hostile = {"text": "\0' OR 1=1 --", "mode": "text", "filter": [{"field": "a\0", "is": "\0"}], "limit": 1}
    assert await hits(running, device, **hostile, collections=["\0"]) == []


async def test_a_stranger_and_a_revoked_device_are_told_nothing(running: Running, database: Database) -> None:
    owner, stranger = await running.register(Key()), await running.register(Key())
    await sent(running, owner, vector_json("r1", 1, 2))
    for space in (owner.space, uuid4(), "no uuid"):
        theirs = stranger.__class__(stranger.account, space, stranger.device, stranger.token)  # type: ignore[arg-type]
        assert code(await sent(running, theirs, vector_json("r1", 1, 2))) == (404, "not_in_space")
        assert code(await asked(running, theirs, text="x", mode="text")) == (404, "not_in_space")
        for verb in ("GET", "DELETE"):
            answer = await running.http.request(
                verb, f"/v1/spaces/{space}/vectors?model=small", headers=bearer(stranger)
            )
            assert code(answer) == (404, "not_in_space")
    async with database.connection() as connection:
        await connection.execute("UPDATE devices SET revoked_at = now() WHERE device_id = $1", owner.device)
        assert await connection.fetchval("SELECT count(*) FROM vectors") == 1
    assert code(await sent(running, owner, vector_json("r2", 1, 2))) == (401, "unauthorized")
    assert code(await asked(running, owner, text="x", mode="text")) == (401, "unauthorized")


async def test_devices_that_send_at_the_same_time_lose_nothing(running: Running) -> None:
    async with opened(running) as (first, second):
        await asyncio.gather(
            *(
                sent(running, device, *(vector_json(f"{name}{n}", 1, n) for n in range(start, start + 10)))
                for device, name in ((first, "a"), (second, "b"))
                for start in range(0, 50, 10)
            )
        )
        page = await running.http.get(f"/v1/spaces/{first.space}/vectors", headers=bearer(first))
        positions = [one["position"] for one in page.json()["vectors"]]
        assert positions == list(range(1, 101))


async def test_the_schema_of_the_routes_is_told(running: Running) -> None:
    paths = (await running.http.get("/schema/openapi.json")).json()["paths"]
    assert set(paths["/v1/spaces/{space}/vectors"]) == {"get", "post", "delete"}
    assert set(paths["/v1/spaces/{space}/search"]) == {"post"}
