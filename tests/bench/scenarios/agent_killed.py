"""The agent is killed, and started again: how fast do requests fail, and how fast are they answered again?"""

from __future__ import annotations

import asyncio
import signal
import time

from tests.bench.context import Bench
from tests.bench.local_platform import LocalPlatform, own_platform
from tests.bench.plan import Plan
from tests.bench.processes import BenchError, signal_pid
from tests.bench.procfs import command_of
from tests.bench.rawhttp import Timeline
from tests.bench.results import Bar, Results, at_most
from tests.bench.scenarios.scenario import Scenario

NAME = "agent_killed"
_RATE = 100
_HONEST = {502, 503}


async def measure(bench: Bench, plan: Plan) -> None:
    async with own_platform(bench.processes, bench.folder, satellites=1, replicas=1) as platform:
        await platform.export("web", f"http://127.0.0.1:{bench.backend.web}")
        target = platform.target("web", bench.folder / "killed.headers")
        await bench.wait_answering(target)
        timeline = Timeline(target, "/small", _RATE)
        sender = asyncio.create_task(timeline.run())
        try:
            for round_ in range(1, plan.rounds + 1):
                bench.add(NAME, "SIGKILL", "platformctl", round_, await _one(bench, platform, timeline))
        finally:
            sender.cancel()


async def _one(bench: Bench, platform: LocalPlatform, timeline: Timeline) -> dict[str, float]:
    pid = platform.satellite_pids["sat-1"]
    command = command_of(pid)
    await asyncio.sleep(1)
    killed = time.monotonic()
    signal_pid(pid, signal.SIGKILL)
    first = await timeline.wait_for(ok=False, since=killed, seconds=15)
    if first is None:
        raise BenchError("requests to a killed agent were still answered after 15 s")
    await asyncio.sleep(3)
    returned = time.monotonic()
    agent = await bench.processes.start("agent-again", command)
    platform.env["pids"]["satellites"]["sat-1"] = agent.pid
    back = await timeline.wait_for(ok=True, since=returned, seconds=20)
    if back is None:
        raise BenchError("no request was answered within 20 s after the agent was started again")
    failed = [answer for answer in timeline.since(first.ended) if answer.status != 200]
    return {
        "detected_s": first.ended - killed,
        "slowest_failure_s": max(answer.seconds for answer in failed),
        "returned_s": back.ended - returned,
        "requests": float(len(failed)),
        "errors": float(sum(answer.status not in _HONEST for answer in failed)),
    }


def bars(results: Results) -> list[Bar]:
    def worst(metric: str) -> float | None:
        spread = results.spread(NAME, "SIGKILL", "platformctl", metric)
        return None if spread is None else spread.high

    return [
        at_most("agent killed: a request fails within", worst("slowest_failure_s"), 1, "s"),
        at_most("agent killed: answers other than 502 and 503", worst("errors"), 0, "requests"),
        at_most("agent started again: routes back, the program's own start included", worst("returned_s"), 2, "s"),
    ]


def estimate(plan: Plan) -> float:
    return 4 + plan.rounds * 5


SCENARIO = Scenario(
    NAME, "The agent killed and started again", measure, bars, full=Plan(rounds=3), quick=Plan(), estimate=estimate
)
