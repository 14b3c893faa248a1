"""Requests at a fixed rate, whether or not answers come, so that waiting is in the latencies.

`vegeta` measures. Where it is not built, a generator of this file can stand in at a low rate, to show that a scenario
works; its figures say nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from pathlib import Path

from tests.bench.latency import LoadResult, Sample, summary
from tests.bench.processes import BenchError, Processes
from tests.bench.rawhttp import Timeline
from tests.bench.target import Target
from tests.bench.tools import tool

STAND_IN_RATE = 100
# At most so many connections, opened as they are needed and kept. 20,000/s within 10 ms are 200 on their way; without a
# bound, vegeta opens thousands as soon as anything hesitates, and each of them makes recovery harder. Who waits for a
# connection waits in the latencies (latency.summary).
_CONNECTIONS = 256
_MAX_SAID = 3
# Timestamp, status and latency (ns) are the first three columns; the rest is most of the bytes.
_COLUMNS = 'exec "$0" encode -to csv "$1" | cut -d, -f1-3'


async def vegeta(
    processes: Processes,
    target: Target,
    path: str,
    *,
    rate: int,
    seconds: int,
    folder: Path,
    ramp: int = 0,
    name: str = "vegeta",
) -> LoadResult:
    """`ramp` seconds at the same rate come first and are not counted: they open the connections, in the same process
    that goes on to use them.
    """
    targets, results = folder / f"{name}.targets", folder / f"{name}.gob"
    targets.touch(mode=0o600)
    targets.write_text(f"GET {target.url}{path}\n{target.header_file.read_text()}")
    program = tool("vegeta", "vegeta")
    await processes.run(
        name,
        [
            *(program, "attack", f"-rate={rate}/1s", f"-duration={ramp + seconds}s", "-timeout=5s"),
            *(f"-max-workers={_CONNECTIONS}", f"-connections={_CONNECTIONS}"),
            *("-max-body=0", f"-targets={targets}", f"-output={results}"),
        ],
        seconds=ramp + seconds + 30,
    )
    listing = await processes.run(name, ["sh", "-c", _COLUMNS, program, str(results)], seconds=120)
    result = summary(await asyncio.to_thread(_samples, listing), ramp=ramp, rate=rate)
    if result is None:
        raise BenchError(f"vegeta sent nothing to {target.url}; see {processes.log_of(name)}")
    if result.errors:
        report = json.loads(await processes.run(name, [program, "report", "-type=json", str(results)], seconds=120))
        trouble = f"statuses {report['status_codes']}; {'; '.join(report['errors'][:_MAX_SAID])}"
        result = replace(result, trouble=trouble[:500])
    results.unlink()
    return result


def _samples(listing: bytes) -> list[Sample]:
    samples = []
    for line in listing.splitlines():
        sent, status, took = line.split(b",")
        samples.append(Sample(int(sent) / 1e9, int(took) / 1e9, int(status)))
    return samples


async def stand_in(target: Target, path: str, *, seconds: int) -> LoadResult:
    """STAND_IN_RATE requests a second, each on a connection of its own."""
    timeline = Timeline(target, path, STAND_IN_RATE, timeout=5.0)
    sender = asyncio.create_task(timeline.run())
    await asyncio.sleep(seconds)
    sender.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sender
    samples = [Sample(answer.started, answer.seconds, answer.status) for answer in timeline.answers]
    result = summary(samples, ramp=0, rate=STAND_IN_RATE)
    if result is None:
        raise BenchError(f"no request to {target.url}{path} ended within {seconds} s")
    return result
