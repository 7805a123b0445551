"""How long the database's calls take and whether they fail, told to who observes them.

Measured from the caller's side: waiting for the writer, or for a reader that is free, is part of it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeAlias, TypeVar, cast

__all__ = ["Observe", "Observed", "observed"]

Observed: TypeAlias = Literal["read", "write", "transaction"]
"""What was called. A "transaction" is a block that waits for its caller (``waits``): its time is the caller's too."""

Observe: TypeAlias = Callable[[Observed, float, bool], None]
"""What was called, the seconds it took, and whether it raised (a cancellation does not count as that)."""

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])


def observed(kind: Observed) -> Callable[[F], F]:
    """Have a coroutine method tell its object's ``observe`` of each call."""

    def decorate(method: F) -> F:
        @functools.wraps(method)
        async def timed(self: Any, *arguments: Any, **options: Any) -> Any:
            called: Observed = "transaction" if options.get("waits") else kind
            began = time.perf_counter()
            failed = True
            try:
                result = await method(self, *arguments, **options)
                failed = False
                return result
            except asyncio.CancelledError:
                failed = False
                raise
            finally:
                self.observe(called, time.perf_counter() - began, failed)

        return cast("F", timed)

    return decorate
