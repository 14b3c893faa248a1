"""1 GiB each way through one stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.bench.backend import BLOB_BYTES
from tests.bench.context import Bench, Usage, rss_metrics
from tests.bench.load import download, upload
from tests.bench.results import Bar, Results, at_least
from tests.bench.scenarios.scenario import Scenario
from tests.bench.target import Contender

NAME = "bulk"
_SECONDS = 60.0  # 1 GiB at 18 MB/s; slower than that is a failure, not a figure


async def _download(bench: Bench, contender: Contender) -> float:
    return await download(bench.processes, contender.web, "/blob", size=BLOB_BYTES, seconds=_SECONDS)


async def _upload(bench: Bench, contender: Contender) -> float:
    return await upload(bench.processes, contender.sink, "/", file=bench.backend.blob, seconds=_SECONDS)


_WAYS: dict[str, Callable[[Bench, Contender], Awaitable[float]]] = {"download": _download, "upload": _upload}


async def measure(bench: Bench) -> None:
    contenders = await bench.contenders()
    for way, move in _WAYS.items():
        for round_ in range(1, bench.options.rounds + 1):
            for contender in contenders:
                before = Usage.of(contender)
                metrics = {"mb_per_s": await move(bench, contender)}
                hub_us, agent_us = Usage.of(contender).us_since(before)
                if contender.hub_pids:
                    megabytes = BLOB_BYTES / 1e6
                    metrics |= {"hub_us_per_mb": hub_us / megabytes, "agent_us_per_mb": agent_us / megabytes}
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


SCENARIO = Scenario(NAME, "Bulk: 1 GiB through one stream", measure, bars)
