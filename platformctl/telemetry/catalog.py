"""Every metric that we publish, as data. Scrapes and docs/reference/metrics.md are made from this list.

A name here is an interface: dashboards and alerts of other people use it. It changes like one, with a change fragment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["CATALOG", "PREFIX", "Metric", "documented", "reference"]

PREFIX: Final = "platformctl_"
BOTH: Final = ("hub", "satellite")
HUB: Final = ("hub",)
SATELLITE: Final = ("satellite",)


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` without the prefix, and for counters with `_total`; `kind`: counter, gauge or histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    components: tuple[str, ...] = BOTH

    @property
    def full_name(self) -> str:
        return PREFIX + self.name


_SERVICE: Final = ("satellite", "service")
_TUNNEL: Final = ("satellite", "replica")

# A row a metric, as a table is read.
# fmt: off
CATALOG: Final = (
    Metric("build_info", "gauge", ("component", "version", "python"), "Always 1; the labels say what runs."),
    Metric("event_loop_lag_seconds", "histogram", (), "How late the event loop's timer ran."),
    Metric("certificate_expiry_timestamp_seconds", "gauge", ("certificate",),
           "Unix time at which a certificate in use ends."),

    Metric("requests_total", "counter", (*_SERVICE, "code"), "Requests that ended, by class of status (2xx)."),
    Metric("request_duration_seconds", "histogram", _SERVICE,
           "From the request's head to the end of its response."),
    Metric("request_bytes_total", "counter", _SERVICE, "Body bytes from clients to the service."),
    Metric("response_bytes_total", "counter", _SERVICE, "Body bytes from the service to clients."),

    Metric("tunnels_expected", "gauge", _TUNNEL, "Tunnels that there should be."),
    Metric("tunnels_connected", "gauge", _TUNNEL, "Tunnels that there are."),
    Metric("tunnel_rtt_seconds", "gauge", _TUNNEL, "Smoothed round-trip time of the quickest tunnel."),
    Metric("tunnel_received_bytes_total", "counter", _TUNNEL, "Frame bytes that came through tunnels."),
    Metric("tunnel_sent_bytes_total", "counter", _TUNNEL, "Frame bytes that were sent through tunnels."),
    Metric("reconnects_total", "counter", _TUNNEL, "Tunnels that came up in place of an earlier one."),
    Metric("streams_open", "gauge", _TUNNEL, "Exchanges in progress in tunnels."),
    Metric("streams_total", "counter", _TUNNEL, "Streams that were opened."),
    Metric("stream_resets_total", "counter", (*_TUNNEL, "code"),
           "Streams that were reset, by error code of the wire."),
    Metric("credit_stalls_total", "counter", _TUNNEL, "Times that a sender ran out of flow-control credit."),

    Metric("requests_in_flight", "gauge", _SERVICE, "Requests in progress.", HUB),
    Metric("requests_waiting", "gauge", _SERVICE, "Requests that wait for the service's concurrency limit.", HUB),
    Metric("failovers_total", "counter", _SERVICE,
           "Requests that were sent elsewhere after this service failed them.", HUB),
    Metric("service_ejected", "gauge", _SERVICE, "1 while the service is left out of selection for its failures.", HUB),
    Metric("service_ejections_total", "counter", _SERVICE,
           "Times that the service was left out for its failures.", HUB),
    Metric("registry_satellites", "gauge", (), "Satellites with a tunnel to this replica.", HUB),
    Metric("registry_services", "gauge", (), "Services that this replica can reach.", HUB),
    Metric("registry_tunnels", "gauge", (), "Tunnels to this replica.", HUB),
    Metric("local_responses_total", "counter", ("code",),
           "Responses of the hub itself (API, console, problems before routing), by class of status.", HUB),
    Metric("decisions_total", "counter", ("decision",), "Access decisions: allow or deny.", HUB),
    Metric("audit_records_total", "counter", (), "Audit lines that were written.", HUB),
    Metric("audit_dropped_total", "counter", (), "Audit lines that were lost.", HUB),
    Metric("client_connections_open", "gauge", ("listener",), "Open client connections.", HUB),
    Metric("client_connections_total", "counter", ("listener",), "Client connections that were accepted.", HUB),

    Metric("exports", "gauge", ("satellite", "state"), "Exported services: healthy or unhealthy.", SATELLITE),
    Metric("backend_failures_total", "counter", (*_SERVICE, "reason"),
           "Exchanges that a backend failed, by error code of the wire.", SATELLITE),
)
# fmt: on


def documented(component: str) -> tuple[Metric, ...]:
    """The metrics of "hub" or "satellite"."""
    return tuple(metric for metric in CATALOG if component in metric.components)


def reference() -> str:
    """docs/reference/metrics.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield "<!-- Made by `python -m platformctl.telemetry.metrics`. Change platformctl/telemetry/catalog.py instead. -->"
    yield ""
    yield "Prometheus text or OpenMetrics at `/metrics` of the health port, in the hub and in the satellite's agent."
    yield "The usual `process_*` metrics are there too. Histograms have buckets at powers of two."
    yield "Label sets are bounded; those beyond the bound are counted together, with every label `other`."
    for title, components in (("Hub and satellite", BOTH), ("Hub", HUB), ("Satellite", SATELLITE)):
        yield ""
        yield f"## {title}"
        yield ""
        yield "| name | type | labels | meaning |"
        yield "|---|---|---|---|"
        for metric in CATALOG:
            if metric.components == components:
                labels = ", ".join(f"`{label}`" for label in metric.labels)
                yield f"| `{metric.full_name}` | {metric.kind} | {labels} | {metric.help} |"
