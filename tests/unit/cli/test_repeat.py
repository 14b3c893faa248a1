from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from platformctl.cli.repeat import wait_until, watch
from platformctl.errors import HubUnreachable, TimedOut


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_waiting_ends_when_nothing_is_missing() -> None:
    answers = iter([1, 2, 3])
    clock = Clock()
    found = wait_until(
        lambda: next(answers),
        lambda n: "" if n == 3 else "not 3",
        timeout=10,
        interval=1,
        clock=clock,
        sleep=clock.sleep,
    )
    assert (found, clock.now) == (3, 2.0)


def test_waiting_that_ends_too_late_says_what_was_missing() -> None:
    clock = Clock()
    with pytest.raises(TimedOut, match="after 5 s: sat-1 is offline"):
        wait_until(lambda: 0, lambda _: "sat-1 is offline", timeout=5, interval=1, clock=clock, sleep=clock.sleep)
    assert clock.now == 5.0


def test_a_hub_that_is_away_meanwhile_is_waited_for() -> None:
    clock = Clock()
    answers: Iterator[int | Exception] = iter([HubUnreachable("away"), 7])

    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert wait_until(ask, lambda _: "", timeout=5, interval=1, clock=clock, sleep=clock.sleep) == 7


def test_a_timeout_of_zero_asks_once() -> None:
    clock = Clock()
    with pytest.raises(TimedOut, match="away"):
        wait_until(lambda: 0, lambda _: "away", timeout=0, clock=clock, sleep=clock.sleep)


def watched(answers: list[str | Exception], capsys: pytest.CaptureFixture[str]) -> str:
    """What `watch` prints for these answers; KeyboardInterrupt after the last."""
    source = iter(answers)

    def render() -> str:
        try:
            answer = next(source)
        except StopIteration:
            raise KeyboardInterrupt from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(KeyboardInterrupt):
        watch(render, sleep=lambda _: None)
    return capsys.readouterr().out


def test_watching_prints_what_changed(capsys: pytest.CaptureFixture[str]) -> None:
    assert watched(["a", "a", "b"], capsys) == "a\nb\n"


def test_watching_outlives_a_hub_that_restarts(capsys: pytest.CaptureFixture[str]) -> None:
    assert watched(["a", HubUnreachable("away"), HubUnreachable("away"), "a"], capsys) == "a\naway\na\n"


def test_watching_redraws_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert watched(["a"], capsys) == "\x1b[H\x1b[2Ja\n"
