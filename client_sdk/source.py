"""What queries and searches run on: reads, results that are kept, and views that are kept true."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Protocol, TypeVar

from client_sdk.database import Connection
from client_sdk.meaning.meaning import Meaning
from client_sdk.plan import Plan
from client_sdk.views import View
from crdt.requests import FoundPart, Search

__all__ = ["Source", "Space", "Subscription"]

T = TypeVar("T")


class Subscription(Protocol):
    """A callback that is called until it is closed."""

    def close(self) -> None:
        """Call no more."""


class Space(Protocol):
    """Everything that the space holds, on this device or not: a server that can be asked."""

    async def search(self, question: Search) -> list[FoundPart]:
        """Return what fits, best first; the question's space and number are filled in. Raises `ServerProblem`."""

    async def fetch(self, collection: str, records: Sequence[str]) -> None:
        """Bring records to this device that it lacks, those that come within a few seconds."""


class Source(Protocol):
    """What a query runs on: reads, results that are kept, and views that are kept true."""

    @property
    def meaning(self) -> Meaning | None:
        """What searches by meaning; None where that is off."""

    @property
    def space(self) -> Space:
        """What searches beyond this device."""

    async def ask(self, plan: Plan, work: Callable[[Connection], T]) -> T:
        """Run a query's ``work`` on a consistent view, and count it for the advisor."""

    async def read(self, work: Callable[[Connection], T], *, brief: bool = True) -> T:
        """Run ``work`` on a consistent view; ``brief`` says that it may hold the event loop for a moment."""

    async def cached(self, view: View[T], seconds: float) -> T:
        """Return a view's result, which is kept true for that long after it was read."""

    def watch(self, view: View[T]) -> AsyncGenerator[T, None]:
        """Yield a view's result, now and each time that it changes."""

    def subscribe(self, view: View[T], callback: Callable[[T], Any]) -> Subscription:
        """Call back with a view's result, now and each time that it changes."""
