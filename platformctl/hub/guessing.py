"""A brake on guessing join tokens: failures by address, in token buckets. Pure.

Only failures count, so a fleet that joins from behind one address is never slowed down. IPv6 addresses count by /64,
the smallest network that anybody gets.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from platformctl.access.limits import TokenBucket

__all__ = ["GuessBrake"]


class GuessBrake:
    """`burst` failures at once, then `rate` a second. At most `capacity` addresses are remembered, the latest ones."""

    def __init__(self, *, rate: float = 0.1, burst: float = 10.0, capacity: int = 4096) -> None:
        self._rate = rate
        self._burst = burst
        self._capacity = capacity
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds until this address may try again; 0.0 is now."""
        bucket = self._buckets.get(_network(address))
        return 0.0 if bucket is None else bucket.wait(now)

    def failed(self, address: str, now: float) -> None:
        key = _network(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst, now)
            if len(self._buckets) > self._capacity:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        bucket.take(now)


def _network(address: str) -> str:
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped) if ip.ipv4_mapped else f"{int(ip) >> 64:x}::/64"
    return str(ip)
