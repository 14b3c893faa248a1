from __future__ import annotations

from pathlib import Path

import pytest

from platformctl.errors import ConfigError
from platformctl.net.address import Address
from platformctl.satellite.config import LogConfig, SatelliteConfig

FULL = """
name: edge-1
state: state
labels: {region: eu}
hubs:
  - wss://hub-1.example.com:8443/
  - wss://[::1]:8443
exports: exports.yaml
health: {address: "127.0.0.1:9901"}
lanes: 2
log: {format: json, level: debug}
"""


def test_everything_is_read_and_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "satellite.yaml"
    path.write_text(FULL)

    assert SatelliteConfig.from_file(path) == SatelliteConfig(
        name="edge-1",
        state=tmp_path / "state",
        hubs=("wss://hub-1.example.com:8443", "wss://[::1]:8443"),
        labels={"region": "eu"},
        exports=tmp_path / "exports.yaml",
        health=Address("127.0.0.1", 9901),
        lanes=2,
        log=LogConfig("json", "debug"),
    )


def test_little_is_enough_and_flags_win(tmp_path: Path) -> None:
    path = tmp_path / "satellite.yaml"
    path.write_text("name: edge-1\nstate: /var/lib/x\nhubs: [wss://a:1]\n")

    config = SatelliteConfig.from_file(path, {"hubs": ["wss://b:2"], "log": {"level": "error"}})

    assert config == SatelliteConfig(
        name="edge-1", state=Path("/var/lib/x"), hubs=("wss://b:2",), log=LogConfig(level="error")
    )


BASE = "name: a\nstate: s\nhubs: [wss://h:1]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nstate: s\n", ":1: needs 'hubs'"),
        ("name: a\nstate: s\nhubs: []\n", ":3: hubs: "),
        ("name: a\nstate: s\nhubs: [https://h]\n", ":3: hubs[0]: 'https://h' does not have the form"),
        (BASE + "lanes: 0\n", ":4: lanes: 0 is less than the minimum"),
        (BASE + "health: {address: '9901'}\n", ":4: health.address: '9901' does not have the form"),
        (BASE + "health: {address: ':99999'}\n", ":4: health.address: ':99999' is not host:port"),
        (BASE + "labels: {a: '-'}\n", ':4: labels.a: "-" is not a label value'),
        (BASE + "log: {level: loud}\n", ":4: log.level: must be one of debug, info, warning, error, not 'loud'"),
        (BASE + "export: x\n", ":4: export: unknown key; allowed here: exports, health, hubs, labels"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "satellite.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        SatelliteConfig.from_file(path)
    assert str(caught.value).startswith(str(path) + message)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        SatelliteConfig.from_file(tmp_path / "absent.yaml")
