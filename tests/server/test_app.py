"""The whole server, several of them on one Postgres, with the process that folds."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from crdt import wire
from server import app as app_module
from server.app import create_app
from server.database import Database
from server.embedded import EmbeddedPostgres
from server.errors import DatabaseUnavailable
from server.settings import Settings
from tests.server.people import Device, edits, eventually
from tests.server.serving import Key, Running, opened, running_app, speaking

__all__: list[str] = []


async def documents(running: Running, device: Device) -> dict[str, object]:
    answer = await running.http.get(
        f"/v1/spaces/{device.space}/documents?collection=notes",
        headers={"Authorization": f"Bearer {device.token}"},
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


async def test_devices_at_two_servers_on_one_database_meet(
    database_url: str, server_settings: Settings
) -> None:
    """By notice, long before the comparison of heads."""
    async with (
        running_app(database_url, server_settings) as here,
        running_app(database_url, server_settings) as there,
    ):
        async with opened(here) as (one, two), speaking(here, one) as first, speaking(there, two) as second:
            loop = asyncio.get_running_loop()
            for number in range(1, 6):
                began = loop.time()
                await first.send(one.push(number, edits(one.client, 1, start=number)))
                page = await second.next()
                assert isinstance(page, wire.Page)
                assert [entry.position for entry in page.entries] == [number]
                await second.send(wire.Received(str(two.space), number))
                assert loop.time() - began < 2


async def test_a_device_that_changes_servers_goes_on_where_it_was(
    database_url: str, server_settings: Settings
) -> None:
    async with (
        running_app(database_url, server_settings) as here,
        running_app(database_url, server_settings) as there,
    ):
        async with opened(here) as (one, two), speaking(here, two) as other:
            for number, running in enumerate([here, there, here, there], 1):
                async with speaking(running, one, position=number - 1) as line:
                    assert isinstance(line.welcome, wire.Welcome)
                    assert line.welcome.spaces[0].held.get(one.incarnation, 0) == number - 1
                    await line.send(one.push(number, edits(one.client, 1, start=number)))
                    assert await line.next() == wire.Ack(str(one.space), one.incarnation, number, [])
            seen: list[int] = []
            while len(seen) < 4:
                page = await other.next()
                assert isinstance(page, wire.Page)
                seen += [entry.position for entry in page.entries]
                await other.send(wire.Received(str(two.space), page.through))
            assert seen == [1, 2, 3, 4]


async def test_what_is_pushed_is_folded_beside_and_verified(
    database_url: str, server_settings: Settings
) -> None:
    async with running_app(database_url, server_settings, folds=True) as running:
        device = await running.register(Key())
        async with speaking(running, device) as line:
            await line.send(device.push(1, edits(device.client, 10)))
            await line.send(wire.Verify(str(device.space), 10))
            while not isinstance(message := await line.next(), wire.Verified):
                pass
            assert (message.position, message.records) == (10, 10)
            assert message.digest != bytes(16)
        page = await documents(running, device)
        assert (page["head"], page["materialized"]) == (10, 10)
        records = page["records"]
        assert isinstance(records, list)
        assert records[0]["value"]["title"] == "x" * 20


async def test_the_folding_process_may_die_and_comes_back(
    database_url: str, server_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []
    spawn = asyncio.create_subprocess_exec

    async def remembered(*command: str, **options: object) -> asyncio.subprocess.Process:
        process = await spawn(*command, **options)  # type: ignore[arg-type]
        if "server.materialize" in command:
            pids.append(process.pid)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remembered)
    async with running_app(database_url, server_settings, folds=True) as running:
        device = await running.register(Key())
        async with speaking(running, device) as line:
            for number in range(1, 4):
                await eventually(lambda number=number: len(pids) == number)  # type: ignore[misc]
                os.kill(pids[-1], signal.SIGKILL)
                await line.send(device.push(number, edits(device.client, 1, start=number)))
                while not isinstance(message := await line.next(), wire.Ack):
                    assert isinstance(message, wire.Page)
                    await line.send(wire.Received(str(device.space), message.through))

            async def is_folded() -> bool:
                return (await documents(running, device))["materialized"] == 3

            await eventually(is_folded, within_s=30)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_the_url_of_the_database_is_in_no_argument(
    database_url: str, server_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[tuple[str, ...]] = []

    async def refused(*command: str, **_options: object) -> asyncio.subprocess.Process:
        commands.append(command)
        raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    async with running_app(database_url, server_settings, folds=True):
        await eventually(lambda: bool(commands))
    assert all(database_url not in part for command in commands for part in command)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(tmp_path / "postgres")
    postgres.start_now()
    yield postgres
    postgres.stop_now()


async def test_health_is_about_the_process_and_ready_about_the_database(
    own_postgres: EmbeddedPostgres, server_settings: Settings
) -> None:
    """Postgres goes away and comes back: the server says so, lives on, and loses nothing that it acknowledged."""
    settings = server_settings.model_copy(update={"pool_wait_s": 1.0})
    async with running_app(own_postgres.url, settings) as running:
        assert (await running.http.get("/ready")).status_code == 200
        device = await running.register(Key())
        async with speaking(running, device) as line:
            await line.send(device.push(1, edits(device.client, 2)))
            assert isinstance(await line.next(), wire.Ack)
        pid = own_postgres.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        supervising = asyncio.create_task(own_postgres.supervise())
        answers: set[int] = set()

        async def is_ready_again() -> bool:
            assert (await running.http.get("/health")).status_code == 200
            answers.add((await running.http.get("/ready")).status_code)
            return 200 in answers and own_postgres.pid != pid

        await eventually(is_ready_again, within_s=60)
        async with speaking(running, device.reopened()) as line:
            assert isinstance(line.welcome, wire.Welcome)
            assert line.welcome.spaces[0].held == {device.incarnation: 2}
        supervising.cancel()
        await asyncio.gather(supervising, return_exceptions=True)


async def test_a_server_without_its_database_does_not_start(server_settings: Settings) -> None:
    settings = server_settings.model_copy(
        update={"database_url": SecretStr("postgresql://nobody@127.0.0.1:1/none"), "connect_timeout_s": 0.2}
    )
    with pytest.raises((DatabaseUnavailable, BaseExceptionGroup)) as caught:
        async with create_app(settings, folds=False).lifespan():
            pass
    assert caught.group_contains(DatabaseUnavailable) or isinstance(caught.value, DatabaseUnavailable)


async def test_expired_challenges_and_tokens_are_swept(
    database_url: str, database: Database, server_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "_SWEEP_EVERY_S", 0.05)
    settings = server_settings.model_copy(update={"challenge_lifetime_s": 1, "token_lifetime_s": 1})
    async with running_app(database_url, settings) as running:
        await running.register(Key())
        await running.challenge()

        async def is_empty() -> bool:
            async with database.connection() as connection:
                return bool(
                    await connection.fetchval(
                        "SELECT (SELECT count(*) FROM tokens) + (SELECT count(*) FROM challenges) = 0"
                    )
                )

        assert not await is_empty()
        await eventually(is_empty)
