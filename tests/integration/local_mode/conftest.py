"""`platformctl` as people run it: as a program, with a state folder and settings of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from platformctl.deploy.processes import Records

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Platform:
    """A local platform in `state`; `run` runs one command line against it."""

    folder: Path
    state: Path = field(init=False)

    def __post_init__(self) -> None:
        self.state = self.folder / "state"

    @property
    def variables(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PLATFORMCTL_")}
        return {**kept, "PYTHONPATH": str(ROOT), "PLATFORMCTL_CONFIG": str(self.folder / "config.yaml")}

    def spawn(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "platformctl", *args]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        # A shell that starts us in the background lets SIGINT be ignored, and that is inherited.
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.variables,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            **pipes,
        )

    def run(self, *args: str, code: int = 0) -> str:
        """Standard output of a command that must exit with `code`."""
        with self.spawn(*args) as process:
            out, err = process.communicate(timeout=50)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return out if code == 0 else out + err

    @property
    def env(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "env.json").read_text())
        return found

    @property
    def pids(self) -> list[int]:
        return [*self.env["pids"]["hub"], *self.env["pids"]["satellites"].values()]

    def running(self) -> dict[str, int]:
        """Processes of ours that run, by what is on record."""
        return {name: process.pid for name, process in Records(self.state / "processes.json").running().items()}


def mentioning(text: Path) -> list[str]:
    """Command lines of all processes of this machine that have this path in them."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = cmdline.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(text) in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Two replicas, two satellites; started once for a module, and stopped whatever happened."""
    made = Platform(tmp_path_factory.mktemp("platform"))
    made.run("up", "--state", str(made.state), "--satellites", "2", "--replicas", "2")
    yield made
    made.run("down", "--state", str(made.state))
    assert mentioning(made.state) == []


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Platform]:
    """A platform that a test starts by itself."""
    made = Platform(tmp_path)
    yield made
    made.run("down", "--state", str(made.state), "--grace", "2")
