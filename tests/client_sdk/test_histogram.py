"""A histogram's percentiles are right to within two percent, in room that does not grow with what is counted."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from client_sdk.histogram import Histogram

__all__: list[str] = []

DURATIONS = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200)


@given(DURATIONS, st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_two_percent_of_the_true_one(durations: list[float], share: float) -> None:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    true = sorted(durations)[math.floor(share * (len(durations) - 1))]
    assert math.isclose(histogram.quantile(share), true, rel_tol=0.020_01)
    assert histogram.count == len(durations)
    assert histogram.largest == max(durations)
    assert math.isclose(histogram.total, sum(durations))


def test_it_stays_small() -> None:
    histogram = Histogram()
    for n in range(20_000):
        histogram.add(1e-9 * 1.003**n)
    assert len(histogram._buckets) < 530


def test_an_empty_one_says_nothing_took_any_time() -> None:
    assert Histogram().quantile(0.99) == 0
