"""What a command refuses before it starts or changes anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from platformctl.cli.exporter import NoExporter
from platformctl.verify import OutOfReach
from tests.unit.cli.conftest import Cli, FakeHub


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("satellites: [{name: a, exports: [{name: x, to: nonsense}]}]", "satellite a: exports[0].to: 'nonsense' does"),
        ("satellites: [{name: a, labels: {'bad key!': x}}]", "satellite a: 'bad key!=x' is not a label"),
        ("satelites: []", "satelites: unknown key; allowed here: hub, replicas"),
        ("hub: {listeners: {}}", "hub.listeners: unknown key; allowed here: approval, audit"),
        ("satellites: [{name: a", "not valid YAML"),
    ],
)
def test_a_wrong_topology_starts_nothing(text: str, complaint: str, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "topology.yaml").write_text(text)
    outcome = cli("up", "--state", str(tmp_path / "state"), "--no-context", "-f", str(tmp_path / "topology.yaml"))
    assert outcome.code == 2
    assert f"{tmp_path}/topology.yaml" in outcome.err
    assert complaint in outcome.err
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["x", "--to", "127.0.0.1:1"], "to: '127.0.0.1:1' does not have the form"),
        (["x", "--to", "ftp://127.0.0.1:1"], "to: 'ftp://127.0.0.1:1' does not have the form"),
        (["X_y", "--to", "http://127.0.0.1:1"], "name: 'X_y' does not have the form"),
        (["x", "--to", "http://127.0.0.1:1", "--health", "nowhere"], "health.path: 'nowhere' does not have the form"),
    ],
)
def test_a_wrong_export_touches_no_file(arguments: list[str], complaint: str, tmp_path: Path, cli: Cli) -> None:
    exports = tmp_path / "exports.yaml"
    (tmp_path / "env.json").write_text(json.dumps({"satellites": {"sat-1": {"exports": str(exports)}}}))
    outcome = cli("export", "add", *arguments, "--satellite", "sat-1", "--state", str(tmp_path))
    assert outcome.code == 2
    assert outcome.err.startswith(f"platformctl: {complaint}")
    assert "hint: " in outcome.err
    assert not exports.exists()


def test_a_report_that_cannot_be_written_is_told_before_the_checks_run(
    cli: Cli, hub: FakeHub, token_file: Path, tmp_path: Path
) -> None:
    hub.lists("satellites")
    flags = ["--hub", hub.url, "--token-file", str(token_file)]
    outcome = cli("verify", *flags, "--output-file", str(tmp_path / "nowhere" / "report.xml"))
    assert outcome.code == 2
    assert "report.xml cannot be written: No such file or directory" in outcome.err
    assert [asked.path for asked in hub.asked] == ["/api/v1/satellites"]


async def test_what_satellites_elsewhere_export_is_out_of_reach_and_no_failure() -> None:
    with pytest.raises(OutOfReach) as caught:
        await NoExporter().export("edge-1", [])
    assert "--state" in caught.value.hint
    await NoExporter().withdraw("edge-1", [])


def test_a_service_without_its_satellite_is_not_waited_for(cli: Cli) -> None:
    outcome = cli("services", "api", "--wait", "--hub", "http://127.0.0.1:1")
    assert outcome.code == 2
    assert "For example api.sat-1." in outcome.err
