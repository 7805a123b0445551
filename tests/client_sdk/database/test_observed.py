"""Each call to the database is told to who observes it: what it was, how long it took, whether it failed."""

from __future__ import annotations

import asyncio
import time

import pytest

from client_sdk.database.observed import Observed, observed

__all__: list[str] = []


class Subject:
    def __init__(self) -> None:
        self.told: list[tuple[Observed, float, bool]] = []

    def observe(self, what: Observed, seconds: float, failed: bool) -> None:
        self.told.append((what, seconds, failed))

    @observed("write")
    async def call(self, error: BaseException | None = None, *, waits: bool = False) -> str:
        """Do it."""
        if error is not None:
            raise error
        return "result"


async def test_a_call_is_told_with_its_duration_and_returns_its_result() -> None:
    subject, began = Subject(), time.perf_counter()
    assert await subject.call() == "result"
    ((what, seconds, failed),) = subject.told
    assert (what, failed) == ("write", False)
    assert 0 <= seconds <= time.perf_counter() - began


@pytest.mark.parametrize(("error", "failed"), [(ValueError(), True), (asyncio.CancelledError(), False)])
async def test_an_error_is_one_and_a_cancellation_none(error: BaseException, failed: bool) -> None:
    subject = Subject()
    with pytest.raises(type(error)):
        await subject.call(error)
    assert [told[2] for told in subject.told] == [failed]


async def test_a_call_that_waits_for_its_caller_is_a_transaction() -> None:
    subject = Subject()
    await subject.call(waits=True)
    assert subject.told[0][0] == "transaction"


def test_what_is_observed_keeps_its_name_and_docstring() -> None:
    assert (Subject.call.__name__, Subject.call.__doc__) == ("call", "Do it.")
