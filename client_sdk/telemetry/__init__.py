"""A device's figures for the programs that collect figures: `prometheus` and `opentelemetry`, each an extra.

::

    from client_sdk.telemetry import prometheus          # pip install 'pjais-sync[prometheus]'

    start_http_server(9100, registry=prometheus.collector(client).registry)

Neither is imported by anything else of the SDK.
"""

from __future__ import annotations

__all__: list[str] = []
