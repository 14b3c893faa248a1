"""`route()`: a target and the registry in, the endpoint and tunnel out, or a denial that says why and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from platformctl.routing.addressing import SelectorTarget, ServiceTarget
from platformctl.routing.balance import candidates
from platformctl.routing.endpoint import Endpoint, Tunnel
from platformctl.routing.registry import Registry

__all__ = ["ATTEMPTS", "Denied", "Route", "route"]

ATTEMPTS: Final = 3  # endpoints that one idempotent request may be sent to
_RETRY_SOON: Final = 1  # seconds: a drain or a start is about to end
_RETRY_RECONNECT: Final = 5  # seconds: about what an agent's first reconnects take


@dataclass(slots=True)
class Route:
    """Open the stream on `tunnel`. `alternates` may be tried in this order when an idempotent request fails before
    its response."""

    endpoint: Endpoint
    tunnel: Tunnel
    path: str
    prefix: str = ""
    alternates: list[Endpoint] = field(default_factory=list)


@dataclass(slots=True)
class Denied:
    """No route. `status` and `code` are for the problem answer; `retry_after` in seconds, 0 for no such header.

    Codes: service-unknown, satellite-unknown (404); satellite-disconnected, satellite-starting, satellite-draining,
    service-unhealthy, selector-no-match (503); access-denied (403).
    """

    status: int
    code: str
    message: str
    hint: str = ""
    retry_after: int = 0


def route(
    registry: Registry,
    target: ServiceTarget | SelectorTarget,
    now: float,
    bits: Callable[[int], int],
    known: Callable[[str], bool],
    allowed: Callable[[Endpoint], bool] | None = None,
) -> Route | Denied:
    """Who serves this.

    `bits(k)` gives k random bits; `known(satellite)` says whether a satellite has joined, connected or not;
    `allowed(endpoint)` limits a selector's choice to what the caller may use. A named service is the caller's only
    choice, so its ejection is ignored.
    """
    if isinstance(target, SelectorTarget):
        return _any(registry, target, now, bits, allowed)
    endpoint = registry.endpoint(target.satellite, target.service)
    if endpoint is None:
        return _absent(registry, target, known)
    if allowed is not None and not allowed(endpoint):
        return _forbidden(target.service)
    tunnel = endpoint.pick(now)
    if tunnel is None:
        return _draining(target.service)
    return Route(endpoint, tunnel, target.path, target.prefix)


def _any(
    registry: Registry,
    target: SelectorTarget,
    now: float,
    bits: Callable[[int], int],
    allowed: Callable[[Endpoint], bool] | None,
) -> Route | Denied:
    matching = registry.endpoints(target.service, target.selector)
    if not matching:
        return _unmatched(registry, target)
    usable = matching if allowed is None else [one for one in matching if allowed(one)]
    if not usable:
        return _forbidden(target.service)
    ordered = candidates(usable, now, bits, ATTEMPTS)
    tunnel = ordered[0].pick(now) if ordered else None
    if tunnel is None:
        return _draining(target.service)
    return Route(ordered[0], tunnel, target.path, "", ordered[1:])


def _absent(registry: Registry, target: ServiceTarget, known: Callable[[str], bool]) -> Denied:
    satellite, service = target.satellite, target.service
    record = registry.satellite(satellite)
    if record is None:
        if known(satellite):
            return Denied(
                503,
                "satellite-disconnected",
                f"satellite {satellite} is not connected to this hub replica",
                "see `platformctl satellites`; check that its agent runs and can reach the hub",
                _RETRY_RECONNECT,
            )
        return Denied(
            404, "satellite-unknown", f"there is no satellite {satellite}", "see `platformctl satellites` for the names"
        )
    if service in record.unhealthy:
        return Denied(
            503,
            "service-unhealthy",
            f"service {service} of satellite {satellite} fails its health check",
            "check the backend; the service returns by itself once it is healthy",
            _RETRY_RECONNECT,
        )
    if not record.registered:
        return Denied(
            503,
            "satellite-starting",
            f"satellite {satellite} has connected but not yet registered",
            "try again",
            _RETRY_SOON,
        )
    return Denied(
        404,
        "service-unknown",
        f"satellite {satellite} exports no service {service}",
        f"see `platformctl services`, or add it: `platformctl export add {service} --satellite {satellite} --to URL`",
    )


def _unmatched(registry: Registry, target: SelectorTarget) -> Denied:
    if not registry.endpoints(target.service):
        return Denied(
            404,
            "service-unknown",
            f"no connected satellite exports a service {target.service}",
            "see `platformctl services` for the names",
        )
    return Denied(
        503,
        "selector-no-match",
        f"no connected satellite that exports {target.service} matches the selector",
        "see `platformctl satellites -o wide` for the labels",
        _RETRY_RECONNECT,
    )


def _draining(service: str) -> Denied:
    return Denied(503, "satellite-draining", f"every tunnel to service {service} is draining", "try again", _RETRY_SOON)


def _forbidden(service: str) -> Denied:
    return Denied(
        403, "access-denied", f"this identity may not use service {service}", "ask for an access policy that allows it"
    )
