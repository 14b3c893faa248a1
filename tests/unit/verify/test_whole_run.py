from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from platformctl.errors import ConfigError, UsageError
from platformctl.verify.backend import OutOfReach
from platformctl.verify.checks import CHECKS
from platformctl.verify.context import LIVE_WITHIN
from platformctl.verify.environment import Environment
from platformctl.verify.model import CheckResult, Report
from tests.unit.verify.conftest import SATELLITES, Platform


def by_name(report: Report) -> dict[str, CheckResult]:
    return {result.name: result for result in report.checks}


async def test_a_healthy_platform_passes_every_check_in_every_place(platform: Platform) -> None:
    report = await platform.verify()
    failed = [result for result in report.checks if result.status == "failed"]
    assert failed == []
    # The fake satellites keep no state folder; nothing else may be skipped.
    assert [r.name for r in report.checks if r.status == "skipped"] == [
        f"satellite-certificate[{s}]" for s in SATELLITES
    ]
    assert report.ok
    assert {"hub-ready[hub-1]", "unary[sat-1 via hub-1]", "tcp[sat-2 via hub-2]", "ca-certificate"} <= by_name(
        report
    ).keys()
    assert {result.check for result in report.checks} == {check.name for check in CHECKS}


async def test_the_echo_backend_is_withdrawn_and_other_exports_stay(platform: Platform) -> None:
    await platform.verify("^unary")
    assert [platform.satellites.services(name).keys() for name in SATELLITES] == [{"api"}, {"api"}]


async def test_the_echo_backend_is_withdrawn_when_the_run_is_cancelled(platform: Platform) -> None:
    platform.satellites.unhealthy.add("http")  # the run waits for the export to become live
    run = asyncio.create_task(platform.verify("^unary"))
    while not any(name.startswith("verify-") for name in platform.satellites.services("sat-2")):  # noqa: ASYNC110 (a file)
        await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert [platform.satellites.services(name).keys() for name in SATELLITES] == [{"api"}, {"api"}]


async def test_what_a_killed_run_left_behind_is_withdrawn(platform: Platform) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    await platform.satellites.export("sat-1", [])
    platform.satellites._write("sat-1", {"api": "http://127.0.0.1:9", f"verify-{gone.pid}-http": "http://127.0.0.1:9"})
    await platform.verify("^unary")
    assert platform.satellites.services("sat-1").keys() == {"api"}


async def test_a_run_that_lives_keeps_its_exports(platform: Platform) -> None:
    other = f"verify-{os.getppid()}-http"
    platform.satellites._write("sat-1", {"api": "http://127.0.0.1:9", other: "http://127.0.0.1:9"})
    report = await platform.verify("^(unary|registry)")
    assert report.count("failed") == 0
    assert platform.satellites.services("sat-1").keys() == {"api", other}


async def test_checks_without_a_backend_export_nothing(platform: Platform) -> None:
    await platform.verify("^(hub-ready|connected|unknown-service)")
    assert platform.satellites.withdrawals == []


async def test_a_selection_leaves_the_rest_out(platform: Platform) -> None:
    report = await platform.verify("^unary")
    names = [f"unary[{satellite} via {hub}]" for satellite in SATELLITES for hub in ("hub-1", "hub-2")]
    assert [(result.name, result.status) for result in report.checks] == [(name, "passed") for name in names]


async def test_a_category_selects_its_checks(platform: Platform) -> None:
    report = await platform.verify("^clock$")
    assert [result.check for result in report.checks] == ["clock-skew", "clock-skew"]


async def test_skipped_checks_are_reported_as_skipped(platform: Platform) -> None:
    report = await platform.verify("^(unary|hub-ready)", skip="sat-2 via|hub-ready")
    statuses = {result.name: result.status for result in report.checks}
    assert statuses["unary[sat-2 via hub-1]"] == statuses["hub-ready[hub-1]"] == "skipped"
    assert statuses["unary[sat-1 via hub-1]"] == "passed"
    assert report.to_dict()["skipped"] == 4


async def test_a_pattern_that_selects_nothing_is_a_usage_error_that_names_the_checks(platform: Platform) -> None:
    with pytest.raises(UsageError) as caught:
        await platform.verify("nothing-like-this")
    assert "unary" in caught.value.hint


async def test_a_pattern_that_is_no_regular_expression_is_a_usage_error(platform: Platform) -> None:
    with pytest.raises(UsageError, match="--skip"):
        await platform.verify(skip="(")


async def test_a_cut_tunnel_fails_with_a_hint_that_names_it_and_skips_what_needs_it(platform: Platform) -> None:
    platform.hubs[1].cut_off.add("sat-1")
    report = await platform.verify("connected|unary|tcp|latency")
    results = by_name(report)
    broken = results["connected[sat-1 via hub-2]"]
    assert broken.status == "failed"
    assert "sat-1 has no tunnel to hub-2" in broken.hint
    assert "docs/reference/verify.md#connected" in broken.hint
    assert results["unary[sat-1 via hub-2]"].status == "skipped"
    assert results["unary[sat-1 via hub-2]"].detail == "connected[sat-1 via hub-2] failed"
    assert results["unary[sat-1 via hub-1]"].status == results["tcp[sat-2 via hub-2]"].status == "passed"
    assert not report.ok


@pytest.mark.usefixtures("quick")
async def test_a_single_check_through_a_cut_tunnel_names_the_cause_itself(platform: Platform) -> None:
    platform.hubs[0].cut_off.add("sat-1")
    result = await platform.verify_one("unary")
    assert result.status == "failed"
    assert "HTTP 503 satellite-offline" in result.detail
    assert "sat-1 has no tunnel to hub-1" in result.hint


async def test_nobody_waits_for_the_export_of_a_dead_agent(platform: Platform) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    platform.satellites.unhealthy.add("http")
    platform.change_env(pids={"hub": [], "satellites": {"sat-1": gone.pid}})
    result = await platform.verify_one("export-live")
    assert result.status == "failed"
    assert result.duration_ms < 1000 * LIVE_WITHIN


@pytest.mark.usefixtures("quick")
async def test_a_dead_agent_is_named_with_its_pid(platform: Platform) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 (at once) dead, and not yet collected: a zombie
        platform.hubs[0].cut_off.add("sat-1")
        platform.change_env(pids={"hub": [], "satellites": {"sat-1": gone.pid}})
        result = await platform.verify_one("unary")
        assert f"The agent of satellite sat-1 (pid {gone.pid}) is not running" in result.hint
    finally:
        gone.wait()


@pytest.mark.usefixtures("quick")
async def test_a_stopped_agent_is_named(platform: Platform) -> None:
    stopped = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        stopped.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)  # noqa: ASYNC222 (at once)
        platform.change_env(pids={"hub": [], "satellites": {"sat-1": stopped.pid}})
        result = await platform.verify_one("agent-running")
        assert result.status == "failed"
        assert f"is stopped (SIGSTOP or a debugger): let it go on with `kill -CONT {stopped.pid}`" in result.hint
    finally:
        stopped.kill()
        stopped.wait()


@pytest.mark.usefixtures("quick")
async def test_an_unhealthy_backend_is_named(platform: Platform) -> None:
    platform.satellites.unhealthy.add("websocket")
    result = await platform.verify_one("export-live")
    assert result.status == "failed"
    assert f"verify-{os.getpid()}-websocket is unhealthy at hub-1" in result.hint


@pytest.mark.usefixtures("quick")
async def test_a_satellite_that_refuses_the_export_is_named(platform: Platform) -> None:
    platform.satellites.refuse_exports = True
    result = await platform.verify_one("unary")
    assert result.status == "failed"
    assert "could not export its echo backend into sat-1: the exports file is read-only" in result.hint


async def test_checks_that_need_a_backend_are_skipped_where_exports_are_out_of_reach(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(satellite: str, services: object) -> None:
        raise OutOfReach(f"what {satellite} exports cannot be changed from here", hint="Run it there.")

    monkeypatch.setattr(platform.satellites, "export", refuse)
    report = await platform.verify("^(unary|tcp|connected)")
    assert {(result.check, result.status) for result in report.checks} == {
        ("connected", "passed"),
        ("unary", "skipped"),
        ("tcp", "skipped"),
    }
    assert report.ok
    assert report.checks[-1].hint == "Run it there."


async def test_without_a_token_file_a_run_says_so(platform: Platform) -> None:
    platform.change_env(admin_token_file="")
    with pytest.raises(ConfigError, match="no token file"):
        await platform.verify("^unary")


async def test_a_hub_that_is_gone_is_named(platform: Platform) -> None:
    await platform.hubs[0].stop()
    result = await platform.verify_one("hub-api")
    assert result.status == "failed"
    assert f"hub-1 does not answer at {platform.hubs[0].public_url} (Connection refused)" in result.hint


def test_an_environment_that_is_missing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Environment.load(tmp_path / "env.json")
    assert "platformctl up" in caught.value.hint


@pytest.mark.parametrize("text", ["{", "[]", '{"hub_url": "https://x"}', '{"hub_url": 1, "admin_token_file": "x"}'])
def test_an_environment_that_is_not_one_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "env.json").write_text(text)
    with pytest.raises(ConfigError):
        Environment.load(tmp_path / "env.json")


def test_an_environment_without_replicas_is_one_replica_at_the_hub_url() -> None:
    document = {
        "hub_url": "https://hub:1/",
        "admin_token_file": "t",
        "metrics_urls": ["http://m:2/metrics"],
        "pids": {"hub": [7]},
    }
    (replica,) = Environment.from_dict(json.loads(json.dumps(document))).replicas
    assert (replica.public_url, replica.health_url, replica.pid) == ("https://hub:1", "http://m:2", 7)
