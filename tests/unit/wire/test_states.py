from __future__ import annotations

import runpy
from itertools import product
from pathlib import Path

import pytest

from platformctl import wire
from platformctl.wire import states
from platformctl.wire.states import CLOSED, INVALID, NEXT

REQUEST_EVENTS = {states.REQ_DATA, states.REQ_END}
RESPONSE_EVENTS = set(range(states.RSP_INTERIM, states.RSP_END + 1))


class Halves:
    """The rules of states.py said again, as two independent halves."""

    def __init__(self) -> None:
        self.request_open = True
        self.response = "head"

    def step(self, event: int) -> bool:
        if not self.request_open and self.response == "done":
            return False
        if event == states.RESET:
            self.request_open, self.response = False, "done"
            return True
        if event in REQUEST_EVENTS:
            allowed = self.request_open
            if event == states.REQ_END:
                self.request_open = False
            return allowed
        if event == states.RSP_INTERIM:
            return self.response == "head"
        if event in (states.RSP_HEAD, states.RSP_HEAD_END):
            allowed = self.response == "head"
            self.response = "body" if event == states.RSP_HEAD else "done"
            return allowed
        allowed = self.response == "body"
        if event == states.RSP_END:
            self.response = "done"
        return allowed

    @property
    def name(self) -> str:
        if not self.request_open and self.response == "done":
            return "CLOSED"
        return f"REQ_{'OPEN' if self.request_open else 'DONE'}_RSP_{self.response.upper()}"


def test_the_table_says_what_the_rules_say_for_every_sequence_of_five_events() -> None:
    for events in product(range(len(states.EVENT_NAMES)), repeat=5):
        state, halves = states.REQ_OPEN_RSP_HEAD, Halves()
        for event in events:
            allowed = halves.step(event)
            following = NEXT[state][event]
            assert (following != INVALID) == allowed, (states.STATE_NAMES[state], states.EVENT_NAMES[event])
            if not allowed:
                break
            state = following
            assert states.STATE_NAMES[state] == halves.name


def test_the_table_is_complete() -> None:
    assert len(NEXT) == len(states.STATE_NAMES)
    assert all(len(row) == len(states.EVENT_NAMES) for row in NEXT)


@pytest.mark.parametrize("state", range(len(NEXT)))
def test_every_state_is_reached_and_every_open_one_can_be_reset(state: int) -> None:
    assert state == states.REQ_OPEN_RSP_HEAD or any(state in row for row in NEXT)
    assert NEXT[state][states.RESET] == (INVALID if state == CLOSED else CLOSED)


def test_invalid_is_the_row_of_closed_so_that_events_can_be_chained() -> None:
    assert NEXT[INVALID] is NEXT[CLOSED]
    assert set(NEXT[CLOSED]) == {INVALID}


def test_the_module_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(Path(wire.__file__).with_name("states.py")), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed == states.table_markdown()
    assert printed.count("\n") == len(NEXT) + 2
