"""What a scenario is given: the backend, contenders that are started once, and a place for its rows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.backend import BLOB_BYTES, SMALL_BODY, Backend, start_backend
from tests.bench.contenders import CONTENDERS
from tests.bench.latency import LoadResult
from tests.bench.load import probe
from tests.bench.openloop import stand_in, vegeta
from tests.bench.processes import BenchError, Processes
from tests.bench.procfs import CpuReading, read_cpu, read_others, read_rss
from tests.bench.results import Results, Row
from tests.bench.target import Contender, Target
from tests.bench.tools import is_built

MIB = 1 << 20
QUICK_BLOB_BYTES = 64 * MIB


class Bench:
    """`exact`: a figure is wanted, so what measures it must be there; otherwise something simpler may stand in."""

    def __init__(self, processes: Processes, folder: Path, backend: Backend, *, exact: bool) -> None:
        self.processes = processes
        self.folder = folder
        self.backend = backend
        self.exact = exact
        self.results = Results()
        self._contenders: dict[str, Contender] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, folder: Path, *, exact: bool = True) -> AsyncIterator[Bench]:
        """A bench with its backend up; at the end every process is gone."""
        async with Processes(folder / "logs") as processes:
            size = BLOB_BYTES if exact else QUICK_BLOB_BYTES
            yield cls(processes, folder, await start_backend(processes, folder, blob_bytes=size), exact=exact)

    async def contender(self, name: str) -> Contender:
        """Start it at first use; return when its answers come from the backend."""
        if name not in self._contenders:
            started = await CONTENDERS[name](self.processes, self.backend, self.folder)
            await self.wait_answering(started.web)
            await self.wait_answering(started.sink, path="/", body="0")
            self._contenders[name] = started
        return self._contenders[name]

    async def contenders(self, scenario: str, names: Iterable[str]) -> list[Contender]:
        """Started one after the other; how they run is noted with the scenario."""
        contenders = [await self.contender(name) for name in names]
        for contender in contenders:
            if contender.note:
                self.results.note(scenario, contender.note)
        return contenders

    async def open_loop(
        self, target: Target, path: str, *, rate: int, seconds: int, ramp: int = 0, name: str = "vegeta"
    ) -> LoadResult:
        """`rate` requests a second. Without vegeta: an error, or a stand-in at a rate of its own when not `exact`."""
        if not self.exact and not is_built("vegeta"):
            return await stand_in(target, path, seconds=seconds)
        load = await vegeta(
            self.processes, target, path, rate=rate, seconds=seconds, folder=self.folder, ramp=ramp, name=name
        )
        if load.trouble:
            self.say(f"{name:>16}  {load.errors} errors: {load.trouble}")
        return load

    async def wait_answering(self, target: Target, path: str = "/small", body: str = SMALL_BODY) -> None:
        """Return when the target gives the backend's own answer; BenchError when it does not within 20 s."""
        deadline = time.monotonic() + 20
        while True:
            try:
                got = await probe(self.processes, target, path)
            except BenchError:
                if time.monotonic() > deadline:
                    raise
            else:
                if got != body:
                    raise BenchError(f"{target.url}{path} answered something else than the backend: {got[:80]!r}")
                return

    def add(self, scenario: str, setting: str, contender: str, round_: int, metrics: dict[str, float]) -> None:
        self.results.add(Row(scenario, setting, contender, round_, metrics))
        shown = "  ".join(f"{name}={value:,.2f}" for name, value in metrics.items())
        self.say(f"{scenario:>16}  {setting:<14} {contender:<12} #{round_}  {shown}")

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class Others:
    """How much of the machine other people's processes take while something is measured."""

    def __init__(self, contenders: Iterable[Contender]) -> None:
        self._ours = {os.getpid(), *(pid for one in contenders for pid in (*one.hub_pids, *one.agent_pids))}
        self._before = read_others(self._ours)
        self._since = time.monotonic()

    def metrics(self) -> dict[str, float]:
        """Their share of all CPUs since the beginning, in percent. What started and ended in between is not seen."""
        after = read_others(self._ours)
        ticks = sum(used - self._before[pid] for pid, used in after.items() if pid in self._before)
        capacity = (time.monotonic() - self._since) * os.sysconf("SC_CLK_TCK") * len(os.sched_getaffinity(0))
        return {"others_percent": 100 * ticks / capacity}


@dataclass(frozen=True)
class Usage:
    """CPU of a contender's two sides at one moment."""

    hub: CpuReading
    agent: CpuReading

    @classmethod
    def of(cls, contender: Contender) -> Usage:
        return cls(read_cpu(contender.hub_pids), read_cpu(contender.agent_pids))

    def us_since(self, earlier: Usage) -> tuple[float, float]:
        """CPU microseconds of (hub, agent) between two readings."""
        return self.hub.since(earlier.hub) / 1e3, self.agent.since(earlier.agent) / 1e3

    def per(self, requests: float, earlier: Usage) -> dict[str, float]:
        """CPU microseconds a request, as metrics; nothing for a contender without processes."""
        if not self.hub.threads:
            return {}
        hub, agent = self.us_since(earlier)
        return {"hub_us": hub / requests, "agent_us": agent / requests}


def rss_metrics(contender: Contender) -> dict[str, float]:
    if not contender.hub_pids:
        return {}
    return {
        "hub_rss_mib": read_rss(contender.hub_pids) / MIB,
        "agent_rss_mib": read_rss(contender.agent_pids) / MIB,
    }
