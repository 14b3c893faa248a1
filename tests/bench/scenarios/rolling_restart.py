"""Both hub replicas are replaced, one after the other, under load: does anybody notice?"""

from __future__ import annotations

import asyncio
import signal

from tests.bench.context import Bench
from tests.bench.load import LoadResult, vegeta
from tests.bench.local_platform import LocalPlatform, up, wait_until
from tests.bench.processes import signal_pid
from tests.bench.procfs import alive
from tests.bench.results import Bar, Results, at_most
from tests.bench.scenarios.scenario import Scenario

NAME = "rolling_restart"
_RATE = 2_000
_SETTING = f"{_RATE:,}/s, 2 replicas"


async def measure(bench: Bench) -> None:
    platform = await up(bench.processes, bench.folder, satellites=1, replicas=2)
    await platform.export("web", f"http://127.0.0.1:{bench.backend.web}")
    target = platform.target("web", bench.folder / "rolling.headers")
    await bench.wait_answering(target)
    for round_ in range(1, bench.options.rounds + 1):
        seconds = max(30, bench.options.seconds)
        async with asyncio.TaskGroup() as group:
            load = group.create_task(
                vegeta(bench.processes, target, "/small", rate=_RATE, seconds=seconds, folder=bench.folder, name=NAME)
            )
            await asyncio.sleep(2)
            await _restart_each(platform)
            if load.done():
                raise ExceptionGroup(NAME, [TimeoutError(f"the restarts took longer than the load of {seconds} s")])
        bench.add(NAME, _SETTING, "platformctl", round_, _metrics(load.result()))
    await platform.down()


async def _restart_each(platform: LocalPlatform) -> None:
    for pid in platform.hub_pids:
        signal_pid(pid, signal.SIGTERM)
        await wait_until(lambda pid=pid: not alive(pid), seconds=40, what=f"hub replica {pid} drained and ended")
        await platform.restore()
        await asyncio.sleep(1)


def _metrics(load: LoadResult) -> dict[str, float]:
    return {
        "requests": float(load.requests),
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "errors": float(load.errors),
    }


def bars(results: Results) -> list[Bar]:
    errors = results.spread(NAME, _SETTING, "platformctl", "errors")
    return [at_most("rolling restart: failed requests", None if errors is None else errors.high, 0, "requests")]


SCENARIO = Scenario(NAME, "Rolling restart of both hub replicas under load", measure, bars)
