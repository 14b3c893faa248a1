"""Reconnect delays: full jitter, capped, exponential. Pure: randomness and time are arguments.

1. The delay before attempt n is uniform in [0, min(cap, base · factor^n)) ("full jitter"): a thousand agents whose hub
   restarted come back spread over the whole window, not in a herd.
2. A tunnel that comes up does not reset the count; one that stayed healthy for `healthy_after` seconds does. A hub that
   accepts and drops at once is therefore not hammered.
3. A retry-after that the server sent is a floor: never earlier, and jittered upwards, so that those who were told the
   same second do not meet in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Backoff"]


@dataclass(slots=True)
class Backoff:
    """`random` gives floats in [0, 1). All durations are seconds."""

    random: Callable[[], float]
    base: float = 0.5
    factor: float = 2.0
    cap: float = 30.0
    healthy_after: float = 30.0
    max_retry_after: float = 300.0
    attempts: int = field(default=0, init=False)
    _up_since: float | None = field(default=None, init=False)
    _floor: float = field(default=0.0, init=False)

    def connected(self, now: float) -> None:
        """The tunnel works since `now`."""
        self._up_since = now

    def disconnected(self, now: float) -> None:
        """The tunnel ended at `now`; forget the failures if it had been healthy long enough."""
        if self._up_since is not None and now - self._up_since >= self.healthy_after:
            self.attempts = 0
        self._up_since = None

    def retry_after(self, delay: float) -> None:
        """The server asked for `delay` seconds of peace; it holds for the next attempt only."""
        self._floor = min(max(delay, 0.0), self.max_retry_after)

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt; counts that attempt."""
        # The exponent is bounded so that a year of failures does not overflow a float.
        window = min(self.cap, self.base * self.factor ** min(self.attempts, 64))
        self.attempts += 1
        floor, self._floor = self._floor, 0.0
        return floor + self.random() * window
