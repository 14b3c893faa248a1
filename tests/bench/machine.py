"""What a figure means nothing without: the machine, the versions, the commit, the command."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from platformctl import speedups
from tests.bench.processes import require
from tests.bench.procfs import cpu_ticks
from tests.bench.tools import tool_versions

_ROOT = Path(__file__).resolve().parents[2]


def describe() -> dict[str, Any]:
    """JSON-ready facts. Nothing that names this host or its users."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "python": platform.python_version(),
        "versions": {**tool_versions(), "nginx": _version("nginx", "-v"), "wrk": _version("wrk", "-v")},
        "hot_path": speedups.state(),
        "commit": _commit(),
        "command": "python -m tests.bench " + " ".join(sys.argv[1:]),
    }


async def conditions(seconds: float = 1.0) -> str:
    """What else the machine does now: one line for the report, looked at for `seconds`."""
    busy, everything = cpu_ticks()
    await asyncio.sleep(seconds)
    later_busy, later_everything = cpu_ticks()
    share = (later_busy - busy) / max(1, later_everything - everything)
    return f"before the run: CPUs {share:.0%} busy, load average {os.getloadavg()[0]:.2f}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(program: str, flag: str) -> str:
    path = require(program, hint=f"apt-get install {program}")
    # wrk answers its version with status 1.
    done = subprocess.run([path, flag], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return found.group() if found else "unknown"


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=_ROOT, capture_output=True, text=True, timeout=10, check=False
    )
    return done.stdout.strip() or "not committed"
