"""For all tests: nothing reads or writes the settings of whoever runs them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run of CI, so that a red build is red again; here, new ones each time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HUB", "CONTEXT", "STATE", "TOKEN_FILE", "CA_FILE", "JOIN_TOKEN"):
        monkeypatch.delenv(f"PLATFORMCTL_{name}", raising=False)
    home: Path = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("PLATFORMCTL_CONFIG", str(home / "no-config.yaml"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
