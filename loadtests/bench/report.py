"""One line a figure: what was measured, the raw limit beside it, and the target of the design."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

__all__ = ["percentile", "report", "summary"]

_lines: list[dict[str, object]] = []


def report(
    name: str,
    value: float,
    unit: str,
    *,
    raw: float | None = None,
    ratio: float | None = None,
    target: str = "",
    is_reached: bool | None = None,
    **more: object,
) -> None:
    """Print a figure. ``ratio`` is to the raw limit of the same run: 1 is as fast as it."""
    line: dict[str, object] = {"bench": name, "value": _short(value), "unit": unit}
    if raw is not None:
        line["raw"] = _short(raw)
    if ratio is not None:
        line["ratio"] = _short(ratio)
    if target:
        line["target"] = target
    if is_reached is not None:
        line["reached"] = is_reached
    line |= {key: _short(one) if isinstance(one, float) else one for key, one in more.items()}
    _lines.append(line)
    print(json.dumps(line), flush=True)


def summary() -> dict[str, int]:
    """Return how many figures there were, and how many reached their target."""
    judged = [line for line in _lines if "reached" in line]
    return {
        "figures": len(_lines),
        "judged": len(judged),
        "reached": sum(line["reached"] is True for line in judged),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, interpolated."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=1000, method="inclusive")[round(percent * 10) - 1]


def _short(number: float) -> float:
    return float(f"{number:.4g}")
