"""The brake on token guessing, with time as an argument."""

from __future__ import annotations

import pytest

from platformctl.hub.guessing import GuessBrake


def test_failures_beyond_the_burst_wait() -> None:
    brake = GuessBrake(rate=0.5, burst=2)
    assert brake.wait("192.0.2.1", 0.0) == 0.0
    brake.failed("192.0.2.1", 0.0)
    assert brake.wait("192.0.2.1", 0.0) == 0.0
    brake.failed("192.0.2.1", 0.0)

    assert brake.wait("192.0.2.1", 0.0) == 2.0
    assert brake.wait("192.0.2.1", 2.0) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("", "", True),
    ],
)
def test_who_counts_as_one(one: str, other: str, together: bool) -> None:
    brake = GuessBrake(rate=1, burst=1)
    brake.failed(one, 0.0)

    assert (brake.wait(other, 0.0) > 0) is together


def test_only_so_many_addresses_are_remembered_and_the_latest_ones() -> None:
    brake = GuessBrake(rate=1, burst=1, capacity=2)
    brake.failed("192.0.2.1", 0.0)
    brake.failed("192.0.2.2", 0.0)
    brake.failed("192.0.2.1", 0.0)
    brake.failed("192.0.2.3", 0.0)

    assert brake.wait("192.0.2.1", 0.0) > 0
    assert brake.wait("192.0.2.2", 0.0) == 0.0
    assert brake.wait("192.0.2.3", 0.0) > 0
