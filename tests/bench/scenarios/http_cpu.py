"""Closed-loop requests of 200 bytes: what does one cost the hub?"""

from __future__ import annotations

from tests.bench.contenders import PEERS
from tests.bench.context import Bench, Others, Usage, rss_metrics
from tests.bench.load import wrk
from tests.bench.plan import Plan
from tests.bench.results import Bar, Results, at_most
from tests.bench.scenarios.scenario import Scenario
from tests.bench.target import Contender

NAME = "http_cpu"
_OURS = "platformctl"
# Those that read requests: a relay of TCP does not care whether heads repeat.
_READERS = frozenset({"frp-http", "piko", "platformctl", "platformctl-pure"})
_VARIED_CONNECTIONS = 64
VARIED = f"c={_VARIED_CONNECTIONS}, varied heads"


async def measure(bench: Bench, plan: Plan) -> None:
    contenders = await bench.contenders(NAME, plan.contenders)
    for contender in contenders:
        await wrk(bench.processes, contender.web, "/small", connections=64, seconds=1)
    for connections in plan.connections:
        for round_ in range(1, plan.rounds + 1):
            for contender in contenders:
                others = Others(contenders)
                metrics = await _one(bench, contender, connections, plan.seconds)
                bench.add(NAME, f"c={connections}", contender.name, round_, metrics | others.metrics())
    for round_ in range(1, plan.rounds + 1):
        for contender in contenders:
            if contender.name in _READERS:
                others = Others(contenders)
                metrics = await _one(bench, contender, _VARIED_CONNECTIONS, plan.seconds, varied=True)
                bench.add(NAME, VARIED, contender.name, round_, metrics | others.metrics())


async def _one(
    bench: Bench, contender: Contender, connections: int, seconds: int, *, varied: bool = False
) -> dict[str, float]:
    before = Usage.of(contender)
    load = await wrk(bench.processes, contender.web, "/small", connections=connections, seconds=seconds, varied=varied)
    return load.metrics() | Usage.of(contender).per(load.requests, before) | rss_metrics(contender)


def bars(results: Results) -> list[Bar]:
    def hub_us(setting: str, contender: str) -> float | None:
        return results.median(NAME, setting, contender, "hub_us")

    judged = []
    for setting, share in (("c=64", 5), (VARIED, 5), ("c=1", 3), ("c=256", 3)):
        frp = hub_us(setting, "frp-http")
        limit = None if frp is None else frp / share
        judged.append(at_most(f"hub CPU, {setting}: 1/{share} of frp vhost", hub_us(setting, _OURS), limit, "µs"))
    rathole = hub_us("c=64", "rathole")
    goal = None if rathole is None else rathole * 1.5
    judged.append(at_most("hub CPU, c=64: 1.5 × rathole (goal)", hub_us("c=64", _OURS), goal, "µs"))
    return judged


def estimate(plan: Plan) -> float:
    varied = len(_READERS.intersection(plan.contenders))
    measurements = (len(plan.contenders) * len(plan.connections) + varied) * plan.rounds
    return 4 * len(plan.contenders) + measurements * (plan.seconds + 0.1)


SCENARIO = Scenario(
    NAME,
    "Hub CPU per HTTP request (closed loop, keep-alive, 200 B)",
    measure,
    bars,
    full=Plan(("direct", *PEERS, "platformctl-pure"), seconds=3, rounds=3, connections=(1, 64, 256)),
    quick=Plan(("direct", "frp-http", "platformctl"), seconds=1, connections=(64,)),
    estimate=estimate,
)
