from __future__ import annotations

import stat
from pathlib import Path

import pytest

from platformctl.cli.contexts import Context, Contexts, config_path
from platformctl.errors import ConfigError, NotFound
from tests.unit.cli.conftest import Cli


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"PLATFORMCTL_CONFIG": "/a/c.yaml", "XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/a/c.yaml"),
        ({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x/platformctl/config.yaml"),
        ({"HOME": "/h"}, "/h/.config/platformctl/config.yaml"),
    ],
)
def test_the_file_is_the_named_one_or_in_the_users_configuration(environ: dict[str, str], path: str) -> None:
    assert config_path(environ) == Path(path)


def test_a_missing_file_has_no_contexts(tmp_path: Path) -> None:
    contexts = Contexts.load(tmp_path / "none.yaml")
    assert (contexts.known, contexts.current) == ({}, "")


def test_what_is_saved_is_loaded_again_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config.yaml"
    contexts = Contexts(path, "a", {"a": Context(hub="https://h"), "b": Context(state="/s")})
    contexts.save()
    assert Contexts.load(path) == contexts
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("contexts: [1]", "is not a list of contexts"),
        ("just text", "is not a list of contexts"),
        ("contexts: {a: {url: x}}", "unknown key 'url'"),
        ("contexts: {a: 1}", "is not a list of contexts"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Contexts.load(path)
    assert str(path) in caught.value.message


def test_an_unreadable_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Contexts.load(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        Contexts(tmp_path / "file" / "config.yaml").save()


def test_an_unknown_context_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match="there is no context 'x'") as caught:
        Contexts(Path("c.yaml"), "", {"b": Context(), "a": Context()}).get("x")
    assert "a, b" in caught.value.hint


def test_contexts_are_added_listed_used_and_removed(cli: Cli, config: Path, token_file: Path) -> None:
    assert cli("context", "list").out == "No contexts.\n"
    assert cli("context", "add", "prod", "--hub", "https://hub", "--token-file", str(token_file)).code == 0
    assert "in use" not in cli("context", "add", "lab", "--state", "/var/lab").out
    listed = cli("context", "list", "-o", "json").json["items"]
    assert [(row["name"], row["current"], row["hub"], row["state"]) for row in listed] == [
        ("lab", False, "", "/var/lab"),
        ("prod", True, "https://hub", ""),
    ]
    assert listed[1]["token_file"] == str(token_file)
    assert cli("context", "use", "lab").code == 0
    assert cli("context", "list").out.splitlines()[1].split()[:2] == ["*", "lab"]
    assert cli("context", "list", "-o", "name").out == "context/lab\ncontext/prod\n"
    assert cli("context", "remove", "lab").code == 0
    assert Contexts.load(config).current == ""
    assert cli("context", "use", "lab").code == 5


def test_a_context_is_replaced_only_on_demand(cli: Cli, config: Path) -> None:
    assert cli("context", "add", "a", "--hub", "https://one").code == 0
    assert cli("context", "add", "a", "--hub", "https://two").code == 6
    assert cli("context", "add", "a", "--hub", "https://two", "--replace").code == 0
    assert Contexts.load(config).known["a"].hub == "https://two"


def test_a_context_added_for_use_becomes_current(cli: Cli, config: Path) -> None:
    cli("context", "add", "a", "--hub", "https://one")
    cli("context", "add", "b", "--hub", "https://two", "--use")
    assert Contexts.load(config).current == "b"


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param([], id="neither"),
        pytest.param(["--hub", "https://h", "--state", "/s"], id="both"),
        pytest.param(["--hub", "hub.example"], id="no scheme"),
        pytest.param(["--hub", "https://h", "--token-file", "/does/not/exist"], id="no such token"),
    ],
)
def test_a_context_that_makes_no_sense_is_refused(flags: list[str], cli: Cli, config: Path) -> None:
    assert cli("context", "add", "a", *flags).code == 2
    assert not config.exists()
