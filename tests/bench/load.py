"""Load generators, each one call that returns what it measured: wrk (closed loop) and curl (bulk)."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.bench.latency import LoadResult
from tests.bench.processes import BenchError, Processes, require
from tests.bench.target import Target

_WRK_SCRIPT = Path(__file__).with_name("wrk.lua")


async def wrk(
    processes: Processes, target: Target, path: str, *, connections: int, seconds: int, varied: bool = False
) -> LoadResult:
    """Closed loop over keep-alive connections, one thread: the next request leaves when the answer is in.

    All requests are equal, or with `varied` no two of them: path, query and a field differ.
    """
    program = require("wrk", hint="apt-get install wrk")
    output = await processes.run(
        "wrk",
        [
            *(program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"),
            *("-s", str(_WRK_SCRIPT), target.url + path),
        ],
        seconds=seconds + 20,
        env={"BENCH_HEADERS": str(target.header_file), "BENCH_VARIED": "1" if varied else ""},
    )
    marker = output.rfind(b"RESULT ")
    if marker < 0:
        raise BenchError(f"wrk gave no result for {target.url}")
    got = json.loads(output[marker + 7 :])
    p50, p99, highest = (got[name] / 1e3 for name in ("p50_us", "p99_us", "max_us"))
    return LoadResult(got["requests"], got["us"] / 1e6, p50, p99, highest, got["errors"])


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
