from __future__ import annotations

import os
from pathlib import Path

import pytest

from platformctl.deploy.processes import Process
from platformctl.deploy.readiness import await_condition, readiness
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
