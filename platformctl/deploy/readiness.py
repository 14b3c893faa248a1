"""Waiting for processes of ours: each answers /readyz, or we say why not, from its own words."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from platformctl.deploy.processes import Process, alive, last_lines, runs
from platformctl.errors import PlatformError, TimedOut, excerpt

__all__ = ["await_condition", "complaints", "readiness"]

ASKED = 100
"""How many processes `complaints` asks: a glance at a platform of a thousand satellites must not take seconds."""


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


def complaints(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the processes of an env.json, in their own words: (name of the process, what is wrong)."""
    parts = [(row["id"], row["pid"], row["metrics_url"], row["log_file"]) for row in environment["replicas"]]
    pids = environment["pids"]["satellites"]
    parts += [(name, pids[name], row["health_url"], row["log_file"]) for name, row in environment["satellites"].items()]
    for name, pid, url, log in parts[:ASKED]:
        if not runs(pid):
            yield name, f"process {pid} is not running; its log: {log}"
            continue
        yield from ((name, detail) for detail in _failed_checks(url))


def _failed_checks(url: str) -> list[str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=1.0)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        document = json.loads(response.read(1 << 20))
        return [f"{row['name']}: {row['detail']}" for row in document["failed"]]
    except (OSError, http.client.HTTPException) as e:
        return [f"no answer at {parts.netloc}/readyz ({type(e).__name__})"]
    except (ValueError, KeyError, TypeError):
        return [f"an answer at {parts.netloc}/readyz that is not ours"]
    finally:
        connection.close()


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
