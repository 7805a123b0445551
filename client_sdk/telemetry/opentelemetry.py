"""A device's figures as OpenTelemetry's observable instruments, through ``opentelemetry-api`` (the extra
``opentelemetry``).

::

    opentelemetry.observe(client)      # once; a reader of the application's asks when it exports

Where no SDK of OpenTelemetry is set up, the instruments cost nothing and tell nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from client_sdk.telemetry.errors import ExtraMissing
from client_sdk.telemetry.figures import FIGURES, values
from client_sdk.telemetry.latest import Latest

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider
except ImportError as error:
    raise ExtraMissing("opentelemetry", "opentelemetry-api") from error

if TYPE_CHECKING:
    from client_sdk.client import Client

__all__ = ["observe"]

_UNITS = {"": "1", "bytes": "By", "seconds": "s"}  # UCUM, as OpenTelemetry has it


def observe(client: Client, provider: MeterProvider | None = None) -> Latest:
    """Make the instruments, at the global meter provider if none is given. To be called on the client's event loop.

    A reader on a thread of its own (all that export periodically) takes figures when it asks. One that is asked on the
    client's loop tells those of the last `Latest.refresh` of what is returned.
    """
    latest = Latest(client)
    meter = (provider or get_meter_provider()).get_meter("pjais-sync")
    for figure in FIGURES:
        is_counter = figure.kind == "counter"
        make = meter.create_observable_counter if is_counter else meter.create_observable_gauge
        make(figure.name, [_callback(latest, figure.name)], _UNITS[figure.unit], figure.text)
    return latest


def _callback(latest: Latest, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observations(_: CallbackOptions) -> Iterable[Observation]:
        metrics = latest.get()
        if metrics is None:
            return []
        return [Observation(value.number, dict(value.labels)) for value in values(metrics)[name]]

    return observations
