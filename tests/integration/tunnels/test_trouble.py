"""A hub in trouble: with its store, its files, its ports. It says which, and traffic goes on where it can."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Platform, until
from .load import Load


@contextlib.contextmanager
def locked(store: Path) -> Iterator[None]:
    """Another process's transaction that does not end."""
    db = sqlite3.connect(store, isolation_level=None, timeout=10)
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")
    finally:
        db.close()


async def test_a_store_that_hangs_makes_the_hub_unready_and_stops_no_request(platform: Platform) -> None:
    load = Load(platform.url(), platform.token, per_second=300, connections=8)
    async with load.running():
        with locked(platform.state / "hub" / "hub.db"):
            await asyncio.to_thread(until, lambda: not platform.is_ready(0), 8, "the hub is not ready")
            failed = platform.ready(0).json()["failed"]
            assert [one["name"] for one in failed] == ["store"]
            assert "locked" in failed[0]["detail"]
            # Agents come and go meanwhile: what was read before decides.
            platform.signal(platform.agent("sat-2"), signal.SIGKILL)
            await asyncio.to_thread(platform.ended, platform.agent("sat-2"))
            platform.start_agent("sat-2")
            await asyncio.to_thread(until, lambda: platform.serving(0, "sat-2"), 8, "the agent is back")
        await asyncio.to_thread(until, lambda: platform.is_ready(0), 8, "the hub is ready again")
    assert not load.failed(), load.summary()
    times = sorted(one.seconds for one in load.outcomes)
    assert times[len(times) * 99 // 100] < 0.25


def run_hub(config: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "hub.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "platformctl", "hub", "run", "--config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def own_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """A replica of its own, beside the platform."""
    return {
        "id": "lonely",
        "state": str(folder / "hub"),
        "domain": "lonely.localhost",
        "listeners": {"tunnel": [{"address": "127.0.0.1:0"}], "health": [{"address": "127.0.0.1:0"}]},
        **changes,
    }


@pytest.mark.parametrize("kind", ["public", "http", "tunnel", "sni", "health"])
def test_a_port_that_is_taken_is_an_error_that_names_it(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_hub(own_config(tmp_path, listeners={kind: [{"address": f"127.0.0.1:{port}"}]}), tmp_path)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: " in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_broken_policy_is_an_error_at_the_start(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("kind: AccessPolicy\nrules: 5\n")
    done = run_hub(own_config(tmp_path, policy=str(policy)), tmp_path)
    assert done.returncode == 2
    assert "policy.yaml" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("config", [{"id": "x"}, {"listeners": 5}, {"id": "hub", "state": ".", "domain": "UPPER CASE"}])
def test_a_broken_configuration_is_an_error_that_names_the_file(tmp_path: Path, config: dict[str, Any]) -> None:
    done = run_hub(config, tmp_path)
    assert done.returncode == 2
    assert "hub.yaml" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_state_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("a file where the folder should be")
    done = run_hub(own_config(tmp_path), tmp_path)
    assert done.returncode == 1
    assert str(tmp_path / "hub") in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_an_agent_without_an_identity_says_how_to_join(tmp_path: Path) -> None:
    config = tmp_path / "sat.yaml"
    config.write_text(yaml.safe_dump({"name": "edge-1", "state": str(tmp_path), "hubs": ["wss://127.0.0.1:1"]}))
    command = [sys.executable, "-m", "platformctl", "satellite", "run", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "platformctl join satellite" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


async def test_a_broken_policy_changes_nothing_while_the_hub_runs(platform: Platform) -> None:
    good = platform.state / "policy.yaml"
    text = good.read_text()
    try:
        good.write_text("rules: [")
        platform.signal(platform.hub(0), signal.SIGHUP)
        verbose = platform.env["metrics_urls"][0].replace("/metrics", "/readyz?verbose")
        await asyncio.sleep(1)
        answer = platform.get(verbose)
        assert answer.status_code == 200
        assert platform.serving(0)
        assert "the policy file is broken" in (platform.state / "log" / "hub-1.log").read_text()
    finally:
        good.write_text(text)
    await asyncio.sleep(0.7)
    assert platform.serving(0)


async def test_a_policy_of_ten_thousand_rules_is_taken_over_without_a_pause(platform: Platform) -> None:
    policy = platform.state / "policy.yaml"
    text = policy.read_text()
    rules = "\n".join(
        f'  - {{name: r{n}, subjects: ["token:t{n}"], satellites: ["s{n}-*"], services: [a{n}]}}' for n in range(10_000)
    )
    log = platform.state / "log" / "hub-1.log"
    reloads = log.read_text().count("policy was reloaded")
    load = Load(platform.url(), platform.token, per_second=200, connections=8)
    try:
        async with load.running():
            await asyncio.sleep(0.3)
            policy.write_text(f"{text.rstrip()}\n{rules}\n")
            await asyncio.to_thread(
                until,
                lambda: log.read_text().count("policy was reloaded") > reloads,
                20,
                "the policy is in force",
            )
        assert not load.failed(), load.summary()
        assert max(one.seconds for one in load.outcomes) < 0.5
    finally:
        policy.write_text(text)


async def test_sighup_ends_neither_hub_nor_agent(platform: Platform) -> None:
    for pid in (platform.hub(0), platform.agent()):
        platform.signal(pid, signal.SIGHUP)
    await asyncio.sleep(0.5)
    assert platform.whole()


async def test_bulk_services_have_a_lane_of_their_own(platform: Platform, tmp_path: Path) -> None:
    config = yaml.safe_load((platform.state / "config" / "sat-2.yaml").read_text())
    exports = tmp_path / "exports.yaml"
    to = f"http://127.0.0.1:{platform.backend}"
    services = [{"name": "web", "to": to}, {"name": "files", "to": to, "lane": "bulk"}]
    exports.write_text(yaml.safe_dump({"services": services}))
    changed = tmp_path / "sat-2.yaml"
    changed.write_text(yaml.safe_dump({**config, "lanes": 3, "exports": str(exports)}))
    platform.signal(platform.agent("sat-2"), signal.SIGTERM)
    platform.ended(platform.agent("sat-2"))
    pid = platform.start(changed, "satellite", "sat-2")
    try:

        def lanes(replica: int) -> dict[int, int]:
            rows = platform.api("tunnels", replica)
            return {row["lane"]: row["bytes_received"] for row in rows if row["satellite"] == "sat-2"}

        until(lambda: platform.whole() and [*sorted(lanes(0))] == [0, 1, 2], 10, "three lanes to the replica")
        url = platform.url(0, "sat-2", "/bytes/20000000").replace("/web/", "/files/")
        assert len(platform.get(url).content) == 20_000_000
        assert sum(size > 19_000_000 for lane, size in lanes(0).items() if lane > 0) == 1
        assert lanes(0)[0] < 1_000_000
        assert platform.metric("platformctl_tunnels_expected", satellite="sat-2") == 3
        assert platform.metric("platformctl_tunnels_connected", satellite="sat-2") == 3
    finally:
        platform.signal(pid, signal.SIGTERM)
        platform.ended(pid)


async def test_a_satellite_that_is_away_is_expected_and_not_connected(platform: Platform) -> None:
    assert platform.metric("platformctl_tunnels_connected", satellite="sat-2") == 1
    platform.signal(platform.agent("sat-2"), signal.SIGKILL)
    until(lambda: platform.metric("platformctl_tunnels_connected", satellite="sat-2") == 0, 2, "it is not connected")
    assert platform.metric("platformctl_tunnels_expected", satellite="sat-2") == 1
    row = next(one for one in platform.api("satellites") if one["name"] == "sat-2")
    assert (row["state"], row["connected"], row["expected"]) in [("offline", 0, 2), ("degraded", 1, 2)]
    answer = platform.get(platform.url(0, "sat-2"))
    assert (answer.status_code, answer.json()["code"]) == (503, "satellite-disconnected")


async def test_a_frozen_agent_and_a_frozen_replica_are_found_within_fifteen_seconds_and_are_back_in_two(
    platform: Platform,
) -> None:
    """Their kernels go on acknowledging: only PING finds that."""
    started = time.monotonic()
    frozen = [platform.agent("sat-2"), platform.hub(1)]
    for pid in frozen:
        platform.signal(pid, signal.SIGSTOP)
    try:
        url = platform.env["satellites"]["sat-1"]["health_url"] + "/metrics"

        def found() -> bool:
            agent = platform.metric("platformctl_tunnels_connected", url=url, replica="hub-2") == 0
            hub = platform.metric("platformctl_tunnels_connected", satellite="sat-2") == 0
            return agent and hub

        await asyncio.to_thread(until, found, 15, "the frozen ones are found")
        assert time.monotonic() - started > 5
        answer = platform.get(platform.url(0, "sat-2"))
        assert answer.status_code == 503
        assert answer.elapsed.total_seconds() < 1
        assert platform.serving(0)
    finally:
        for pid in frozen:
            platform.signal(pid, signal.SIGCONT)
    took = await asyncio.to_thread(until, platform.whole, 5, "every satellite is served by every replica")
    assert took < 2.0
