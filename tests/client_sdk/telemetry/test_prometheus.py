"""A device's figures as Prometheus reads them: on a route of one's own, or scraped from another thread."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from client_sdk import Client
from client_sdk.errors import ClosedClient
from client_sdk.telemetry import prometheus
from client_sdk.telemetry.figures import FIGURES
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Tag

__all__: list[str] = []


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_device(tmp_path / "a.db") as opened:
        await opened.collection(Tag).insert_many([Tag(name="a"), Tag(name="b")])
        yield opened


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_text_holds_every_figure(client: Client) -> None:
    text = await prometheus.text(client)
    families = {family.name for family in text_string_to_metric_families(text)}
    assert families == {figure.name for figure in FIGURES}
    found = samples(text)
    assert found["pjais_records", frozenset({("collection", "tags")})] == 2
    assert found["pjais_calls_total", frozenset({("call", "write")})] == 1
    assert found["pjais_sync_pending", frozenset()] == 2
    assert found["pjais_cache_answers_total", frozenset({("how", "kept")})] == 0
    assert found["pjais_sync_updates_total", frozenset({("what", "push")})] == 0
    assert found["pjais_sync_state", frozenset({("state", "offline")})] == 1


async def test_a_scrape_on_another_thread_gets_what_is_true_then(client: Client) -> None:
    figures = prometheus.collector(client)
    text = (await asyncio.to_thread(generate_latest, figures.registry)).decode()
    assert samples(text)["pjais_records", frozenset({("collection", "tags")})] == 2


async def test_a_scrape_on_the_loops_own_thread_does_not_wait_for_itself(client: Client) -> None:
    registry = CollectorRegistry()
    collector = prometheus.collector(client, registry)
    with pytest.raises(ValueError, match="Duplicated"):
        prometheus.collector(client, registry)
    assert samples(generate_latest(registry).decode()) == {}
    await collector.latest.refresh()
    assert samples(generate_latest(registry).decode())["pjais_sync_pending", frozenset()] == 2
    collector.unregister()
    assert prometheus.collector(client, registry).registry is registry


async def test_a_scrape_after_the_end_is_empty(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        collector = prometheus.collector(client)
    assert await asyncio.to_thread(lambda: list(collector.collect())) == []
    with pytest.raises(ClosedClient):
        await prometheus.text(client)


@pytest.mark.parametrize(
    ("extra", "package"), [("prometheus", "prometheus_client"), ("opentelemetry", "opentelemetry")]
)
def test_without_the_extra_the_error_says_what_to_install(extra: str, package: str) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None  # as where it is not installed
import client_sdk
from client_sdk.errors import ClientError
try:
    import client_sdk.telemetry.{extra}
except ClientError as error:
    print(type(error).__name__, error)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("ExtraMissing ")
    assert f"pip install 'pjais-sync[{extra}]'" in told.stdout


def test_the_sdk_imports_neither_export_by_itself() -> None:
    program = (
        "import sys, client_sdk, client_sdk.cli;"
        "print([m for m in sys.modules if m.startswith(('prometheus_client', 'opentelemetry'))])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
