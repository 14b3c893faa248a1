from __future__ import annotations

import json
from pathlib import Path

import pytest

from platformctl.cli.connection import Connection, default_state, read_env
from platformctl.cli.contexts import Context, Contexts
from platformctl.errors import ConfigError, HubUnreachable, UsageError
from tests.unit.cli.conftest import Cli, FakeHub


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    replica = {"public_url": "https://127.0.0.1:9", "http_url": "http://127.0.0.1:8"}
    env = {
        "hub_url": "https://127.0.0.1:7",
        "http_url": "http://127.0.0.1:6",
        "admin_token_file": "/t/admin",
        "ca_file": "/t/ca",
        "replicas": [replica],
    }
    (folder / "env.json").write_text(json.dumps(env))
    return folder


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "config.yaml"
    known = {
        "prod": Context(hub="https://prod/", token_file="/t/prod", ca_file="/t/prod-ca"),
        "open": Context(hub="https://o"),
    }
    Contexts(path, "prod", known).save()
    return {"PLATFORMCTL_CONFIG": str(path)}


def hub_of(environ: dict[str, str], **flags: str) -> str:
    return Connection(flags, environ).target().hub


def test_the_first_that_is_given_wins(environ: dict[str, str], state: Path) -> None:
    assert hub_of(environ) == "https://prod"
    environ["PLATFORMCTL_STATE"] = str(state)
    assert hub_of(environ) == "https://127.0.0.1:7"
    environ["PLATFORMCTL_CONTEXT"] = "open"
    assert hub_of(environ) == "https://o"
    environ["PLATFORMCTL_HUB"] = "https://variable"
    assert hub_of(environ) == "https://variable"
    assert hub_of(environ, context="prod") == "https://prod"
    assert hub_of(environ, context="prod", state=str(state)) == "https://127.0.0.1:7"
    assert hub_of(environ, context="prod", state=str(state), hub="https://flag") == "https://flag"


def test_the_files_come_from_where_the_address_came_from_unless_named(environ: dict[str, str]) -> None:
    target = Connection({}, environ).target()
    assert (target.token_file, target.ca_file, target.origin) == (Path("/t/prod"), Path("/t/prod-ca"), "context prod")
    environ["PLATFORMCTL_TOKEN_FILE"] = "/v/token"
    target = Connection({"ca_file": "/f/ca"}, environ).target()
    assert (target.token_file, target.ca_file) == (Path("/v/token"), Path("/f/ca"))
    assert Connection({"hub": "https://h", "token_file": "/f/token"}, environ).target().token_file == Path("/f/token")


def test_a_hub_that_is_only_named_gets_no_token_of_another(environ: dict[str, str]) -> None:
    assert Connection({"hub": "https://elsewhere"}, environ).target().token_file is None


def test_without_any_hub_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    connection = Connection({}, {"PLATFORMCTL_CONFIG": str(tmp_path / "none")})
    assert not connection.named()
    with pytest.raises(UsageError, match="no hub is named") as caught:
        connection.target()
    assert "platformctl up" in caught.value.hint


def test_the_state_is_the_flag_or_the_targets(environ: dict[str, str], state: Path) -> None:
    assert Connection({"state": str(state)}, environ).state() == state
    assert Connection({}, {**environ, "PLATFORMCTL_STATE": str(state)}).state() == state
    with pytest.raises(UsageError, match="its folder is not known"):
        Connection({}, environ).state()
    with pytest.raises(UsageError, match="its folder is not known"):
        Connection({"hub": "https://h"}, environ).state()


def test_the_state_falls_back_to_where_up_keeps_it(tmp_path: Path) -> None:
    environ = {"PLATFORMCTL_CONFIG": str(tmp_path / "none"), "XDG_STATE_HOME": str(tmp_path)}
    assert Connection({}, environ).state() == tmp_path / "platformctl" / "local"
    assert default_state({"HOME": "/h"}) == Path("/h/.local/state/platformctl/local")


def test_a_token_goes_to_the_hubs_own_addresses_only(environ: dict[str, str], state: Path) -> None:
    local = Connection({"state": str(state)}, environ).target()
    assert all(
        local.serves(f"{origin}/s/a/b")
        for origin in ("https://127.0.0.1:7", "http://127.0.0.1:8", "https://127.0.0.1:9")
    )
    assert not local.serves("http://127.0.0.1:7/")
    assert not local.serves("https://127.0.0.1:70/")
    prod = Connection({}, environ).target()
    assert prod.serves("https://prod:443/x")
    assert not prod.serves("https://prod.evil.example/x")


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read"), ("[]", "is not a JSON object")])
def test_a_broken_environment_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "env.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_env(tmp_path)


def test_a_state_where_nothing_runs_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(HubUnreachable, match="no local platform runs in") as caught:
        read_env(tmp_path)
    assert f"platformctl up --state {tmp_path}" in caught.value.hint


def test_flags_may_stand_before_or_after_the_verb(cli: Cli, hub: FakeHub) -> None:
    hub.lists("satellites", {"name": "a"})
    assert cli("--hub", hub.url, "satellites", "-o", "name").out == "satellite/a\n"
    assert cli("satellites", "-o", "name", "--hub", hub.url).out == "satellite/a\n"
    assert cli("--hub", "http://127.0.0.1:1", "satellites", "-o", "name", "--hub", hub.url).out == "satellite/a\n"
