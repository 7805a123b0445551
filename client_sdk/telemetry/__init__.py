"""A device's figures for the programs that collect figures: `prometheus` and `opentelemetry`, each an extra.

::

    from client_sdk.telemetry import prometheus          # pip install 'pjais-sync[prometheus]'

    registry.register(prometheus.collector(client))

Neither is imported by anything else of the SDK.
"""

from __future__ import annotations

__all__: list[str] = []
