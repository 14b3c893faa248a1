"""What counts while requests run: plain numbers in slots, turned into Prometheus families only when scraped.

A counter of prometheus_client takes a lock for each increment, about a microsecond; adding to an attribute takes a
fiftieth of that. Everything here is used from the event loop's thread alone, scrapes included.

The number of label sets is bounded: once `limit` of them exist, all further ones share one that is named `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sized
from typing import Final, Generic, Protocol, TypeVar

from platformctl.wire.frames import ERROR_NAMES

__all__ = [
    "LAG_BOUNDS",
    "OTHER",
    "SECONDS_BOUNDS",
    "Cell",
    "Histogram",
    "Labelled",
    "RequestMetrics",
    "Session",
    "TunnelMetrics",
]

OTHER: Final = "other"

# Powers of two: each is a bucket boundary of native histograms too (schema 0), so that queries over classic and native
# histograms of the same data agree. 0.5 ms to 64 s.
SECONDS_BOUNDS: Final = tuple(2.0**n for n in range(-11, 7))
# A healthy loop is late by microseconds, a blocked one by a second: 0.25 ms to 4 s.
LAG_BOUNDS: Final = tuple(2.0**n for n in range(-12, 3))
CODE_CLASSES: Final = (OTHER, "1xx", "2xx", "3xx", "4xx", "5xx")


class Cell:
    """One number: add to `value` or set it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0.0


class Histogram:
    """Counts by bucket, `bounds` being inclusive upper ends, and the sum of what was observed."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class RequestMetrics:
    """Requests to one service. The data plane adds to `bytes_in` (from the client) and `bytes_out` (to it) directly."""

    __slots__ = ("bytes_in", "bytes_out", "codes", "counts", "failovers", "total")

    def __init__(self) -> None:
        self.codes = [0] * 10
        self.counts = [0] * (len(SECONDS_BOUNDS) + 1)
        self.total: float = 0.0
        self.bytes_in: int = 0
        self.bytes_out: int = 0
        self.failovers: int = 0

    def observe(self, status: int, seconds: float) -> None:
        """A request has ended. `status`: 0 to 999, 0 for none; `seconds`: from its head to the end of its response."""
        self.codes[status // 100] += 1
        self.counts[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self.total += seconds

    def by_class(self) -> Iterator[tuple[str, int]]:
        """Requests by class of status. 2xx, 4xx and 5xx always, so that a first failure shows as an increase."""
        codes = self.codes
        for index, name in enumerate(CODE_CLASSES):
            count = codes[index] if index else codes[0] + sum(codes[6:])
            if count or index in (2, 4, 5):
                yield name, count


class Session(Protocol):
    """What is read of a tunnel's session (wire/session.py) when scraped."""

    @property
    def rtt(self) -> float: ...  # seconds, 0.0 before the first PONG

    @property
    def credit_stalls(self) -> int: ...

    @property
    def bytes_in(self) -> int: ...

    @property
    def bytes_out(self) -> int: ...

    @property
    def last_id(self) -> int: ...  # the number of streams that were opened

    @property
    def streams(self) -> Sized: ...


class TunnelMetrics:
    """All tunnels between one satellite and one hub replica, over time: counters outlive the sessions they come from.

    `expected` is the caller's to set: how many tunnels there should be.
    """

    __slots__ = ("_bytes_in", "_bytes_out", "_opened", "_stalls", "expected", "reconnects", "resets", "sessions")

    def __init__(self) -> None:
        self.expected: int = 0
        self.reconnects: int = 0
        self.resets: dict[int, int] = {}
        self.sessions: list[Session] = []
        self._stalls: int = 0
        self._opened: int = 0
        self._bytes_in: int = 0
        self._bytes_out: int = 0

    def up(self, session: Session) -> None:
        self.sessions.append(session)

    def down(self, session: Session) -> None:
        """The session has ended: keep what it counted. Harmless for one that is not up."""
        if session not in self.sessions:
            return
        self.sessions.remove(session)
        self._stalls += session.credit_stalls
        self._opened += session.last_id
        self._bytes_in += session.bytes_in
        self._bytes_out += session.bytes_out

    def reset(self, code: int) -> None:
        """A stream was reset, by either side. `code` is the wire's; others count together, as -1."""
        if code not in ERROR_NAMES:
            code = -1
        self.resets[code] = self.resets.get(code, 0) + 1

    @property
    def rtt(self) -> float | None:
        """Seconds, of the quickest tunnel; None before any PONG."""
        return min((session.rtt for session in self.sessions if session.rtt > 0.0), default=None)

    @property
    def streams_open(self) -> int:
        return sum(len(session.streams) for session in self.sessions)

    @property
    def streams_opened(self) -> int:
        return self._opened + sum(session.last_id for session in self.sessions)

    @property
    def credit_stalls(self) -> int:
        return self._stalls + sum(session.credit_stalls for session in self.sessions)

    @property
    def bytes_in(self) -> int:
        return self._bytes_in + sum(session.bytes_in for session in self.sessions)

    @property
    def bytes_out(self) -> int:
        return self._bytes_out + sum(session.bytes_out for session in self.sessions)


T = TypeVar("T")


class Labelled(Generic[T]):
    """Instruments by their label values. The same values give the same instrument for as long as it is not removed."""

    __slots__ = ("_limit", "_make", "_names", "_others", "children")

    def __init__(self, make: Callable[[], T], names: int, limit: int) -> None:
        """`names`: how many labels there are; `limit`: how many label sets, `other` not counted."""
        self._make = make
        self._names = names
        self._limit = limit
        self._others = (OTHER,) * names
        self.children: dict[tuple[str, ...], T] = {}

    def labels(self, *values: str) -> T:
        if len(values) != self._names:
            raise ValueError(f"{len(values)} label values where {self._names} are needed")
        child = self.children.get(values)
        if child is None:
            if len(self.children) - (self._others in self.children) >= self._limit and values != self._others:
                return self.labels(*self._others)
            child = self._make()
            self.children[values] = child
        return child

    def remove(self, *values: str) -> None:
        """Forget all whose label values begin with `values`; with none, all."""
        for key in [key for key in self.children if key[: len(values)] == values]:
            del self.children[key]
