"""The hybrid clock never runs backwards, follows what it sees, and is not carried off."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crdt.clock import COUNTER_BITS, WALL_MS_MAX, HybridClock, offset_to_server, reading_ms
from crdt.limits import CLOCK_DRIFT_MS_MAX
from crdt.values import encode_reading, reading_of

__all__: list[str] = []

NOW_MS = 1_790_000_000_000
anything = st.integers(-(2**70), 2**70)
# What a device does with its clock: it reads wall time, sees a reading, learns the server's offset.
steps = st.lists(st.tuples(st.sampled_from(["tick", "observe", "offset"]), anything, anything), max_size=30)


@given(steps)
def test_each_reading_is_later_than_every_one_before_it_whatever_the_wall_clock_says(
    taken: list[tuple[str, int, int]],
) -> None:
    clock = HybridClock()
    before = 0
    for step, number, now_ms in taken:
        if step == "tick":
            reading = clock.tick(now_ms)
            assert before < reading < 2**63
            assert reading_of(encode_reading(reading)) == reading
            before = reading
        elif step == "observe":
            clock.observe(number, now_ms)
            assert clock.last >= before
        else:
            clock.offset_ms = number


@given(st.integers(0, CLOCK_DRIFT_MS_MAX), st.integers(0, 2**COUNTER_BITS - 1))
def test_the_next_reading_is_later_than_one_that_was_seen(ahead_ms: int, count: int) -> None:
    seen = ((NOW_MS + ahead_ms) << COUNTER_BITS) + count
    clock = HybridClock()
    clock.observe(seen, NOW_MS)
    assert clock.tick(NOW_MS) > min(seen, (NOW_MS + CLOCK_DRIFT_MS_MAX) << COUNTER_BITS)


def test_a_reading_from_the_far_future_pulls_the_clock_no_further_than_the_drift() -> None:
    clock = HybridClock()
    clock.observe(2**64 - 1, NOW_MS)
    assert reading_ms(clock.last) == NOW_MS + CLOCK_DRIFT_MS_MAX
    clock.observe(5, NOW_MS)
    assert reading_ms(clock.tick(NOW_MS)) == NOW_MS + CLOCK_DRIFT_MS_MAX


def test_wall_time_is_corrected_by_the_offset_to_the_server() -> None:
    clock = HybridClock(offset_ms=5_000)
    assert reading_ms(clock.tick(NOW_MS)) == NOW_MS + 5_000
    clock.offset_ms = 2**70
    assert reading_ms(clock.tick(NOW_MS)) == WALL_MS_MAX


def test_a_clock_goes_on_where_it_was_kept() -> None:
    kept = HybridClock()
    last = kept.tick(NOW_MS)
    assert HybridClock(last=last).tick(NOW_MS - 60_000) == last + 1


def test_a_server_on_the_same_machine_is_not_ahead_however_long_the_question_took() -> None:
    assert offset_to_server(1_000, 900, 1_800) == 0
    assert offset_to_server(5_000, 900, 1_100) == 4_000
    assert offset_to_server(0, 900, 1_100) == -1_000
