"""A device's figures as OpenTelemetry's instruments tell them to a reader, and its calls as spans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from client_sdk import Client, Status
from client_sdk.errors import DuplicateRecord, ServerUnreachable
from client_sdk.telemetry import opentelemetry
from client_sdk.telemetry.figures import FIGURES
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Tag

__all__: list[str] = []

NEVER_SYNCED = "pjais_sync_last_timestamp_seconds"  # has no value yet


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
    assert set(found) == {figure.name for figure in FIGURES} - {NEVER_SYNCED}
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
    assert len(read(reader)) == len(FIGURES) - 1


async def test_a_closed_client_has_nothing_to_tell(
    tmp_path: Path, reader: InMemoryMetricReader, provider: MeterProvider
) -> None:
    async with open_device(tmp_path / "a.db") as client:
        opentelemetry.observe(client, provider)
    assert await asyncio.to_thread(read, reader) == {}


# --------------------------------------------------------------------------------------------------------- spans


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracers(spans: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield provider
    provider.shutdown()


async def test_each_call_is_a_span_within_the_applications_own(
    client: Client, spans: InMemorySpanExporter, tracers: TracerProvider
) -> None:
    opentelemetry.trace(client, tracers)
    tags = client.collection(Tag)
    with tracers.get_tracer("app").start_as_current_span("outer"):
        await tags.where(name="a").all()
        await tags.insert(Tag(name="c"))
        async with client.transaction():
            await tags.insert(Tag(name="d"))
            await tags.count()
    found = {span.name: span for span in spans.get_finished_spans()}
    assert [span.name for span in spans.get_finished_spans()] == [
        "pjais.read",
        "pjais.write",
        "pjais.transaction",
        "outer",
    ]
    outer = found["outer"].context
    for name in ("pjais.read", "pjais.write", "pjais.transaction"):
        parent = found[name].parent
        assert parent is not None
        assert outer is not None
        assert parent.span_id == outer.span_id
    assert dict(found["pjais.read"].attributes or {}) == {
        "db.system.name": "sqlite",
        "db.operation.name": "read",
        "db.collection.name": "tags",
    }
    client.trace(None)
    await tags.count()
    assert len(spans.get_finished_spans()) == 4


async def test_an_error_is_told_by_its_type_without_a_word_of_what_was_written(
    client: Client, spans: InMemorySpanExporter, tracers: TracerProvider
) -> None:
    opentelemetry.trace(client, tracers)
    tag = await client.collection(Tag).insert(Tag(id="a secret id", name="b"))
    with pytest.raises(DuplicateRecord):
        await client.collection(Tag).insert(tag)
    _, failed = spans.get_finished_spans()
    assert failed.status.status_code is StatusCode.ERROR
    assert dict(failed.attributes or {})["error.type"] == "DuplicateRecord"
    assert "secret" not in failed.to_json()
    assert (await client.metrics()).writes.errors == 1


async def test_a_sync_is_a_span_until_the_device_is_in_step(
    client: Client, spans: InMemorySpanExporter, tracers: TracerProvider
) -> None:
    opentelemetry.trace(client, tracers)
    for status in (
        Status("connecting"),
        Status("syncing", pending=1),
        Status("synced"),
        Status("synced", verified=True),
        Status("syncing"),
        Status("error", last_error=ServerUnreachable("http://somewhere", "refused")),
    ):
        client._status_changed(status)
    well, ill = spans.get_finished_spans()
    assert well.name == ill.name == "pjais.sync"
    assert well.parent is ill.parent is None
    assert dict(well.attributes or {}) == {"pjais.sync.state": "synced"}
    assert dict(ill.attributes or {}) == {"pjais.sync.state": "error", "error.type": "ServerUnreachable"}
    assert (well.status.is_ok, ill.status.is_ok) == (True, False)
