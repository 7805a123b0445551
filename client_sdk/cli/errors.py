"""What can go wrong with a command, beyond what the SDK's own errors say.

::

    CommandProblem (a ClientError)
    ├── NoSuchHub      no file at the path           pjais init, or another --db
    ├── HubExists      init, and there is a file     use it, or another --db
    └── NoSuchPersona  no such name or id            pjais watch --collection personas shows them
"""

from __future__ import annotations

from pathlib import Path

from client_sdk.errors import ClientError

__all__ = ["CommandProblem", "HubExists", "NoSuchHub", "NoSuchPersona"]


class CommandProblem(ClientError):
    """The base of what only commands run into."""


class NoSuchHub(CommandProblem):
    """There is no file at the path."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no Hub at {path}: make one with pjais init, or name another with --db")
        self.path = path


class HubExists(CommandProblem):
    """There is a file at the path already."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"there is a Hub at {path} already: use it as it is, or name another place with --db"
        )
        self.path = path


class NoSuchPersona(CommandProblem):
    """No persona has that id or that name."""

    def __init__(self, persona: str) -> None:
        super().__init__(
            f"there is no persona {persona!r}: name one by its id or its name; pjais watch --collection"
            " personas shows them"
        )
        self.persona = persona
