"""PING, round trips, and the end of a peer that does not answer; time is an argument."""

from __future__ import annotations

import pytest

from platformctl.wire import frames
from tests.unit.wire.pair import Pair, parse


def test_the_first_ping_goes_out_at_the_greeting_so_that_the_round_trip_is_known_early() -> None:
    pair = Pair()
    assert pair.hub.tick(pair.now)
    assert [frame[0] for frame in parse(pair.to_agent())] == ["PING"]
    pair.now += 0.04
    pair.to_hub()
    assert pair.hub_side.rtts == pytest.approx([0.04])
    assert pair.hub.rtt == pytest.approx(0.04)


def test_nothing_is_sent_before_the_greeting() -> None:
    pair = Pair(greeted=False)
    assert pair.hub.tick(pair.now + 100)
    assert pair.agent.tick(pair.now + 100)
    assert pair.hub.data_to_send() == pair.agent.data_to_send() == []


def test_the_round_trip_is_smoothed() -> None:
    pair = Pair()
    for sample in (0.08, 0.16):
        pair.hub.tick(pair.now)
        pair.to_agent()
        pair.now += sample
        pair.to_hub()
        pair.now += 5
    assert pair.hub_side.rtts == pytest.approx([0.08, 0.16])
    assert pair.hub.rtt == pytest.approx(0.08 + 0.08 / 8)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_an_answer_to_another_ping_says_nothing(number: int) -> None:
    pair = Pair()
    pair.hub.tick(pair.now)
    pair.hub.tick(pair.now + 5)
    pair.hub.receive(frames.frame(frames.PONG, 0, 0, number.to_bytes(8, "big")), pair.now + 6)
    assert pair.hub_side.rtts == []


def test_a_second_answer_says_nothing() -> None:
    pair = Pair()
    pair.hub.tick(pair.now)
    pong = frames.frame(frames.PONG, 0, 0, (1).to_bytes(8, "big"))
    pair.hub.receive(pong * 2, pair.now + 1)
    assert pair.hub_side.rtts == [1]


@pytest.mark.parametrize("last_word", [160.01, 162.5, 164.99, 165.01])
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.99])
def test_a_peer_that_falls_silent_is_found_in_less_than_three_intervals(last_word: float, phase: float) -> None:
    pair = Pair()
    pair.now = 100.0 + phase
    while pair.hub.tick(pair.now):
        pair.to_agent()
        if pair.now < last_word:
            pair.to_hub()
        pair.now += 1.0
        if pair.now - 1.0 < last_word <= pair.now:
            pair.hub.receive(frames.frame(frames.PING, 0, 0, bytes(8)), last_word)
    assert 1.6 * pair.hub.ping_interval < pair.now - last_word < 3 * pair.hub.ping_interval


def test_a_peer_that_sends_anything_is_alive() -> None:
    pair = Pair()
    for second in range(100):
        pair.hub.receive(frames.frame(frames.WINDOW, 0, 0, frames.U32.pack(1)), pair.now + second)
        assert pair.hub.tick(pair.now + second + 0.5)


def test_a_process_that_stood_still_does_not_blame_its_peer() -> None:
    pair = Pair()
    pair.hub.tick(pair.now)
    pair.settle()
    pair.now += 3600
    assert pair.hub.tick(pair.now)
    assert pair.hub.tick(pair.now + 1)
    pair.settle()
    assert pair.hub.tick(pair.now + 6)


def test_pings_keep_to_their_plan_when_ticks_are_late() -> None:
    pair = Pair(ping_interval=5.0)
    sent = []
    for tick in range(40):
        pair.now = 100.0 + tick * 0.9
        pair.hub.tick(pair.now)
        if any(frame[0] == "PING" for frame in parse(pair.to_agent())):
            sent.append(pair.now)
        pair.to_hub()
    assert len(sent) == 8
    assert all(at - 100.0 - 5.0 * i < 0.9 for i, at in enumerate(sent))
