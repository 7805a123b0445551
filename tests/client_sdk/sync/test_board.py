"""One instance at a time has the board; what it posts the others read, and nobody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from client_sdk.sync.board import Board, Posted

__all__: list[str] = []

KEY = bytes(range(32))
POSTED = Posted(7, "synced", 40, 41, True, "the server at example.org said no", -3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def board(path: Path, key: bytes = KEY) -> Board:
    return Board(path, key, os.urandom)


def test_one_at_a_time_has_it_and_the_next_when_that_one_leaves_or_ends(path: Path) -> None:
    first, second, third = board(path), board(path), board(path)
    assert first.take()
    assert not second.take()
    first.leave()
    assert second.take()
    assert not first.take()
    second.close()
    second.close()
    assert third.take()


def test_what_is_posted_is_read_by_the_others_until_its_writer_leaves(path: Path) -> None:
    first, second = board(path), board(path)
    assert second.read() is None
    assert first.take()
    first.post(POSTED)
    assert second.read() == second.read() == POSTED
    shorter = Posted(8, "offline", 0, 0, None, "", 0)
    first.post(shorter)
    assert second.read() == shorter
    first.leave()
    assert second.read() is None


def test_what_a_dead_writer_posted_is_cleared_and_a_living_ones_is_not(path: Path) -> None:
    first, second = board(path), board(path)
    assert first.take()
    first.post(POSTED)
    second.clear()
    assert second.read() == POSTED
    first.close()  # as the system does when its process dies
    assert second.read() == POSTED
    second.clear()
    assert second.read() is None


def test_half_of_a_posting_is_not_read_and_the_last_whole_one_stands(path: Path) -> None:
    first, second = board(path), board(path)
    assert first.take()
    first.post(POSTED)
    assert second.read() == POSTED
    beside = path.with_name("a.db.sync")
    whole = beside.read_bytes()
    for broken in (
        whole[:-1],
        whole[:5],
        bytes(len(whole)),
        whole[:20] + bytes([whole[20] ^ 1]) + whole[21:],
    ):
        beside.write_bytes(broken)
        assert second.read() == POSTED
    assert board(path).read() is None


def test_the_disk_gives_nothing_away_of_what_is_posted(path: Path) -> None:
    first = board(path)
    assert first.take()
    first.post(POSTED)
    content = path.with_name("a.db.sync").read_bytes()
    assert b"example" not in content
    assert b"synced" not in content
    assert board(path, bytes(32)).read() is None, "another key opens nothing"
