"""Many satellites without many processes: agents of the real kind, hundreds of them in each helper process.

    python -m tests.bench.fleet FOLDER FIRST COUNT HUB_URL BACKEND_PORT PER_SECOND

starts agents fleet-FIRST … with the identities in FOLDER/<name>, PER_SECOND of them each second, each exporting the
service `web`. What happens to their tunnels is written to FOLDER/<FIRST>.events, a line each: the moment
(time.monotonic(), which all processes of a machine share), `dial`, `up` or `down`, the satellite, the hub replica.
"""

from __future__ import annotations

import asyncio
import random
import resource
import secrets
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TextIO

from platformctl.access import pki
from platformctl.errors import StoreError
from platformctl.hub.store import CaMaterial, SatelliteRecord
from platformctl.hub.store_sqlite import SQLiteStore
from platformctl.net.deadlines import Deadlines
from platformctl.net.loop import run
from platformctl.net.tasks import spawn
from platformctl.net.tls import IDENTITY_CA, IDENTITY_CERT, IDENTITY_KEY
from platformctl.routing.spec import ServiceSpec
from platformctl.satellite.agent import Agent
from platformctl.satellite.exports import Backend, Export
from platformctl.satellite.services import Services
from platformctl.satellite.tunnel import AgentTunnel
from tests.bench.local_platform import LocalPlatform
from tests.bench.processes import BenchError, Processes

PER_PROCESS = 500
SERVICE = "web"
_OPEN_FILES = 16384
_FEWEST_FILES = 4096
# Each helper starts so many agents in a second: satellites join over weeks, and what is measured is their return.
_STARTS_PER_SECOND = 60


def fleet_name(number: int) -> str:
    return f"fleet-{number:04}"


def enrol(store_folder: Path, folder: Path, count: int) -> None:
    """Identities as a join would have given them, for the hub that has its store in `store_folder`."""
    now = time.time()
    with SQLiteStore(store_folder / "hub.db") as store:
        material = store.get_or_create_ca(_no_ca)
        ca = pki.Authority.load(material.cert_pem, material.key_pem)
        for number in range(count):
            name = fleet_name(number)
            key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
            csr = pki.make_csr(key, name)
            certificate = pki.sign_satellite(ca, csr, name, now, entropy=secrets.token_bytes(pki.SERIAL_BYTES))
            serials = (pki.serial(certificate),)
            store.put_satellite(SatelliteRecord(name, {"region": "eu"}, "active", pki.csr_pin(csr), serials, now))
            identity = folder / name
            identity.mkdir(mode=0o700, parents=True)
            (identity / IDENTITY_KEY).write_bytes(pki.key_pem(key))
            (identity / IDENTITY_CERT).write_bytes(certificate)
            (identity / IDENTITY_CA).write_bytes(ca.cert_pem)


def _no_ca() -> CaMaterial:
    raise StoreError("the platform has no CA")


class WatchedAgent(Agent):
    """An agent that writes down when it dials and when its tunnels come and go."""

    events: TextIO

    def context(self) -> ssl.SSLContext:
        self.write("dial")  # a keeper asks for it once for each attempt
        return super().context()

    def welcomed(self, tunnel: AgentTunnel) -> None:
        super().welcomed(tunnel)
        self.write("up", tunnel.hub)

    def tunnel_ended(self, tunnel: AgentTunnel) -> None:
        super().tunnel_ended(tunnel)
        if tunnel.welcomed:
            self.write("down", tunnel.hub)

    def write(self, what: str, hub: str = "-") -> None:
        self.events.write(f"{time.monotonic():.4f} {what} {self.name} {hub}\n")


async def serve(folder: Path, first: int, count: int, hub: str, backend: int, per_second: float) -> int:
    """Run the agents until the process is ended."""
    deadlines = Deadlines(time.monotonic)
    deadlines.start(asyncio.get_running_loop())
    jitter = random.Random(first).random
    spec = ServiceSpec(SERVICE)
    export = Export(SERVICE, Backend("http", "127.0.0.1", backend), spec)
    running = []
    with (folder / f"{first}.events").open("w", buffering=1) as events:
        for number in range(first, first + count):
            services = Services(deadlines)
            services.update([export], [])
            name = fleet_name(number)
            agent = WatchedAgent(name, folder / name, (hub,), services, jitter=jitter)
            agent.events = events
            agent.set_health(SERVICE, spec.to_wire())
            running.append(spawn(agent.run(), name))
            await asyncio.sleep(1 / per_second)
        await asyncio.gather(*running)
    return 0


class Event(NamedTuple):
    at: float
    kind: str
    satellite: str
    replica: str


@dataclass
class Fleet:
    """The helper processes, and what they have written."""

    folder: Path
    pids: list[int] = field(default_factory=list)

    async def start(self, processes: Processes, platform: LocalPlatform, count: int, backend: int) -> None:
        """Enrol `count` satellites with the platform and start their agents; they connect one after the other."""
        self.folder.mkdir(parents=True)
        await asyncio.to_thread(enrol, platform.state / "hub", self.folder, count)
        for first in range(0, count, PER_PROCESS):
            numbers = (first, min(PER_PROCESS, count - first))
            arguments = [self.folder, *numbers, platform.env["tunnel_url"], backend, _STARTS_PER_SECOND]
            command = [sys.executable, "-m", "tests.bench.fleet", *map(str, arguments)]
            self.pids.append((await processes.start(f"fleet-{first}", command)).pid)

    def events(self, since: float = 0.0) -> list[Event]:
        return sorted(_events(self.folder, since), key=lambda event: event.at)

    def connected(self) -> int:
        """How many (satellite, replica) have a tunnel now."""
        return len(_held(self.events()))


def _events(folder: Path, since: float) -> Iterator[Event]:
    for path in folder.glob("*.events"):
        for line in path.read_text().splitlines(keepends=True):
            at, *rest = line.split(" ")
            if line.endswith("\n") and float(at) >= since:  # the last line may be half written
                kind, satellite, replica = rest
                yield Event(float(at), kind, satellite, replica.strip())


def _held(events: Sequence[Event]) -> set[tuple[str, str]]:
    tunnels: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event.kind != "dial":
            tunnels[event.satellite, event.replica] += 1 if event.kind == "up" else -1
    return {pair for pair, count in tunnels.items() if count > 0}


def complete_at(events: Sequence[Event], tunnels: int) -> float | None:
    """When so many (satellite, replica) had a tunnel for the first time; events begin with none of them."""
    held: set[tuple[str, str]] = set()
    for event in events:
        if event.kind == "up":
            held.add((event.satellite, event.replica))
            if len(held) == tunnels:
                return event.at
    return None


def per_second(events: Sequence[Event], kind: str, begin: float) -> list[int]:
    """How many of a kind there were in each second after `begin`."""
    seconds = Counter(int(event.at - begin) for event in events if event.kind == kind and event.at >= begin)
    return [seconds[second] for second in range(max(seconds, default=-1) + 1)]


def busiest(events: Sequence[Event], kind: str, width: float = 1.0) -> int:
    """The most events of a kind in any stretch of `width` seconds, wherever it begins."""
    times = [event.at for event in events if event.kind == kind]
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= width:
            first += 1
        most = max(most, last - first + 1)
    return most


def raise_open_files() -> None:
    """Allow this process and its children as many open files as a fleet needs; BenchError when that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if max(soft, allowed) < _FEWEST_FILES:
        raise BenchError(f"only {allowed} files may be open at a time; raise the hard limit (ulimit -Hn)")


def main() -> int:
    folder, first, count, hub, backend, rate = sys.argv[1:]
    raise_open_files()
    return run(serve(Path(folder), int(first), int(count), hub, int(backend), float(rate)))


if __name__ == "__main__":
    sys.exit(main())
