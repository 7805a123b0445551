"""A device's figures as OpenTelemetry's instruments tell them to a reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from client_sdk import Client
from client_sdk.telemetry import opentelemetry
from client_sdk.telemetry.figures import FIGURES
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Tag

__all__: list[str] = []


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as opened:
        await opened.collection(Tag).insert_many([Tag(name="a"), Tag(name="b")])
        yield opened


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
async def provider(reader: InMemoryMetricReader) -> AsyncIterator[MeterProvider]:
    provider = MeterProvider([reader])
    yield provider
    provider.shutdown()


def read(reader: InMemoryMetricReader) -> dict[str, Any]:
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


async def test_a_reader_on_its_own_thread_gets_every_figure(
    client: Client, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    opentelemetry.observe(client, provider)
    found = await asyncio.to_thread(read, reader)
    assert set(found) == {figure.name for figure in FIGURES}
    records = {
        point.attributes["collection"]: point.value for point in found["pjais_records"].data.data_points
    }
    assert records == {"notes": 0, "tags": 2}
    calls = found["pjais_calls"]
    assert isinstance(calls.data, Sum)
    assert calls.data.is_monotonic
    assert found["pjais_file_bytes"].unit == "By"
    assert found["pjais_call_seconds"].unit == "s"


async def test_one_reading_is_one_look(
    client: Client, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    latest = opentelemetry.observe(client, provider)
    await asyncio.to_thread(read, reader)
    first = latest.get()
    await asyncio.to_thread(read, reader)
    assert latest.get() is first, "figures of less than a second ago are told again"


async def test_a_reader_on_the_loop_gets_what_was_taken_last(
    client: Client, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    latest = opentelemetry.observe(client, provider)
    assert read(reader) == {}
    await latest.refresh()
    assert len(read(reader)) == len(FIGURES)


async def test_a_closed_client_has_nothing_to_tell(
    tmp_path: Path, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    async with open_device(tmp_path / "a.db") as client:
        opentelemetry.observe(client, provider)
    assert await asyncio.to_thread(read, reader) == {}
