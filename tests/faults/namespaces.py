"""Linux network namespaces by name: make, enter, delete, sweep what dead processes left (namespaces(7), setns(2))."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
_RUN = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_OURS = re.compile(r"^pctl(\d+)x\d+-")
_counter = itertools.count(1)


class LabError(Exception):
    """A network command failed; the message carries the command and what it said."""


def unavailable() -> str | None:
    """Why namespaces cannot be used here, or None when they can."""
    for program in ("ip", "nsenter", "iptables", "bridge"):
        if shutil.which(program) is None:
            return f"the program `{program}` is missing (apt-get install iproute2 util-linux iptables)"
    if os.geteuid() != 0:
        return "network namespaces need root; run the tests as root (in a container or a VM) to include them"
    name = unique_prefix() + "probe"
    try:
        create(name)
    except LabError as e:
        return f"this kernel or container refuses network namespaces: {e}"
    delete(name)
    return None


def unique_prefix() -> str:
    """A prefix that names this process, so that a later sweep knows whether its owner lives."""
    return f"pctl{os.getpid()}x{next(_counter)}-"


def run(*argv: str) -> str:
    """Run a command; its stdout. A non-zero exit is a LabError."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise LabError(f"`{' '.join(argv)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def create(name: str) -> None:
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")


def delete(name: str) -> None:
    """End every process inside, then the namespace with its links. One that is gone already is fine."""
    if not (_RUN / name).exists():
        return
    end_processes(pids_in(name))
    with contextlib.suppress(LabError):
        run("ip", "netns", "del", name)


def pids_in(name: str) -> list[int]:
    try:
        return [int(pid) for pid in run("ip", "netns", "pids", name).split()]
    except LabError:
        return []


def end_processes(pids: list[int], *, grace: float = 3.0) -> None:
    """SIGTERM by id, SIGKILL after the grace. Never this process itself, whose threads may be inside."""
    waiting = [pid for pid in pids if pid != os.getpid()]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in waiting:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + grace
        while waiting and time.monotonic() < deadline:
            waiting = [pid for pid in waiting if runs(pid)]
            time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether a process runs; a zombie, which waits to be reaped by its parent, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def names() -> list[str]:
    """Every namespace that any lab made, this process's or another's."""
    return sorted(entry.name for entry in _RUN.iterdir() if _OURS.match(entry.name)) if _RUN.exists() else []


def sweep() -> list[str]:
    """Delete namespaces whose owner is dead (it was killed before its clean-up); returns their names."""
    stale = [name for name in names() if not runs(_owner(name))]
    for name in stale:
        delete(name)
    return stale


def _owner(name: str) -> int:
    found = _OURS.match(name)
    return int(found.group(1)) if found else 0


def inside(name: str, call: Callable[[], _T]) -> _T:
    """Run `call` in a thread that entered the namespace. A socket made there stays there, whoever uses it later."""
    results: list[_T] = []
    failures: list[BaseException] = []

    def enter() -> None:
        try:
            with (_RUN / name).open("rb") as handle:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(handle.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"cannot enter the namespace {name}")
            results.append(call())
        except BaseException as e:
            failures.append(e)

    # A thread of its own, which ends here: the namespace of no other thread changes.
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
