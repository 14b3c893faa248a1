"""Both hub replicas are replaced, one after the other, under load: does anybody notice?"""

from __future__ import annotations

import asyncio
import signal

from tests.bench.context import Bench
from tests.bench.latency import LoadResult
from tests.bench.local_platform import LocalPlatform, own_platform, wait_until
from tests.bench.plan import Plan
from tests.bench.processes import BenchError, signal_pid
from tests.bench.procfs import alive
from tests.bench.results import Bar, Results, at_most
from tests.bench.scenarios.scenario import Scenario

NAME = "rolling_restart"
_SETTING = "2 replicas"


async def measure(bench: Bench, plan: Plan) -> None:
    async with own_platform(bench.processes, bench.folder, satellites=1, replicas=2) as platform:
        await platform.export("web", f"http://127.0.0.1:{bench.backend.web}")
        target = platform.target("web", bench.folder / "rolling.headers")
        await bench.wait_answering(target)
        (rate,) = plan.rates
        for round_ in range(1, plan.rounds + 1):
            sending = bench.open_loop(target, "/small", rate=rate, seconds=plan.seconds, name=NAME)
            load = asyncio.create_task(sending)
            try:
                await asyncio.sleep(2)
                await _restart_each(platform)
                if load.done():
                    raise BenchError(f"the restarts took longer than the load of {plan.seconds} s")
                bench.add(NAME, _SETTING, "platformctl", round_, _metrics(await load))
            finally:
                load.cancel()


async def _restart_each(platform: LocalPlatform) -> None:
    for pid in platform.hub_pids:
        signal_pid(pid, signal.SIGTERM)
        await wait_until(lambda pid=pid: not alive(pid), seconds=40, what=f"hub replica {pid} drained and ended")
        await platform.restore()
        await asyncio.sleep(1)


def _metrics(load: LoadResult) -> dict[str, float]:
    return {"requests": float(load.requests)} | load.metrics()


def bars(results: Results) -> list[Bar]:
    errors = results.spread(NAME, _SETTING, "platformctl", "errors")
    return [at_most("rolling restart: failed requests", None if errors is None else errors.high, 0, "requests")]


def estimate(plan: Plan) -> float:
    return 5 + plan.rounds * (plan.seconds + 1)


SCENARIO = Scenario(
    NAME,
    "Rolling restart of both hub replicas under load",
    measure,
    bars,
    full=Plan(seconds=30, rates=(2_000,)),
    quick=Plan(seconds=22, rates=(200,)),
    estimate=estimate,
)
