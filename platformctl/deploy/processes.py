"""Detached processes, known by pid and start time: a pid that was given to another program is never signalled."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import platformctl
from platformctl.deploy.files import write_text
from platformctl.errors import StoreError

__all__ = ["Process", "Records", "alive", "last_lines", "runs", "stop", "undisturbed"]


@dataclass(frozen=True)
class Process:
    """`started`: clock ticks after boot, field 22 of /proc/PID/stat (proc(5)); `mark`: part of its command line."""

    name: str
    pid: int
    started: int
    mark: str


def _spawn(name: str, module: Sequence[str], log: Path, mark: str) -> Process:
    """Start `python -m …` in a session of its own, so that Ctrl-C here does not reach it; its output goes to `log`.

    It runs beside its log, for it must not hold on to the folder that we were started in, and imports the very code
    that runs here: that folder may have another platformctl in it.
    """
    paths = [str(Path(platformctl.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", *module],
            cwd=log.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    child.returncode = 0  # it outlives us, and is watched by its pid: Popen must not warn about that
    return Process(name, child.pid, _started(child.pid) or 0, mark)


def alive(process: Process) -> bool:
    """Whether this very process runs; a zombie does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # our own child would stay a zombie
    if _started(process.pid) != process.started:
        return False
    try:
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return False
    return process.mark.encode() in command


def runs(pid: int) -> bool:
    """Whether there is such a process; a zombie is none."""
    return _started(pid) is not None


def stop(
    processes: Iterable[Process],
    *,
    grace: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """SIGTERM to all, SIGKILL to those left after `grace` seconds. Returns the names of the killed ones."""
    left = [process for process in processes if alive(process)]
    for process in left:
        _signal(process, signal.SIGTERM)
    deadline = clock() + grace
    while (left := [process for process in left if alive(process)]) and clock() < deadline:
        sleep(0.02)
    for process in left:
        _signal(process, signal.SIGKILL)
    killed = [process.name for process in left]
    deadline = clock() + 5.0
    while (left := [process for process in left if alive(process)]) and clock() < deadline:
        sleep(0.02)
    return killed


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


def _started(pid: int) -> int | None:
    """The start time of a running process, None when there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except OSError:
        return None
    # The second field, the name in parentheses, may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log, for an error message; "" when there is none. What the program said of its own end is enough:
    before it may stand what an earlier run wrote."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    last = lines[-count:]
    said = [number for number, line in enumerate(last) if line.startswith("platformctl: ")]
    return "\n".join(last[said[-1] :] if said else last)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put off SIGINT, SIGTERM and SIGHUP until the end; elsewhere than in the main thread they don't come anyway.

    Blocking them by mask would not do: a child that starts meanwhile would inherit the mask.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, lambda came, _frame: pending.append(came)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        for came in dict.fromkeys(pending):
            signal.raise_signal(came)


class Records:
    """processes.json: written after each start, so that even a killed `up` leaves nothing that `down` can't find."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Process] = {}
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            self.known = {row["name"]: Process(**row) for row in rows}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as e:
            raise StoreError(
                f"{path} cannot be read: {e}", hint="Stop the processes by hand, and delete the file."
            ) from e

    def running(self) -> dict[str, Process]:
        return {name: process for name, process in self.known.items() if alive(process)}

    def start(self, name: str, module: Sequence[str], log: Path, mark: str) -> Process:
        """Start and record; a signal that comes in between waits, so that nothing runs that is not on record."""
        with undisturbed():
            process = _spawn(name, module, log, mark)
            self.known[name] = process
            self._write()
        return process

    def forget(self, names: Iterable[str]) -> None:
        for name in list(names):
            self.known.pop(name, None)
        self._write()

    def _write(self) -> None:
        write_text(self.path, json.dumps([asdict(process) for process in self.known.values()], indent=1) + "\n")
