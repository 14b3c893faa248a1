from __future__ import annotations

import json
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme

from platformctl.verify import runner
from platformctl.verify.checks import CHECKS
from platformctl.verify.environment import Environment
from platformctl.verify.model import CheckResult, Report
from tests.unit.verify.fake_hub import ADMIN, DENIED, FakeHub, FakeSatellites

SATELLITES = ("sat-1", "sat-2")


@dataclass
class Platform:
    """Two fake replicas and two satellites, with the env.json that describes them."""

    hubs: list[FakeHub]
    satellites: FakeSatellites
    env_file: Path

    @property
    def env(self) -> Environment:
        return Environment.load(self.env_file)

    def change_env(self, **changes: object) -> None:
        self.env_file.write_text(json.dumps(json.loads(self.env_file.read_text()) | changes))

    def break_all(self, *faults: str) -> None:
        for hub in self.hubs:
            hub.faults.update(faults)

    async def verify(self, test: str | None = None, skip: str | None = None) -> Report:
        """As `platformctl verify`, but a failing check is not tried again."""
        checks = [replace(check, retry_for=0.0) for check in CHECKS]
        return await runner.run(self.env, self.satellites, checks, test=test, skip=skip)

    async def verify_one(self, check: str) -> CheckResult:
        """The result of a check in its first place, with nothing else selected."""
        return (await self.verify(f"^{check}(\\[(hub-1|sat-1|sat-1 via hub-1)\\])?$")).checks[0]


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that end in failure end soon."""
    from platformctl.verify import context
    from platformctl.verify.checks import identity, paths, streams

    monkeypatch.setattr(context, "LIVE_WITHIN", 0.2)
    monkeypatch.setattr(paths, "TOGETHER_WITHIN", 3.0)
    monkeypatch.setattr(streams, "HELD", 0.3)
    monkeypatch.setattr(identity, "AUDIT_WITHIN", 0.1)


@pytest.fixture
async def platform(tmp_path: Path, authority: trustme.CA, tls: ssl.SSLContext) -> AsyncIterator[Platform]:
    satellites = FakeSatellites(tmp_path, SATELLITES)
    hubs = [FakeHub(f"hub-{n}", satellites, tmp_path / f"audit-{n}.jsonl", expected=2) for n in (1, 2)]
    for hub in hubs:
        await hub.start(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "admin").write_text(ADMIN + "\n")
    (tmp_path / "denied").write_text(DENIED + "\n")
    document = {
        "hub_url": hubs[0].public_url,
        "ca_file": str(tmp_path / "ca.pem"),
        "admin_token_file": str(tmp_path / "admin"),
        "client_tokens": {"denied": str(tmp_path / "denied")},
        "pids": {"hub": [os.getpid()] * 2, "satellites": {name: os.getpid() for name in SATELLITES}},
        "replicas": [
            {
                "id": hub.name,
                "public_url": hub.public_url,
                "metrics_url": f"{hub.health_url}/metrics",
                "audit_file": str(hub.audit),
            }
            for hub in hubs
        ],
        "satellites": {
            name: {"exports": str(satellites.files[name]), "health_url": hubs[0].health_url} for name in SATELLITES
        },
    }
    (tmp_path / "env.json").write_text(json.dumps(document))
    yield Platform(hubs, satellites, tmp_path / "env.json")
    for hub in hubs:
        await hub.stop()
