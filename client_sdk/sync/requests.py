"""What this device asks the server beside sync, on the session that sync keeps: each request numbered, each answered.

The runner gives it the session when that stands and takes it away when it ends; what waits for an answer then fails,
and may be asked again in the next one. Answers that nobody waits for are dropped.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar

import msgspec

from client_sdk.errors import ServerRefused
from client_sdk.sync.errors import NotConnected, ServerBusy, ServerMisbehaved
from crdt import requests, wire

__all__ = ["Requests", "Send"]

Send: TypeAlias = Callable[[wire.FromDevice], Awaitable[None]]
# What the server writes is shown to people: a sentence, not a book.
_CODE_CHARACTERS_MAX: Final = 100
_MESSAGE_CHARACTERS_MAX: Final = 500
_RETRY_AFTER_MS_MAX: Final = 60_000

_Answer = TypeVar("_Answer", requests.VectorsTaken, requests.Vectors, requests.Found)


class Requests:
    """Made once for a client. Its methods belong to the event loop."""

    def __init__(self) -> None:
        #: Called when a session stands, and when it has ended. They return at once.
        self.listeners: list[Callable[[bool], None]] = []
        self._send: Send | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[requests.Answer]] = {}
        self._open = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether a session stands."""
        return self._send is not None

    async def opened(self) -> None:
        """Wait until a session stands."""
        await self._open.wait()

    async def ask(self, request: requests.Request, kind: type[_Answer]) -> _Answer:
        """Send a request under a number of its own, and return its answer.

        Raises:
            NotConnected: no session stands, or it ended before the answer.
            ServerRefused: the server does not serve it; the code says why. `ServerBusy`: not now.
            ServerMisbehaved: it answered something else.
        """
        if self._send is None:
            raise NotConnected
        n = next(self._numbers)
        answered = self._waiting[n] = asyncio.get_running_loop().create_future()
        try:
            await self._send(msgspec.structs.replace(request, n=n))
            answer = await answered
        finally:
            self._waiting.pop(n, None)
            answered.cancel()
        if isinstance(answer, requests.Refused):
            raise _refused(answer)
        if not isinstance(answer, kind):
            raise ServerMisbehaved(f"it answered {type(answer).__name__} where {kind.__name__} was asked")
        return answer

    # -- Told by the runner

    def open(self, send: Send) -> None:
        """A session stands."""
        self._send = send
        self._open.set()
        for listener in self.listeners:
            listener(True)

    def answer(self, answer: requests.Answer) -> None:
        """An answer came."""
        answered = self._waiting.get(answer.n)
        if answered is not None and not answered.done():
            answered.set_result(answer)

    def close(self) -> None:
        """The session has ended. Fine to call without one."""
        if self._send is None:
            return
        self._send = None
        self._open.clear()
        for answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(NotConnected())
        for listener in self.listeners:
            listener(False)


def _refused(answer: requests.Refused) -> ServerRefused:
    code, message = answer.code[:_CODE_CHARACTERS_MAX], answer.message[:_MESSAGE_CHARACTERS_MAX]
    if answer.retry_after_ms is None:
        return ServerRefused(code, message)
    return ServerBusy(code, message, min(max(answer.retry_after_ms, 0), _RETRY_AFTER_MS_MAX) / 1_000)
