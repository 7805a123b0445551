"""The demo, as a story without a screen: `pjais demo` shows it, the journey test checks it.

`story` tells it in steps, `meetings` holds the edits that meet, `server` runs the server.
"""

from __future__ import annotations

from client_sdk.demo.errors import DemoProblem
from client_sdk.demo.steps import Check, Step, Table
from client_sdk.demo.story import story

__all__ = ["Check", "DemoProblem", "Step", "Table", "story"]
