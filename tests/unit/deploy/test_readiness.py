from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from platformctl.deploy.processes import Process
from platformctl.deploy.readiness import await_condition, complaints, readiness
from platformctl.errors import PlatformError, TimedOut


def ourselves() -> Process:
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return Process("hub-1", os.getpid(), started, "")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_waiting_ends_with_the_condition(tmp_path: Path) -> None:
    clock, answers = Clock(), iter(["not yet", "not yet", ""])
    watched = {ourselves(): tmp_path / "hub-1.log"}
    await_condition(lambda: next(answers), watched, timeout=9, what="hub", interval=1, clock=clock, sleep=clock.sleep)
    assert clock.now == 2.0


def test_a_process_that_died_ends_the_waiting_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "hub-1.log"
    log.write_text("cannot bind 127.0.0.1:1\n")
    dead = Process("hub-1", os.getpid(), 1, "")
    with pytest.raises(PlatformError, match="hub-1 ended while the hub was waited for") as caught:
        await_condition(lambda: "no answer", {dead: log}, timeout=9, what="the hub")
    assert "cannot bind 127.0.0.1:1" in caught.value.message
    assert str(log) in caught.value.hint


def test_the_end_of_patience_says_what_is_missing_and_where_to_look(tmp_path: Path) -> None:
    clock = Clock()
    watched = {ourselves(): tmp_path / "hub-1.log"}
    with pytest.raises(TimedOut, match="satellites: not within 2 s; sat-1 is away") as caught:
        await_condition(
            lambda: "sat-1 is away", watched, timeout=2, what="satellites", interval=1, clock=clock, sleep=clock.sleep
        )
    assert "hub-1.log" in caught.value.hint


def test_a_port_where_nobody_answers_is_not_ready() -> None:
    assert readiness("http://127.0.0.1:1").startswith("no answer at http://127.0.0.1:1/readyz")


@pytest.fixture
def answering() -> Iterator[dict[str, Any]]:
    """A health listener; `answering["body"]` is what its /readyz says, and its address is in `answering["url"]`."""
    said: dict[str, Any] = {"body": b"{}"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(said["body"])

        def log_message(self, format: str, *args: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        said["url"] = f"http://127.0.0.1:{server.server_port}"
        yield said
        server.shutdown()
        thread.join()


def environment(url: str, pid: int) -> dict[str, Any]:
    satellite = {"health_url": url, "log_file": "sat-1.log"}
    return {"replicas": [], "satellites": {"sat-1": satellite}, "pids": {"satellites": {"sat-1": pid}}}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"ready": True, "failed": []}, None),
        ({"failed": [{"name": "exports", "detail": "e.yaml:2: not YAML"}]}, "exports: e.yaml:2: not YAML"),
        ([], "an answer at"),
    ],
)
def test_a_process_is_asked_what_is_wrong_with_it(answering: dict[str, Any], body: object, complaint: str) -> None:
    answering["body"] = json.dumps(body).encode()
    found = [f"{name} {detail}" for name, detail in complaints(environment(answering["url"], os.getpid()))]
    assert [row.startswith(f"sat-1 {complaint}") for row in found] == ([True] if complaint else [])


def test_a_process_that_does_not_run_is_told_with_its_log() -> None:
    name, detail = next(complaints(environment("http://127.0.0.1:1", 2**22 + 1)))
    assert (name, detail) == ("sat-1", "process 4194305 is not running; its log: sat-1.log")
    assert next(complaints(environment("http://127.0.0.1:1", os.getpid())))[1].startswith("no answer at 127.0.0.1:1")
