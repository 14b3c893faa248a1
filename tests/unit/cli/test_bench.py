"""`bench`: what it sends where, and what it prints. The load generator itself is tested in tests/unit/verify."""

from __future__ import annotations

from tests.unit.cli.conftest import Cli, FakeHub


def test_bench_prints_figures_and_sends_the_token_to_its_hub_alone(cli: Cli, hub: FakeHub, token_file: object) -> None:
    hub.answers["GET /s/sat-1/api/"] = (200, {"ok": True})
    flags = ["-d", "0.1", "-c", "2", "--hub", hub.url, "--token-file", str(token_file)]
    outcome = cli("bench", "/s/sat-1/api/", *flags, "-o", "json")
    assert outcome.code == 0
    figures = outcome.json
    assert 0 < figures["requests"] <= len(hub.asked) <= figures["requests"] + 2  # the last may be under way
    assert (figures["errors"], figures["connections"]) == ({}, 2)
    assert {asked.authorization for asked in hub.asked} == {"Bearer ct-abc.secret"}
    hub.asked.clear()
    other = hub.url.replace("127.0.0.1", "localhost")
    assert cli("bench", f"{other}/s/sat-1/api/", *flags).code == 0
    assert {asked.authorization for asked in hub.asked} == {None}


def test_bench_fails_when_a_request_does(cli: Cli, hub: FakeHub) -> None:
    outcome = cli("bench", f"{hub.url}/nothing", "-d", "0.1", "-c", "1")
    assert outcome.code == 1
    assert "× status 404" in outcome.out
    assert "latency" not in outcome.out


def test_a_target_that_is_not_there_is_told_with_its_reason(cli: Cli) -> None:
    outcome = cli("bench", "http://127.0.0.1:1/", "-d", "0.1", "-c", "1")
    assert outcome.code == 1
    assert "answered  0 in" in outcome.out
    assert "× connect: Connection refused" in outcome.out


def test_what_is_no_url_is_refused(cli: Cli) -> None:
    assert cli("bench", "api").code == 2
