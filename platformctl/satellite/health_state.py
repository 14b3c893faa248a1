"""Whether a backend is healthy, from the results of its checks. Pure.

1. The first result decides alone, so that a new export is live, or known to be down, at once.
2. After that it takes `healthy_threshold` successes in a row to come up, and `unhealthy_threshold` failures to go down.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["HealthState"]


@dataclass(slots=True)
class HealthState:
    """`healthy` is None until the first result; `reason` is that of the last failure, "" while healthy."""

    healthy_threshold: int
    unhealthy_threshold: int
    healthy: bool | None = field(default=None, init=False)
    reason: str = field(default="", init=False)
    _against: int = field(default=0, init=False)

    def record(self, failure: str = "") -> bool:
        """Note one result: "" for success, else why it failed. True if `healthy` changed."""
        ok = not failure
        if not ok:
            self.reason = failure
        if self.healthy is None:
            self.healthy = ok
            return True
        if ok == self.healthy:
            self._against = 0
            if ok:
                self.reason = ""
            return False
        self._against += 1
        if self._against < (self.healthy_threshold if ok else self.unhealthy_threshold):
            return False
        self.healthy, self._against = ok, 0
        if ok:
            self.reason = ""
        return True
