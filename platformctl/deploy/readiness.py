"""Waiting for processes of ours: each answers /readyz, or we say why not, from its own words."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from platformctl.deploy.processes import Process, alive, last_lines
from platformctl.errors import PlatformError, TimedOut, excerpt

__all__ = ["await_condition", "readiness"]


def readiness(url: str, *, timeout: float = 1.0) -> str:
    """ "" when `url` (http://host:port) answers /readyz with 200, else what it answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read(4096)
    except (OSError, http.client.HTTPException) as e:
        return f"no answer at {url}/readyz ({type(e).__name__})"
    finally:
        connection.close()
    return "" if response.status == 200 else f"{url}/readyz says {response.status}: {excerpt(body, 300)}"


def await_condition(
    lacking: Callable[[], str],
    watched: dict[Process, Path],
    *,
    timeout: float,
    what: str,
    interval: float = 0.05,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when `lacking()` is "". PlatformError when a watched process (with its log) ended, else TimedOut."""
    deadline = clock() + timeout
    while missing := lacking():
        for process, log in watched.items():
            if not alive(process):
                raise PlatformError(
                    f"{process.name} ended while {what} was waited for. Its last words:\n{last_lines(log)}",
                    hint=f"The whole log: {log}",
                )
        if clock() >= deadline:
            logs = ", ".join(str(log) for log in watched.values())
            raise TimedOut(f"{what}: not within {timeout:g} s; {missing}", hint=f"See {logs}")
        sleep(interval)
