from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from platformctl.deploy import exports
from platformctl.deploy.files import exclusive, private_folder, write_text
from platformctl.errors import ConfigError, Conflict, StoreError
from platformctl.satellite.exports import parse_exports

API = {"name": "api", "to": "http://127.0.0.1:1"}
DB = {"name": "db", "to": "tcp://127.0.0.1:2"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exports.yaml"


def test_an_edit_adds_replaces_and_removes(path: Path) -> None:
    exports.edit(path, lambda old: exports.add(old, [API, DB]), parse_exports)
    assert exports.listed(path) == [API, DB]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = {**API, "to": "http://127.0.0.1:3"}
    exports.edit(path, lambda old: exports.add(old, [other]), parse_exports)
    assert exports.listed(path) == [other, DB]
    exports.edit(path, lambda old: exports.remove(old, ["api", "never there"]), parse_exports)
    assert exports.listed(path) == [DB]
    assert set(parse_exports(path.read_text())) == {"db"}


def test_nothing_is_written_when_nothing_changes(path: Path) -> None:
    path.write_text("services:   [ {name: api, to: 'http://127.0.0.1:1'} ]  # mine\n")
    before = path.read_text()
    exports.edit(path, lambda old: exports.add(old, [API]), parse_exports)
    assert path.read_text() == before


def test_an_edit_that_makes_a_wrong_file_changes_nothing(path: Path) -> None:
    exports.edit(path, lambda old: exports.add(old, [API]), parse_exports)
    before = path.read_text()
    with pytest.raises(ConfigError, match="name"):
        exports.edit(path, lambda old: exports.add(old, [{**API, "name": "No Good"}]), parse_exports)
    assert path.read_text() == before


def test_other_keys_of_an_entry_are_kept(path: Path) -> None:
    entry = {**API, "health": {"type": "http", "path": "/h"}, "limits": {"concurrency": 3}}
    path.write_text(yaml.safe_dump({"services": [entry]}))
    exports.edit(path, lambda old: exports.add(old, [DB]), parse_exports)
    assert exports.listed(path) == [entry, DB]


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "is not YAML"), ("services: 3", "is no exports file"), ("text", "no exports")]
)
def test_a_broken_file_is_not_overwritten(text: str, message: str, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        exports.edit(path, lambda old: exports.add(old, [API]), parse_exports)
    assert path.read_text() == text


def test_a_missing_or_empty_file_exports_nothing(path: Path, tmp_path: Path) -> None:
    assert exports.listed(path) == []
    path.write_text("services:\n")
    assert exports.listed(path) == []
    with pytest.raises(ConfigError, match="cannot be read"):
        exports.listed(tmp_path)


def test_one_edit_at_a_time(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "LOCK_SECONDS", 0.0)
    with exclusive(tmp_path / ".exports.lock", "busy"), pytest.raises(Conflict, match="being changed by another"):
        exports.edit(path, lambda old: [*old, API], parse_exports)
    exports.edit(path, lambda old: [*old, API], parse_exports)


def test_private_folders_are_narrowed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    assert stat.S_IMODE(private_folder(tmp_path / "open").stat().st_mode) == 0o700
    write_text(tmp_path / "open" / "x", "é\n")
    assert (tmp_path / "open" / "x").read_text() == "é\n"
    with pytest.raises(StoreError, match="cannot make the folder"):
        private_folder(tmp_path / "open" / "x" / "y")
    with pytest.raises(StoreError, match="cannot write"), exclusive(tmp_path / "none" / "lock", "busy"):
        pass
