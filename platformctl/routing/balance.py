"""Choosing one of several endpoints: the less busy of two random ones, and who is next when that one fails.

"Power of two choices" (Mitzenmacher 2001) needs no shared state and does not herd, which plain least-loaded does when
several replicas look at the same figures. Ejected endpoints are left out, unless that would leave none: then all take
part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from platformctl.routing.endpoint import Endpoint

__all__ = ["IDEMPOTENT", "candidates", "choose", "is_idempotent"]

IDEMPOTENT: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))  # RFC 9110 section 9.2.2


def is_idempotent(method: str) -> bool:
    """Whether the request may be sent a second time elsewhere after it may have arrived. Methods are case-sensitive."""
    return method in IDEMPOTENT


def choose(endpoints: Sequence[Endpoint], now: float, bits: Callable[[int], int]) -> Endpoint | None:
    """One of `endpoints`, None if there are none that could open a stream. `bits(k)` gives k random bits, as
    random.getrandbits."""
    able = [one for one in endpoints if one.serving()]
    healthy = [one for one in able if not one.health.ejected(now)]
    return _less_busy(healthy or able, bits)


def candidates(endpoints: Sequence[Endpoint], now: float, bits: Callable[[int], int], limit: int = 3) -> list[Endpoint]:
    """At most `limit` endpoints in the order in which to try them: each is the choice among those left, ejected ones
    last."""
    able = [one for one in endpoints if one.serving()]
    ordered: list[Endpoint] = []
    healthy = [one for one in able if not one.health.ejected(now)]
    ejected = [one for one in able if one.health.ejected(now)]
    for group in (healthy, ejected):
        while group and len(ordered) < limit:
            chosen = _less_busy(group, bits)
            assert chosen is not None  # the group is not empty
            group.remove(chosen)
            ordered.append(chosen)
    return ordered


def _less_busy(endpoints: list[Endpoint], bits: Callable[[int], int]) -> Endpoint | None:
    count = len(endpoints)
    if count < 2:
        return endpoints[0] if endpoints else None
    # 32 bits and a modulo: the bias, count/2**32, is far below what balancing can show.
    first = bits(32) % count
    second = bits(32) % (count - 1)
    if second >= first:
        second += 1
    one = endpoints[first]
    other = endpoints[second]
    return other if other.inflight < one.inflight else one
