from __future__ import annotations

import pytest

from platformctl.hub.failures import RETRY_ELSEWHERE, RETRY_UNSENT, describe
from platformctl.net.problem_table import PROBLEMS
from platformctl.routing.endpoint import Endpoint
from platformctl.routing.spec import ServiceSpec
from platformctl.wire import frames

CODES = {
    "REFUSED": (503, "overloaded"),
    "CONNECT_FAILED": (502, "backend-unreachable"),
    "CONNECT_TIMEOUT": (504, "backend-connect-timeout"),
    "RESPONSE_TIMEOUT": (504, "backend-timeout"),
    "IDLE_TIMEOUT": (504, "backend-timeout"),
    "BACKEND_PROTOCOL": (502, "bad-backend-response"),
    "BACKEND_CLOSED": (502, "backend-failed"),
    "TUNNEL_LOST": (502, "tunnel-lost"),
    "UNKNOWN_SERVICE": (503, "service-unhealthy"),
    "OVERLOADED": (503, "overloaded"),
    "CANCELLED": (502, "backend-failed"),
}


@pytest.mark.parametrize("name", CODES)
def test_each_reset_has_its_problem_and_the_status_of_the_table(name: str) -> None:
    endpoint = Endpoint("sat-1", ServiceSpec("web"), {})
    status, code, detail, retry_after = describe(getattr(frames, name), endpoint)
    assert (status, code) == CODES[name]
    assert PROBLEMS[code].status == status
    assert "sat-1" in detail
    assert "{" not in detail
    assert (retry_after is not None) == (status == 503 or name == "TUNNEL_LOST")


def test_a_code_that_nobody_knows_is_a_502() -> None:
    assert describe(4_000_000_000, None)[:2] == (502, "backend-failed")


def test_only_what_reached_no_backend_is_safe_for_every_method() -> None:
    assert frames.BACKEND_CLOSED not in RETRY_UNSENT
    assert frames.TUNNEL_LOST not in RETRY_UNSENT
    assert RETRY_UNSENT < RETRY_ELSEWHERE
    assert frames.RESPONSE_TIMEOUT not in RETRY_ELSEWHERE
    assert frames.BACKEND_PROTOCOL not in RETRY_ELSEWHERE
