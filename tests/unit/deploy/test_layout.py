from __future__ import annotations

import itertools
import socket
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from platformctl.access.policy_file import load_policy
from platformctl.deploy import layout as layout_module
from platformctl.deploy.layout import POLICY, Layout, curl_config
from platformctl.deploy.ports import HOST, free, is_free
from platformctl.deploy.topology import DEFAULT, SatellitePlan, TcpPlan, Topology
from platformctl.errors import PlatformError, StoreError
from platformctl.hub.config import HubConfig
from platformctl.satellite.config import SatelliteConfig

TOPOLOGY = Topology(
    2,
    (SatellitePlan("sat-1", {"region": "eu"}, lanes=2), SatellitePlan("sat-2")),
    (TcpPlan("sat-1", "db", 5432), TcpPlan("sat-1", "cache")),
    {"tracing": {"sample_ratio": 0.5}, "audit": {"decisions": "all"}},
)
PIDS = {"hub-1": 1, "hub-2": 2, "sat-1": 3, "sat-2": 4}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.complete(TOPOLOGY, Random(1), running=set())
    return made


def as_text(config: dict[str, Any]) -> str:
    return yaml.safe_dump(config)


def test_every_listener_of_a_replica_is_there_twice_and_the_hub_takes_the_file(layout: Layout) -> None:
    config = HubConfig.from_text(as_text(layout.hub_config("hub-1", TOPOLOGY)), "hub-1.yaml", layout.root)
    shared, own = layout.ports.shared, layout.ports.hubs["hub-1"]
    for kind in ("public", "http", "tunnel"):
        assert [address.port for address in getattr(config.listeners, kind)] == [shared[kind], own[kind]]
    assert [address.port for address in config.listeners.health] == [own["health"]]
    assert [(each.service, each.address.port) for each in config.listeners.tcp] == [
        ("db", 5432),
        ("cache", layout.ports.tcp["cache.sat-1"]),
    ]
    assert config.reuse_port
    assert config.advertise.tunnel_url == f"wss://{HOST}:{own['tunnel']}"
    assert config.sample_ratio == 0.5
    assert (config.audit.path, config.audit.decisions) == (layout.audit("hub-1"), "all")


def test_the_satellite_takes_its_file(layout: Layout) -> None:
    config = SatelliteConfig.from_text(
        as_text(layout.satellite_config(TOPOLOGY.satellites[0])), "sat.yaml", layout.root
    )
    assert config.hubs == (f"wss://{HOST}:{layout.ports.shared['tunnel']}",)
    assert (config.labels, config.lanes, config.exports) == ({"region": "eu"}, 2, layout.exports("sat-1"))


def test_the_environment_has_the_promised_names(layout: Layout) -> None:
    env = layout.environment(TOPOLOGY, PIDS)
    promised = {"hub_url", "http_url", "tunnel_url", "metrics_urls", "ca_file", "admin_token_file", "pids"}
    assert promised <= set(env)
    assert env["pids"] == {"hub": [1, 2], "satellites": {"sat-1": 3, "sat-2": 4}}
    assert env["hub_url"].startswith("https://")
    assert env["http_url"].startswith("http://")
    assert env["tunnel_url"].startswith("wss://")
    assert len(env["metrics_urls"]) == 2
    assert [replica["pid"] for replica in env["replicas"]] == [1, 2]


def test_ports_are_all_different_and_kept(layout: Layout) -> None:
    ports = list(layout.ports.all())
    assert len(set(ports)) == len(ports)
    again = Layout.load(layout.root)
    assert again.ports == layout.ports
    again.complete(TOPOLOGY.sized(3, 3), Random(2), running=set())
    assert again.ports.shared == layout.ports.shared
    assert again.ports.hubs["hub-2"] == layout.ports.hubs["hub-2"]
    assert set(again.ports.hubs) == {"hub-1", "hub-2", "hub-3"}
    assert len(set(again.ports.all())) == len(list(again.ports.all()))


def test_a_port_that_a_stranger_took_is_replaced_and_ours_is_not(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Layout.load(layout.root).ports
    monkeypatch.setattr(layout_module, "is_free", lambda port: port != before.shared["http"])
    running = Layout.load(layout.root)
    running.complete(TOPOLOGY, Random(3), running={"hub-1"})
    assert running.ports.shared == before.shared
    stopped = Layout.load(layout.root)
    stopped.complete(TOPOLOGY, Random(3), running=set())
    assert stopped.ports.shared["http"] != before.shared["http"]
    assert stopped.ports.shared["public"] == before.shared["public"]


def test_a_broken_memory_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "local.json").write_text("{")
    with pytest.raises(StoreError, match=r"local\.json cannot be read"):
        Layout.load(tmp_path)


def test_the_first_policy_lets_admins_do_everything_and_nobody_else_anything() -> None:
    policy = load_policy([("policy.yaml", POLICY)])
    assert {rule["name"] for rule in yaml.safe_load(POLICY)["rules"]} == {
        "admins-call-every-service",
        "admins-use-the-control-api",
    }
    assert policy is not None


def test_free_ports_skip_what_is_taken_and_what_is_busy() -> None:
    first = list(itertools.islice(free([], Random(1)), 5))
    second = list(itertools.islice(free(first, Random(1)), 5))
    assert not set(first) & set(second)
    assert all(port < 32768 for port in first)
    assert list(itertools.islice(free([], Random(1), usable=lambda port: port == first[3]), 1)) == [first[3]]
    with pytest.raises(PlatformError, match="no port between"):
        next(free([], Random(1), usable=lambda _: False))


def test_a_port_is_busy_while_somebody_listens_there() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_the_usual_topology_needs_no_tcp_ports(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.complete(DEFAULT, Random(1), running=set())
    assert "tcp" not in layout.hub_config("hub-1", DEFAULT)["listeners"]


def test_the_topology_is_kept_between_runs(layout: Layout) -> None:
    kept = Layout.load(layout.root).topology
    assert kept == TOPOLOGY
    assert Layout.load(layout.root / "nowhere").topology is None


def test_curl_reads_its_configuration(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted\\ folder'
    folder.mkdir()
    file = folder / "admin.curl"
    file.write_text(curl_config(folder / "ca.pem", "ct-1.secret"))
    # There is no such CA file: curl says how it understood its path, once it is connected.
    with socket.create_server((HOST, 0)) as listener:
        url = f"https://{HOST}:{listener.getsockname()[1]}/"
        done = subprocess.run(["curl", "-sS", "-m", "5", "-K", file, url], capture_output=True, text=True)
    assert str(folder / "ca.pem") in done.stderr
    assert "secret" not in done.stderr
