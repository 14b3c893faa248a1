"""Percentiles and rates of an open loop, and what counts as a herd: arithmetic that nobody looks at again."""

from __future__ import annotations

import pytest

from tests.bench.fleet import Event, busiest, complete_at, per_second
from tests.bench.latency import Sample, summary


def _steady(rate: int, seconds: int, latency: float = 0.001) -> list[Sample]:
    return [Sample(100 + n / rate, latency, 200) for n in range(rate * seconds)]


def test_the_ramp_is_not_counted() -> None:
    samples = _steady(100, 5)
    samples[:100] = [Sample(one.sent, 2.0, 0) for one in samples[:100]]
    result = summary(samples, ramp=1, rate=100)
    assert result is not None
    assert (result.requests, result.errors) == (400, 0)
    assert result.max_ms == pytest.approx(1.0)


def test_the_rate_is_what_was_sent_not_what_was_asked_for() -> None:
    result = summary(_steady(50, 4), ramp=0, rate=100)
    assert result is not None
    assert result.per_second == pytest.approx(50, rel=0.01)


def test_a_request_that_left_late_has_waited() -> None:
    # 50 a second; the first one held all others up for two seconds.
    held_up = [Sample(0, 2.0, 200), *(Sample(2.0, 0.001, 200) for _ in range(99))]
    result = summary(held_up, ramp=0, rate=50)
    assert result is not None
    assert result.max_ms == pytest.approx(2000)
    assert result.p50_ms == pytest.approx(1021)  # due after 0.98 s, sent after 2 s


def test_percentiles_are_samples_that_happened() -> None:
    samples = [Sample(n / 100, n / 1000, 200) for n in range(100)]
    result = summary(samples[::-1], ramp=0, rate=100)
    assert result is not None
    assert (result.p50_ms, result.p99_ms, result.max_ms) == pytest.approx((50, 99, 99))


def test_every_answer_but_200_is_an_error() -> None:
    result = summary([Sample(0, 0.1, status) for status in (200, 503, 0, 204)], ramp=0, rate=1)
    assert result is not None
    assert result.errors == 3


def test_nothing_sent_is_no_result() -> None:
    assert summary([], ramp=1, rate=1) is None


def _ups(*times: float) -> list[Event]:
    return [Event(at, "up", f"s{number}", "hub-1") for number, at in enumerate(times)]


def test_the_busiest_stretch_may_begin_anywhere() -> None:
    events = _ups(0.0, 0.75, 1.0, 1.25, 1.5, 3.0)
    assert busiest(events, "up") == 4
    assert busiest(events, "up", 0.5) == 2
    assert busiest(events, "dial") == 0


def test_events_are_counted_second_by_second_with_the_empty_ones() -> None:
    assert per_second(_ups(9.0, 10.1, 10.9, 12.5), "up", 10.0) == [2, 0, 1]
    assert per_second([], "up", 10.0) == []


def test_a_fleet_is_complete_when_every_satellite_has_a_tunnel_to_every_replica() -> None:
    twice = [Event(1.0, "up", "s0", "hub-1"), Event(2.0, "up", "s0", "hub-1"), Event(3.0, "up", "s0", "hub-2")]
    assert complete_at(twice, 2) == 3.0
    assert complete_at(twice[:2], 2) is None
