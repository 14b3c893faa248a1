"""Whether a process of this machine still works: the first thing to know when a path is broken."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["NOT_RUNNING", "trouble"]

NOT_RUNNING = "is not running"


def trouble(pid: int | None) -> str:
    """ "" when the process runs or is not known, else "is not running" or "is stopped".

    A killed process whose parent has not collected it yet still has its pid; `/proc/PID/stat` tells it from a live one.
    """
    if pid is None:
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return NOT_RUNNING
    except PermissionError:
        return ""  # it is somebody else's, so it exists
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except OSError:
        return ""  # no procfs here: the signal above is all we know
    state = stat.rpartition(")")[2].split()[0]  # proc(5): the state follows the command, which may hold any character
    if state in ("Z", "X"):
        return NOT_RUNNING
    return "is stopped (SIGSTOP or a debugger)" if state in ("T", "t") else ""
