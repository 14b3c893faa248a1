"""What a stream's reset code means for the client: status, problem code, and whether another try is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from platformctl.wire import frames

if TYPE_CHECKING:
    from platformctl.routing.endpoint import Endpoint

# The request reached no backend: any method may be sent again.
RETRY_UNSENT: Final = frozenset(
    {frames.REFUSED, frames.CONNECT_FAILED, frames.CONNECT_TIMEOUT, frames.UNKNOWN_SERVICE, frames.OVERLOADED}
)
# It may have reached one: only an idempotent request may be sent again (RFC 9110 9.2.2).
RETRY_ELSEWHERE: Final = RETRY_UNSENT | {frames.TUNNEL_LOST, frames.BACKEND_CLOSED}

_SOON: Final = 1.0

_MEANING: Final[dict[int, tuple[int, str, str, float | None]]] = {
    frames.TUNNEL_LOST: (502, "tunnel-lost", "the tunnel to satellite {satellite} was lost before it answered", _SOON),
    frames.CONNECT_FAILED: (502, "backend-unreachable", "satellite {satellite} cannot connect to {service}", None),
    frames.CONNECT_TIMEOUT: (504, "backend-connect-timeout", "{service} on {satellite} did not accept in time", None),
    frames.RESPONSE_TIMEOUT: (504, "backend-timeout", "{service} on {satellite} did not answer in time", None),
    frames.IDLE_TIMEOUT: (504, "backend-timeout", "{service} on {satellite} went silent", None),
    frames.BACKEND_PROTOCOL: (502, "bad-backend-response", "{service} on {satellite} sent no valid response", None),
    frames.BACKEND_CLOSED: (502, "backend-failed", "{service} on {satellite} closed before it answered", None),
    frames.UNKNOWN_SERVICE: (503, "service-unhealthy", "{satellite} has just withdrawn {service}", _SOON),
    frames.REFUSED: (503, "overloaded", "satellite {satellite} takes no more streams", _SOON),
    frames.OVERLOADED: (503, "overloaded", "{service} on {satellite} has no free connection", _SOON),
}


def describe(code: int, endpoint: Endpoint | None) -> tuple[int, str, str, float | None]:
    """(status, problem code, detail, Retry-After seconds) for a stream that was reset before its response began."""
    status, problem, detail, retry_after = _MEANING.get(
        code, (502, "backend-failed", "{satellite} gave up on the request to {service}", None)
    )
    satellite = endpoint.satellite if endpoint is not None else "the satellite"
    service = endpoint.service if endpoint is not None else "the service"
    return status, problem, detail.format(satellite=satellite, service=service), retry_after
