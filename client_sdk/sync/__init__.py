"""Keeping one device and the server in step: `engine` decides, `runner` does, `transport` carries the bytes."""

from __future__ import annotations

__all__: list[str] = []
