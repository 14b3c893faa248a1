"""Processes are real ones: a Python that waits on a pipe that nobody writes to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from platformctl.deploy.processes import Process, Records, alive, last_lines, stop, undisturbed
from platformctl.errors import StoreError

OBEDIENT = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile 1: signal.pause()"
)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Process]:
    """Start a module with the given code, and return when it said that it is up."""
    records = Records(tmp_path / "processes.json")

    def started(name: str, code: str) -> Process:
        (tmp_path / f"waiting_{name}.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        log = tmp_path / f"{name}.log"
        process = records.start(name, [f"waiting_{name}"], log, f"waiting_{name}")
        deadline = time.monotonic() + 20
        while "up" not in log.read_text():
            assert time.monotonic() < deadline
            os.sched_yield()
        return process

    yield started
    stop(records.running().values(), grace=0)


def test_a_process_has_its_own_session_and_is_on_record(start: Callable[[str, str], Process], tmp_path: Path) -> None:
    process = start("a", OBEDIENT)
    assert os.getsid(process.pid) == process.pid
    assert os.readlink(f"/proc/{process.pid}/cwd") == str(tmp_path)
    assert Records(tmp_path / "processes.json").running() == {"a": process}
    assert stop([process], grace=10) == []
    assert not alive(process)
    assert Records(tmp_path / "processes.json").running() == {}


def test_what_does_not_stop_is_killed_and_named(start: Callable[[str, str], Process]) -> None:
    process = start("b", STUBBORN)
    assert stop([process], grace=0.05) == ["b"]
    assert not alive(process)


def test_a_recycled_pid_is_never_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    other = subprocess.Popen([sys.executable, "-c", OBEDIENT], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    try:
        stat = Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()
        same = Process("x", other.pid, int(stat[19]), "signal")
        assert alive(same)
        assert not alive(replace(same, started=same.started + 1))
        assert not alive(replace(same, mark="another command"))
        monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a stranger was signalled"))
        assert stop([replace(same, started=1), replace(same, mark="another command")], grace=1) == []
    finally:
        monkeypatch.undo()
        other.kill()
        other.wait()
        other.stdout.close()


def test_a_zombie_is_not_alive() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    started = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[19])
    assert not alive(Process("z", child, started, ""))


def test_a_broken_record_is_an_error_and_not_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    for text in ("{", "[1]", '[{"name": "a"}]'):
        path.write_text(text)
        with pytest.raises(StoreError, match="cannot be read"):
            Records(path)
        assert path.read_text() == text


def test_forgotten_processes_leave_the_record(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    path.write_text(json.dumps([{"name": name, "pid": 1, "started": 1, "mark": "m"} for name in "ab"]))
    Records(path).forget(["a", "never there"])
    assert list(Records(path).known) == ["b"]


def test_the_end_of_a_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_lines(log) == ""
    log.write_bytes(b"\n".join(b"%d" % n for n in range(10)) + b"\xff")
    assert last_lines(log, 2) == "8\n9\ufffd"


def test_a_signal_waits_until_the_record_is_written() -> None:
    seen: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert seen == []
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, former)


def test_the_last_words_of_a_process_are_not_those_of_its_earlier_run(tmp_path: Path) -> None:
    log = tmp_path / "hub-1.log"
    assert last_lines(log) == ""
    log.write_text("".join(f"{n}\n" for n in range(9)))
    assert last_lines(log) == "4\n5\n6\n7\n8"
    log.write_text("earlier\nplatformctl: the port is taken\n  hint: choose another\n")
    assert last_lines(log) == "platformctl: the port is taken\n  hint: choose another"
