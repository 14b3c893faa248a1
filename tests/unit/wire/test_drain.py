"""GOAWAY, both ways (SPEC.md, "Drain")."""

from __future__ import annotations

import pytest

from platformctl.wire import frames
from platformctl.wire.frames import GOAWAY, NO_ERROR
from tests.unit.wire.pair import RESPONSE, Pair, parse


def names(message: bytes) -> list[str]:
    return [frame[0] for frame in parse(message)]


def test_an_agent_that_leaves_gets_no_more_streams_and_finishes_those_it_has() -> None:
    pair = Pair()
    stream, sink, peer, _ = pair.exchange(end=True)
    pair.agent.goaway(NO_ERROR, "draining")
    pair.to_hub()
    assert not pair.hub.can_open
    assert pair.hub_side.controls[-1] == (GOAWAY, {"code": 0, "reason": "draining", "retry_after": 0.0})
    assert not pair.agent.drained
    pair.to_agent()
    assert pair.agent_side.controls[-1][1]["final"] is True
    assert not pair.agent.drained
    peer.send_head(RESPONSE)
    peer.send_data(b"done", True)
    assert not pair.agent.drained
    pair.settle()
    assert sink.ends == 1
    assert stream.closed
    assert pair.agent.drained


def test_the_hub_s_answer_comes_after_every_stream_that_it_has_opened() -> None:
    pair = Pair()
    pair.agent.goaway(NO_ERROR)
    pair.open()
    pair.to_hub()
    assert pair.to_agent(control_only=True) == b""
    assert names(pair.to_agent()) == ["OPEN", "GOAWAY"]
    assert not pair.agent.drained


def test_the_hub_answers_once() -> None:
    pair = Pair()
    pair.agent.receive(b"", pair.now)
    pair.hub.receive(frames.control(GOAWAY, {}) * 3, pair.now)
    assert names(pair.to_agent()) == ["GOAWAY"]


def test_a_hub_that_leaves_still_opens_streams_until_it_closes() -> None:
    pair = Pair()
    pair.hub.goaway(NO_ERROR, "restarting", 2.5)
    assert pair.hub.can_open
    _, sink, peer, _ = pair.exchange(end=True)
    assert pair.agent_side.controls[-1] == (GOAWAY, {"code": 0, "reason": "restarting", "retry_after": 2.5})
    peer.send_head(RESPONSE, frames.FLAG_END)
    pair.settle()
    assert sink.ends == 1
    assert pair.agent.goaway_received
    assert not pair.agent.drained


def test_when_both_leave_at_once_the_agent_still_waits_for_the_answer() -> None:
    pair = Pair()
    pair.hub.goaway(NO_ERROR, "restarting")
    pair.agent.goaway(NO_ERROR, "restarting")
    pair.to_agent()
    assert not pair.agent.drained
    pair.open()
    pair.settle()
    assert [message.get("final") for kind, message in pair.agent_side.controls if kind == GOAWAY] == [None, True]
    assert len(pair.agent_side.opened) == 1
    assert not pair.agent.drained


def test_an_orderly_goaway_is_said_once_and_one_that_ends_the_session_may_follow() -> None:
    pair = Pair()
    pair.hub.goaway(NO_ERROR)
    pair.hub.goaway(frames.SUPERSEDED)
    pair.hub.goaway(frames.PROTOCOL, "x" * 1000)
    pair.settle()
    said = [message for kind, message in pair.agent_side.controls if kind == GOAWAY]
    assert [message["code"] for message in said] == [frames.PROTOCOL, NO_ERROR]
    assert said[0]["reason"] == "x" * 512


@pytest.mark.parametrize(
    ("code", "overtakes"),
    [(code, code not in (NO_ERROR, frames.SUPERSEDED, frames.OVERLOADED)) for code in frames.ERROR_NAMES],
    ids=list(frames.ERROR_NAMES.values()),
)
def test_only_a_goaway_that_ends_the_session_overtakes(code: int, overtakes: bool) -> None:
    pair = Pair()
    pair.open()
    pair.hub.goaway(code)
    assert names(pair.to_agent()) == (["GOAWAY", "OPEN"] if overtakes else ["OPEN", "GOAWAY"])
    assert pair.hub_side.dirty
