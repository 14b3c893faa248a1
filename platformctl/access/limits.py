"""A token bucket: `rate` a second in the long run, `burst` at once."""

from __future__ import annotations

from platformctl.errors import LocalMisuse

__all__ = ["TokenBucket"]


class TokenBucket:
    """Starts full. `now` is any clock in seconds; when it steps back, nothing is refilled and nothing is lost."""

    __slots__ = ("_level", "_updated", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate <= 0 or burst < 1:
            raise LocalMisuse(f"a bucket needs a rate above 0 and a burst of at least 1, not {rate:g} and {burst:g}")
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._updated = now

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take `amount` if it is there; False, and nothing taken, if it is not."""
        self._refill(now)
        if self._level < amount:
            return False
        self._level -= amount
        return True

    def wait(self, now: float, amount: float = 1.0) -> float:
        """Seconds until `amount` will be there (0.0: now); what Retry-After says. LocalMisuse above the burst."""
        if amount > self.burst:
            raise LocalMisuse(f"{amount:g} never fits a burst of {self.burst:g}")
        self._refill(now)
        return max(0.0, (amount - self._level) / self.rate)

    def _refill(self, now: float) -> None:
        if now > self._updated:
            self._level = min(self.burst, self._level + (now - self._updated) * self.rate)
        self._updated = now
