"""Requests at a fixed rate, answered or not: what do the slowest one in a hundred wait?"""

from __future__ import annotations

from tests.bench.context import Bench, Others, Usage, rss_metrics
from tests.bench.plan import Plan
from tests.bench.results import Bar, Results, at_least, at_most
from tests.bench.scenarios.scenario import Scenario

NAME = "open_loop"
_P99_LIMIT_MS = {10_000: 5.0, 20_000: 10.0}


async def measure(bench: Bench, plan: Plan) -> None:
    contenders = await bench.contenders(NAME, plan.contenders)
    for rate in plan.rates:
        for round_ in range(1, plan.rounds + 1):
            for contender in contenders:
                before, others = Usage.of(contender), Others(contenders)
                load = await bench.open_loop(contender.web, "/small", rate=rate, seconds=plan.seconds, ramp=plan.ramp)
                # CPU is that of the ramp too, so it is divided by all requests.
                sent = load.requests * (plan.seconds + plan.ramp) / plan.seconds
                metrics = load.metrics() | Usage.of(contender).per(sent, before) | rss_metrics(contender)
                bench.add(NAME, f"{rate:,}/s", contender.name, round_, metrics | others.metrics())


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


def estimate(plan: Plan) -> float:
    # Reading a million results takes a few seconds.
    reading = sum(rate * (plan.seconds + plan.ramp) * 6e-6 for rate in plan.rates)
    each = (plan.seconds + plan.ramp + 1) * len(plan.rates) + reading
    return len(plan.contenders) * (2 + plan.rounds * each)


SCENARIO = Scenario(
    NAME,
    "Open loop at a fixed rate (the load generator shares the cores)",
    measure,
    bars,
    full=Plan(("direct", "rathole", "platformctl"), seconds=60, ramp=5, rates=(10_000, 20_000)),
    quick=Plan(("direct", "platformctl"), seconds=2, ramp=1, rates=(1_000,)),
    estimate=estimate,
)
