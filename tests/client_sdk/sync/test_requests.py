"""Requests beside sync: each gets the answer to it, and what the server says unasked is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from client_sdk.errors import ServerRefused
from client_sdk.sync.errors import NotConnected, ServerMisbehaved
from client_sdk.sync.requests import Requests
from crdt import requests, wire

__all__: list[str] = []

PULL = requests.PullVectors("space", 0, "model", 7)


def sending(to: list[wire.FromDevice]) -> Callable[[wire.FromDevice], Awaitable[None]]:
    async def send(message: wire.FromDevice) -> None:
        to.append(message)

    return send


async def asked(beside: Requests, count: int) -> list[asyncio.Task[requests.Vectors]]:
    tasks = [asyncio.create_task(beside.ask(PULL, requests.Vectors)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_answers_find_their_requests_in_any_order() -> None:
    sent: list[wire.FromDevice] = []
    beside = Requests()
    beside.open(sending(sent))
    first, second = await asked(beside, 2)
    assert sent == [requests.PullVectors("space", n, "model", 7) for n in (1, 2)]
    for n in (2, 1, 1, 99):  # and what nobody asked for is dropped
        beside.answer(requests.Vectors(n, n * 10, 0, 0, []))
    assert [(await one).through for one in (first, second)] == [10, 20]


async def test_what_the_server_refuses_or_confuses_is_an_error() -> None:
    beside = Requests()
    beside.open(sending([]))
    first, second = await asked(beside, 2)
    beside.answer(requests.Refused(1, "too_large" * 50, "no" * 9_000))
    beside.answer(requests.Found(2, [], 0, 0))
    with pytest.raises(ServerRefused, match="too_large") as refused:
        await first
    assert len(str(refused.value)) < 1_000
    with pytest.raises(ServerMisbehaved, match="Found where Vectors"):
        await second


async def test_without_a_session_and_when_it_ends_there_is_no_answer() -> None:
    told: list[bool] = []
    beside = Requests()
    beside.listeners.append(told.append)
    with pytest.raises(NotConnected):
        await beside.ask(PULL, requests.Vectors)
    beside.open(sending([]))
    assert beside.is_open
    (waiting,) = await asked(beside, 1)
    beside.close()
    beside.close()
    with pytest.raises(NotConnected):
        await waiting
    assert told == [True, False]
    opened = asyncio.create_task(beside.opened())
    await asyncio.sleep(0)
    assert not opened.done()
    beside.open(sending([]))
    await opened


async def test_a_request_that_is_given_up_is_forgotten() -> None:
    beside = Requests()
    beside.open(sending([]))
    (waiting,) = await asked(beside, 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    beside.answer(requests.Vectors(1, 1, 0, 0, []))
    beside.close()
