"""The meeting place: takes what devices did, keeps it in Postgres, and tells the others.

Stateless: any number of processes on one Postgres. Start with `app`, the only module that knows everything.
"""

from __future__ import annotations

__all__: list[str] = []
