from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platformctl.access.limits import TokenBucket
from platformctl.errors import LocalMisuse


def test_a_bucket_starts_full_and_refills_at_its_rate() -> None:
    bucket = TokenBucket(rate=2, burst=3, now=100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait(100.0) == 0.5
    assert bucket.take(100.5)
    assert not bucket.take(100.5)
    assert bucket.wait(1000.0) == 0.0


def test_a_clock_that_steps_back_refills_nothing_and_stops_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1, now=1000.0)
    assert bucket.take(1000.0)
    assert not bucket.take(10.0)
    assert bucket.take(11.0)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200), st.floats(0.5, 20), st.integers(1, 10))
def test_never_more_than_burst_plus_rate_times_time(gaps: list[float], rate: float, burst: int) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now, taken = 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now)
    assert taken <= burst + rate * now + 1e-6


@given(st.floats(0.5, 20), st.integers(1, 10), st.floats(0, 30))
def test_waiting_as_long_as_told_is_enough(rate: float, burst: int, later: float) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    while bucket.take(0.0):
        pass
    at = later + bucket.wait(later)
    assert bucket.wait(at) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0.5)])
def test_a_bucket_that_never_gives_is_our_own_bug(rate: float, burst: float) -> None:
    with pytest.raises(LocalMisuse):
        TokenBucket(rate, burst, 0.0)


def test_waiting_for_more_than_the_burst_is_our_own_bug() -> None:
    with pytest.raises(LocalMisuse, match="never fits"):
        TokenBucket(1, 1, 0.0).wait(0.0, 2)
