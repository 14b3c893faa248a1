"""Load generators, each one call that returns what it measured: wrk (closed loop), vegeta (open loop), curl (bulk)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import BenchError, Processes, require
from tests.bench.target import Target
from tests.bench.tools import tool

_WRK_SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class LoadResult:
    """Latencies in milliseconds. `errors` counts failed connections, timeouts and every status that is not 200."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


async def wrk(processes: Processes, target: Target, path: str, *, connections: int, seconds: int) -> LoadResult:
    """Closed loop over keep-alive connections, one thread: the next request leaves when the answer is in."""
    program = require("wrk", hint="apt-get install wrk")
    output = await processes.run(
        "wrk",
        [
            *(program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"),
            *("-s", str(_WRK_SCRIPT), target.url + path),
        ],
        seconds=seconds + 20,
        env={"BENCH_HEADERS": str(target.header_file)},
    )
    marker = output.rfind(b"RESULT ")
    if marker < 0:
        raise BenchError(f"wrk gave no result for {target.url}")
    got = json.loads(output[marker + 7 :])
    return LoadResult(got["requests"], got["us"] / 1e6, got["p50_us"] / 1e3, got["p99_us"] / 1e3, got["errors"])


async def vegeta(
    processes: Processes, target: Target, path: str, *, rate: int, seconds: int, folder: Path, name: str = "vegeta"
) -> LoadResult:
    """Open loop: requests leave on schedule whether or not answers come, so waiting is in the latencies."""
    targets, results = folder / f"{name}.targets", folder / f"{name}.gob"
    targets.touch(mode=0o600)
    targets.write_text(f"GET {target.url}{path}\n{target.header_file.read_text()}")
    program = tool("vegeta", "vegeta")
    await processes.run(
        name,
        [
            *(program, "attack", f"-rate={rate}/1s", f"-duration={seconds}s", "-timeout=5s"),
            *("-max-body=0", f"-targets={targets}", f"-output={results}"),
        ],
        seconds=seconds + 30,
    )
    report = json.loads(await processes.run(name, [program, "report", "-type=json", str(results)], seconds=60))
    results.unlink()
    requests, succeeded = int(report["requests"]), int(report["status_codes"].get("200", 0))
    latencies = report["latencies"]
    return LoadResult(
        requests=requests,
        seconds=report["duration"] / 1e9,
        p50_ms=latencies["50th"] / 1e6,
        p99_ms=latencies["99th"] / 1e6,
        errors=requests - succeeded,
    )


async def download(processes: Processes, target: Target, path: str, *, size: int, seconds: float) -> float:
    """GET into /dev/null; megabytes (10^6) a second over the whole transfer. A short body is a BenchError."""
    return await _curl(processes, target, path, [], field="size_download", size=size, seconds=seconds)


async def upload(processes: Processes, target: Target, path: str, *, file: Path, seconds: float) -> float:
    """PUT a file in one request; megabytes (10^6) a second, as `download`."""
    size = os.stat(file).st_size
    return await _curl(processes, target, path, ["-T", str(file)], field="size_upload", size=size, seconds=seconds)


async def _curl(
    processes: Processes, target: Target, path: str, extra: list[str], *, field: str, size: int, seconds: float
) -> float:
    program = require("curl", hint="apt-get install curl")
    answer = "%{http_code} %{" + field + "} %{time_total}"
    headers = ["-H", f"@{target.header_file}"] if target.header_file.stat().st_size else []
    output = await processes.run(
        "curl",
        [program, "-sS", "-o", "/dev/null", "-H", "Expect:", *headers, *extra, "-w", answer, target.url + path],
        seconds=seconds,
    )
    status, moved, took = output.split()
    if status != b"200" or int(moved) != size:
        raise BenchError(f"curl {target.url}{path}: status {status.decode()}, {int(moved)} of {size} bytes")
    return size / 1e6 / float(took)


async def probe(processes: Processes, target: Target, path: str) -> str:
    """One GET; its body as text. Any status but 200 is a BenchError."""
    program = require("curl", hint="apt-get install curl")
    headers = ["-H", f"@{target.header_file}"] if target.header_file.stat().st_size else []
    command = [program, "-sS", "-m", "5", *headers, "-w", "\n%{http_code}", target.url + path]
    body, _, status = (await processes.run("curl", command, seconds=10)).decode().rpartition("\n")
    if status != "200":
        raise BenchError(f"GET {target.url}{path} answered {status}: {body[:200]}")
    return body
