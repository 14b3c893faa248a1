from __future__ import annotations

import random

import pytest

from platformctl.routing.addressing import SelectorTarget, ServiceTarget
from platformctl.routing.route import Denied, Route, route
from platformctl.routing.selector import EVERYTHING, parse_selector
from platformctl.routing.spec import ServiceSpec

JOINED = {"sat-1", "sat-2", "sat-9"}


@pytest.fixture
def ask(fleet):
    """Route a target at time 0 with repeatable randomness."""
    draw = random.Random(5).getrandbits

    def call(target, allowed=None):
        return route(fleet.registry, target, 0.0, draw, JOINED.__contains__, allowed)

    return call


def direct(satellite="sat-1", service="api", path="/x", prefix=""):
    return ServiceTarget(satellite, service, path, prefix)


def anywhere(selector=EVERYTHING, service="api"):
    return SelectorTarget(service, selector, "/x")


def test_a_named_service_is_routed_to_its_tunnel(fleet, ask):
    _, tunnel = fleet.up("sat-1", "api")
    endpoint = fleet.registry.endpoint("sat-1", "api")
    assert ask(direct(prefix="/s/sat-1/api")) == Route(endpoint, tunnel, "/x", "/s/sat-1/api", [])


def test_a_named_service_is_served_even_while_ejected(fleet, ask):
    fleet.up("sat-1", "api")
    endpoint = fleet.registry.endpoint("sat-1", "api")
    while not endpoint.health.failure(0.0):
        pass
    assert isinstance(ask(direct()), Route)


def test_a_selector_gives_one_endpoint_and_alternates(fleet, ask):
    for satellite in ("sat-1", "sat-2", "sat-3", "sat-4"):
        fleet.up(satellite, "api")
    found = ask(anywhere())
    assert isinstance(found, Route)
    assert found.tunnel is found.endpoint.tunnels[0]
    assert len({found.endpoint.key, *(one.key for one in found.alternates)}) == 3


def test_a_selector_narrows_the_choice(fleet, ask):
    fleet.up("sat-1", "api", labels={"region": "eu"})
    fleet.up("sat-2", "api", labels={"region": "us"})
    found = ask(anywhere(parse_selector("region=us")))
    assert (found.endpoint.key, found.alternates, found.path, found.prefix) == ("sat-2/api", [], "/x", "")


def test_what_the_caller_may_not_use_is_not_chosen(fleet, ask):
    fleet.up("sat-1", "api")
    fleet.up("sat-2", "api")
    found = ask(anywhere(), lambda endpoint: endpoint.satellite == "sat-2")
    assert (found.endpoint.key, found.alternates) == ("sat-2/api", [])
    assert isinstance(ask(direct("sat-2"), lambda endpoint: True), Route)


@pytest.mark.parametrize(
    ("target", "status", "code", "retried"),
    [
        (direct("sat-1", "db"), 404, "service-unknown", False),
        (direct("sat-3"), 404, "satellite-unknown", False),
        (direct("sat-9"), 503, "satellite-disconnected", True),
        (direct("sat-2"), 503, "satellite-starting", True),
        (direct("sat-1", "sick"), 503, "service-unhealthy", True),
        (direct("sat-1", "leaving"), 503, "satellite-draining", True),
        (anywhere(service="db"), 404, "service-unknown", False),
        (anywhere(parse_selector("region=mars")), 503, "selector-no-match", True),
        (anywhere(service="leaving"), 503, "satellite-draining", True),
    ],
)
def test_a_denial_says_why_and_what_to_do(fleet, ask, tunnel, target, status, code, retried):
    lease, _ = fleet.up("sat-1", "api", "sick")
    fleet.registry.deregister(lease, ["sick"], unhealthy=True)
    fleet.up("sat-1", "leaving", tunnel=tunnel(draining=True))
    fleet.registry.attach("sat-2", "i1", {}, tunnel())
    denied = ask(target)
    assert isinstance(denied, Denied)
    assert (denied.status, denied.code, denied.retry_after > 0) == (status, code, retried)
    assert denied.message
    assert denied.hint


def test_a_satellite_that_registered_nothing_has_started_nonetheless(fleet, ask):
    fleet.up("sat-1")
    assert ask(direct()).code == "service-unknown"


@pytest.mark.parametrize("target", [direct(), anywhere()])
def test_a_service_that_the_caller_may_not_use_is_denied(fleet, ask, target):
    fleet.up("sat-1", ServiceSpec("api"))
    denied = ask(target, lambda endpoint: False)
    assert (denied.status, denied.code) == (403, "access-denied")
