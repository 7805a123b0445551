"""A server as an operator starts it, in a process of its own, and the ways to it: raw HTTP and sockets, and devices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

import client_sdk
from client_sdk import Client
from server.embedded import EmbeddedPostgres
from tests.client_sdk.device import KEY
from tests.client_sdk.records import Note, Tag
from tests.journeys.live import LiveServer
from tests.postgres import query, run, with_database
from tests.server.serving import Running

__all__ = ["Opens", "opens", "raw", "server", "shared_url"]

Opens = Callable[..., Awaitable[Client]]
"""``await opens("a")`` opens, or makes, the device's file of that name; it is closed when the test ends."""


@pytest.fixture(scope="package")
def shared_url(postgres: EmbeddedPostgres, migrated_database: str) -> Iterator[str]:
    """The URL of a database that the tests of this folder share: accounts keep apart what belongs to each."""
    template = migrated_database.rpartition("/")[2].partition("?")[0]
    run(query(postgres.url, f"CREATE DATABASE journeys TEMPLATE {template}", "SELECT 1"))
    yield with_database(postgres.url, "journeys")
    run(query(postgres.url, "DROP DATABASE journeys WITH (FORCE)", "SELECT 1"))


@pytest.fixture(scope="package")
def server(shared_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A running server, shared; at the end it must stop cleanly, and have logged nothing unforeseen."""
    server = LiveServer(tmp_path_factory.mktemp("server"), database_url=shared_url)
    server.start_now()
    yield server
    server.stop_now()
    assert server.problems() == []


@pytest.fixture
async def raw(server: LiveServer) -> AsyncIterator[Running]:
    """What speaks to the server without the device's code."""
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as http:
        yield Running(server.url, http)


@pytest.fixture
async def opens(tmp_path: Path) -> AsyncIterator[Opens]:
    """Devices on files of this test's own."""
    async with AsyncExitStack() as stack:

        async def opened(name: str, **options: Any) -> Client:
            opening = client_sdk.open(tmp_path / f"{name}.db", records=[Note, Tag], key=KEY, **options)
            return await stack.enter_async_context(opening)

        yield opened
