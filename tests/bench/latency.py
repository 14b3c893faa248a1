"""What a load generator brings back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class LoadResult:
    """Latencies in milliseconds. `errors` counts failed connections, timeouts and every status that is not 200.

    `seconds` is the time in which the requests were really sent, so `per_second` is the rate that there was.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int

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
    """The figures of the samples that left `ramp` seconds after the first one or later; None when there is none.

    Percentiles are exact (nearest rank): nothing is estimated from buckets.
    """
    if not samples:
        return None
    begin = min(sample.sent for sample in samples) + ramp
    counted = [sample for sample in samples if sample.sent >= begin]
    if not counted:
        return None
    latencies = sorted(sample.latency for sample in counted)
    last = max(sample.sent for sample in counted)
    return LoadResult(
        requests=len(counted),
        seconds=last - min(sample.sent for sample in counted) + 1 / rate,
        p50_ms=_rank(latencies, 0.50) * 1e3,
        p99_ms=_rank(latencies, 0.99) * 1e3,
        max_ms=latencies[-1] * 1e3,
        errors=sum(sample.status != 200 for sample in counted),
    )


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
