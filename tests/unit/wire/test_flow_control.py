"""Credit: of streams, of the session, of readers that stall, and of streams that are no more."""

from __future__ import annotations

import pytest

from platformctl.errors import SessionError
from platformctl.wire import frames
from platformctl.wire.session import MAX_LINGERING
from platformctl.wire.windows import INITIAL, SESSION_INITIAL, STREAM_CAP
from tests.unit.wire.pair import RESPONSE, Pair, Recorder, check_books, parse


def respond(pair: Pair, size: int, *, slow: bool = True, end: bool = False) -> tuple[object, Recorder, object]:
    stream, sink, peer, _ = pair.exchange(end=True, slow=slow)
    peer.send_head(RESPONSE)
    peer.send_data(b"x" * size, end)
    pair.settle()
    return stream, sink, peer


def test_a_reader_that_stops_gets_no_more_than_the_window() -> None:
    pair = Pair()
    stream, sink, peer, _ = pair.exchange(end=True, slow=True)
    peer.send_head(RESPONSE)
    peer.send_data(b"x" * 1_000_000)
    pair.settle()
    assert len(sink.body) == INITIAL
    assert peer.queued == 1_000_000 - INITIAL
    assert pair.agent.credit_stalls >= 1
    stalls = pair.agent.credit_stalls
    assert pair.to_hub() == b""
    assert pair.agent.credit_stalls == stalls
    stream.consumed(INITIAL)
    pair.settle()
    assert len(sink.body) == 2 * INITIAL


def test_small_data_waits_for_credit_too() -> None:
    pair = Pair()
    stream, sink, peer, _ = pair.exchange(end=True, slow=True)
    peer.send_head(RESPONSE)
    while peer.send_credit:
        peer.send_data(b"x" * 4096)
        pair.settle()
    peer.send_data(b"y", True)
    pair.settle()
    assert peer.queued == 1
    stream.consumed(sink.held)
    pair.settle()
    assert sink.body.endswith(b"xy")
    assert sink.ends == 1


def test_a_stalled_stream_takes_only_its_share_of_the_session() -> None:
    pair = Pair()
    respond(pair, 1_000_000)
    _, sink, _ = respond(pair, 1_000_000, slow=False, end=True)
    assert len(sink.body) == 1_000_000


def test_readers_that_stall_exhaust_the_session_until_they_are_parked() -> None:
    pair = Pair()
    stalled = [respond(pair, INITIAL) for _ in range(SESSION_INITIAL // INITIAL)]
    assert pair.agent.send_credit == 0
    _, sink, _ = respond(pair, 10_000, slow=False, end=True)
    assert sink.body == b""
    assert pair.agent.credit_stalls >= 1
    assert not pair.agent.has_more
    for stream, _, _ in stalled:
        stream.park()  # type: ignore[attr-defined]
        stream.park()  # type: ignore[attr-defined]
    pair.settle()
    assert sink.ends == 1
    assert pair.hub.parked_bytes == SESSION_INITIAL
    check_books(pair.agent, pair.hub)
    for stream, held, _ in stalled:
        stream.unpark()  # type: ignore[attr-defined]
        stream.consumed(held.held)  # type: ignore[attr-defined]
    pair.settle()
    assert pair.hub.parked_bytes == 0
    assert not pair.hub._prepaid
    check_books(pair.agent, pair.hub)


def test_what_arrives_for_a_parked_reader_is_parked_and_paid_for_once() -> None:
    pair = Pair()
    stream, sink, peer, _ = pair.exchange(end=True, slow=True)
    peer.send_head(RESPONSE)
    peer.send_data(b"x" * 1000)
    pair.settle()
    stream.park()
    peer.send_data(b"y" * 500)
    pair.settle()
    assert pair.hub.parked_bytes == stream.prepaid == 1500
    assert pair.hub.window.held == 0
    stream.unpark()
    peer.send_data(b"z" * 100)
    pair.settle()
    assert pair.hub.window.held == 100
    stream.consumed(1550)
    assert pair.hub.parked_bytes == 0
    assert pair.hub.window.held == 50
    stream.consumed(50)
    assert pair.hub.window.held == stream.window.held == 0
    assert sink.held == 1600
    pair.settle()
    check_books(pair.agent, pair.hub)


def test_a_parked_reader_may_take_its_bytes_in_parts() -> None:
    pair = Pair()
    stream, _, _ = respond(pair, 1000)
    stream.park()  # type: ignore[attr-defined]
    stream.consumed(400)  # type: ignore[attr-defined]
    assert pair.hub.parked_bytes == 600
    assert pair.hub._prepaid


@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended"])
def test_when_too_much_is_parked_the_slowest_reader_loses_its_stream(ended: bool) -> None:
    pair = Pair()
    pair.hub.parked_limit = 300_000
    small, small_sink, _ = respond(pair, 100_000)
    small.park()  # type: ignore[attr-defined]
    large, large_sink, large_peer = respond(pair, 200_000, end=ended)
    large.park()  # type: ignore[attr-defined]
    pair.settle()
    assert large_sink.resets == []
    _, third_sink, third_peer, _ = pair.exchange(end=True, slow=True)
    third = pair.hub.streams[max(pair.hub.streams)]
    third.park()
    third_peer.send_head(RESPONSE)
    third_peer.send_data(b"z" * 50_000, True)
    pair.settle()
    assert large_sink.resets == [frames.SLOW_CONSUMER]
    assert (small_sink.resets, third_sink.resets) == ([], [])
    assert pair.hub.parked_bytes == 150_000
    assert large_peer.closed  # type: ignore[attr-defined]
    large.consumed(200_000)  # type: ignore[attr-defined]
    assert pair.hub.parked_bytes == 150_000
    pair.settle()
    check_books(pair.agent, pair.hub)


def test_the_limit_of_parked_bytes_is_checked_when_frames_have_been_delivered() -> None:
    pair = Pair()
    pair.hub.parked_limit = 1000
    stream, sink, peer, _ = pair.exchange(end=True, slow=True)
    sink.on_data_hook = lambda stream: stream.park()
    peer.send_head(RESPONSE)
    peer.send_data(b"x" * 800)
    peer.send_data(b"y" * 800, True)
    pair.to_hub()
    assert [event[0] for event in sink.events] == ["head", "data", "data", "reset"]
    assert stream.closed
    assert pair.hub.parked_bytes == pair.hub.window.held == 0


@pytest.mark.parametrize("parked", [False, True])
def test_a_reset_by_us_gives_back_what_its_reader_held(parked: bool) -> None:
    pair = Pair()
    stream, sink, peer = respond(pair, 200_000)
    if parked:
        stream.park()  # type: ignore[attr-defined]
    stream.reset(frames.CANCELLED)  # type: ignore[attr-defined]
    assert pair.hub.window.held == pair.hub.parked_bytes == 0
    stream.consumed(sink.held)  # type: ignore[attr-defined]
    assert pair.hub.window.held == 0
    pair.settle()
    assert peer.closed  # type: ignore[attr-defined]
    check_books(pair.agent, pair.hub)


def test_a_reset_by_the_peer_gives_back_what_its_reader_held() -> None:
    pair = Pair()
    _, sink, peer = respond(pair, 200_000)
    peer.reset(frames.BACKEND_CLOSED)  # type: ignore[attr-defined]
    pair.settle()
    assert sink.resets == [frames.BACKEND_CLOSED]
    assert pair.hub.window.held == 0
    check_books(pair.agent, pair.hub)


def test_a_stream_that_ended_is_still_owed_for_until_it_is_read() -> None:
    pair = Pair()
    stream, sink, _ = respond(pair, 200_000, end=True)
    assert pair.hub.streams == {}
    assert pair.hub.window.held == 200_000
    stream.consumed(150_000)  # type: ignore[attr-defined]
    assert pair.hub.window.held == 50_000
    assert sink.resets == []


def test_a_late_reset_of_a_stream_that_ended_gives_back_what_nobody_will_read() -> None:
    pair = Pair()
    stream, _, _ = respond(pair, 200_000, end=True)
    stream.park()  # type: ignore[attr-defined]
    stream.unpark()  # type: ignore[attr-defined]
    stream.consumed(50_000)  # type: ignore[attr-defined]
    stream.reset(frames.CANCELLED)  # type: ignore[attr-defined]
    assert pair.hub.window.held == pair.hub.parked_bytes == 0
    assert pair.hub.data_to_send() == []
    assert pair.hub._lingering == {}


def test_more_than_was_delivered_cannot_be_consumed() -> None:
    pair = Pair()
    stream, _, _ = respond(pair, 1000)
    stream.consumed(5000)  # type: ignore[attr-defined]
    assert stream.window.held == pair.hub.window.held == 0  # type: ignore[attr-defined]
    check_books(pair.agent, pair.hub)


def test_data_on_its_way_to_a_stream_that_we_reset_still_counts() -> None:
    pair = Pair()
    stream, sink, peer, _ = pair.exchange(end=True)
    peer.send_head(RESPONSE)
    peer.send_data(b"x" * 4000)
    peer.send_data(b"y" * 50_000)
    stream.reset(frames.CANCELLED)
    pair.to_hub()
    assert sink.events == []
    assert pair.hub.window.held == 0
    pair.settle()
    assert pair.hub.window.owed == 54_000
    assert peer.queued == 0
    check_books(pair.agent, pair.hub)


def test_credit_on_its_way_to_a_stream_that_was_reset_is_ignored() -> None:
    pair = Pair()
    stream, sink, peer = respond(pair, 200_000)
    stream.consumed(sink.held)  # type: ignore[attr-defined]
    peer.reset(frames.BACKEND_CLOSED)  # type: ignore[attr-defined]
    assert [frame[0] for frame in parse(pair.to_agent())] == ["WINDOW"]
    pair.settle()
    check_books(pair.agent, pair.hub)


@pytest.mark.parametrize("last", ["end", "trailers", "data", "reset"])
def test_the_memory_of_a_reset_stream_ends_with_its_last_frame(last: str) -> None:
    pair = Pair()
    stream, _, peer, _ = pair.exchange(end=True)
    peer.send_head(RESPONSE)
    pair.settle()
    stream.reset(frames.CANCELLED)
    assert pair.hub._lingering == {stream.id: INITIAL}
    if last == "end":
        peer.send_end()
    elif last == "trailers":
        peer.send_trailers(b"A: b\r\n")
    elif last == "data":
        peer.send_data(b"x", True)
    else:
        peer.reset(frames.BACKEND_CLOSED)
    pair.to_hub()
    assert pair.hub._lingering == {}


def test_the_memory_of_reset_streams_is_bounded_and_forgives_what_it_forgot() -> None:
    pair = Pair()
    peers = []
    for _ in range(MAX_LINGERING + 2):
        stream, _, peer, _ = pair.exchange(end=True)
        stream.reset(frames.CANCELLED)
        peers.append(peer)
        if len(peers) <= 2:
            peer.send_head(RESPONSE)
            peer.send_data(b"x", len(peers) == 2)
            late = b"".join(pair.agent.data_to_send())
            pair.agent.owner.late = getattr(pair.agent.owner, "late", b"") + late  # type: ignore[attr-defined]
        pair.settle()
    assert len(pair.hub._lingering) == MAX_LINGERING
    assert pair.hub._evicted == 2
    pair.hub.receive(pair.agent.owner.late, pair.now)  # type: ignore[attr-defined]
    assert pair.hub.window.owed == 2
    check_books(pair.agent, pair.hub)


def test_a_window_grows_to_what_the_path_can_take() -> None:
    pair = Pair()
    pair.hub.rtt = 0.1
    stream, _, peer, _ = pair.exchange(end=True)
    peer.send_head(RESPONSE)
    for _ in range(40):
        peer.send_data(b"x" * 4_000_000)
        pair.settle()
        pair.now += 0.05
    assert stream.window.size == STREAM_CAP
    assert pair.hub.window.size > SESSION_INITIAL
    check_books(pair.agent, pair.hub)


def test_a_sender_waits_in_the_round_until_the_session_has_credit() -> None:
    pair = Pair()
    pair.agent.send_credit = 0
    _, sink, peer, _ = pair.exchange(end=True)
    peer.send_head(RESPONSE)
    peer.send_data(b"x" * 10)
    pair.settle()
    assert peer.queued == 10
    pair.agent_side.dirty = 0
    pair.agent.receive(frames.frame(frames.WINDOW, 0, 0, frames.U32.pack(4)), pair.now)
    assert pair.agent_side.dirty == 1
    pair.settle()
    assert sink.body == b"xxxx"
    pair.agent.receive(frames.frame(frames.WINDOW, 0, 0, frames.U32.pack(100)), pair.now)
    pair.settle()
    assert sink.body == b"x" * 10
    pair.agent.receive(frames.frame(frames.WINDOW, 0, 0, frames.U32.pack(100)), pair.now)
    assert pair.agent.data_to_send() == []


def test_a_reset_stream_does_not_wait_for_a_turn() -> None:
    pair = Pair()
    pair.hub.send_credit = 0
    stream, _, _, _ = pair.exchange()
    stream.send_data(b"x" * 100_000)
    assert len(pair.hub._ready) == 1
    stream.reset(frames.CANCELLED)
    assert len(pair.hub._ready) == 0
    assert stream.queue is None


@pytest.mark.parametrize("scope", ["stream", "session"])
def test_an_agent_that_exceeds_its_credit_ends_the_session(scope: str) -> None:
    pair = Pair()
    for _ in range(0 if scope == "stream" else SESSION_INITIAL // INITIAL):
        respond(pair, INITIAL)
    _, _, peer, _ = pair.exchange(end=True, slow=True)
    pair.agent.send_credit = 10**9
    if scope == "stream":
        peer.send_credit = 10**9
    peer.send_head(RESPONSE)
    peer.send_data(b"x" * (INITIAL + 1))
    with pytest.raises(SessionError, match="more data than credit") as caught:
        pair.settle()
    assert caught.value.error == frames.FLOW_CONTROL


@pytest.mark.parametrize("scope", ["stream", "session"])
def test_credit_binds_after_a_reset_too(scope: str) -> None:
    pair = Pair()
    stream, _, peer, _ = pair.exchange(end=True)
    stream.reset(frames.CANCELLED)
    peer.send_head(RESPONSE)
    pair.to_hub()
    if scope == "stream":
        peer.send_credit = 10**9
    else:
        pair.hub.window.credit = 100
    peer.send_data(b"x" * (INITIAL + 1), True)
    with pytest.raises(SessionError, match="more data than credit"):
        pair.all_to_hub()
