"""Ten clients ask for 1 GiB and stop reading: whose memory grows, and who else waits?"""

from __future__ import annotations

import asyncio

from tests.bench.context import MIB, Bench
from tests.bench.latency import LoadResult
from tests.bench.plan import Plan
from tests.bench.procfs import read_rss
from tests.bench.rawhttp import StalledReader
from tests.bench.results import Bar, Results, at_most
from tests.bench.scenarios.scenario import Scenario
from tests.bench.target import Contender

NAME = "stalled_readers"
READERS = 10
_RATE = 500
_RAMP = 2
_GO_ON = 8 * MIB


async def measure(bench: Bench, plan: Plan) -> None:
    for contender in await bench.contenders(NAME, plan.contenders):
        bench.add(NAME, f"{READERS} readers", contender.name, 1, await _one(bench, contender, plan.seconds))


async def _one(bench: Bench, contender: Contender, seconds: int) -> dict[str, float]:
    before = await _others(bench, contender, max(2, seconds // 3))
    base = (read_rss(contender.hub_pids), read_rss(contender.agent_pids))
    readers = [await StalledReader.start(contender.web, "/blob") for _ in range(READERS)]
    peak = list(base)
    watcher = asyncio.create_task(_watch_rss(contender, peak))
    try:
        during = await _others(bench, contender, seconds)
    finally:
        watcher.cancel()
    dropped = [reader for reader in readers if not await reader.goes_on(_GO_ON)]
    for reader in readers:
        reader.close()
    return {
        "hub_growth_mib": (peak[0] - base[0]) / MIB,
        "agent_growth_mib": (peak[1] - base[1]) / MIB,
        "p99_before_ms": before.p99_ms,
        "p99_during_ms": during.p99_ms,
        "errors": float(before.errors + during.errors + len(dropped)),
    }


async def _others(bench: Bench, contender: Contender, seconds: int) -> LoadResult:
    return await bench.open_loop(contender.web, "/small", rate=_RATE, seconds=seconds, ramp=_RAMP, name="others")


async def _watch_rss(contender: Contender, peak: list[int]) -> None:
    while True:
        now = (read_rss(contender.hub_pids), read_rss(contender.agent_pids))
        peak[:] = (max(peak[0], now[0]), max(peak[1], now[1]))
        await asyncio.sleep(0.25)


def bars(results: Results) -> list[Bar]:
    def ours(metric: str) -> float | None:
        return results.median(NAME, f"{READERS} readers", "platformctl", metric)

    before = ours("p99_before_ms")
    return [
        at_most("stalled readers: hub RSS growth", ours("hub_growth_mib"), 64, "MiB"),
        at_most("stalled readers: agent RSS growth", ours("agent_growth_mib"), 64, "MiB"),
        at_most(
            "stalled readers: p99 of others, 1.5 × before",
            ours("p99_during_ms"),
            None if before is None else 1.5 * before,
            "ms",
        ),
        at_most("stalled readers: errors", ours("errors"), 0, "requests"),
    ]


def estimate(plan: Plan) -> float:
    return len(plan.contenders) * (2 + 2 * _RAMP + plan.seconds + max(2, plan.seconds // 3))


SCENARIO = Scenario(
    NAME,
    "Ten readers stalled on 1 GiB bodies",
    measure,
    bars,
    full=Plan(("frp-http", "platformctl"), seconds=60),
    quick=Plan(seconds=3),
    estimate=estimate,
)
