"""A local platform of real processes, whose parts the tests kill, stop, restart and lie to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)


def until(condition: Callable[[], Any], seconds: float, what: str) -> float:
    """Poll until it is true; the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - started


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class Platform:
    """`platformctl up`, and what is needed to disturb it."""

    state: Path
    backend: int
    satellites: int = 2
    replicas: int = 2
    env: dict[str, Any] = field(default_factory=dict)

    def ctl(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "platformctl", *arguments], capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self, replicas: int | None = None) -> None:
        """Start what is missing, as a person would."""
        self.replicas = replicas or self.replicas
        shape = ["--satellites", str(self.satellites), "--replicas", str(self.replicas)]
        self.ctl("up", "--state", str(self.state), *shape)
        self.env = json.loads((self.state / "env.json").read_text())

    def down(self) -> None:
        self.ctl("down", "--state", str(self.state))

    @property
    def token(self) -> str:
        return Path(self.env["admin_token_file"]).read_text().strip()

    def hub(self, number: int) -> int:
        """The pid of a replica."""
        return int(self.env["pids"]["hub"][number])

    def agent(self, name: str = "sat-1") -> int:
        return int(self.env["pids"]["satellites"][name])

    def url(self, replica: int | None = None, satellite: str = "sat-1", path: str = "/") -> str:
        base = self.env["http_url"] if replica is None else self.env["replicas"][replica]["http_url"]
        return f"{base}/s/{satellite}/web{path}"

    def get(self, url: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.get(url, headers=headers, timeout=20, trust_env=False, **more)

    def api(self, path: str, replica: int = 0) -> list[dict[str, Any]]:
        answer = self.get(f"{self.env['replicas'][replica]['http_url']}/api/v1/{path}")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])

    def ready(self, replica: int) -> httpx.Response:
        return httpx.get(self.env["metrics_urls"][replica].replace("/metrics", "/readyz"), trust_env=False)

    def is_ready(self, replica: int) -> bool:
        try:
            return self.ready(replica).status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, name: str, url: str = "", **labels: str) -> float:
        """A figure of the first replica, or of the process at `url`."""
        text = httpx.get(url or self.env["metrics_urls"][0], trust_env=False).text
        for line in text.splitlines():
            if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no {name} with {labels}")

    def serving(self, replica: int, satellite: str = "sat-1") -> bool:
        try:
            return self.get(self.url(replica, satellite)).status_code == 200
        except httpx.TransportError:
            return False

    def whole(self) -> bool:
        return all(self.serving(n, f"sat-{m + 1}") for n in range(self.replicas) for m in range(self.satellites))

    def signal(self, pid: int, number: signal.Signals) -> None:
        os.kill(pid, number)

    def ended(self, pid: int, seconds: float = 15.0) -> float:
        return until(lambda: not alive(pid), seconds, f"process {pid} ended")

    def start_agent(self, name: str = "sat-1") -> int:
        """Start an agent again with its configuration, as `up` does, and nothing else."""
        config = self.state / "config" / f"{name}.yaml"
        return self.start(config, "satellite", name)

    def start(self, config: Path, kind: str, name: str) -> int:
        with open(self.state / "log" / f"{name}.log", "ab") as log:
            arguments = [sys.executable, "-m", "platformctl", kind, "run", "--config", str(config)]
            process = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
        process.returncode = 0  # watched by its pid
        self.started.append(process.pid)
        if kind == "satellite" and name in self.env["pids"]["satellites"]:
            self.env["pids"]["satellites"][name] = process.pid
        return process.pid

    started: list[int] = field(default_factory=list)


@pytest.fixture(scope="session")
def backend_port() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, str(HERE / "backend.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.terminate()
    process.communicate(timeout=10)


@pytest.fixture(scope="session")
def shared_platform(tmp_path_factory: pytest.TempPathFactory, backend_port: int) -> Iterator[Platform]:
    platform = Platform(tmp_path_factory.mktemp("tunnels"), backend_port)
    try:
        platform.up()
        for number in range(platform.satellites):
            to = f"http://127.0.0.1:{backend_port}"
            platform.ctl(
                "export", "add", "web", "--satellite", f"sat-{number + 1}", "--to", to, "--state", str(platform.state)
            )
        until(platform.whole, 5, "every satellite is served by every replica")
        yield platform
    finally:
        platform.down()
        for pid in platform.started:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def platform(shared_platform: Platform) -> Platform:
    """Whole at the beginning of each test, whatever the one before has done."""
    pids = shared_platform.env["pids"]
    for number, pid in enumerate(pids["hub"]):
        if alive(pid) and not shared_platform.is_ready(number):
            shared_platform.ended(pid, 40)
    if len(pids["hub"]) != 2 or not all(map(alive, [*pids["hub"], *pids["satellites"].values()])):
        shared_platform.up(2)
    until(shared_platform.whole, 20, "every satellite is served by every replica")
    return shared_platform
