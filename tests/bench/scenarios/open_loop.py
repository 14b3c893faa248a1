"""Requests at a fixed rate, answered or not: what do the slowest one in a hundred wait?"""

from __future__ import annotations

from tests.bench.context import Bench, Usage, rss_metrics
from tests.bench.load import vegeta
from tests.bench.results import Bar, Results, at_least, at_most
from tests.bench.scenarios.scenario import Scenario

NAME = "open_loop"
_P99_LIMIT_MS = {10_000: 5.0, 20_000: 10.0}


async def measure(bench: Bench) -> None:
    contenders = await bench.contenders()
    for rate in bench.options.rates:
        for round_ in range(1, bench.options.rounds + 1):
            for contender in contenders:
                before = Usage.of(contender)
                load = await vegeta(
                    bench.processes,
                    contender.web,
                    "/small",
                    rate=rate,
                    seconds=bench.options.seconds,
                    folder=bench.folder,
                )
                hub_us, agent_us = Usage.of(contender).us_since(before)
                metrics = {
                    "requests_per_s": load.per_second,
                    "p50_ms": load.p50_ms,
                    "p99_ms": load.p99_ms,
                    "errors": float(load.errors),
                }
                if contender.hub_pids:
                    metrics |= {"hub_us": hub_us / load.requests, "agent_us": agent_us / load.requests}
                bench.add(NAME, f"{rate:,}/s", contender.name, round_, metrics | rss_metrics(contender))


def bars(results: Results) -> list[Bar]:
    judged = []
    for rate, limit in _P99_LIMIT_MS.items():
        setting = f"{rate:,}/s"
        p99 = results.median(NAME, setting, "platformctl", "p99_ms")
        errors = results.spread(NAME, setting, "platformctl", "errors")
        sent = results.median(NAME, setting, "platformctl", "requests_per_s")
        # A generator that could not keep its schedule measured something else.
        judged.append(at_least(f"rate really sent at {setting}", sent, 0.99 * rate, "requests/s"))
        judged.append(at_most(f"p99 at {setting}", p99, limit, "ms"))
        judged.append(at_most(f"errors at {setting}", None if errors is None else errors.high, 0, "requests"))
    return judged


SCENARIO = Scenario(NAME, "Open loop at a fixed rate (the load generator shares the cores)", measure, bars)
