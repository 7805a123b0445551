"""Asking the server what the whole space holds (`client_sdk.source.Space`).

A device that syncs asks on its session; one that does not (a command, another instance on the file) asks by HTTP.
Records that were found and are not here yet are fetched on the session, through the same door as all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from client_sdk.commit import Committed
from client_sdk.errors import ServerProblem
from client_sdk.sync.errors import AnswerLate, NotConnected
from client_sdk.sync.requests import Requests
from client_sdk.writer import Writer
from crdt import requests
from crdt.limits import COLLECTION_NAME_BYTES_MAX, RECORD_ID_BYTES_MAX

if TYPE_CHECKING:
    from client_sdk.sync.runner import Runner

__all__ = ["ServerSpace"]

#: What a person waits for hits of the whole space, before those of the device will do.
_ANSWER_S_MAX: Final = 5.0
#: A program that has just called `connect` has its session within milliseconds, or no network.
_OPENING_S_MAX: Final = 2.0
_FETCH_S_MAX: Final = 3.0
_PART_MAX: Final = (1 << 31) - 1


class ServerSpace:
    """``runner`` is there while sync is on here; ``by_http`` asks without it."""

    def __init__(
        self,
        asked: Requests,
        writer: Writer,
        *,
        space: Callable[[], str],
        runner: Callable[[], Runner | None],
        by_http: Callable[[requests.Search], Awaitable[requests.Found]],
    ) -> None:
        self._requests = asked
        self._writer = writer
        self._space = space
        self._runner = runner
        self._by_http = by_http

    async def search(self, question: requests.Search) -> list[requests.FoundPart]:
        """Return what fits, best first.

        Raises:
            NotRegistered: this device has no space.
            NotConnected, ServerUnreachable, AnswerLate: nothing answers.
            ServerRefused: the server cannot answer it: it has vectors of other models alone, for example.
        """
        asked = msgspec.structs.replace(question, space=self._space())
        runner = self._runner()
        try:
            async with asyncio.timeout(_ANSWER_S_MAX):
                if runner is None:
                    found = await self._by_http(asked)
                else:
                    await self._session(runner)
                    found = await self._requests.ask(asked, requests.Found)
        except TimeoutError as error:
            if isinstance(error, ServerProblem):
                raise
            raise AnswerLate(_ANSWER_S_MAX) from None
        parts: dict[tuple[str, str, int], requests.FoundPart] = {}
        for one in found.hits[: question.limit]:
            if _is_hit(one):
                parts.setdefault((one.collection, one.record, one.part), one)
        return list(parts.values())

    async def fetch(self, collection: str, records: Sequence[str]) -> None:
        """Bring records that this device lacks; those that have not come after a few seconds may come later."""
        runner = self._runner()
        if runner is None:
            return
        missing, is_all = set(records), asyncio.Event()

        def heard(committed: Committed) -> None:
            missing.difference_update(one.record for one in committed.changes if one.collection == collection)
            if not missing:
                is_all.set()

        self._writer.listeners.append(heard)
        try:
            for record in records:
                runner.want(collection, record)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FETCH_S_MAX):
                    await is_all.wait()
        finally:
            self._writer.listeners.remove(heard)

    async def _session(self, runner: Runner) -> None:
        if self._requests.is_open:
            return
        if runner.status.last_error is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OPENING_S_MAX):
                    await self._requests.opened()
                    return
        raise NotConnected from runner.status.last_error


def _is_hit(one: requests.FoundPart) -> bool:
    """Whether what the server says was found can be one; by HTTP nobody has looked yet."""
    return (
        _is_name(one.collection, COLLECTION_NAME_BYTES_MAX)
        and _is_name(one.record, RECORD_ID_BYTES_MAX)
        and -1 <= one.part <= _PART_MAX
        and math.isfinite(one.score)
    )


def _is_name(text: str, bytes_max: int) -> bool:
    try:
        return 0 < len(text.encode()) <= bytes_max
    except UnicodeEncodeError:  # half of a surrogate pair: no record has such a name
        return False
