"""What a peer must not do, frame by frame, and the error that ends the session."""

from __future__ import annotations

import pytest

from platformctl.errors import FrameError, SessionError, WireError
from platformctl.wire import frames
from platformctl.wire.frames import (
    DATA,
    END,
    FLAG_END,
    FLAG_INTERIM,
    FLAG_TRAILERS,
    FLOW_CONTROL,
    GOAWAY,
    HEAD,
    HELLO,
    OPEN,
    PING,
    PONG,
    PROTOCOL,
    REGISTER,
    RESET,
    WELCOME,
    WINDOW,
    frame,
)
from platformctl.wire.session import MAX_CONTROL_BACKLOG
from tests.unit.wire.pair import REQUEST, RESPONSE, Pair

ONE = frames.U32.pack(1)
PING_PAYLOAD = b"\0" * 8


def at_hub(message: bytes, *, state: str = "open", greeted: bool = True) -> None:
    """Give the hub `message` about stream 1, which is open, in its response body, or has ended."""
    pair = Pair(greeted=greeted)
    if greeted:
        _, _, peer, _ = pair.exchange(end=True)
        if state in ("body", "ended"):
            peer.send_head(RESPONSE)
        if state == "ended":
            peer.send_end()
        pair.settle()
    pair.hub.receive(message, pair.now)


def at_agent(message: bytes, *, state: str = "open", greeted: bool = True) -> None:
    """Give the agent `message` about stream 1, whose request half is open, has ended, or is long gone."""
    pair = Pair(greeted=greeted)
    if greeted:
        _, _, peer, _ = pair.exchange(end=state != "open")
        if state == "ended":
            peer.send_head(RESPONSE, FLAG_END)
        pair.settle()
    pair.agent.receive(message, pair.now)


BAD_FRAMES = [
    ("half a header", at_hub, b"\0\0\0\0\x08", "header is truncated"),
    ("half a header after a whole frame", at_hub, frame(PING, 0, 0, PING_PAYLOAD) + b"\0", "header is truncated"),
    ("a payload beyond the message", at_hub, frame(DATA, 0, 1, b"xx")[:-1], "longer than its message"),
    ("a length that no message has", at_hub, b"\xff" * 4 + b"\x12\0\0\0\0\x01", "longer than its message"),
    ("a message over the limit", at_hub, b"\0" * (frames.MAX_MESSAGE + 1), "over the limit"),
    ("frame type 0", at_hub, frame(0, 0, 0), "unexpected frame 0"),
    ("an unknown frame type", at_hub, frame(99, 0, 1), "unexpected frame 99"),
    ("OPEN at the hub", at_hub, frame(OPEN, 0, 2, REQUEST), "unexpected frame OPEN"),
    ("WELCOME at the hub", at_hub, frame(WELCOME, 0, 0, b"{}"), "unexpected frame WELCOME"),
    ("REPLICAS at the hub", at_hub, frame(frames.REPLICAS, 0, 0, b"{}"), "unexpected frame REPLICAS"),
    ("HELLO at the agent", at_agent, frame(HELLO, 0, 0, b"{}"), "unexpected frame HELLO"),
    ("REGISTER at the agent", at_agent, frame(REGISTER, 0, 0, b"{}"), "unexpected frame REGISTER"),
    ("DATA with an unknown flag", at_hub, frame(DATA, 2, 1, b"x"), "DATA with flags 0x2"),
    ("OPEN with an unknown flag", at_agent, frame(OPEN, 2, 2, REQUEST), "OPEN with flags 0x2"),
    ("HEAD with an unknown flag", at_hub, frame(HEAD, 8, 1, RESPONSE), "HEAD with flags 0x8"),
    ("END with a flag", at_hub, frame(END, 1, 1), "END with flags 0x1"),
    ("PING with a flag", at_hub, frame(PING, 1, 0, PING_PAYLOAD), "PING with flags 0x1"),
    ("DATA of no bytes", at_hub, frame(DATA, FLAG_END, 1), "DATA of 0 bytes"),
    ("DATA over the limit", at_hub, frame(DATA, 0, 1, b"x" * (frames.MAX_DATA + 1)), "DATA of 32769 bytes"),
    ("HEAD over the limit", at_hub, frame(HEAD, 0, 1, b"x" * (frames.MAX_HEAD + 1)), "HEAD of 65537 bytes"),
    ("OPEN over the limit", at_agent, frame(OPEN, 0, 2, b"x" * (frames.MAX_HEAD + 1)), "OPEN of 65537 bytes"),
    ("END with a payload", at_hub, frame(END, 0, 1, b"x"), "END with a payload of 1 bytes"),
    ("RESET without a code", at_hub, frame(RESET, 0, 1), "RESET with a payload of 0 bytes"),
    ("WINDOW with too much", at_hub, frame(WINDOW, 0, 1, b"x" * 5), "WINDOW with a payload of 5 bytes"),
    ("PING that is short", at_hub, frame(PING, 0, 0, b"x"), "PING with a payload of 1 bytes"),
    ("PONG that is long", at_hub, frame(PONG, 0, 0, b"x" * 9), "PONG with a payload of 9 bytes"),
    ("PING on a stream", at_hub, frame(PING, 0, 1, PING_PAYLOAD), "PING on stream 1"),
    ("GOAWAY on a stream", at_hub, frame(GOAWAY, 0, 1, b"{}"), "GOAWAY on stream 1"),
    ("GOAWAY that is no JSON", at_hub, frame(GOAWAY, 0, 0, b"bye"), "GOAWAY does not carry valid JSON"),
]


@pytest.mark.parametrize(("give", "message", "why"), [b[1:] for b in BAD_FRAMES], ids=[b[0] for b in BAD_FRAMES])
def test_a_frame_that_cannot_be_read_ends_the_session(give: object, message: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why) as caught:
        give(message)  # type: ignore[operator]
    assert caught.value.error == PROTOCOL


NOT_NOW = [
    ("a second HELLO", at_hub, "open", frame(HELLO, 0, 0, b"{}"), PROTOCOL, "HELLO after the greeting"),
    ("a second WELCOME", at_agent, "open", frame(WELCOME, 0, 0, b"{}"), PROTOCOL, "WELCOME after the greeting"),
    ("DATA on stream 0", at_hub, "open", frame(DATA, 0, 0, b"x"), PROTOCOL, "stream 0, which was never opened"),
    ("DATA on a stream to come", at_hub, "open", frame(DATA, 0, 2, b"x"), PROTOCOL, "stream 2, which was never"),
    ("HEAD on a stream to come", at_hub, "open", frame(HEAD, 0, 2, RESPONSE), PROTOCOL, "stream 2, which was never"),
    ("END on a stream to come", at_hub, "open", frame(END, 0, 2), PROTOCOL, "stream 2, which was never"),
    ("RESET on a stream to come", at_hub, "open", frame(RESET, 0, 2, ONE), PROTOCOL, "stream 2, which was never"),
    ("WINDOW on a stream to come", at_hub, "open", frame(WINDOW, 0, 2, ONE), PROTOCOL, "stream 2, which was never"),
    ("DATA after the end", at_hub, "ended", frame(DATA, 0, 1, b"x"), PROTOCOL, "stream 1, which has ended"),
    ("HEAD after the end", at_hub, "ended", frame(HEAD, 0, 1, RESPONSE), PROTOCOL, "stream 1, which has ended"),
    ("END after the end", at_hub, "ended", frame(END, 0, 1), PROTOCOL, "stream 1, which has ended"),
    ("DATA before the head", at_hub, "open", frame(DATA, 0, 1, b"x"), PROTOCOL, "DATA on a stream in REQ_DONE_RSP_HE"),
    ("END before the head", at_hub, "open", frame(END, 0, 1), PROTOCOL, "END on a stream in REQ_DONE_RSP_HEAD"),
    ("a second head", at_hub, "body", frame(HEAD, 0, 1, RESPONSE), PROTOCOL, "HEAD with flags 0x0 on a stream in"),
    ("a late interim", at_hub, "body", frame(HEAD, FLAG_INTERIM, 1, RESPONSE), PROTOCOL, "HEAD with flags 0x2"),
    (
        "an interim that ends",
        at_hub,
        "open",
        frame(HEAD, FLAG_INTERIM | FLAG_END, 1, RESPONSE),
        PROTOCOL,
        "HEAD with flags 0x3",
    ),
    ("trailers that do not end", at_hub, "body", frame(HEAD, FLAG_TRAILERS, 1), PROTOCOL, "HEAD with flags 0x4"),
    (
        "trailers before the head",
        at_hub,
        "open",
        frame(HEAD, FLAG_TRAILERS | FLAG_END, 1),
        PROTOCOL,
        "HEAD with flags 0x5",
    ),
    (
        "too many interim heads",
        at_hub,
        "open",
        frame(HEAD, FLAG_INTERIM, 1, RESPONSE) * (frames.MAX_INTERIM + 1),
        PROTOCOL,
        "HEAD with flags 0x2",
    ),
    ("a head for the agent", at_agent, "open", frame(HEAD, 0, 1, RESPONSE), PROTOCOL, "HEAD with flags 0x0"),
    ("DATA after the request", at_agent, "half", frame(DATA, 0, 1, b"x"), PROTOCOL, "DATA on a stream in REQ_DONE"),
    (
        "DATA that ends what has ended",
        at_agent,
        "half",
        frame(DATA, FLAG_END, 1, b"x"),
        PROTOCOL,
        "DATA on a stream in REQ_DONE",
    ),
    ("END after the request", at_agent, "half", frame(END, 0, 1), PROTOCOL, "END on a stream in REQ_DONE"),
    ("an id that is used", at_agent, "open", frame(OPEN, 0, 1, REQUEST), PROTOCOL, "OPEN of stream 1 after 1"),
    ("an id that was used", at_agent, "ended", frame(OPEN, 0, 1, REQUEST), PROTOCOL, "OPEN of stream 1 after 1"),
    ("an id that skips one", at_agent, "open", frame(OPEN, 0, 3, REQUEST), PROTOCOL, "OPEN of stream 3 after 1"),
    ("id 0", at_agent, "open", frame(OPEN, 0, 0, REQUEST), PROTOCOL, "OPEN of stream 0 after 1"),
    ("WINDOW of nothing", at_hub, "open", frame(WINDOW, 0, 1, bytes(4)), FLOW_CONTROL, "no credit for stream 1"),
    ("a session WINDOW of nothing", at_hub, "open", frame(WINDOW, 0, 0, bytes(4)), FLOW_CONTROL, "no credit"),
    ("credit over 2^31", at_hub, "open", frame(WINDOW, 0, 1, b"\x7f\xff\xff\xff"), FLOW_CONTROL, "stream 1: credit"),
    ("session credit over 2^31", at_hub, "open", frame(WINDOW, 0, 0, b"\xff" * 4), FLOW_CONTROL, "session credit"),
]


@pytest.mark.parametrize(
    ("give", "state", "message", "code", "why"), [n[1:] for n in NOT_NOW], ids=[n[0] for n in NOT_NOW]
)
def test_a_frame_that_is_not_allowed_now_ends_the_session(
    give: object, state: str, message: bytes, code: int, why: str
) -> None:
    with pytest.raises(SessionError, match=why) as caught:
        give(message, state=state)  # type: ignore[operator]
    assert caught.value.error == code


@pytest.mark.parametrize(
    ("give", "message", "why"),
    [
        (at_hub, frame(REGISTER, 0, 0, b"{}"), "REGISTER before the greeting"),
        (at_hub, frame(PING, 0, 0, PING_PAYLOAD), "PING before the greeting"),
        (at_hub, frame(WINDOW, 0, 0, ONE), "WINDOW before the greeting"),
        (at_hub, frame(DATA, 0, 1, b"x"), "DATA for stream 1, which was never opened"),
        (at_agent, frame(OPEN, 0, 1, REQUEST), "OPEN of stream 1 after 0"),
        (at_agent, frame(frames.REPLICAS, 0, 0, b"{}"), "REPLICAS before the greeting"),
        (at_agent, frame(WINDOW, 0, 0, ONE), "WINDOW before the greeting"),
    ],
)
def test_nothing_but_goaway_comes_before_the_greeting(give: object, message: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        give(message, greeted=False)  # type: ignore[operator]


@pytest.mark.parametrize("give", [at_hub, at_agent])
def test_a_peer_may_refuse_before_it_greets(give: object) -> None:
    give(frame(GOAWAY, 0, 0, b'{"code":16}'), greeted=False)  # type: ignore[operator]


@pytest.mark.parametrize("give", [at_hub, at_agent])
@pytest.mark.parametrize("message", [frame(RESET, 0, 1, ONE), frame(WINDOW, 0, 1, ONE)], ids=["RESET", "WINDOW"])
def test_a_reset_or_credit_may_cross_the_end_of_a_stream(give: object, message: bytes) -> None:
    give(message, state="ended")  # type: ignore[operator]


def test_an_empty_message_is_nothing() -> None:
    at_hub(b"")


def test_pings_that_are_never_answered_because_the_peer_does_not_read_end_the_session() -> None:
    pair = Pair()
    pair.settle()
    ping = frame(PING, 0, 0, PING_PAYLOAD)
    while not pair.hub.overloaded:
        pair.hub.receive(ping, pair.now)
    with pytest.raises(SessionError, match="does not read the answers") as caught:
        pair.hub.receive(ping, pair.now)
    assert caught.value.error == frames.OVERLOADED
    assert not pair.hub.tick(pair.now)
    assert pair.hub._control_bytes < MAX_CONTROL_BACKLOG + 2 * len(ping)
