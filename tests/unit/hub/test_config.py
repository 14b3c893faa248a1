from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from platformctl.errors import ConfigError
from platformctl.hub.config import (
    Advertise,
    AuditConfig,
    HubConfig,
    Listeners,
    LogConfig,
    ServerTls,
    TcpPort,
    Timeouts,
)
from platformctl.net.address import Address

FULL = """
id: hub-1
state: /var/lib/hub
domain: hub.example.com
trust_domain: example.com
approval: required
listeners:
  public: [{address: "0.0.0.0:443"}, {address: "[::]:443"}]
  http: [{address: "127.0.0.1:8080"}]
  tunnel: [{address: ":8443"}]
  health: [{address: "127.0.0.1:0"}, {address: "127.0.0.1:0"}]
  sni: [{address: ":9443"}]
  tcp:
    - {address: ":5432", satellite: edge-1, service: db}
advertise:
  tunnel_url: wss://hub-1.example.com:8443/
  public_url: https://hub.example.com
  http_url: http://hub.internal:8080
  metrics_url: http://hub-1:9090/metrics
policy: policy.yaml
audit: {path: audit.jsonl, decisions: all}
tls: {cert: tls.crt, key: tls.key}
log: {format: console, level: warning}
reuse_port: true
timeouts: {head: 5s, idle: 2m, drain: 1500ms}
ping_interval: 7s
trusted_proxies: [10.0.0.0/8, "fd00::/8"]
tracing: {sample_ratio: 0.5}
"""
BASE = "id: h\nstate: s\ndomain: hub.test\nlisteners: {}\n"


def test_everything_is_read_and_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "hub.yaml"
    path.write_text(FULL)

    assert HubConfig.from_file(path) == HubConfig(
        id="hub-1",
        state=Path("/var/lib/hub"),
        domain="hub.example.com",
        trust_domain="example.com",
        listeners=Listeners(
            public=(Address("0.0.0.0", 443), Address("::", 443)),
            http=(Address("127.0.0.1", 8080),),
            tunnel=(Address("", 8443),),
            health=(Address("127.0.0.1", 0), Address("127.0.0.1", 0)),
            sni=(Address("", 9443),),
            tcp=(TcpPort(Address("", 5432), "edge-1", "db"),),
        ),
        approval="required",
        advertise=Advertise(
            "wss://hub-1.example.com:8443",
            "https://hub.example.com",
            "http://hub.internal:8080",
            "http://hub-1:9090/metrics",
        ),
        policy=tmp_path / "policy.yaml",
        audit=AuditConfig(tmp_path / "audit.jsonl", "all"),
        tls=ServerTls(tmp_path / "tls.crt", tmp_path / "tls.key"),
        log=LogConfig("console", "warning"),
        reuse_port=True,
        timeouts=Timeouts(5.0, 120.0, 1.5),
        ping_interval=7.0,
        trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
        sample_ratio=0.5,
    )


def test_little_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "hub.yaml"
    path.write_text(BASE)

    assert HubConfig.from_file(path) == HubConfig(
        id="h", state=tmp_path / "s", domain="hub.test", trust_domain="hub.test", listeners=Listeners()
    )


def test_flags_win_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "hub.yaml"
    path.write_text(FULL)

    config = HubConfig.from_file(path, {"id": "hub-2", "audit": {"path": "-"}, "timeouts": {"head": 1}})

    assert config.id == "hub-2"
    assert config.audit == AuditConfig(Path("-"), "all")
    assert config.timeouts == Timeouts(1.0, 120.0, 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id: h\n", ":1: needs 'state' and 'domain' and 'listeners'"),
        (BASE + "approval: maybe\n", ":5: approval: must be one of auto, required, not 'maybe'"),
        (BASE + "domain: X\n", ":5: domain is given twice"),
        (BASE + "trusted_proxies:\n- 10.0.0.1/8\n", ":6: trusted_proxies[0]: is not a CIDR"),
        (BASE + "ping_interval: 2m\n", ":5: ping_interval: must be between 100ms and 60s, not 120s"),
        (BASE + "tls: {cert: a}\n", ":5: tls: needs 'key'"),
        (BASE + "tracing: {sample_ratio: 2}\n", ":5: tracing.sample_ratio: 2 is greater than the maximum"),
        (BASE + "advertise: {tunnel_url: 'https://h'}\n", ":5: advertise.tunnel_url: 'https://h' does not have"),
        (BASE + "timeouts: {heads: 1}\n", ":5: timeouts.heads: unknown key; allowed here: drain, head, idle"),
        (
            "id: h\nstate: s\ndomain: d\nlisteners:\n  http: [{address: ':80'}]\n  public: [{address: ':80'}]\n",
            ":6: listeners.public[0].address: :80 is taken by the http listener already",
        ),
        (
            "id: h\nstate: s\ndomain: d\nlisteners:\n  http: [{address: ':99999'}]\n",
            ":5: listeners.http[0].address: ':99999' is not host:port",
        ),
        (
            "id: h\nstate: s\ndomain: d\nlisteners:\n  tcp: [{address: ':1', satellite: a}]\n",
            ":5: listeners.tcp[0]: needs 'service'",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "hub.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        HubConfig.from_file(path)
    assert str(caught.value).startswith(str(path) + message)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        HubConfig.from_file(tmp_path / "absent.yaml")
