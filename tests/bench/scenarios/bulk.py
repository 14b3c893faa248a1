"""1 GiB each way through one stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.bench.contenders import PEERS
from tests.bench.context import Bench, Usage, rss_metrics
from tests.bench.load import download, upload
from tests.bench.plan import Plan
from tests.bench.results import Bar, Results, at_least
from tests.bench.scenarios.scenario import Scenario
from tests.bench.target import Contender

NAME = "bulk"
_SECONDS = 60.0  # 1 GiB at 18 MB/s; slower than that is a failure, not a figure


async def _download(bench: Bench, contender: Contender) -> float:
    size = bench.backend.blob.stat().st_size
    return await download(bench.processes, contender.web, "/blob", size=size, seconds=_SECONDS)


async def _upload(bench: Bench, contender: Contender) -> float:
    return await upload(bench.processes, contender.sink, "/", file=bench.backend.blob, seconds=_SECONDS)


_WAYS: dict[str, Callable[[Bench, Contender], Awaitable[float]]] = {"download": _download, "upload": _upload}


async def measure(bench: Bench, plan: Plan) -> None:
    contenders = await bench.contenders(NAME, plan.contenders)
    megabytes = bench.backend.blob.stat().st_size / 1e6
    for way, move in _WAYS.items():
        for round_ in range(1, plan.rounds + 1):
            for contender in contenders:
                before = Usage.of(contender)
                metrics = {"mb_per_s": await move(bench, contender)}
                cost = Usage.of(contender).per(megabytes, before)
                metrics |= {f"{name}_per_mb": value for name, value in cost.items()}
                bench.add(NAME, way, contender.name, round_, metrics | rss_metrics(contender))


def bars(results: Results) -> list[Bar]:
    judged = []
    for way in _WAYS:
        ours = results.median(NAME, way, "platformctl", "mb_per_s")
        for peer in ("frp-http", "frp-tcp", "chisel"):
            theirs = results.median(NAME, way, peer, "mb_per_s")
            limit = None if theirs is None else 2 * theirs
            judged.append(at_least(f"{way}: 2 × {peer}", ours, limit, "MB/s"))
    return judged


def estimate(plan: Plan) -> float:
    return len(plan.contenders) * plan.rounds * 2 * 2.5


SCENARIO = Scenario(
    NAME,
    "Bulk: 1 GiB through one stream",
    measure,
    bars,
    full=Plan(("direct", *PEERS), rounds=2),
    quick=Plan(("direct", "frp-http", "platformctl")),
    estimate=estimate,
)
