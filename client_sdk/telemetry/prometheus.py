"""A device's figures as Prometheus text, through ``prometheus-client`` (the extra ``prometheus``).

::

    registry.register(prometheus.collector(client))     # scraped from another thread, by `start_http_server` say
    text = await prometheus.text(client)                # or here and now, for a route of yours

Latencies are quantiles over the last minutes, so they are gauges; over another time take
``rate(pjais_call_seconds_total) / rate(pjais_calls_total)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from client_sdk.telemetry.errors import ExtraMissing
from client_sdk.telemetry.figures import FIGURES, values
from client_sdk.telemetry.latest import Latest

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ExtraMissing("prometheus", "prometheus-client") from error

if TYPE_CHECKING:
    from client_sdk.client import Client
    from client_sdk.metrics import Metrics

__all__ = ["ClientCollector", "collector", "text"]


class ClientCollector(Collector):
    """What a registry asks: takes figures when it is scraped."""

    def __init__(self, latest: Latest) -> None:
        self.latest = latest

    def collect(self) -> Iterator[Metric]:
        """Yield each figure; nothing once the client is closed. On the client's own thread: as last refreshed."""
        metrics = self.latest.get()
        return iter(()) if metrics is None else _families(metrics)

    def describe(self) -> Iterator[Metric]:
        """Yield each figure's name, so that a registry need not scrape to know them."""
        return _families(None)


def collector(client: Client) -> ClientCollector:
    """Return a client's collector. To be called on its event loop."""
    return ClientCollector(Latest(client))


async def text(client: Client) -> str:
    """Return the figures now, in Prometheus' text format. Raises `ClosedClient`."""
    registry = CollectorRegistry()
    made = collector(client)
    registry.register(made)
    await made.latest.refresh()
    return generate_latest(registry).decode()


def _families(metrics: Metrics | None) -> Iterator[Metric]:
    found = {} if metrics is None else values(metrics)
    for figure in FIGURES:
        numbers = found.get(figure.name, [])
        family = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
        labels = list(numbers[0].labels) if numbers else []
        told = family(figure.name, f"{figure.text}.", labels=labels)
        for value in numbers:
            told.add_metric(list(value.labels.values()), value.number)
        yield told
