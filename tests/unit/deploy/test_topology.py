from __future__ import annotations

import pytest

from platformctl.deploy.topology import DEFAULT, SatellitePlan, TcpPlan, parse_topology
from platformctl.errors import ConfigError

TEXT = """\
replicas: 3
tracing: {sample: 0.5}
hub: {ping_interval: 2s}
tcp:
  - {satellite: edge, service: db, port: 5432}
  - {satellite: edge, service: cache}
satellites:
  - {name: edge, labels: {region: eu}, lanes: 2, exports: [{name: db, to: "tcp://127.0.0.1:5432"}]}
  - {}
"""


def names(satellites: tuple[SatellitePlan, ...]) -> list[str]:
    return [plan.name for plan in satellites]


def test_a_file_says_what_is_started() -> None:
    topology = parse_topology(TEXT, "t.yaml")
    assert topology.hubs == ["hub-1", "hub-2", "hub-3"]
    assert names(topology.satellites) == ["edge", "sat-2"]
    edge = topology.satellites[0]
    assert (edge.labels, edge.lanes, edge.exports[0]["name"]) == ({"region": "eu"}, 2, "db")
    assert topology.tcp == (TcpPlan("edge", "db", 5432), TcpPlan("edge", "cache", 0))
    assert topology.hub == {"ping_interval": "2s", "tracing": {"sample_ratio": 0.5}}


def test_a_file_without_satellites_leaves_the_usual_two() -> None:
    assert names(parse_topology("tracing: {sample: 0.01}", "t.yaml").satellites) == ["sat-1", "sat-2"]
    assert parse_topology("satellites: []", "t.yaml").satellites == ()
    assert parse_topology("", "t.yaml") == DEFAULT


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, []),
        (1, ["sat-1"]),
        (2, ["sat-1", "sat-2"]),
        (4, ["sat-1", "sat-2", "sat-3", "sat-4"]),
        (None, ["sat-1", "sat-2"]),
    ],
)
def test_satellites_are_numbered_from_one(count: int | None, expected: list[str]) -> None:
    assert names(DEFAULT.sized(None, count).satellites) == expected


def test_counts_of_the_command_line_win_over_the_files() -> None:
    topology = parse_topology(TEXT, "t.yaml").sized(1, 3)
    assert topology.hubs == ["hub-1"]
    assert names(topology.satellites) == ["edge", "sat-2", "sat-1"]
    assert topology.satellites[0].labels == {"region": "eu"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("satellites:\n  - {name: Edge}\n", "t.yaml:2"),
        ("satellites:\n  - {name: a}\n  - {name: a}\n", "t.yaml:3.*listed twice"),
        ("satellites:\n  - {name: sat-2}\n  - {}\n", "t.yaml:3.*listed twice"),
        ("hub: {domain: x}\n", "t.yaml:1"),
        ("nonsense: 1\n", "nonsense"),
        ("replicas: 0\n", "t.yaml:1"),
        ("a: [", "t.yaml"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_topology(text, "t.yaml")
