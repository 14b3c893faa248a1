"""CPU time and memory of running processes, read from /proc (proc(5))."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CpuReading:
    """Nanoseconds on a CPU for every thread of the processes asked for."""

    threads: dict[int, int]

    def since(self, earlier: CpuReading) -> int:
        """Nanoseconds spent between two readings. A thread that ended in between is not counted."""
        return sum(ns - earlier.threads.get(tid, 0) for tid, ns in self.threads.items())


def read_cpu(pids: Iterable[int]) -> CpuReading:
    """Sum the scheduler's own account: field 1 of /proc/PID/task/TID/schedstat, which has no tick granularity."""
    threads: dict[int, int] = {}
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                threads[int(task.name)] = int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return CpuReading(threads)


def read_rss(pids: Iterable[int]) -> int:
    """Resident memory in bytes, summed. A process that is gone counts as nothing."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in status.splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


def command_of(pid: int) -> list[str]:
    """The command line that a running process was started with."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def maps(pid: int, fragment: str) -> bool:
    """Whether the process has a file mapped whose path contains `fragment`, such as a shared library."""
    return any(fragment in line for line in Path(f"/proc/{pid}/maps").read_text().splitlines())


def cpu_ticks() -> tuple[int, int]:
    """(busy, all) ticks of the whole machine since boot, from /proc/stat; a guest's stolen time is busy."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def read_others(ours: Iterable[int]) -> dict[int, int]:
    """Ticks that each process has used, with its children that ended; without `ours` and all below them."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
                ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    own = set(ours)

    def is_ours(pid: int) -> bool:
        while pid > 1:
            if pid in own:
                return True
            pid = parents.get(pid, 0)
        return False

    return {pid: used for pid, used in ticks.items() if not is_ours(pid)}
