from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from platformctl.routing.registry import Registry
from platformctl.routing.spec import Limits, ServiceSpec
from platformctl.telemetry.catalog import CATALOG, documented, reference
from platformctl.telemetry.instruments import (
    LAG_BOUNDS,
    SECONDS_BOUNDS,
    Histogram,
    Labelled,
    RequestMetrics,
    TunnelMetrics,
)
from platformctl.telemetry.metrics import HubMetrics, SatelliteMetrics
from platformctl.wire import frames
from platformctl.wire.session import HUB, Session

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class FakeSession:
    rtt: float = 0.0
    credit_stalls: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    last_id: int = 0
    streams: dict[int, object] = field(default_factory=dict)


def make(component: str) -> HubMetrics | SatelliteMetrics:
    return HubMetrics("1.2.3") if component == "hub" else SatelliteMetrics("1.2.3", "sat-1")


def samples(metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name without the prefix, label values in the order of names) -> value, as a scraper reads them."""
    order = {metric.full_name.removesuffix("_total"): (*metric.labels, "le") for metric in CATALOG}
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in order.get(family.name, ()) if name in sample.labels)
            found[sample.name.removeprefix("platformctl_"), labels] = sample.value
    return found


@pytest.mark.parametrize("component", ["hub", "satellite"])
def test_a_scrape_has_every_documented_name_with_its_help_and_nothing_else(component):
    families = {
        family.name: family
        for family in text_string_to_metric_families(make(component).text().decode())
        if family.name.startswith("platformctl_")
    }
    wanted = {
        metric.full_name.removesuffix("_total") if metric.kind == "counter" else metric.full_name: metric
        for metric in documented(component)
    }
    assert set(families) == set(wanted)
    for name, metric in wanted.items():
        assert (families[name].type, families[name].documentation) == (metric.kind, metric.help), name


def exercised(component: str) -> HubMetrics | SatelliteMetrics:
    """With at least one sample in every family."""
    metrics = make(component)
    metrics.certificate_expiry.labels("tunnel").value = 1.8e9
    metrics.loop_lag.observe(0.001)
    metrics.requests("sat-1", "api").observe(200, 0.01)
    tunnel = metrics.tunnel("sat-1", "hub-0")
    tunnel.up(FakeSession(rtt=0.02))
    tunnel.reset(frames.CANCELLED)
    if isinstance(metrics, HubMetrics):
        registry = Registry()
        lease, _ = registry.attach("sat-1", "i", {}, FakeTunnel())
        registry.register(lease, [ServiceSpec("api")])
        metrics.watch(registry, lambda: 0.0)
        metrics.connection_opened("https")
    else:
        metrics.backend_failed("api", frames.CONNECT_FAILED)
    return metrics


@dataclass
class FakeTunnel:
    inflight: int = 0
    lane: int = 0
    draining: bool = False


@pytest.mark.parametrize("component", ["hub", "satellite"])
def test_samples_carry_the_documented_labels(component):
    families = list(text_string_to_metric_families(exercised(component).text().decode()))
    for metric in documented(component):
        name = metric.full_name.removesuffix("_total") if metric.kind == "counter" else metric.full_name
        (family,) = [one for one in families if one.name == name]
        assert family.samples, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), name


@pytest.mark.parametrize("component", ["hub", "satellite"])
def test_the_openmetrics_form_is_valid_too(component):
    names = {family.name for family in openmetrics_families(exercised(component).openmetrics().decode())}
    assert "platformctl_requests" in names
    assert "platformctl_request_duration_seconds" in names


def test_no_gauge_has_the_name_of_a_counter_without_its_ending():
    """OpenMetrics takes both for one family, and refuses the scrape."""
    names = [metric.name.removesuffix("_total") for metric in CATALOG]
    assert len(set(names)) == len(names)


def test_names_follow_the_conventions_of_prometheus():
    for metric in CATALOG:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.help.endswith("."), metric.name
        assert metric.kind != "histogram" or metric.name.endswith("_seconds"), metric.name
    assert len({metric.name for metric in CATALOG}) == len(CATALOG)


def test_the_reference_in_the_docs_is_not_stale():
    assert (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8") == reference(), (
        "run: python -m platformctl.telemetry.metrics > docs/reference/metrics.md"
    )


def test_the_module_prints_the_reference():
    command = [sys.executable, "-m", "platformctl.telemetry.metrics"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout == reference()
    assert all(metric.full_name in printed.stdout for metric in CATALOG)


def test_the_process_and_the_build_are_described():
    found = samples(make("hub"))
    assert found["process_cpu_seconds_total", ()] > 0
    ((_, labels),) = [key for key in found if key[0] == "build_info"]
    assert labels[:2] == ("hub", "1.2.3")


def test_requests_are_counted_by_class_and_time():
    metrics = make("hub")
    api = metrics.requests("sat-1", "api")
    for status, seconds in ((200, 0.001), (204, 0.003), (404, 0.003), (502, 1.5), (101, 100.0), (0, 0.0), (799, 0.0)):
        api.observe(status, seconds)
    api.bytes_in += 10
    api.bytes_out += 20
    api.failovers += 1
    found = samples(metrics)
    codes = {key[1][2]: value for key, value in found.items() if key[0] == "requests_total"}
    assert codes == {"1xx": 1, "2xx": 2, "4xx": 1, "5xx": 1, "other": 2}
    assert found["request_duration_seconds_count", ("sat-1", "api")] == 7
    assert found["request_duration_seconds_sum", ("sat-1", "api")] == pytest.approx(101.507)
    assert found["request_duration_seconds_bucket", ("sat-1", "api", repr(2.0**-8))] == 5
    assert found["request_duration_seconds_bucket", ("sat-1", "api", "64.0")] == 6
    assert found["request_duration_seconds_bucket", ("sat-1", "api", "+Inf")] == 7
    assert found["request_bytes_total", ("sat-1", "api")] == 10
    assert found["response_bytes_total", ("sat-1", "api")] == 20
    assert found["failovers_total", ("sat-1", "api")] == 1


def test_the_classes_that_alerts_are_made_of_begin_at_zero():
    metrics = make("hub")
    metrics.requests("sat-1", "api")
    codes = {key[1][2]: value for key, value in samples(metrics).items() if key[0] == "requests_total"}
    assert codes == {"2xx": 0, "4xx": 0, "5xx": 0}


def test_buckets_are_inclusive_and_at_powers_of_two():
    assert all(bound.hex().startswith("0x1.0000000000000p") for bound in SECONDS_BOUNDS + LAG_BOUNDS)
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.1):
        histogram.observe(value)
    assert (histogram.counts, histogram.total) == ([2, 2, 1], 6.6)


def test_a_service_that_returns_gets_its_old_handle():
    metrics = make("hub")
    assert metrics.requests("sat-1", "api") is metrics.requests("sat-1", "api")
    assert metrics.requests("sat-1", "api") is not metrics.requests("sat-2", "api")
    assert metrics.tunnel("sat-1", "hub-0") is metrics.tunnel("sat-1", "hub-0")


def test_a_satellite_that_was_removed_for_good_disappears():
    metrics = make("hub")
    for satellite in ("sat-1", "sat-2"):
        metrics.requests(satellite, "api")
        metrics.tunnel(satellite, "hub-0")
    metrics.forget_satellite("sat-1")
    assert {labels[0] for name, labels in samples(metrics) if name in ("requests_total", "tunnels_expected")} == {
        "sat-2"
    }


def test_a_replica_that_left_the_list_disappears():
    metrics = make("satellite")
    metrics.tunnel("sat-1", "hub-0").expected = 1
    metrics.tunnel("sat-1", "hub-1").expected = 1
    metrics.forget_replica("sat-1", "hub-0")
    found = samples(metrics)
    assert [key for key in found if key[0] == "tunnels_expected"] == [("tunnels_expected", ("sat-1", "hub-1"))]


def test_label_sets_are_bounded_and_the_rest_shares_one():
    cells = Labelled(RequestMetrics, 2, 3)
    handles = [cells.labels("sat", f"s{number}") for number in range(10)]
    assert len(set(map(id, handles))) == 4
    assert handles[3] is handles[9] is cells.labels("other", "other")
    assert cells.labels("sat", "s1") is handles[1]
    cells.remove("sat", "s1")
    assert cells.labels("sat", "s10") is not handles[9]
    assert cells.labels("sat", "s11") is handles[9]
    cells.remove()
    assert cells.children == {}


def test_a_wrong_number_of_labels_is_our_mistake():
    with pytest.raises(ValueError, match="1 label values where 2 are needed"):
        Labelled(RequestMetrics, 2, 3).labels("sat")


def test_hostile_label_values_cannot_break_a_scrape():
    metrics = make("hub")
    metrics.requests('a"} 1\nevil_total 7 # {', "\\").observe(200, 0.1)
    found = samples(metrics)
    assert found["requests_total", ('a"} 1\nevil_total 7 # {', "\\", "2xx")] == 1
    assert not any(name.startswith("evil") for name, _ in found)


def test_counters_of_tunnels_outlive_their_sessions():
    metrics = make("satellite")
    tunnel = metrics.tunnel("sat-1", "hub-0")
    tunnel.expected = 2
    first = FakeSession(0.03, 1, 100, 200, 5, {1: object(), 2: object()})
    second = FakeSession(0.01, 2, 10, 20, 7, {1: object()})
    tunnel.up(first)
    tunnel.up(second)
    at = ("sat-1", "hub-0")
    found = samples(metrics)
    assert found["tunnels_expected", at] == 2
    assert found["tunnels_connected", at] == 2
    assert found["tunnel_rtt_seconds", at] == 0.01
    assert found["streams_open", at] == 3
    tunnel.down(second)
    tunnel.down(second)
    tunnel.reconnects += 1
    after = samples(metrics)
    assert after["tunnels_connected", at] == 1
    assert after["tunnel_rtt_seconds", at] == 0.03
    assert after["streams_open", at] == 2
    assert after["reconnects_total", at] == 1
    for name, value in (
        ("credit_stalls", 3),
        ("tunnel_received_bytes", 110),
        ("tunnel_sent_bytes", 220),
        ("streams", 12),
    ):
        assert found[f"{name}_total", at] == after[f"{name}_total", at] == value


def test_a_tunnel_without_a_measured_round_trip_shows_none():
    metrics = make("satellite")
    metrics.tunnel("sat-1", "hub-0").up(FakeSession())
    assert ("tunnel_rtt_seconds", ("sat-1", "hub-0")) not in samples(metrics)


def test_a_real_session_has_what_a_scrape_reads():
    class Owner:
        def on_dirty(self) -> None:
            pass

    tunnel = TunnelMetrics()
    tunnel.up(Session(HUB, Owner(), 0.0))
    assert (tunnel.rtt, tunnel.streams_open, tunnel.streams_opened, tunnel.credit_stalls) == (None, 0, 0, 0)
    assert (tunnel.bytes_in, tunnel.bytes_out) == (0, 0)


def test_resets_are_counted_by_the_names_of_the_wire_and_unknown_codes_together():
    metrics = make("satellite")
    tunnel = metrics.tunnel("sat-1", "hub-0")
    for code in (frames.CANCELLED, frames.CANCELLED, 7777, 8888):
        tunnel.reset(code)
    found = samples(metrics)
    assert found["stream_resets_total", ("sat-1", "hub-0", "cancelled")] == 2
    assert found["stream_resets_total", ("sat-1", "hub-0", "other")] == 2


def test_codes_that_a_hostile_peer_makes_up_take_no_room():
    tunnel = TunnelMetrics()
    for code in range(100_000):
        tunnel.reset(code)
    assert len(tunnel.resets) < 100
    assert sum(tunnel.resets.values()) == 100_000


def test_the_hub_shows_its_registry():
    metrics, registry = HubMetrics("1"), Registry()
    now = [0.0]
    metrics.watch(registry, lambda: now[0])
    lease, _ = registry.attach("sat-1", "i", {}, FakeTunnel())
    registry.attach("sat-1", "i", {}, FakeTunnel())
    registry.register(lease, [ServiceSpec("api", limits=Limits(1, 5)), ServiceSpec("web")])
    api = registry.endpoint("sat-1", "api")
    api.inflight = 3
    api.gate.try_enter()
    api.gate.enqueue("waiter", 0.0)
    while not api.health.failure(0.0):
        pass
    found, at = samples(metrics), ("sat-1", "api")
    assert found["registry_satellites", ()] == 1
    assert found["registry_services", ()] == 2
    assert found["registry_tunnels", ()] == 2
    assert found["requests_in_flight", at] == 3
    assert found["requests_waiting", at] == 1
    assert found["service_ejected", at] == 1
    assert found["service_ejected", ("sat-1", "web")] == 0
    assert found["service_ejections_total", at] == 1
    now[0] = 1000.0
    assert samples(metrics)["service_ejected", at] == 0


def test_the_hub_counts_decisions_own_answers_connections_and_audit():
    @dataclass
    class Log:
        written: int = 5
        dropped: int = 2

    metrics = HubMetrics("1", Log())
    for allowed in (True, True, False):
        metrics.count_decision(allowed)
    for status in (200, 404, 404, 0):
        metrics.count_local(status)
    metrics.connection_opened("https")
    metrics.connection_opened("https")
    metrics.connection_closed("https")
    metrics.certificate_expiry.labels("public").value = 1_800_000_000
    found = samples(metrics)
    assert found["decisions_total", ("allow",)] == 2
    assert found["decisions_total", ("deny",)] == 1
    assert found["local_responses_total", ("2xx",)] == 1
    assert found["local_responses_total", ("4xx",)] == 2
    assert found["local_responses_total", ("other",)] == 1
    assert found["client_connections_open", ("https",)] == 1
    assert found["client_connections_total", ("https",)] == 2
    assert found["audit_records_total", ()] == 5
    assert found["audit_dropped_total", ()] == 2
    assert found["certificate_expiry_timestamp_seconds", ("public",)] == 1_800_000_000


def test_the_satellite_counts_exports_and_backend_failures():
    metrics = SatelliteMetrics("1", "sat-1")
    metrics.exports_healthy.value = 3
    metrics.exports_unhealthy.value = 1
    metrics.backend_failed("api", frames.CONNECT_FAILED)
    metrics.backend_failed("api", 4242)
    found = samples(metrics)
    assert found["exports", ("sat-1", "healthy")] == 3
    assert found["exports", ("sat-1", "unhealthy")] == 1
    assert found["backend_failures_total", ("sat-1", "api", "connect-failed")] == 1
    assert found["backend_failures_total", ("sat-1", "api", "other")] == 1


def test_lag_of_the_event_loop_is_a_histogram():
    metrics = make("hub")
    metrics.loop_lag.observe(0.3)
    found = samples(metrics)
    assert found["event_loop_lag_seconds_bucket", ("0.25",)] == 0
    assert found["event_loop_lag_seconds_bucket", ("0.5",)] == 1
    assert found["event_loop_lag_seconds_sum", ()] == pytest.approx(0.3)
