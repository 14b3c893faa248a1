from __future__ import annotations

from collections.abc import Callable

import pytest

from platformctl.net.deadlines import NEVER, Deadlines


class Timed:
    def __init__(self, deadline: float, following: float = NEVER) -> None:
        self.deadline = deadline
        self.following = following
        self.calls: list[float] = []

    def on_deadline(self, now: float) -> None:
        self.calls.append(now)
        self.deadline = self.following


def test_what_is_due_is_told_and_nothing_else() -> None:
    deadlines = Deadlines(lambda: 0.0)
    due, exact, later, never = Timed(1.0), Timed(2.0), Timed(2.1), Timed(NEVER)
    deadlines.members.update({due, exact, later, never})
    deadlines.sweep(2.0)
    assert [len(one.calls) for one in (due, exact, later, never)] == [1, 1, 0, 0]
    deadlines.sweep(3.0)
    assert [len(one.calls) for one in (due, exact, later, never)] == [1, 1, 1, 0]


def test_a_member_may_leave_and_others_come_during_a_sweep() -> None:
    deadlines = Deadlines(lambda: 0.0)
    other = Timed(0.0)

    class Leaving(Timed):
        def on_deadline(self, now: float) -> None:
            super().on_deadline(now)
            deadlines.members.discard(self)
            deadlines.members.add(other)

    leaving = Leaving(0.0)
    deadlines.members.add(leaving)
    deadlines.sweep(1.0)
    assert deadlines.members == {other}
    deadlines.sweep(1.0)
    assert (len(leaving.calls), len(other.calls)) == (1, 1)


class Loop:
    """Keeps what is scheduled, and runs it when told."""

    def __init__(self) -> None:
        self.scheduled: list[tuple[Callable[..., None], tuple[object, ...]]] = []

    def call_later(self, delay: float, call: Callable[..., None], *args: object) -> None:
        self.scheduled.append((call, args))

    def run(self) -> None:
        call, args = self.scheduled.pop()
        call(*args)


def test_one_failing_member_does_not_stop_the_clock() -> None:
    class Failing(Timed):
        def on_deadline(self, now: float) -> None:
            super().on_deadline(now)
            raise RuntimeError("a bug")

    loop = Loop()
    deadlines = Deadlines(lambda: 1.0)
    failing = Failing(0.0, following=0.0)
    deadlines.members.add(failing)
    deadlines.start(loop)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(RuntimeError):
            loop.run()
    assert len(failing.calls) == 2
    assert len(loop.scheduled) == 1
