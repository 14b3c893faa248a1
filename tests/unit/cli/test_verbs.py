"""Verbs against a fake control API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from platformctl import __version__, speedups
from tests.unit.cli.conftest import Cli, FakeHub

SAT_1 = {
    "name": "sat-1",
    "labels": {"region": "eu"},
    "state": "connected",
    "connected": 2,
    "expected": 2,
    "rtt_ms": 0.42,
    "version": "0.1.0",
    "services": ["api"],
    "instance": "i-1",
    "tunnels": ["t1", "t2"],
}
SAT_2 = {**SAT_1, "name": "sat-2", "state": "degraded", "connected": 1}
API = {
    "name": "api",
    "satellite": "sat-1",
    "kind": "http",
    "state": "healthy",
    "path": "/s/sat-1/api/",
    "host": "api.sat-1.x",
}
DB = {"name": "db", "satellite": "sat-2", "kind": "tcp", "state": "unhealthy", "path": "", "host": ""}
REPLICA = {"id": "hub-1", "state": "ready", "url": "wss://h", "version": "0.1.0", "tunnels": 2, "started_at": None}


@pytest.fixture
def fleet(hub: FakeHub) -> FakeHub:
    hub.lists("satellites", SAT_1, SAT_2)
    hub.lists("services", API, DB)
    hub.lists("replicas", REPLICA)
    hub.lists("tunnels", {"id": "t1", "satellite": "sat-1", "replica": "hub-1", "bytes_sent": 7})
    hub.answers["GET /api/v1/version"] = (200, {"version": "0.1.0", "replica": "hub-1", "hot_path": "compiled"})
    return hub


def test_satellites_are_listed_with_their_tunnels(cli: Cli, fleet: FakeHub) -> None:
    lines = cli("satellites", "--hub", fleet.url).out.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "TUNNELS", "RTT(MS)", "LABELS", "SERVICES"]
    assert lines[1].split() == ["sat-1", "connected", "2/2", "0.4", "region=eu", "api"]
    assert lines[2].split()[:3] == ["sat-2", "degraded", "1/2"]
    assert "i-1" in cli("satellites", "--hub", fleet.url, "-o", "wide").out


def test_a_named_satellite_is_listed_alone_and_an_unknown_one_is_an_error(cli: Cli, fleet: FakeHub) -> None:
    assert cli("satellites", "sat-2", "--hub", fleet.url, "-o", "name").out == "satellite/sat-2\n"
    outcome = cli("satellites", "sat-2", "sat-9", "--hub", fleet.url)
    assert outcome.code == 5
    assert "the hub knows no satellite sat-9" in outcome.err


def test_waiting_for_satellites_names_the_incomplete_ones(cli: Cli, fleet: FakeHub) -> None:
    assert cli("satellites", "sat-1", "--wait", "--hub", fleet.url, "-o", "name").code == 0
    outcome = cli("satellites", "--wait", "--timeout", "0", "--hub", fleet.url)
    assert outcome.code == 7
    assert "not ready: sat-2" in outcome.err
    fleet.lists("satellites")
    assert "there is no satellite yet" in cli("satellites", "--wait", "--timeout", "0", "--hub", fleet.url).err


def test_services_are_listed_by_satellite(cli: Cli, fleet: FakeHub) -> None:
    assert cli("services", "--hub", fleet.url, "-o", "name").out == "service/api.sat-1\nservice/db.sat-2\n"
    assert cli("services", "--satellite", "sat-2", "--hub", fleet.url, "-o", "name").out == "service/db.sat-2\n"
    assert cli("services", "api.sat-1", "--wait", "--hub", fleet.url).code == 0
    assert cli("services", "db.sat-2", "--wait", "--timeout", "0", "--hub", fleet.url).code == 7


def test_tunnels_are_listed(cli: Cli, fleet: FakeHub) -> None:
    assert cli("tunnels", "--hub", fleet.url, "-o", "json").json["items"][0]["bytes_sent"] == 7
    assert cli("tunnels", "--hub", fleet.url, "--satellite", "sat-2").out == "No tunnels.\n"


def test_status_has_the_documented_fields(cli: Cli, fleet: FakeHub) -> None:
    status = cli("status", "--hub", fleet.url, "-o", "json").json
    assert set(status) == {"hub", "replicas", "satellites"}
    wanted = {"name", "labels", "state", "connected", "expected", "rtt_ms", "version", "services"}
    assert set(status["satellites"][0]) == wanted
    assert status["satellites"][0] == {key: SAT_1[key] for key in wanted}
    assert yaml.safe_load(cli("status", "--hub", fleet.url, "-o", "yaml").out) == status


def test_status_shows_hub_replicas_and_satellites(cli: Cli, fleet: FakeHub) -> None:
    out = cli("status", "--hub", fleet.url).out
    assert f"Hub {fleet.url}, version 0.1.0" in out
    assert "hub-1    ready" in out
    assert "sat-2  degraded   1/2" in out
    assert cli("status", "--hub", fleet.url, "-o", "name").out == "satellite/sat-1\nsatellite/sat-2\n"
    fleet.lists("satellites")
    assert "No satellite has joined." in cli("status", "--hub", fleet.url).out


def test_status_waits_for_tunnels_and_replicas(cli: Cli, fleet: FakeHub) -> None:
    fleet.lists("replicas", REPLICA, {**REPLICA, "id": "hub-2", "state": "draining"})
    outcome = cli("status", "--wait", "--timeout", "0", "--hub", fleet.url)
    assert outcome.code == 7
    assert "sat-2 1/2, hub-2 is draining" in outcome.err
    fleet.lists("satellites", SAT_1)
    fleet.lists("replicas", REPLICA)
    assert cli("status", "--wait", "--hub", fleet.url).code == 0


def test_version_tells_both_sides(cli: Cli, fleet: FakeHub) -> None:
    both = cli("version", "--hub", fleet.url, "-o", "json").json
    assert both["client"]["version"] == __version__
    assert both["client"]["hot_path"] == speedups.state()
    assert both["hub"] == {"version": "0.1.0", "replica": "hub-1", "hot_path": "compiled"}
    text = cli("version", "--hub", fleet.url).out
    assert f"; hot path: {speedups.state()})" in text
    assert "hub 0.1.0 (replica hub-1; hot path: compiled)" in text


def test_version_without_a_hub_says_why_and_is_no_failure(cli: Cli) -> None:
    outcome = cli("version")
    assert outcome.code == 0
    assert "no hub is named" in outcome.err
    assert cli("version", "--client").err == ""


def made(**more: Any) -> dict[str, Any]:
    command = "PLATFORMCTL_JOIN_TOKEN=jt-1.s platformctl join satellite edge --hub https://h --ca-pin sha256:0"
    return {"id": "jt-1", "token": "jt-1.s", "expires_at": "2030-01-01T00:00:00Z", "join_command": command, **more}


def test_a_join_token_is_printed_as_the_command_that_uses_it(cli: Cli, hub: FakeHub, token_file: Path) -> None:
    hub.answers["POST /api/v1/tokens"] = (201, made())
    flags = ["--label", "region=eu", "--label", "role=gpu,tier=1", "--ttl", "5m"]
    outcome = cli("token", "create", "--satellite", "edge", *flags, "--hub", hub.url, "--token-file", str(token_file))
    assert outcome.code == 0
    assert outcome.out == made()["join_command"] + "\n"
    assert hub.asked[0].body == {
        "satellite": "edge",
        "labels": {"region": "eu", "role": "gpu", "tier": "1"},
        "ttl_seconds": 300,
    }
    assert cli("token", "create", "--satellite", "edge", "--hub", hub.url, "-o", "json").json["token"] == "jt-1.s"
    assert cli("token", "create", "--satellite", "edge", "--hub", hub.url, "-o", "name").out == "token/jt-1\n"


@pytest.mark.parametrize("flags", [["--label", "region"], ["--label", "=eu"], ["--ttl", "soon"], ["--ttl", "0"]])
def test_a_wrong_label_or_lifetime_is_refused_before_the_hub_is_asked(flags: list[str], cli: Cli, hub: FakeHub) -> None:
    assert cli("token", "create", "--satellite", "edge", *flags, "--hub", hub.url).code == 2
    assert hub.asked == []


def test_tokens_are_listed_and_revoked(cli: Cli, hub: FakeHub) -> None:
    hub.lists("tokens", {"id": "jt-1", "satellite": "edge", "state": "unused", "uses": 0})
    hub.answers["DELETE /api/v1/tokens/jt-1"] = (204, b"")
    assert "edge" in cli("token", "list", "--hub", hub.url).out
    assert cli("token", "revoke", "jt-1", "--hub", hub.url).out == "token/jt-1 revoked\n"
    assert cli("token", "revoke", "jt-2", "--hub", hub.url).code == 5


def test_a_join_without_a_token_says_where_it_may_come_from(cli: Cli) -> None:
    outcome = cli("join", "satellite", "edge", "--hub", "https://127.0.0.1:1", "--ca-pin", "sha256:" + "0" * 64)
    assert outcome.code == 2
    assert "PLATFORMCTL_JOIN_TOKEN" in outcome.err


def test_a_join_to_nobody_is_unreachable_and_leaves_nothing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATFORMCTL_JOIN_TOKEN", "jt-1.secret")
    state = tmp_path / "edge"
    pin = "sha256:" + "0" * 64
    outcome = cli("join", "satellite", "edge", "--hub", "https://127.0.0.1:1", "--ca-pin", pin, "--state", str(state))
    assert outcome.code == 3
    assert "jt-1.secret" not in outcome.err
    assert not list(tmp_path.rglob("identity.*"))


def test_a_runtime_with_a_wrong_file_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "hub.yaml").write_text("id: hub-1\n")
    for verb in ("hub", "satellite"):
        outcome = cli(verb, "run", "--config", str(tmp_path / "hub.yaml"))
        assert outcome.code == 2
        assert str(tmp_path / "hub.yaml") in outcome.err
        assert cli(verb, "run", "--config", str(tmp_path / "none.yaml")).code == 2
