"""What keeps the demo from beginning.

::

    DemoProblem (a ClientError)
    ├── ServerNotInstalled    the server's packages are not there    pip install "pjais-sync[server]"
    └── ServerDidNotStart     it ended, or took too long             look at what it said
"""

from __future__ import annotations

from client_sdk.errors import ClientError

__all__ = ["DemoProblem", "ServerDidNotStart", "ServerNotInstalled"]


class DemoProblem(ClientError):
    """The base of what keeps the demo from beginning."""


class ServerNotInstalled(DemoProblem):
    """A device's install does not bring the server."""

    def __init__(self, missing: str) -> None:
        super().__init__(
            f"the demo runs a server on this machine, and its package {missing} is not installed: "
            'pip install "pjais-sync[server]"'
        )
        self.missing = missing


class ServerDidNotStart(DemoProblem):
    """The server's process ended before it listened, or did not listen in time."""

    def __init__(self, problem: str, log: str) -> None:
        super().__init__(f"the server did not start: {problem}. It said last: {log or 'nothing'}")
        self.problem = problem
        self.log = log
