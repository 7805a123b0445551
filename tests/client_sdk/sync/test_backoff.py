"""Waits between two attempts: doubling, jittered, bounded."""

from __future__ import annotations

from itertools import islice

import pytest

from client_sdk.sync.backoff import delays

__all__: list[str] = []


@pytest.mark.parametrize(("chance", "lowest", "highest"), [(0.0, 0.1, 15.0), (0.999_999, 0.2, 30.0)])
def test_the_backoff_doubles_between_its_bounds(chance: float, lowest: float, highest: float) -> None:
    waits = list(islice(delays(lambda: chance), 20))
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(lowest, rel=1e-3)
    assert waits[-1] == pytest.approx(highest, rel=1e-3)
    assert min(waits) >= 0.1
    assert max(waits) <= 30
