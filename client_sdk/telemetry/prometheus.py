"""A device's figures as Prometheus text, through ``prometheus-client`` (the extra ``prometheus``).

::

    figures = prometheus.collector(client)                     # in a registry of its own, or in one that you name
    start_http_server(9100, registry=figures.registry)         # scraped from another thread
    text = await prometheus.text(client)                       # or here and now, for a route of yours

Latencies are quantiles over the last minutes, so they are gauges; over another time take
``rate(pjais_call_seconds_total) / rate(pjais_calls_total)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from client_sdk.extras import ExtraMissing
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
    """What a registry asks: takes figures when it is scraped. ``registry`` is the one that it is in."""

    def __init__(self, latest: Latest, registry: CollectorRegistry) -> None:
        self.latest = latest
        self.registry = registry
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield each figure; nothing once the client is closed. On the client's own thread: as last refreshed."""
        metrics = self.latest.get()
        return iter(()) if metrics is None else _families(metrics)

    def describe(self) -> Iterator[Metric]:
        """Yield each figure's name, so that a registry need not scrape to know them."""
        return _families(None)

    def unregister(self) -> None:
        """Leave the registry, so that another client can be registered there."""
        self.registry.unregister(self)


def collector(client: Client, registry: CollectorRegistry | None = None) -> ClientCollector:
    """Return a client's collector, registered in ``registry``, or in one of its own. To be called on its event loop.

    Raises ``ValueError`` where the registry has a collector of another client already.
    """
    return ClientCollector(Latest(client), registry or CollectorRegistry())


async def text(client: Client) -> str:
    """Return the figures now, in Prometheus' text format. Raises `ClosedClient`."""
    made = collector(client)
    await made.latest.refresh()
    return generate_latest(made.registry).decode()


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
