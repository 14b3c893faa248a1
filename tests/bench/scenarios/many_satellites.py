"""A thousand satellites, and their hub killed and started again: how soon are all back, and do they come as a herd?"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from dataclasses import dataclass

from tests.bench.context import MIB, Bench
from tests.bench.fleet import SERVICE, Event, Fleet, busiest, complete_at, fleet_name, per_second, raise_open_files
from tests.bench.load import probe
from tests.bench.local_platform import LocalPlatform, own_platform, wait_until
from tests.bench.plan import Plan
from tests.bench.processes import BenchError, signal_pid
from tests.bench.procfs import read_cpu, read_rss
from tests.bench.results import Bar, Results, at_most
from tests.bench.scenarios.scenario import Scenario

NAME = "many_satellites"
_REPLICAS = (1, 2)
_BACK_SECONDS = 30.0
_PATIENCE = 90.0
_IDLE_SECONDS = 5.0
_CALLS = 10
# A herd is everybody at once. Full jitter over 1.5 s (satellite/keeper.py) is two thirds of all in half a second at
# most, on average; and what happens in less than that tells more about the event loop that hundreds of agents share.
_MOMENT = 0.5
_HERD_SHARE = 0.75


def _setting(replicas: int) -> str:
    return "1 replica" if replicas == 1 else f"{replicas} replicas, all killed"


async def measure(bench: Bench, plan: Plan) -> None:
    raise_open_files()  # hubs and helpers inherit it
    for replicas in plan.replicas:
        fleet = Fleet(bench.folder / f"fleet-{replicas}")
        async with own_platform(bench.processes, bench.folder, replicas=replicas) as platform:
            run = _Run(bench, platform, fleet, plan.satellites, replicas, read_rss(platform.hub_pids))
            try:
                await fleet.start(bench.processes, platform, plan.satellites, bench.backend.web)
                # The first connections are spread by the helpers, so they say nothing about a herd.
                await run.all_up()
                await asyncio.sleep(2)
                for round_ in range(1, plan.rounds + 1):
                    bench.add(NAME, _setting(replicas), "platformctl", round_, await run.kill_and_return())
            finally:
                for pid in fleet.pids:
                    signal_pid(pid, signal.SIGKILL)


@dataclass(frozen=True)
class _Run:
    bench: Bench
    platform: LocalPlatform
    fleet: Fleet
    satellites: int
    replicas: int
    empty_rss: int

    @property
    def tunnels(self) -> int:
        return self.satellites * self.replicas

    async def all_up(self) -> None:
        what = f"{self.tunnels} tunnels up"
        try:
            await wait_until(lambda: self.fleet.connected() >= self.tunnels, seconds=_PATIENCE, every=0.25, what=what)
        finally:
            self.bench.say(f"{NAME:>16}  {self.fleet.connected()} of {self.tunnels} tunnels are up")

    async def kill_and_return(self) -> dict[str, float]:
        idle = read_cpu(self.platform.hub_pids)
        await asyncio.sleep(_IDLE_SECONDS)
        idle_ns = read_cpu(self.platform.hub_pids).since(idle)
        before = read_rss(self.platform.hub_pids)
        killed = time.monotonic()
        for pid in self.platform.hub_pids:
            signal_pid(pid, signal.SIGKILL)
        await wait_until(lambda: self.fleet.connected() == 0, seconds=15, what="every tunnel ended")
        await self.platform.restore()
        await self.all_up()
        cpu_ns = sum(read_cpu(self.platform.hub_pids).threads.values())
        # Memory after the burst: once what the handshakes needed can have been given back.
        await asyncio.sleep(2)
        returned = _Return.of(self.fleet.events(killed), killed, self.tunnels)
        self.bench.results.note(NAME, f"{_setting(self.replicas)}: {returned.histogram()}")
        return {
            "tunnels": float(self.tunnels),
            "all_back_s": returned.complete - killed,
            "peak_dials": float(returned.peak_dials),
            "moment_dials": float(returned.moment_dials),
            "peak_ups": float(returned.peak_ups),
            "cpu_s": cpu_ns / 1e9,
            "idle_percent": idle_ns / 1e9 / _IDLE_SECONDS * 100,
            "rss_empty_mib": self.empty_rss / MIB,
            "rss_before_mib": before / MIB,
            "rss_after_mib": read_rss(self.platform.hub_pids) / MIB,
            "errors": float(await self._call_some()),
        }

    async def _call_some(self) -> int:
        """Call random satellites through every replica; how many calls failed. The first failure is said."""
        chosen = random.Random(self.satellites).sample(range(self.satellites), min(_CALLS, self.satellites))
        failed = 0
        for replica in range(self.replicas):
            for number in chosen:
                headers = self.bench.folder / "fleet.headers"
                target = self.platform.target(SERVICE, headers, satellite=fleet_name(number), replica=replica)
                try:
                    await probe(self.bench.processes, target, "/small")
                except BenchError as e:
                    failed += 1
                    self.bench.say(f"{NAME:>16}  {e}")
        return failed


@dataclass(frozen=True)
class _Return:
    """What the agents did after their hub was killed. A dial counts once the hub is there again: those that nobody
    answers cost it nothing.
    """

    complete: float
    back: float
    peak_dials: int
    moment_dials: int
    peak_ups: int
    ups: list[int]
    dials: list[int]

    @classmethod
    def of(cls, events: list[Event], killed: float, tunnels: int) -> _Return:
        complete = complete_at(events, tunnels)
        if complete is None:
            raise BenchError(f"the events of {tunnels} tunnels do not fit together")
        ups = [event for event in events if event.kind == "up"]
        back = ups[0].at
        after = [event for event in events if event.at >= back]
        return cls(
            complete=complete,
            back=back - killed,
            peak_dials=busiest(after, "dial"),
            moment_dials=busiest(after, "dial", _MOMENT),
            peak_ups=busiest(after, "up"),
            ups=per_second(after, "up", back),
            dials=per_second(after, "dial", back),
        )

    def histogram(self) -> str:
        return (
            f"first tunnel up {self.back:.1f} s after the kill; from then on, second by second: dials "
            f"{', '.join(map(str, self.dials))}; tunnels up {', '.join(map(str, self.ups))}"
        )


def bars(results: Results) -> list[Bar]:
    judged = []
    for replicas in _REPLICAS:
        setting = _setting(replicas)

        def worst(metric: str, setting: str = setting) -> float | None:
            spread = results.spread(NAME, setting, "platformctl", metric)
            return None if spread is None else spread.high

        tunnels = worst("tunnels")
        share = None if tunnels is None else _HERD_SHARE * tunnels
        judged += [
            at_most(f"{setting}: all back within", worst("all_back_s"), _BACK_SECONDS, "s"),
            at_most(f"{setting}: no herd, dials in 0.5 s: 3/4 of all", worst("moment_dials"), share, "dials"),
            at_most(f"{setting}: calls that failed afterwards", worst("errors"), 0, "requests"),
        ]
    return judged


def estimate(plan: Plan) -> float:
    # Enrolled and started at two helpers' pace, then killed and back.
    return sum(3 + plan.satellites * 0.016 + plan.rounds * (12 + plan.satellites * 0.005) for _ in plan.replicas)


SCENARIO = Scenario(
    NAME,
    "Many satellites, and their hub killed and started again",
    measure,
    bars,
    full=Plan(satellites=1000, replicas=_REPLICAS),
    quick=Plan(satellites=20, replicas=(1,)),
    estimate=estimate,
)
