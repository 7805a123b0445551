"""A device's figures as OpenTelemetry's observable instruments, and its calls as spans, through ``opentelemetry-api``
(the extra ``opentelemetry``).

::

    opentelemetry.observe(client)      # once; a reader of the application's asks when it exports
    opentelemetry.trace(client)        # from now on, a span for each read, write and transaction, and each sync

Where no SDK of OpenTelemetry is set up, both tell nobody. A span says what was called, on which collection, and the
type of an error: no value of a record, no parameter, and no message, as spans get into the hands of others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from client_sdk.extras import ExtraMissing
from client_sdk.telemetry.figures import FIGURES, values
from client_sdk.telemetry.latest import Latest

try:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider
    from opentelemetry.trace import Span, StatusCode, TracerProvider, get_tracer_provider
except ImportError as error:
    raise ExtraMissing("opentelemetry", "opentelemetry-api") from error

if TYPE_CHECKING:
    from client_sdk.client import Client
    from client_sdk.sync.status import Status
    from client_sdk.writer import Call

__all__ = ["observe", "trace"]

_SCOPE: Final = "pjais-sync"
_UNITS: Final = {"": "1", "bytes": "By", "seconds": "s"}  # UCUM, as OpenTelemetry has it


def observe(client: Client, provider: MeterProvider | None = None) -> Latest:
    """Make the instruments, at the global meter provider if none is given. To be called on the client's event loop.

    A reader on a thread of its own (all that export periodically) takes figures when it asks. One that is asked on the
    client's loop tells those of the last `Latest.refresh` of what is returned.
    """
    latest = Latest(client)
    meter = (provider or get_meter_provider()).get_meter(_SCOPE)
    for figure in FIGURES:
        is_counter = figure.kind == "counter"
        make = meter.create_observable_counter if is_counter else meter.create_observable_gauge
        make(figure.name, [_callback(latest, figure.name)], _UNITS[figure.unit], figure.text)
    return latest


def trace(client: Client, provider: TracerProvider | None = None) -> None:
    """Have spans made from now on, at the global tracer provider if none is given; ``client.trace(None)`` ends it.

    ``pjais.read``, ``pjais.write``, ``pjais.transaction`` and ``pjais.remote`` (what sync writes) are children of the
    span that the application is in. ``pjais.sync`` stands alone: from connecting, or from having something to send or
    read, until the device is in step, or cannot be.
    """
    client.trace(_Spans(provider or get_tracer_provider()))


class _Spans:
    """`client_sdk.metrics.Tracing`. Attributes are named as OpenTelemetry's conventions for databases have them."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(_SCOPE)
        self._sync: Span | None = None

    @contextlib.contextmanager
    def span(self, call: Call, collection: str) -> Iterator[None]:
        """Surround a call."""
        attributes = {"db.system.name": "sqlite", "db.operation.name": call}
        if collection:
            attributes["db.collection.name"] = collection
        with self._tracer.start_as_current_span(
            f"pjais.{call}", attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                _failed(span, error)
                raise

    def status_changed(self, status: Status) -> None:
        """Begin or end the span of a sync."""
        if status.state in ("connecting", "syncing"):
            if self._sync is None:
                self._sync = self._tracer.start_span("pjais.sync", context=Context())
            return
        span, self._sync = self._sync, None
        if span is not None:
            span.set_attribute("pjais.sync.state", status.state)
            if status.state != "synced" and status.last_error is not None:
                _failed(span, status.last_error)
            span.end()


def _failed(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(StatusCode.ERROR)


def _callback(latest: Latest, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observations(_: CallbackOptions) -> Iterable[Observation]:
        metrics = latest.get()
        if metrics is None:
            return []
        return [Observation(value.number, dict(value.labels)) for value in values(metrics)[name]]

    return observations
