"""Reconnect delays. Time and randomness are arguments: nothing here waits."""

from __future__ import annotations

import random

import pytest

from platformctl.net.backoff import Backoff


def highest(**more: float) -> Backoff:
    """As if chance always chose the end of the window."""
    return Backoff(lambda: 1.0, **more)


def test_the_window_doubles_up_to_the_cap() -> None:
    backoff = highest(base=0.5, cap=5.0)

    assert [backoff.next_delay() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_the_delay_is_anywhere_in_the_window() -> None:
    delays = []
    chance = random.Random(7)
    for _ in range(2000):
        backoff = Backoff(chance.random, base=8.0)
        delays.append(backoff.next_delay())

    assert 0 <= min(delays) < 0.1
    assert 7.9 < max(delays) < 8.0
    assert sum(delays) / len(delays) == pytest.approx(4.0, abs=0.2)


def test_a_million_failures_do_not_overflow() -> None:
    backoff = highest(cap=30.0)
    backoff.attempts = 1_000_000

    assert backoff.next_delay() == 30.0


def test_a_tunnel_that_drops_at_once_does_not_reset_the_count() -> None:
    backoff = highest(base=1.0, healthy_after=30.0)
    backoff.next_delay()
    backoff.next_delay()
    backoff.connected(100.0)
    backoff.disconnected(129.9)

    assert backoff.next_delay() == 4.0


def test_a_tunnel_that_was_healthy_for_a_while_resets_it() -> None:
    backoff = highest(base=1.0, healthy_after=30.0)
    backoff.next_delay()
    backoff.next_delay()
    backoff.connected(100.0)
    backoff.disconnected(130.0)

    assert backoff.next_delay() == 1.0


def test_a_failed_attempt_does_not_count_the_uptime_of_an_earlier_tunnel() -> None:
    backoff = highest(base=1.0, healthy_after=30.0)
    backoff.connected(0.0)
    backoff.disconnected(1.0)
    backoff.next_delay()
    backoff.disconnected(1000.0)

    assert backoff.next_delay() == 2.0


def test_what_the_server_asked_for_is_the_least_and_holds_once() -> None:
    backoff = Backoff(lambda: 0.0, base=1.0)
    backoff.retry_after(12.0)

    assert backoff.next_delay() == 12.0
    assert backoff.next_delay() == 0.0


def test_those_who_were_told_the_same_second_do_not_meet_in_it() -> None:
    backoff = highest(base=1.0)
    backoff.retry_after(12.0)

    assert backoff.next_delay() == 13.0


@pytest.mark.parametrize(("asked", "obeyed"), [(-5.0, 0.0), (1e9, 300.0)])
def test_an_absurd_retry_after_is_bounded(asked: float, obeyed: float) -> None:
    backoff = Backoff(lambda: 0.0)
    backoff.retry_after(asked)

    assert backoff.next_delay() == obeyed
