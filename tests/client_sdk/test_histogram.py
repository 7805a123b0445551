"""A histogram's percentiles are right to within two percent, in room that does not grow with what is counted."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from client_sdk.histogram import Histogram, SlidingHistogram

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


def test_it_stays_small() -> None:
    histogram = Histogram()
    for n in range(20_000):
        histogram.add(1e-9 * 1.003**n)
    assert len(histogram._buckets) < 530


def test_an_empty_one_says_nothing_took_any_time() -> None:
    assert Histogram().quantile(0.99) == 0


@given(DURATIONS, DURATIONS, st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_merged_they_are_as_if_one_had_counted_all(
    some: list[float], others: list[float], share: float
) -> None:
    whole, merged, other = Histogram(), Histogram(), Histogram()
    for seconds in some:
        whole.add(seconds)
        merged.add(seconds)
    for seconds in others:
        whole.add(seconds)
        other.add(seconds)
    merged.merge(other)
    assert merged.quantile(share) == whole.quantile(share)
    assert (merged.count, merged.largest) == (whole.count, whole.largest)


@given(st.lists(st.floats(0.0, 90.0), min_size=1, max_size=60), st.floats(0.0, 400.0))
def test_a_sliding_one_holds_what_is_young_and_nothing_that_is_old(steps: list[float], later: float) -> None:
    """Durations are told by their size: the n-th is n seconds."""
    sliding, now, times = SlidingHistogram(100.0), 0.0, []
    for number, step in enumerate(steps, 1):
        now += step
        times.append(now)
        sliding.add(float(number), now)
    now += later
    young = sum(now - time < 80.0 for time in times)
    not_old = sum(now - time <= 100.0 for time in times)
    recent = sliding.recent(now)
    assert young <= recent.count <= not_old
    assert recent.largest == (len(steps) if recent.count else 0.0)


def test_a_sliding_one_stays_small() -> None:
    sliding = SlidingHistogram(10.0)
    for second in range(1_000):
        sliding.add(1.0, float(second))
    assert len(sliding._parts) == 5
