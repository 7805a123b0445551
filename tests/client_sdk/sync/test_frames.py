"""Small frames are coded at once, large ones in a thread, and both come out the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from client_sdk.sync import frames
from crdt import wire
from crdt.errors import MalformedFrame
from tests.client_sdk.sync.model import SPACE

NOISE = Random(1).randbytes(2 * 1024 * 1024)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each coding happened on the event loop's thread."""
    here, seen = threading.get_ident(), list[bool]()

    def watched(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(argument: Any) -> Any:
            seen.append(threading.get_ident() == here)
            return function(argument)

        return call

    for name in ("encode", "decode_from_server"):
        monkeypatch.setattr(wire, name, watched(getattr(wire, name)))
    return seen


@pytest.mark.parametrize(("size", "is_here"), [(100_000, True), (2 * 1024 * 1024, False)])
async def test_a_push_is_encoded_where_it_holds_up_nobody(
    size: int, is_here: bool, threads: list[bool]
) -> None:
    push = wire.Push(SPACE, 1, 2, 3, [wire.Edit("notes", "r1", NOISE[:size])])
    assert wire.decode_from_device(await frames.encode(push)) == push
    assert threads == [is_here]


@pytest.mark.parametrize(("size", "is_here"), [(100_000, True), (2 * 1024 * 1024, False)])
async def test_a_page_is_decoded_where_it_holds_up_nobody(
    size: int, is_here: bool, threads: list[bool]
) -> None:
    page = wire.Page(SPACE, 0, 1, 1, [wire.Entry(1, "notes", "r1", 9, NOISE[:size])])
    frame = wire.encode(page)
    threads.clear()
    assert await frames.decode(frame) == page
    assert threads == [is_here]


async def test_what_is_small_on_the_way_and_large_here_is_decoded_elsewhere(threads: list[bool]) -> None:
    page = wire.Page(SPACE, 0, 1, 1, [wire.Entry(1, "notes", "r1", 9, bytes(4 * 1024 * 1024))])
    frame = wire.encode(page)
    assert len(frame) < 10_000
    threads.clear()
    assert await frames.decode(frame) == page
    assert threads == [False]


@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_what_is_no_message_raises_the_same_from_both(size: int) -> None:
    with pytest.raises(MalformedFrame):
        await frames.decode(b"\x00" + NOISE[:size])
