"""What the kernel's tests share."""

from __future__ import annotations

import random

import pytest

from tests.crdt.histories import History

__all__ = ["history"]


@pytest.fixture(scope="session")
def history() -> History:
    """One middling history of three devices, the same in every run."""
    return History.random(random.Random(7), devices=3, steps=30)
