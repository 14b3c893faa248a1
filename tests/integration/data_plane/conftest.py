"""A real platform for the data plane's tests, started once: two replicas, two satellites, the services of services.py.

After each test its traces are looked at: nothing may be in flight any more, no process may have logged an error or lost
a tunnel.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from platformctl.access.pins import ca_pin
from tests.integration.data_plane.peers import Answer, Backend, Peer, Script
from tests.integration.data_plane.services import POLICY, Services

ROOT = Path(__file__).resolve().parents[3]
SETTLE_SECONDS = 5.0


@dataclass
class Platform:
    """A running platform. `replica` counts from 0."""

    state: Path
    services: Services
    authority: trustme.CA
    certificate: trustme.LeafCert
    env: dict[str, Any] = field(default_factory=dict)

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "platformctl", *args]

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {
            "PYTHONPATH": str(ROOT),
            "PLATFORMCTL_CONFIG": str(self.state.parent / "config.yaml"),
            **ENVIRONMENT,
        }
        return subprocess.run(
            self.command(*args), capture_output=True, text=True, timeout=50, env=environment, check=check
        )

    @property
    def token(self) -> str:
        return Path(self.env["admin_token_file"]).read_text().strip()

    @property
    def auth(self) -> str:
        return f"Authorization: Bearer {self.token}\r\n"

    def port(self, kind: str = "http", replica: int = 0) -> int:
        """The port of one replica's listener: http, public or metrics."""
        port = urlsplit(self.env["replicas"][replica][f"{kind}_url"]).port
        assert port is not None
        return port

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.env["ca_file"])

    async def connect(self, kind: str = "http", replica: int = 0) -> Peer:
        return await Peer.connect(self.port(kind, replica), self.tls() if kind == "public" else None)

    def head(self, method: str, path: str, *fields: str, service: str = "plain", version: str = "1.1") -> bytes:
        lines = [f"{method} /s/sat-1/{service}{path} HTTP/{version}", "Host: hub.test", self.auth.strip(), *fields]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def ask(self, request: bytes, *, method: str = "GET", kind: str = "http") -> Answer:
        """One request on a connection of its own."""
        async with await self.connect(kind) as peer:
            await peer.send(request)
            return await peer.answer(method)

    async def get(self, path: str = "/", *fields: str, service: str = "plain") -> Answer:
        return await self.ask(self.head("GET", path, *fields, service=service))

    def backend(self, service: str, *scripts: Script, tls: ssl.SSLContext | None = None) -> Backend:
        return Backend(self.services.ports[service], *scripts, tls=tls)

    def metrics(self, url: str) -> dict[str, float]:
        with urllib.request.urlopen(url, timeout=5) as response:
            lines = response.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[:1] != "#"}

    def busy(self) -> dict[str, float]:
        """What is in flight, waiting or open in the hub."""
        watched = ("platformctl_requests_in_flight", "platformctl_requests_waiting", "platformctl_streams_open")
        found: dict[str, float] = {}
        for url in self.env["metrics_urls"]:
            for name, value in self.metrics(url).items():
                if name.startswith(watched) and value:
                    found[name] = value
        return found

    def audit(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for replica in self.env["replicas"]:
            path = Path(replica["audit_file"])
            if path.exists():
                lines += [json.loads(line) for line in path.read_text().splitlines()]
        return lines

    def logs(self) -> dict[Path, int]:
        """The log files and their sizes."""
        files = [Path(one["log_file"]) for one in (*self.env["replicas"], *self.env["satellites"].values())]
        return {file: file.stat().st_size for file in files}

    def rss(self) -> dict[str, int]:
        """Resident bytes of each process."""
        pids = {f"hub-{n}": pid for n, pid in enumerate(self.env["pids"]["hub"], 1)}
        pids |= self.env["pids"]["satellites"]
        return {name: _rss(pid) for name, pid in pids.items()}


# Whether the compiled modules are used is for whoever runs the tests to say (platformctl/speedups).
ENVIRONMENT = {key: os.environ[key] for key in ("PATH", "PLATFORMCTL_PURE") if key in os.environ}
ENVIRONMENT["PATH"] += ":/usr/sbin:/sbin"


def _rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def started(folder: Path) -> Platform:
    """Start a platform in `folder`; see `running`."""
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("backend.test")
    authority.cert_pem.write_to_path(str(folder / "backend-ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other-ca.pem"))
    pin = ca_pin(certificate.cert_chain_pems[0].bytes())
    platform = Platform(folder / "state", Services.planned(), authority, certificate)
    platform.state.mkdir(mode=0o700)
    (platform.state / "policy.yaml").write_text(POLICY)
    topology = folder / "topology.yaml"
    topology.write_text(platform.services.topology(pin, folder))
    platform.run("up", "--state", str(platform.state), "-f", str(topology))
    platform.env = json.loads((platform.state / "env.json").read_text())
    return platform


@contextmanager
def running(folder: Path) -> Iterator[Platform]:
    """A platform in `folder`, whose processes end whatever happens."""
    try:
        yield started(folder)
    finally:
        stop = [sys.executable, "-m", "platformctl", "down", "--state", str(folder / "state"), "--grace", "2"]
        environment = {"PYTHONPATH": str(ROOT), "PLATFORMCTL_CONFIG": str(folder / "config.yaml"), **ENVIRONMENT}
        subprocess.run(stop, check=True, timeout=50, capture_output=True, env=environment)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("data-plane")) as platform:
        yield platform


@pytest.fixture
async def platform(shared: Platform) -> AsyncIterator[Platform]:
    """The platform, with a look at what the test left behind."""
    before = shared.logs()
    yield shared
    deadline = time.monotonic() + SETTLE_SECONDS
    while busy := shared.busy():
        assert time.monotonic() < deadline, f"still busy after the test: {busy}"
        await asyncio.sleep(0.05)
    for file, size in before.items():
        with file.open("rb") as log:
            log.seek(size)
            for line in log.read().decode().splitlines():
                said = json.loads(line) if line.startswith("{") else {"level": "error", "event": line}
                if not said["event"].startswith("SSL handshake failed"):  # a peer's fault, and asyncio's word
                    assert said["level"] != "error", f"{file.name}: {line}"
                assert said["event"] != "tunnel down", f"{file.name}: {line}"
