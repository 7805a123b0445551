"""Two accounts never meet: every route is tried across."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from crdt import wire
from server import access
from server.database import Database
from server.errors import NotInSpace, Unauthorized
from server.settings import Settings
from tests.server.people import Device, edits, enrolled, hello, materialized
from tests.server.serving import Key, Running, running_app, speaking

__all__: list[str] = []


async def test_a_token_says_whose_it_is_until_it_ends_or_its_device_is_revoked(database: Database) -> None:
    device = await enrolled(database)
    now = datetime.now(UTC)
    async with database.connection() as connection:
        caller = await access.caller_of(connection, device.token, now=now)
        assert caller == access.Caller(device.account, device.device)
        for token, time in [
            ("", now),
            (device.token + "x", now),
            ("\ud800", now),
            (device.token, now + timedelta(hours=2)),
        ]:
            with pytest.raises(Unauthorized):
                await access.caller_of(connection, token, now=time)
        await connection.execute("UPDATE devices SET revoked_at = now()")
        with pytest.raises(Unauthorized):
            await access.caller_of(connection, device.token, now=now)


async def test_each_of_the_spaces_must_be_the_devices_own(database: Database) -> None:
    device, stranger = await enrolled(database), await enrolled(database)
    async with database.connection() as connection:
        await access.require_spaces(connection, device.device, [device.space, device.space])
        await access.require_spaces(connection, device.device, [])
        for spaces in ([stranger.space], [device.space, stranger.space], [uuid4()]):
            with pytest.raises(NotInSpace):
                await access.require_spaces(connection, device.device, spaces)
        await connection.execute("UPDATE devices SET revoked_at = now()")
        with pytest.raises(NotInSpace):
            await access.require_spaces(connection, device.device, [device.space])


async def told(running: Running, stranger: Device, space: UUID) -> list[object]:
    """Everything that a device is told when it tries a space in every way there is."""
    bearer = {"Authorization": f"Bearer {stranger.token}"}
    posing = replace(stranger, space=space)
    answers: list[object] = []
    got = await running.http.get(f"/v1/spaces/{space}/documents?collection=notes", headers=bearer)
    invited = await running.invite(posing, b"i" * 16, Key())
    answers += [(answer.status_code, answer.json()) for answer in (got, invited)]
    async with speaking(running, posing) as socket:
        answers.append(socket.welcome)
    name = str(space)
    crossing: list[wire.FromDevice] = [
        wire.Push(name, stranger.incarnation, stranger.client, 1, edits(stranger.client, 1)),
        wire.Received(name, 1),
        wire.Verify(name, 1),
        wire.Fetch(name, "notes", "r1"),
    ]
    for message in crossing:
        async with speaking(running, stranger) as socket:
            assert isinstance(socket.welcome, wire.Welcome)
            await socket.send(message)
            answers.append(await socket.next())
    return answers


async def test_a_strangers_space_and_one_that_does_not_exist_are_told_alike(
    database_url: str, database: Database, server_settings: Settings
) -> None:
    async with running_app(database_url, server_settings) as running:
        device, stranger = await running.register(Key()), await running.register(Key())
        async with speaking(running, device) as socket:
            await socket.send(device.push(1, edits(device.client, 2)))
            assert isinstance(await socket.next(), wire.Ack | wire.Page)
        await materialized(database, device, {"r1": (1, b"secret")})
        anybody, nobody = await told(running, stranger, device.space), await told(running, stranger, uuid4())
    assert anybody == nobody
    assert len(anybody) == 7
    for answer in anybody:
        if isinstance(answer, tuple):
            assert (answer[0], answer[1]["code"]) == (404, "not_in_space")
        else:
            assert isinstance(answer, wire.Failure)
            assert answer.code == "not_in_space"
    async with database.connection() as connection:
        assert (
            await connection.fetchval("SELECT count(*) FROM log WHERE device_id = $1", stranger.device) == 0
        )
        assert await connection.fetchval("SELECT count(*) FROM invitations") == 0


async def test_another_devices_token_does_not_make_one_that_device(
    database_url: str, server_settings: Settings
) -> None:
    async with running_app(database_url, server_settings) as running:
        device, stranger = await running.register(Key()), await running.register(Key())
        async with speaking(running, device, greet=False) as socket:
            await socket.send(hello(replace(device, token=stranger.token)))
            answer = await socket.next()
        assert isinstance(answer, wire.Failure)
        assert answer.code == "unauthorized"
