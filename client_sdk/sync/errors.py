"""What can go wrong between this device and the server, beside what `client_sdk.errors` names for the application.

::

    ServerProblem (client_sdk.errors)
    ├── TransportClosed     the connection ended                   nothing: it is made again, with backoff
    ├── NotConnected        there is no connection                 connect(); where it is on, wait
    ├── AnswerLate          the server takes too long to answer    nothing: ask again
    ├── ServerBusy          it cannot serve a request just now     nothing: ask again later
    ├── ServerMisbehaved    a message against the protocol         nothing of it was taken; update the server
    └── ContentsDiffer      digests differ at the same position    keep the file, report it: see status.verified

They reach the application as ``status.last_error``.
"""

from __future__ import annotations

from client_sdk.errors import ServerProblem, ServerRefused

__all__ = [
    "AnswerLate",
    "ContentsDiffer",
    "NotConnected",
    "ServerBusy",
    "ServerMisbehaved",
    "TransportClosed",
]


class TransportClosed(ServerProblem):
    """The connection is closed: ``code`` and ``reason`` as RFC 6455, section 7.4 (1006: it broke without a word)."""

    def __init__(self, code: int, reason: str = "") -> None:
        said = f": {reason}" if reason else ""
        super().__init__(f"the connection to the server ended ({code}{said}); it is made again by itself")
        self.code = code
        self.reason = reason


class NotConnected(ServerProblem):
    """There is no connection to the server now."""

    def __init__(self) -> None:
        super().__init__("there is no connection to the server: connect(), or wait until it is there again")


class AnswerLate(ServerProblem, TimeoutError):
    """The server did not answer in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the server did not answer within {seconds:g} s: ask again")


class ServerBusy(ServerRefused):
    """The server cannot serve this request now; after ``after_s`` seconds it may."""

    def __init__(self, code: str, message: str, after_s: float) -> None:
        super().__init__(code, message)
        self.after_s = after_s


class ServerMisbehaved(ServerProblem):
    """The server sent what the protocol does not allow. Nothing of that message was taken."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"the server broke the protocol: {problem}. Nothing of it was taken; the connection is made again. "
            "If it stays so, update the server"
        )
        self.problem = problem


class ContentsDiffer(ServerProblem):
    """This device and the server have read the same log up to ``position`` and hold different contents."""

    def __init__(self, *, position: int, ours: int, theirs: int) -> None:
        super().__init__(
            f"at position {position} this device holds {ours} records and the server {theirs}, and their "
            "contents differ. Keep this file, look for quarantined records on both sides, and join again from a "
            "new file to read the server's state"
        )
        self.position = position
        self.ours = ours
        self.theirs = theirs
