from __future__ import annotations

import pytest

from platformctl.errors import Conflict
from platformctl.routing.registry import Registry
from platformctl.routing.selector import parse_selector
from platformctl.routing.snapshot import snapshot
from platformctl.routing.spec import Limits, ServiceSpec


def test_an_empty_registry_knows_nothing():
    registry = Registry()
    assert registry.endpoint("sat-1", "api") is None
    assert registry.endpoints("api") == []
    assert registry.satellite("sat-1") is None
    assert (registry.satellite_count, registry.service_count, registry.tunnel_count) == (0, 0, 0)
    assert snapshot(registry, 0.0) == []


def test_a_registered_service_is_found_with_its_tunnel(fleet):
    _, tunnel = fleet.up("sat-1", "api", "web", labels={"region": "eu"})
    endpoint = fleet.registry.endpoint("sat-1", "api")
    assert (endpoint.key, endpoint.satellite, endpoint.service) == ("sat-1/api", "sat-1", "api")
    assert endpoint.tunnels == [tunnel]
    assert fleet.registry.endpoint("sat-1", "db") is None
    assert (fleet.registry.satellite_count, fleet.registry.service_count, fleet.registry.tunnel_count) == (1, 2, 1)


def test_every_change_bumps_the_generation(fleet):
    registry = fleet.registry
    seen = [registry.generation]
    lease, _ = fleet.up("sat-1", "api")
    seen.append(registry.generation)
    registry.register(lease, [ServiceSpec("web")])
    seen.append(registry.generation)
    registry.deregister(lease, ["web"])
    seen.append(registry.generation)
    registry.detach(lease)
    seen.append(registry.generation)
    assert seen == sorted(set(seen))


def test_the_last_tunnel_takes_its_services_along(fleet):
    lease, _ = fleet.up("sat-1", "api")
    endpoint = fleet.registry.endpoint("sat-1", "api")
    assert fleet.registry.detach(lease) == [endpoint]
    assert endpoint.gone
    assert fleet.registry.endpoint("sat-1", "api") is None
    assert fleet.registry.endpoints("api") == []
    assert fleet.registry.satellites() == []


def test_detach_is_harmless_when_it_comes_twice(fleet):
    lease, _ = fleet.up("sat-1", "api")
    fleet.registry.detach(lease)
    generation = fleet.registry.generation
    assert fleet.registry.detach(lease) == []
    assert fleet.registry.generation == generation
    assert fleet.registry.tunnel_count == 0


def test_a_late_detach_does_not_remove_the_successor(fleet):
    old, _ = fleet.up("sat-1", "api", instance="old")
    fleet.registry.detach(old)
    _, tunnel = fleet.up("sat-1", "api", instance="new")
    assert fleet.registry.detach(old) == []
    assert fleet.registry.endpoint("sat-1", "api").tunnels == [tunnel]


def test_an_endpoint_keeps_its_identity_when_tunnels_change(fleet):
    first, _ = fleet.up("sat-1", "api")
    endpoint = fleet.registry.endpoint("sat-1", "api")
    endpoint.metrics = object()
    _, second_tunnel = fleet.up("sat-1", "api")
    fleet.registry.detach(first)
    assert fleet.registry.endpoint("sat-1", "api") is endpoint
    assert endpoint.tunnels == [second_tunnel]
    assert not endpoint.gone


def test_tunnels_of_one_instance_serve_together(fleet):
    _, small = fleet.up("sat-1", "api")
    lease, bulk = fleet.up("sat-1", "api")
    assert fleet.registry.endpoint("sat-1", "api").tunnels == [small, bulk]
    assert not lease.superseded


def test_registering_again_on_a_tunnel_does_not_double_it(fleet):
    lease, tunnel = fleet.up("sat-1", "api")
    fleet.registry.register(lease, [ServiceSpec("api", "tcp")])
    endpoint = fleet.registry.endpoint("sat-1", "api")
    assert endpoint.tunnels == [tunnel]
    assert endpoint.spec.kind == "tcp"


def test_a_newer_instance_supersedes_but_the_old_one_serves_until_it_is_replaced(fleet, tunnel):
    registry = fleet.registry
    old, old_tunnel = fleet.up("sat-1", "api", "web", instance="old")
    endpoint = registry.endpoint("sat-1", "api")
    new_tunnel = tunnel()
    new, superseded = registry.attach("sat-1", "new", {}, new_tunnel)
    assert superseded == [old]
    assert old.superseded
    assert endpoint.tunnels == [old_tunnel]

    registry.register(new, [ServiceSpec("api")])
    assert registry.endpoint("sat-1", "api") is endpoint
    assert endpoint.tunnels == [new_tunnel]
    assert registry.endpoint("sat-1", "web").tunnels == [old_tunnel]

    web = registry.endpoint("sat-1", "web")
    assert registry.detach(old) == [web]
    assert endpoint.tunnels == [new_tunnel]


def test_superseded_leases_are_returned_once(fleet, tunnel):
    fleet.up("sat-1", instance="a")
    _, first = fleet.registry.attach("sat-1", "b", {}, tunnel())
    _, second = fleet.registry.attach("sat-1", "b", {}, tunnel())
    assert (len(first), second) == (1, [])


def test_a_superseded_lease_registers_nothing_more(fleet):
    old, _ = fleet.up("sat-1", "api", instance="old")
    fleet.up("sat-1", "api", instance="new")
    assert fleet.registry.register(old, [ServiceSpec("x")]) == (
        [],
        [("x", "a newer agent of this satellite has taken over")],
    )


def test_what_a_superseded_lease_withdraws_is_no_longer_its_own(fleet):
    old, _ = fleet.up("sat-1", "api", instance="old")
    _, tunnel = fleet.up("sat-1", "api", instance="new")
    assert fleet.registry.deregister(old, ["api"]) == []
    assert fleet.registry.endpoint("sat-1", "api").tunnels == [tunnel]


def test_late_steps_of_an_old_lease_after_its_service_is_gone_are_harmless(fleet):
    registry = fleet.registry
    old, _ = fleet.up("sat-1", "api", "web", instance="old")
    new, _ = fleet.up("sat-1", "api", "web", instance="new")
    registry.deregister(new, ["api", "web"])
    assert registry.deregister(old, ["api"]) == []
    assert registry.detach(old) == []


def test_a_superseded_instance_cannot_throw_its_successor_out(fleet, tunnel):
    fleet.up("sat-1", instance="a")
    fleet.up("sat-1", instance="b")
    with pytest.raises(Conflict, match="sat-1 is served by a newer agent") as caught:
        fleet.registry.attach("sat-1", "a", {}, tunnel())
    assert "one identity" in caught.value.hint
    assert fleet.registry.tunnel_count == 2


def test_a_superseded_instance_may_return_when_its_successor_is_gone(fleet, tunnel):
    old, _ = fleet.up("sat-1", "api", instance="a")
    new, _ = fleet.up("sat-1", instance="b")
    fleet.registry.detach(new)
    back, superseded = fleet.registry.attach("sat-1", "a", {}, tunnel())
    assert superseded == []
    assert fleet.registry.register(back, [ServiceSpec("api")])[0] == ["api"]
    assert fleet.registry.endpoint("sat-1", "api").tunnels == [back.tunnel]
    assert old.superseded
    with pytest.raises(Conflict):
        fleet.registry.attach("sat-1", "b", {}, tunnel())


def test_only_a_bounded_number_of_old_instances_is_remembered(fleet):
    for number in range(50):
        fleet.up("sat-1", instance=f"i{number}")
    assert fleet.registry.satellite("sat-1").retired == [f"i{number}" for number in range(41, 49)]


def test_tunnels_of_a_satellite_are_bounded(tunnel):
    registry = Registry(max_tunnels=2)
    for _ in range(2):
        registry.attach("sat-1", "a", {}, tunnel())
    with pytest.raises(Conflict, match="sat-1 has 2 tunnels to this replica"):
        registry.attach("sat-1", "a", {}, tunnel())
    registry.attach("sat-2", "a", {}, tunnel())


def test_services_of_a_satellite_are_bounded_and_the_rest_is_refused_with_a_reason(tunnel):
    registry = Registry(max_services=2)
    lease, _ = registry.attach("sat-1", "a", {}, tunnel())
    accepted, refused = registry.register(lease, [ServiceSpec("a"), ServiceSpec("b"), ServiceSpec("c")])
    assert accepted == ["a", "b"]
    assert refused == [("c", "the satellite may have 2 services and has them")]
    assert registry.register(lease, [ServiceSpec("a", "tcp")])[0] == ["a"]


def test_register_on_a_detached_lease_is_refused(fleet):
    lease, _ = fleet.up("sat-1")
    fleet.registry.detach(lease)
    assert fleet.registry.register(lease, [ServiceSpec("a")]) == ([], [("a", "this tunnel is no longer attached")])
    assert fleet.registry.deregister(lease, ["a"]) == []


def test_deregister_ignores_names_that_the_lease_does_not_serve(fleet):
    lease, _ = fleet.up("sat-1", "api")
    fleet.up("sat-2", "db")
    assert fleet.registry.deregister(lease, ["db", "nothing"]) == []
    assert fleet.registry.endpoint("sat-2", "db") is not None


def test_a_service_leaves_when_all_lanes_have_withdrawn_it(fleet):
    one, _ = fleet.up("sat-1", "api")
    two, _ = fleet.up("sat-1", "api")
    endpoint = fleet.registry.endpoint("sat-1", "api")
    assert fleet.registry.deregister(one, ["api"]) == []
    assert not endpoint.gone
    assert fleet.registry.deregister(two, ["api"]) == [endpoint]


def test_one_satellite_leaving_does_not_hide_another_with_the_same_service(fleet):
    lease, _ = fleet.up("sat-1", "api")
    fleet.up("sat-2", "api")
    fleet.registry.detach(lease)
    assert [endpoint.key for endpoint in fleet.registry.endpoints("api")] == ["sat-2/api"]


def test_an_unhealthy_service_is_remembered_until_it_is_back_or_removed(fleet):
    lease, _ = fleet.up("sat-1", "api", "web")
    record = fleet.registry.satellite("sat-1")
    fleet.registry.deregister(lease, ["api", "web"], unhealthy=True)
    assert record.unhealthy == {"api", "web"}
    fleet.registry.register(lease, [ServiceSpec("api")])
    assert record.unhealthy == {"web"}
    fleet.registry.deregister(lease, ["web"])
    assert record.unhealthy == set()


def test_the_memory_of_unhealthy_services_is_bounded(tunnel):
    registry = Registry(max_services=2)
    lease, _ = registry.attach("sat-1", "a", {}, tunnel())
    for name in ("a", "b", "c"):
        registry.register(lease, [ServiceSpec(name)])
        registry.deregister(lease, [name], unhealthy=True)
    assert registry.satellite("sat-1").unhealthy == {"a", "b"}


def test_endpoints_are_selected_by_the_labels_of_satellite_and_service(fleet):
    fleet.up("sat-1", ServiceSpec("api", labels={"tier": "gold"}), labels={"region": "eu"})
    fleet.up("sat-2", "api", labels={"region": "us"})
    fleet.up("sat-3", "other", labels={"region": "eu"})

    def keys(text):
        return [endpoint.key for endpoint in fleet.registry.endpoints("api", parse_selector(text))]

    assert keys("") == ["sat-1/api", "sat-2/api"]
    assert keys("region=us") == ["sat-2/api"]
    assert keys("tier=gold,region=eu") == ["sat-1/api"]
    assert keys("region=mars") == []


def test_a_service_cannot_pretend_to_be_elsewhere(fleet):
    fleet.up("sat-1", ServiceSpec("api", labels={"region": "eu"}), labels={"region": "us"})
    assert fleet.registry.endpoints("api", parse_selector("region=eu")) == []


def test_new_labels_count_when_the_new_instance_registers(fleet, tunnel):
    fleet.up("sat-1", "api", instance="a", labels={"region": "eu"})
    lease, _ = fleet.registry.attach("sat-1", "b", {"region": "us"}, tunnel())
    assert fleet.registry.satellite("sat-1").labels == {"region": "us"}
    assert fleet.registry.endpoint("sat-1", "api").labels == {"region": "eu"}
    fleet.registry.register(lease, [ServiceSpec("api")])
    assert fleet.registry.endpoint("sat-1", "api").labels == {"region": "us"}


def test_new_limits_reach_the_gate_of_a_living_endpoint(fleet):
    lease, _ = fleet.up("sat-1", "api")
    gate = fleet.registry.endpoint("sat-1", "api").gate
    fleet.registry.register(lease, [ServiceSpec("api", limits=Limits(7, 8, 9.0))])
    assert fleet.registry.endpoint("sat-1", "api").gate is gate
    assert (gate.concurrency, gate.queue, gate.queue_timeout) == (7, 8, 9.0)


def test_the_least_busy_tunnel_is_picked(fleet, tunnel):
    fleet.up("sat-1", "api", tunnel=tunnel(inflight=5))
    _, idle = fleet.up("sat-1", "api", tunnel=tunnel(inflight=1))
    fleet.up("sat-1", "api", tunnel=tunnel(inflight=1))
    assert fleet.registry.endpoint("sat-1", "api").pick(0.0) is idle


@pytest.mark.parametrize(("lane", "expected"), [("default", 0), ("bulk", 1)])
def test_the_lane_of_the_service_is_preferred_over_an_idle_tunnel(fleet, tunnel, lane, expected):
    tunnels = [
        tunnel(lane=0, inflight=3),
        tunnel(lane=1, inflight=3),
        tunnel(lane=0, inflight=9),
        tunnel(lane=2, inflight=9),
    ]
    tunnels[1 - expected].inflight = 0
    for one in tunnels:
        fleet.up("sat-1", ServiceSpec("api", lane=lane), tunnel=one)
    assert fleet.registry.endpoint("sat-1", "api").pick(0.0) is tunnels[expected]


def test_the_other_lane_is_better_than_none(fleet, tunnel):
    fleet.up("sat-1", ServiceSpec("api", lane="bulk"), tunnel=tunnel(lane=1, draining=True))
    _, small = fleet.up("sat-1", ServiceSpec("api", lane="bulk"), tunnel=tunnel(lane=0))
    endpoint = fleet.registry.endpoint("sat-1", "api")
    assert endpoint.pick(0.0) is small
    assert endpoint.serving()


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_is_picked_when_every_tunnel_drains(fleet, tunnel, count):
    for _ in range(count):
        fleet.up("sat-1", "api", tunnel=tunnel(draining=True))
    endpoint = fleet.registry.endpoint("sat-1", "api")
    assert endpoint.pick(0.0) is None
    assert not endpoint.serving()


def test_the_snapshot_shows_satellites_tunnels_and_services(fleet, tunnel):
    fleet.up("sat-2", "web", "api", labels={"region": "eu"}, tunnel=tunnel(inflight=2, lane=1))
    lease, _ = fleet.up("sat-1", "db")
    fleet.registry.deregister(lease, ["db"], unhealthy=True)
    api = fleet.registry.endpoint("sat-2", "api")
    api.inflight = 3
    api.pick(40.0)
    one, two = snapshot(fleet.registry, 42.0)
    assert one["name"] == "sat-1"
    assert one["services"] == []
    assert one["unhealthy"] == ["db"]
    assert (two["name"], two["instance"], two["labels"]) == ("sat-2", "i1", {"region": "eu"})
    assert two["tunnels"] == [
        {"id": 1, "instance": "i1", "lane": 1, "inflight": 2, "draining": False, "superseded": False}
    ]
    assert [service["name"] for service in two["services"]] == ["api", "web"]
    shown = two["services"][0]
    assert {key: shown[key] for key in ("tunnels", "inflight", "waiting", "ejected", "idle", "kind")} == {
        "tunnels": 1,
        "inflight": 3,
        "waiting": 0,
        "ejected": False,
        "idle": 2.0,
        "kind": "http",
    }
    assert two["services"][1]["idle"] is None
