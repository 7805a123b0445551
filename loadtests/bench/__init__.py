"""Benchmarks: each figure beside the raw limit that was measured in the same run, as one JSON line."""

from __future__ import annotations

__all__: list[str] = []
