"""The metrics of a hub replica (`HubMetrics`) and of an agent (`SatelliteMetrics`), and their Prometheus text.

    metrics = HubMetrics("0.1.0", audit)
    metrics.watch(registry, time.monotonic)
    endpoint.metrics = metrics.requests("sat-1", "api")     # RequestMetrics, kept by the caller
    endpoint.metrics.observe(200, 0.003)
    health_app(checks, metrics.text, metrics.openmetrics)

Names and meanings are in catalog.py. `python -m platformctl.telemetry.metrics` prints docs/reference/metrics.md.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from platformctl.routing.endpoint import Endpoint
from platformctl.routing.registry import Registry
from platformctl.telemetry.catalog import Metric, documented, reference
from platformctl.telemetry.instruments import (
    CODE_CLASSES,
    LAG_BOUNDS,
    OTHER,
    SECONDS_BOUNDS,
    Cell,
    Histogram,
    Labelled,
    RequestMetrics,
    TunnelMetrics,
)
from platformctl.wire.frames import ERROR_NAMES

__all__ = ["HubMetrics", "RequestMetrics", "SatelliteMetrics", "TunnelMetrics"]

MAX_SERVICES: Final = 2000  # with 19 buckets and 10 other series each, about what one scrape should hold
MAX_TUNNELS: Final = 5000
MAX_SMALL: Final = 200

Samples = Iterable[tuple[tuple[str, ...], float]]
Buckets = Iterable[tuple[tuple[str, ...], tuple[float, ...], list[int], float]]


class Audit(Protocol):
    """What is read of the audit log (audit.py) when scraped."""

    @property
    def written(self) -> int: ...

    @property
    def dropped(self) -> int: ...


class _Metrics:
    """What hub and satellite have in common; also the collector that prometheus_client asks."""

    def __init__(self, component: str, version: str) -> None:
        self._documented = documented(component)
        self._build = (component, version, platform.python_version())
        self._requests = Labelled(RequestMetrics, 2, MAX_SERVICES)
        self._tunnels = Labelled(TunnelMetrics, 2, MAX_TUNNELS)
        self.loop_lag = Histogram(LAG_BOUNDS)
        self.certificate_expiry = Labelled(Cell, 1, MAX_SMALL)
        self._samples: dict[str, Callable[[], Samples]] = {
            "build_info": lambda: [(self._build, 1.0)],
            "certificate_expiry_timestamp_seconds": lambda: _cells(self.certificate_expiry),
            "requests_total": self._codes,
            "request_bytes_total": lambda: self._of_requests(lambda one: one.bytes_in),
            "response_bytes_total": lambda: self._of_requests(lambda one: one.bytes_out),
            "tunnels_expected": lambda: self._of_tunnels(lambda one: one.expected),
            "tunnels_connected": lambda: self._of_tunnels(lambda one: len(one.sessions)),
            "tunnel_rtt_seconds": lambda: self._of_tunnels(lambda one: one.rtt),
            "tunnel_received_bytes_total": lambda: self._of_tunnels(lambda one: one.bytes_in),
            "tunnel_sent_bytes_total": lambda: self._of_tunnels(lambda one: one.bytes_out),
            "reconnects_total": lambda: self._of_tunnels(lambda one: one.reconnects),
            "streams_open": lambda: self._of_tunnels(lambda one: one.streams_open),
            "streams_total": lambda: self._of_tunnels(lambda one: one.streams_opened),
            "stream_resets_total": self._resets,
            "credit_stalls_total": lambda: self._of_tunnels(lambda one: one.credit_stalls),
        }
        self._buckets: dict[str, Callable[[], Buckets]] = {
            "event_loop_lag_seconds": lambda: [((), LAG_BOUNDS, self.loop_lag.counts, self.loop_lag.total)],
            "request_duration_seconds": self._durations,
        }
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def requests(self, satellite: str, service: str) -> RequestMetrics:
        """The handle of a service; the same one when it comes back, so that counters never go down."""
        return self._requests.labels(satellite, service)

    def tunnel(self, satellite: str, replica: str) -> TunnelMetrics:
        """The handle of all tunnels between a satellite and a hub replica."""
        return self._tunnels.labels(satellite, replica)

    def forget_satellite(self, satellite: str) -> None:
        """A satellite was removed for good: it appears in no scrape any more."""
        self._requests.remove(satellite)
        self._tunnels.remove(satellite)

    def forget_replica(self, satellite: str, replica: str) -> None:
        """A hub replica is no longer on the list: no tunnels are expected there."""
        self._tunnels.remove(satellite, replica)

    def text(self) -> bytes:
        """Prometheus text, version 0.0.4."""
        return generate_latest(self.registry)

    def openmetrics(self) -> bytes:
        """OpenMetrics 1.0.0."""
        text: bytes = generate_openmetrics(self.registry)  # type: ignore[no-untyped-call]
        return text

    def collect(self) -> Iterator[Family]:
        """Every documented metric of the component, those without samples too."""
        for metric in self._documented:
            if metric.kind == "histogram":
                yield _histogram(metric, self._buckets[metric.name]())
            else:
                yield _family(metric, self._samples[metric.name]())

    def _codes(self) -> Samples:
        for labels, one in self._requests.children.items():
            for code, count in one.by_class():
                yield (*labels, code), count

    def _durations(self) -> Buckets:
        for labels, one in self._requests.children.items():
            yield labels, SECONDS_BOUNDS, one.counts, one.total

    def _of_requests(self, value: Callable[[RequestMetrics], float]) -> Samples:
        for labels, one in self._requests.children.items():
            yield labels, value(one)

    def _of_tunnels(self, value: Callable[[TunnelMetrics], float | None]) -> Samples:
        for labels, one in self._tunnels.children.items():
            number = value(one)
            if number is not None:
                yield labels, number

    def _resets(self) -> Samples:
        for labels, one in self._tunnels.children.items():
            for code, count in one.resets.items():
                yield (*labels, ERROR_NAMES.get(code, OTHER)), count


class HubMetrics(_Metrics):
    """A hub replica's. `audit` is read at each scrape."""

    def __init__(self, version: str, audit: Audit | None = None) -> None:
        super().__init__("hub", version)
        self.allowed = Cell()
        self.denied = Cell()
        self._audit = audit
        self._endpoints: Callable[[], Iterable[Endpoint]] = tuple
        self._local = [0] * 10
        self._open = Labelled(Cell, 1, MAX_SMALL)
        self._accepted = Labelled(Cell, 1, MAX_SMALL)
        self._samples |= {
            "requests_in_flight": lambda: self._of_endpoints(lambda one: one.inflight),
            "requests_waiting": lambda: self._of_endpoints(lambda one: one.gate.waiting),
            "failovers_total": lambda: self._of_requests(lambda one: one.failovers),
            "service_ejections_total": lambda: self._of_endpoints(lambda one: one.health.ejections),
            "local_responses_total": self._local_codes,
            "decisions_total": lambda: [(("allow",), self.allowed.value), (("deny",), self.denied.value)],
            "audit_records_total": lambda: [((), self._audit.written if self._audit else 0)],
            "audit_dropped_total": lambda: [((), self._audit.dropped if self._audit else 0)],
            "client_connections_open": lambda: _cells(self._open),
            "client_connections_total": lambda: _cells(self._accepted),
        }
        self.watch(Registry(), lambda: 0.0)

    def watch(self, registry: Registry, clock: Callable[[], float]) -> None:
        """Read the registry at each scrape. `clock` is the one that the endpoints' health uses."""
        self._endpoints = lambda: (one for record in registry.satellites() for one in record.endpoints.values())
        self._samples |= {
            "service_ejected": lambda: self._of_endpoints(lambda one: one.health.ejected(clock())),
            "registry_satellites": lambda: [((), registry.satellite_count)],
            "registry_services": lambda: [((), registry.service_count)],
            "registry_tunnels": lambda: [((), registry.tunnel_count)],
        }

    def count_decision(self, allowed: bool) -> None:
        (self.allowed if allowed else self.denied).value += 1

    def count_local(self, status: int) -> None:
        """The hub answered a request itself. `status`: 0 to 999."""
        self._local[status // 100] += 1

    def connection_opened(self, listener: str) -> None:
        self._open.labels(listener).value += 1
        self._accepted.labels(listener).value += 1

    def connection_closed(self, listener: str) -> None:
        self._open.labels(listener).value -= 1

    def _local_codes(self) -> Samples:
        for index, name in enumerate(CODE_CLASSES):
            yield (name,), self._local[index] if index else self._local[0] + sum(self._local[6:])

    def _of_endpoints(self, value: Callable[[Endpoint], float]) -> Samples:
        """At most MAX_SERVICES, as everywhere; what is beyond is left out, for states cannot be added up."""
        for one, _ in zip(self._endpoints(), range(MAX_SERVICES), strict=False):
            yield (one.satellite, one.service), value(one)


class SatelliteMetrics(_Metrics):
    """An agent's. `satellite` is its name."""

    def __init__(self, version: str, satellite: str) -> None:
        super().__init__("satellite", version)
        self.satellite = satellite
        self.exports_healthy = Cell()
        self.exports_unhealthy = Cell()
        self._failures = Labelled(Cell, 2, MAX_SERVICES)
        self._samples |= {
            "exports": lambda: [
                ((satellite, "healthy"), self.exports_healthy.value),
                ((satellite, "unhealthy"), self.exports_unhealthy.value),
            ],
            "backend_failures_total": lambda: [
                ((satellite, *labels), cell.value) for labels, cell in self._failures.children.items()
            ],
        }

    def backend_failed(self, service: str, code: int) -> None:
        """An exchange failed at the backend. `code` is the wire's, as sent in RESET."""
        self._failures.labels(service, ERROR_NAMES.get(code, OTHER)).value += 1


def _cells(cells: Labelled[Cell]) -> Samples:
    for labels, cell in cells.children.items():
        yield labels, cell.value


def _family(metric: Metric, samples: Samples) -> Family:
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(metric.full_name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, buckets: Buckets) -> Family:
    family = HistogramMetricFamily(metric.full_name, metric.help, labels=metric.labels)
    for labels, bounds, counts, total in buckets:
        names = [*(repr(bound) for bound in bounds), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(counts), strict=True)), total)
    return family


if __name__ == "__main__":
    sys.stdout.write(reference())
