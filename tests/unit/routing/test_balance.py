from __future__ import annotations

import random

import pytest

from platformctl.routing.balance import candidates, choose, is_idempotent


@pytest.fixture
def three(fleet):
    """Endpoints of sat-0, sat-1, sat-2 with 0, 10 and 20 exchanges in flight."""
    for number in range(3):
        fleet.up(f"sat-{number}", "api")
    endpoints = fleet.registry.endpoints("api")
    for number, endpoint in enumerate(endpoints):
        endpoint.inflight = 10 * number
    return endpoints


def eject(endpoint, now: float = 0.0) -> None:
    while not endpoint.health.failure(now):
        pass


def names(endpoints):
    return [endpoint.satellite for endpoint in endpoints]


def test_none_of_none(bits):
    assert choose([], 0.0, bits([])) is None
    assert candidates([], 0.0, bits([])) == []


def test_the_only_one_needs_no_randomness(three, bits):
    assert choose(three[:1], 0.0, bits([])) is three[0]


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [((0, 0), 0), ((1, 0), 0), ((1, 1), 1), ((2, 1), 1), ((2, 0), 0), ((5, 7), 1)],
)
def test_the_less_busy_of_two_different_ones_is_chosen(three, bits, drawn, expected):
    assert choose(three, 0.0, bits(list(drawn))) is three[expected]


def test_equals_are_decided_by_the_draw(three, bits):
    for endpoint in three:
        endpoint.inflight = 4
    assert choose(three, 0.0, bits([1, 1])) is three[1]
    assert choose(three, 0.0, bits([2, 1])) is three[2]


def test_load_spreads_evenly_over_equals(three):
    draw = random.Random(7).getrandbits
    for endpoint in three:
        endpoint.inflight = 0
    for _ in range(900):
        choose(three, 0.0, draw).inflight += 1
    assert all(295 <= endpoint.inflight <= 305 for endpoint in three)


def test_an_ejected_endpoint_is_skipped_until_it_returns(three):
    draw = random.Random(1).getrandbits
    eject(three[0])
    assert all(choose(three, 0.0, draw) is not three[0] for _ in range(50))
    back = three[0].health.ejected_until
    assert any(choose(three, back, draw) is three[0] for _ in range(50))


def test_when_all_are_ejected_all_take_part(three):
    draw = random.Random(1).getrandbits
    for endpoint in three:
        eject(endpoint)
    assert {choose(three, 0.0, draw).satellite for _ in range(50)} == {"sat-0", "sat-1"}


def test_an_endpoint_whose_tunnels_drain_is_skipped(three):
    draw = random.Random(1).getrandbits
    three[0].tunnels[0].draining = True
    assert all(choose(three, 0.0, draw) is not three[0] for _ in range(50))
    for endpoint in three:
        endpoint.tunnels[0].draining = True
    assert choose(three, 0.0, draw) is None


def test_candidates_are_all_different_and_bounded(three):
    draw = random.Random(3).getrandbits
    assert sorted(names(candidates(three, 0.0, draw))) == ["sat-0", "sat-1", "sat-2"]
    assert len(candidates(three, 0.0, draw, limit=2)) == 2


def test_candidates_put_ejected_ones_last(three):
    draw = random.Random(3).getrandbits
    eject(three[0])
    for _ in range(20):
        assert names(candidates(three, 0.0, draw))[-1] == "sat-0"


def test_candidates_do_not_change_the_callers_list(three):
    before = list(three)
    candidates(three, 0.0, random.Random(3).getrandbits)
    assert three == before


def test_idempotent_methods_are_those_of_rfc_9110():
    assert all(is_idempotent(method) for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
    assert not any(is_idempotent(method) for method in ("POST", "PATCH", "CONNECT", "get", ""))
