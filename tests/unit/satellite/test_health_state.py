"""Thresholds, as a table of results."""

from __future__ import annotations

import pytest

from platformctl.satellite.health_state import HealthState


def walk(results: str, healthy: int, unhealthy: int) -> str:
    """`results`: + and -; the state after each: U for up, d for down."""
    state = HealthState(healthy, unhealthy)
    out = ""
    for result in results:
        state.record("" if result == "+" else "refused")
        out += "U" if state.healthy else "d"
    return out


@pytest.mark.parametrize(
    ("results", "healthy", "unhealthy", "states"),
    [
        ("+", 3, 3, "U"),
        ("-", 3, 3, "d"),
        ("+---", 2, 3, "UUUd"),
        ("+--+--+", 2, 3, "UUUUUUU"),
        ("-++", 2, 3, "ddU"),
        ("-+-+-", 2, 3, "ddddd"),
        ("+-+-", 1, 1, "UdUd"),
        ("+---++---", 2, 3, "UUUddUUUd"),
    ],
)
def test_thresholds(results: str, healthy: int, unhealthy: int, states: str) -> None:
    assert walk(results, healthy, unhealthy) == states


def test_only_a_change_is_reported() -> None:
    state = HealthState(2, 2)

    assert [state.record(r) for r in ("", "", "x", "x", "x", "", "")] == [True, False, False, True, False, False, True]


def test_the_reason_is_that_of_the_last_failure_and_gone_when_healthy() -> None:
    state = HealthState(2, 2)
    assert state.healthy is None
    state.record("first")
    state.record("second")
    assert state.reason == "second"
    state.record()
    assert state.reason == "second"
    state.record()
    assert state.reason == ""
    state.record("once")
    state.record()
    assert state.healthy is True
    assert state.reason == ""
