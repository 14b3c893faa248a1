"""Closed-loop requests of 200 bytes: what does one cost the hub?"""

from __future__ import annotations

from tests.bench.context import Bench, Usage, rss_metrics
from tests.bench.load import wrk
from tests.bench.results import Bar, Results, at_most
from tests.bench.scenarios.scenario import Scenario
from tests.bench.target import Contender

NAME = "http_cpu"
_OURS = "platformctl"


async def measure(bench: Bench) -> None:
    contenders = await bench.contenders()
    for contender in contenders:
        await wrk(bench.processes, contender.web, "/small", connections=64, seconds=1)
    for connections in bench.options.connections:
        for round_ in range(1, bench.options.rounds + 1):
            for contender in contenders:
                metrics = await _one(bench, contender, connections)
                bench.add(NAME, f"c={connections}", contender.name, round_, metrics)


async def _one(bench: Bench, contender: Contender, connections: int) -> dict[str, float]:
    before = Usage.of(contender)
    load = await wrk(bench.processes, contender.web, "/small", connections=connections, seconds=bench.options.seconds)
    hub_us, agent_us = Usage.of(contender).us_since(before)
    metrics = {
        "requests_per_s": load.per_second,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "errors": float(load.errors),
    }
    if contender.hub_pids:
        metrics |= {"hub_us": hub_us / load.requests, "agent_us": agent_us / load.requests}
    return metrics | rss_metrics(contender)


def bars(results: Results) -> list[Bar]:
    def hub_us(setting: str, contender: str) -> float | None:
        return results.median(NAME, setting, contender, "hub_us")

    judged = []
    for setting, share in (("c=64", 5), ("c=1", 3), ("c=256", 3)):
        frp = hub_us(setting, "frp-http")
        limit = None if frp is None else frp / share
        judged.append(at_most(f"hub CPU, {setting}: 1/{share} of frp vhost", hub_us(setting, _OURS), limit, "µs"))
    rathole = hub_us("c=64", "rathole")
    goal = None if rathole is None else rathole * 1.5
    judged.append(at_most("hub CPU, c=64: 1.5 × rathole (goal)", hub_us("c=64", _OURS), goal, "µs"))
    return judged


SCENARIO = Scenario(NAME, "Hub CPU per HTTP request (closed loop, keep-alive, 200 B)", measure, bars)
