"""What queries run on: reads that are counted, results that are kept, and views that are kept true."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from client_sdk.cache import ResultCache
from client_sdk.database import Connection
from client_sdk.meaning.meaning import Meaning
from client_sdk.plan import Plan
from client_sdk.source import Space
from client_sdk.views import View
from client_sdk.watch import CallbackSubscription, Watches
from client_sdk.workload import Workload
from client_sdk.writer import Writer

__all__ = ["Reading"]

T = TypeVar("T")


class Reading:
    """The device's side of `client_sdk.source.Source`."""

    def __init__(
        self,
        writer: Writer,
        watches: Watches,
        workload: Workload,
        cache: ResultCache,
        meaning: Meaning | None,
        space: Space,
    ) -> None:
        self.meaning = meaning
        self.space = space
        self._writer = writer
        self._watches = watches
        self._workload = workload
        self._cache = cache

    async def ask(self, plan: Plan, work: Callable[[Connection], T]) -> T:
        """Run a query's ``work`` on a consistent view, and count it."""
        began = time.perf_counter()
        result = await self._writer.read(work, brief=True, collection=plan.table.name)
        returned = len(result) if isinstance(result, list) else 1
        self._workload.ran(plan, time.perf_counter() - began, returned)
        return result

    async def read(self, work: Callable[[Connection], T], *, brief: bool = True) -> T:
        """Run ``work`` on a consistent view; ``brief`` says that it may hold the event loop for a moment."""
        return await self._writer.read(work, brief=brief)

    async def cached(self, view: View[T], seconds: float) -> T:
        """Return a view's result, kept for ``seconds``. Inside a transaction it is read, and sees its own writes."""
        if self._writer.is_in_transaction:
            view.load(await self._writer.read(view.work))
            return view.result()
        return await self._cache.get(view, seconds)

    def watch(self, view: View[T]) -> AsyncGenerator[T, None]:
        """Yield a view's result, now and each time that it changes."""
        return self._watches.watch(view)

    def subscribe(self, view: View[T], callback: Callable[[T], Any]) -> CallbackSubscription:
        """Call back with a view's result, now and each time that it changes."""
        return self._watches.subscribe(view, callback)
