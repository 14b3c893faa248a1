"""What a load generator brings back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class LoadResult:
    """Latencies in milliseconds. `errors` counts failed connections, timeouts and every status that is not 200.

    `seconds` is the time in which the requests were really sent, so `per_second` is the rate that there was. `trouble`
    says what the errors were.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    trouble: str = ""

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    def metrics(self) -> dict[str, float]:
        """By the names of results.METRICS."""
        return {
            "requests_per_s": self.per_second,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "max_ms": self.max_ms,
            "errors": float(self.errors),
        }


class Sample(NamedTuple):
    """One request: when it left (seconds, on any clock), how long it took, its status; 0 is no answer."""

    sent: float
    latency: float
    status: int


def summary(samples: Sequence[Sample], *, ramp: float, rate: float) -> LoadResult | None:
    """The figures of what was due `ramp` seconds after the first request or later; None when that is nothing.

    The n-th request is due n/rate seconds after the first one, and waits from then on: a generator that is held up by
    those before it hides nothing ("coordinated omission"). Percentiles are exact (nearest rank), not from buckets.
    """
    ordered = sorted(samples)
    if not ordered:
        return None
    first, skipped = ordered[0].sent, int(ramp * rate)
    counted = ordered[skipped:]
    if not counted:
        return None
    waits = sorted(
        one.latency + max(0.0, one.sent - first - number / rate) for number, one in enumerate(counted, start=skipped)
    )
    return LoadResult(
        requests=len(counted),
        seconds=counted[-1].sent - counted[0].sent + 1 / rate,
        p50_ms=_rank(waits, 0.50) * 1e3,
        p99_ms=_rank(waits, 0.99) * 1e3,
        max_ms=waits[-1] * 1e3,
        errors=sum(one.status != 200 for one in counted),
    )


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
