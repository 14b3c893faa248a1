"""`Outlier`: takes an endpoint that keeps failing out of the choice for a while, and lets it return.

The shape is Envoy's outlier detection (its "consecutive 5xx" and "failure percentage" detectors), per endpoint:
1. `consecutive` failures in a row eject, and so does a failure share of `rate` in a window that saw at least
   `minimum` results.
2. The first ejection lasts `base` seconds, each further one twice the one before, up to `longest`.
3. An endpoint returns by itself. Each window without an ejection takes one step of the growth back.
4. Results that arrive during an ejection (of exchanges that began before it) change nothing.

Ejection only matters where there is a choice: see balance.py, which never leaves a caller without an endpoint.
A failure is one of the path to the backend (connect error, reset tunnel, timeout, 502/503/504), never a backend's 500
or 4xx.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT_POLICY", "Outlier", "OutlierPolicy"]


@dataclass(frozen=True, slots=True)
class OutlierPolicy:
    """`window`, `base` and `longest` in seconds; `rate` is a share between 0 and 1."""

    consecutive: int = 5
    rate: float = 0.5
    minimum: int = 20
    window: float = 10.0
    base: float = 5.0
    longest: float = 300.0


DEFAULT_POLICY: Final = OutlierPolicy()


class Outlier:
    __slots__ = (
        "_failures",
        "_growth",
        "_in_a_row",
        "_policy",
        "_results",
        "_window_end",
        "ejected_until",
        "ejections",
    )

    def __init__(self, policy: OutlierPolicy = DEFAULT_POLICY) -> None:
        self.ejected_until: float = float("-inf")
        self.ejections: int = 0  # ever, for metrics and status
        self._policy = policy
        self._in_a_row: int = 0
        self._results: int = 0
        self._failures: int = 0
        self._growth: int = 0
        self._window_end: float = float("-inf")

    def ejected(self, now: float) -> bool:
        return now < self.ejected_until

    def success(self, now: float) -> None:
        if now < self.ejected_until:
            return
        if now >= self._window_end:
            self._roll(now)
        self._in_a_row = 0
        self._results += 1

    def failure(self, now: float) -> bool:
        """Count a failure. True: this one ejected the endpoint."""
        if now < self.ejected_until:
            return False
        if now >= self._window_end:
            self._roll(now)
        self._in_a_row += 1
        self._results += 1
        self._failures += 1
        policy = self._policy
        crowded = self._results >= policy.minimum and self._failures >= policy.rate * self._results
        if self._in_a_row < policy.consecutive and not crowded:
            return False
        self._eject(now)
        return True

    def _eject(self, now: float) -> None:
        policy = self._policy
        duration = policy.base
        for _ in range(self._growth):  # a loop, for 2**growth would overflow where the cap is large
            duration *= 2
            if duration >= policy.longest:
                break
        else:
            self._growth += 1
        self.ejections += 1
        self.ejected_until = now + min(duration, policy.longest)
        self._in_a_row = self._results = self._failures = 0
        self._window_end = self.ejected_until + policy.window

    def _roll(self, now: float) -> None:
        """Begin a window. The windows that went by without an ejection make the next ejection shorter."""
        window = self._policy.window
        if self._growth:
            # The window that ends here counts as one; idle time after it counts too.
            calm = 1 + int((now - self._window_end) / window)
            self._growth = max(0, self._growth - calm)
        self._results = self._failures = 0
        self._window_end = now + window
