"""Live queries for programs with a screen: as a ReactiveX observable, and as a Qt list model.

Each is an extra, and nothing else imports it: ``pip install 'pjais-sync[rx]'``, ``pip install 'pjais-sync[qt]'``.
"""

from __future__ import annotations

__all__: list[str] = []
