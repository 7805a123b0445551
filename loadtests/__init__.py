"""Benchmarks: each figure beside the raw limit measured in the same run, printed as JSON lines."""

from __future__ import annotations

__all__: list[str] = []
