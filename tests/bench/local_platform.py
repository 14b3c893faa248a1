"""Ours: a local platform started by `platformctl up`, with everything on that it ships with (mutual TLS on the tunnel,
token, policy, metrics, tracing at 1 %, flow control)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformctl import speedups
from tests.bench.backend import Backend
from tests.bench.processes import BenchError, Processes, signal_pid
from tests.bench.procfs import alive, maps
from tests.bench.target import Contender, Target

_ENTRY = (sys.executable, "-m", "platformctl")
_TOPOLOGY = """\
tracing:
  sample: 0.01
"""


@dataclass
class LocalPlatform:
    """One `up --state` platform. `env` is its env.json, read again by `refresh` after processes changed; `environ` is
    what its processes have in their environment beside ours.
    """

    processes: Processes
    state: Path
    entry: tuple[str, ...]
    up_arguments: tuple[str, ...]
    env: dict[str, Any]
    environ: Mapping[str, str] = field(default_factory=dict)
    is_down: bool = False

    def refresh(self) -> dict[str, Any]:
        self.env = json.loads((self.state / "env.json").read_text())
        return self.env

    @property
    def hub_pids(self) -> tuple[int, ...]:
        return tuple(self.env["pids"]["hub"])

    @property
    def satellite_pids(self) -> dict[str, int]:
        return dict(self.env["pids"]["satellites"])

    async def command(self, *arguments: str, seconds: float = 60.0) -> bytes:
        """Run one platformctl verb to its end and return its stdout."""
        return await self.processes.run("platformctl", [*self.entry, *arguments], seconds=seconds)

    async def export(self, name: str, to: str, *, satellite: str = "sat-1") -> None:
        await self.command("export", "add", name, "--satellite", satellite, "--to", to, "--state", str(self.state))

    def target(
        self, service: str, header_file: Path, *, satellite: str = "sat-1", replica: int | None = None
    ) -> Target:
        """The service by path, on plain HTTP, as the peers' front is; through any replica, or a certain one."""
        token = Path(self.env["admin_token_file"]).read_text().strip()
        base = self.env["http_url"] if replica is None else self.env["replicas"][replica]["http_url"]
        url = f"{base.rstrip('/')}/s/{satellite}/{service}"
        return Target.with_headers(url, header_file, {"Authorization": f"Bearer {token}"})

    async def restore(self) -> None:
        """Start again what is missing, by the same `up`; returns when all of it is ready."""
        await self.processes.run("platformctl-up", [*self.entry, *self.up_arguments], seconds=60, env=self.environ)
        self.refresh()

    async def down(self) -> None:
        """`platformctl down`, and SIGKILL by pid for what it left. The second call does nothing."""
        if self.is_down:
            return
        self.is_down = True
        pids = [*self.hub_pids, *self.satellite_pids.values()] if self.env else []
        with contextlib.suppress(BenchError):
            # By pid and without network, so it works after the namespace of `entry` is gone.
            down = [*_ENTRY, "down", "--state", str(self.state)]
            await self.processes.run("platformctl-down", down, seconds=20)
        for pid in filter(alive, pids):
            signal_pid(pid, signal.SIGKILL)


async def up(
    processes: Processes,
    folder: Path,
    *,
    satellites: int = 1,
    replicas: int = 1,
    inside: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> LocalPlatform:
    """Start a platform and return when it is ready; `processes` takes it down at its end.

    `inside` is put before every command, such as one that enters a network namespace.
    """
    state = folder / f"platform-{satellites}x{replicas}-{os.urandom(3).hex()}"
    state.mkdir(parents=True)
    topology = state / "topology.yaml"
    topology.write_text(_TOPOLOGY)
    # A person's own contexts stay as they are.
    shape = ["--state", str(state), "--satellites", str(satellites), "--replicas", str(replicas), "--no-context"]
    arguments = ("up", *shape, "-f", str(topology))
    platform = LocalPlatform(processes, state, (*inside, *_ENTRY), arguments, {}, environ or {})
    processes.at_end(platform.down)
    await platform.restore()
    return platform


@asynccontextmanager
async def own_platform(
    processes: Processes, folder: Path, *, satellites: int = 1, replicas: int = 1, inside: Sequence[str] = ()
) -> AsyncIterator[LocalPlatform]:
    """A platform for one scenario, which is gone at its end: what comes next has the machine to itself."""
    platform = await up(processes, folder, satellites=satellites, replicas=replicas, inside=inside)
    try:
        yield platform
    finally:
        await platform.down()


async def start_platform(processes: Processes, backend: Backend, folder: Path) -> Contender:
    """With the hot path compiled, where this machine has compiled it."""
    return await _contender("platformctl", await up(processes, folder), backend, folder)


async def start_pure_platform(processes: Processes, backend: Backend, folder: Path) -> Contender:
    """The same in Python alone, as where nothing can be compiled."""
    platform = await up(processes, folder, environ={"PLATFORMCTL_PURE": "1"})
    return await _contender("platformctl-pure", platform, backend, folder)


async def _contender(name: str, platform: LocalPlatform, backend: Backend, folder: Path) -> Contender:
    await platform.export("web", f"http://127.0.0.1:{backend.web}")
    await platform.export("sink", f"http://127.0.0.1:{backend.sink}")
    await asyncio.sleep(2.0)  # the promise of `export add`: live within 2 s
    return Contender(
        name=name,
        web=platform.target("web", folder / f"{name}-web.headers"),
        sink=platform.target("sink", folder / f"{name}-sink.headers"),
        hub_pids=platform.hub_pids,
        agent_pids=tuple(platform.satellite_pids.values()),
        note=f"{name}: hot path {hot_path(platform)}",
    )


def hot_path(platform: LocalPlatform) -> str:
    """`compiled` or `pure`, as the processes really run; BenchError when that is not what they were started for."""
    pids = [*platform.hub_pids, *platform.satellite_pids.values()]
    found = {"compiled" if maps(pid, "platformctl_hot") else "pure" for pid in pids}
    meant = "pure" if "PLATFORMCTL_PURE" in platform.environ else speedups.state().partition(" ")[0]
    if found != {meant}:
        raise BenchError(f"the platform should run {meant}, and runs {', '.join(found)}; was its source changed?")
    return meant


async def wait_until(condition: Any, *, seconds: float, what: str, every: float = 0.02) -> float:
    """Poll until the condition is true; return the seconds it took, or raise BenchError."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise BenchError(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(every)
    return time.monotonic() - started
