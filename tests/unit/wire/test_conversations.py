"""Given this, expect that: exchanges between two real sessions."""

from __future__ import annotations

import pytest

from platformctl.errors import LocalMisuse
from platformctl.wire import frames
from platformctl.wire.frames import FLAG_END, FLAG_INTERIM, FLAG_TRAILERS
from platformctl.wire.receiver import Receiver
from platformctl.wire.session import HUB, MESSAGE_TARGET, SEND_BUDGET, Session
from platformctl.wire.stream import DIRECT, DIRECT_BACKLOG, HIGH, LOW, MAX_BACKLOG
from tests.unit.wire.pair import REQUEST, RESPONSE, Pair, Recorder, Side, check_books, parse


def test_the_greeting_is_hello_then_welcome() -> None:
    pair = Pair(greeted=False)
    assert not pair.hub.can_open
    pair.agent.send_control(frames.HELLO, {"versions": [1]})
    pair.to_hub()
    assert pair.hub_side.controls == [(frames.HELLO, {"versions": [1]})]
    assert pair.hub.can_open
    pair.hub.send_control(frames.WELCOME, {"version": 1})
    pair.to_agent()
    assert pair.agent_side.controls == [(frames.WELCOME, {"version": 1})]


def test_a_request_without_a_body_is_one_frame_and_so_is_a_small_response_body() -> None:
    pair = Pair()
    stream, sink = pair.open(end=True)
    assert parse(pair.to_agent()) == [("OPEN", FLAG_END, 1, REQUEST)]
    peer, payload, end = pair.agent_side.opened[0]
    assert (payload, end) == (REQUEST, True)
    peer.send_head(RESPONSE)
    assert peer.send_data(b"hello", True)
    assert parse(pair.to_hub()) == [("HEAD", 0, 1, RESPONSE), ("DATA", FLAG_END, 1, b"hello")]
    assert sink.events == [("head", RESPONSE, 0), ("data", b"hello", True)]
    assert stream.closed
    assert peer.closed
    assert not pair.hub.streams
    assert not pair.agent.streams


def test_a_request_body_its_end_and_a_response_without_a_body() -> None:
    pair = Pair()
    stream, sink, peer, received = pair.exchange()
    stream.send_data(b"one")
    stream.send_data(b"two")
    stream.send_end()
    pair.settle()
    assert received.events == [("data", b"one", False), ("data", b"two", False), ("data", b"", True)]
    peer.send_head(RESPONSE, FLAG_END)
    pair.settle()
    assert sink.events == [("head", RESPONSE, FLAG_END)]
    assert stream.closed
    assert peer.closed


def test_interim_heads_come_before_the_final_one() -> None:
    pair = Pair()
    stream, sink, peer, _ = pair.exchange()
    peer.send_head(frames.head_payload(103, 0, b""), FLAG_INTERIM)
    peer.send_head(RESPONSE)
    pair.settle()
    assert [event[2] for event in sink.events] == [FLAG_INTERIM, 0]
    assert not stream.closed


def test_interim_heads_without_end_are_cut_off_by_the_sender() -> None:
    pair = Pair()
    _, sink, peer, _ = pair.exchange()
    for _ in range(frames.MAX_INTERIM + 10):
        peer.send_head(frames.head_payload(102, 0, b""), FLAG_INTERIM)
    peer.send_head(RESPONSE, FLAG_END)
    pair.settle()
    assert len(sink.events) == frames.MAX_INTERIM + 1


def test_trailers_end_both_halves() -> None:
    pair = Pair()
    stream, sink, peer, received = pair.exchange()
    stream.send_data(b"body")
    stream.send_trailers(b"A: 1\r\n")
    pair.settle()
    assert received.events[-1] == ("head", b"A: 1\r\n", FLAG_END | FLAG_TRAILERS)
    peer.send_head(RESPONSE)
    peer.send_trailers(b"B: 2\r\n")
    pair.settle()
    assert sink.events[-1] == ("head", b"B: 2\r\n", FLAG_END | FLAG_TRAILERS)
    assert stream.closed
    assert peer.closed


@pytest.mark.parametrize("closing", [False, True], ids=["half-closes", "closes"])
def test_trailers_wait_for_queued_data(closing: bool) -> None:
    pair = Pair()
    stream, _, peer, received = pair.exchange(slow=True)
    if closing:
        peer.send_head(RESPONSE, FLAG_END)
        pair.settle()
    stream.send_data(b"x" * 10_000)
    stream.send_trailers(b"A: 1\r\n")
    assert received.events == []
    pair.settle()
    assert received.body == b"x" * 10_000
    assert received.events[-1] == ("head", b"A: 1\r\n", FLAG_END | FLAG_TRAILERS)
    assert stream.closed == peer.closed == closing


def test_an_end_after_queued_data_rides_on_the_last_frame() -> None:
    pair = Pair()
    _, sink, peer, _ = pair.exchange(end=True)
    peer.send_head(RESPONSE)
    peer.send_data(b"x" * 40_000)
    peer.send_end()
    sent = [frame for frame in parse(pair.to_hub()) if frame[0] != "WINDOW"]
    assert [(name, flags, len(payload)) for name, flags, _, payload in sent] == [
        ("HEAD", 0, len(RESPONSE)),
        ("DATA", 0, frames.MAX_DATA),
        ("DATA", FLAG_END, 40_000 - frames.MAX_DATA),
    ]
    assert sink.body == b"x" * 40_000
    assert sink.ends == 1


def test_small_data_joins_at_once_and_waits_behind_what_is_queued() -> None:
    pair = Pair()
    stream, _, _, received = pair.exchange()
    stream.send_data(b"a" * DIRECT)
    assert stream.queued == 0
    stream.send_data(b"b" * (DIRECT + 1))
    assert stream.queued == DIRECT + 1
    stream.send_data(b"c")
    stream.send_data(b"")
    assert stream.queued == DIRECT + 2
    pair.settle()
    assert received.body == b"a" * DIRECT + b"b" * (DIRECT + 1) + b"c"


def test_no_data_is_no_frame() -> None:
    pair = Pair()
    stream, _, _, _ = pair.exchange()
    assert stream.send_data(b"")
    assert pair.to_agent() == b""


def test_an_early_response_leaves_the_request_half_open() -> None:
    pair = Pair()
    stream, sink, peer, received = pair.exchange()
    stream.send_data(b"some")
    peer.send_head(RESPONSE)
    peer.send_data(b"no", True)
    pair.settle()
    assert sink.ends == 1
    assert not stream.closed
    stream.send_data(b"more", True)
    pair.settle()
    assert received.body == b"somemore"
    assert stream.closed
    assert peer.closed


def test_after_an_early_response_the_hub_may_give_up_the_rest() -> None:
    pair = Pair()
    stream, _, peer, received = pair.exchange()
    peer.send_head(RESPONSE, FLAG_END)
    pair.settle()
    stream.reset(frames.NO_ERROR)
    pair.settle()
    assert received.resets == [frames.NO_ERROR]
    assert peer.closed


def test_an_upgraded_stream_goes_both_ways_and_half_closes() -> None:
    pair = Pair()
    stream, sink, peer, received = pair.exchange()
    peer.send_head(frames.head_payload(101, frames.UNKNOWN_LENGTH, b""))
    for turn in (b"ping", b"pong"):
        stream.send_data(turn)
        peer.send_data(turn)
    peer.send_end()
    pair.settle()
    assert sink.body == b"pingpong"
    assert sink.ends == 1
    stream.send_data(b" and on", True)
    pair.settle()
    assert received.body == b"pingpong and on"
    assert stream.closed
    assert peer.closed


def test_a_reset_reaches_the_other_end_once_and_nothing_follows_it() -> None:
    pair = Pair()
    stream, sink, peer, received = pair.exchange()
    stream.send_data(b"x" * 50_000)
    stream.reset(frames.CANCELLED)
    stream.reset(frames.INTERNAL)
    pair.settle()
    assert received.events == [("reset", frames.CANCELLED)]
    assert sink.events == []
    assert peer.closed
    check_books(pair.hub, pair.agent)


def test_both_ends_may_reset_at_the_same_time() -> None:
    pair = Pair()
    stream, sink, peer, received = pair.exchange()
    stream.reset(frames.CANCELLED)
    peer.reset(frames.BACKEND_CLOSED)
    pair.settle()
    assert (sink.events, received.events) == ([], [])
    assert pair.hub._lingering == pair.agent._lingering == {}


def test_a_reset_may_cross_the_end_of_the_stream() -> None:
    pair = Pair()
    stream, _, peer, received = pair.exchange(end=True)
    peer.send_head(RESPONSE)
    peer.send_data(b"done", True)
    stream.reset(frames.CANCELLED)
    pair.to_agent()
    assert received.events == []
    pair.to_hub()
    check_books(pair.agent, pair.hub)


def test_a_reset_does_not_overtake_its_own_open() -> None:
    pair = Pair()
    stream, _ = pair.open()
    stream.reset(frames.CANCELLED)
    assert pair.to_agent(control_only=True) == b""
    assert [frame[0] for frame in parse(pair.to_agent())] == ["OPEN", "RESET"]
    sink = pair.agent_side.opened[0][0].sink
    assert isinstance(sink, Recorder)
    assert sink.resets == [frames.CANCELLED]


def test_an_owner_may_reset_a_stream_as_it_is_opened() -> None:
    pair = Pair()
    pair.agent_side.on_open_hook = lambda stream: stream.reset(frames.UNKNOWN_SERVICE)
    _, sink = pair.open()
    pair.settle()
    assert sink.resets == [frames.UNKNOWN_SERVICE]


def test_streams_beyond_the_limit_are_refused_and_do_not_count() -> None:
    pair = Pair(max_streams=2)
    pair.open()
    _, sink = pair.open()
    assert not pair.hub.can_open
    _, refused = pair.open()
    pair.settle()
    assert refused.resets == [frames.REFUSED]
    assert sink.resets == []
    assert len(pair.agent_side.opened) == 2
    assert len(pair.agent.streams) == 2


@pytest.mark.parametrize("what", ["data", "head", "writable"])
def test_a_stream_that_nobody_took_says_so(what: str) -> None:
    pair = Pair()
    pair.agent_side.on_open = lambda stream, payload, end: None  # type: ignore[method-assign]
    stream, _ = pair.open()
    pair.to_agent()
    if what == "data":
        stream.send_data(b"x")
    elif what == "head":
        stream.send_trailers(b"")
    else:
        peer = pair.agent.streams[stream.id]
        peer.send_head(RESPONSE)
        peer.send_data(b"x" * (HIGH + 1))
    with pytest.raises(LocalMisuse, match="no sink"):
        pair.settle()
    pair.agent.lost(frames.TUNNEL_LOST)
    assert pair.agent.streams == {}


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda s: s.send_data(b"x"), "data or end in REQ_OPEN_RSP_HEAD"),
        (lambda s: s.send_end(), "data or end in REQ_OPEN_RSP_HEAD"),
        (lambda s: s.send_data(b"x" * 5000), "data in REQ_OPEN_RSP_HEAD"),
        (lambda s: s.send_trailers(b""), "trailers in REQ_OPEN_RSP_HEAD"),
        (lambda s: s.send_head(b"x" * (frames.MAX_HEAD + 1)), "a head of 65537 bytes"),
        (lambda s: s.send_trailers(b"x" * (frames.MAX_HEAD + 1)), "trailers of 65537 bytes"),
        (lambda s: (s.send_head(RESPONSE), s.send_head(RESPONSE)), "RSP_HEAD in REQ_OPEN_RSP_BODY"),
        (lambda s: (s.send_head(RESPONSE, FLAG_END), s.send_data(b"x")), "data or end in REQ_OPEN_RSP_DONE"),
        (
            lambda s: (s.send_head(RESPONSE), s.send_data(b"x" * 5000, True), s.send_data(b"x")),
            "data after its end",
        ),
        (
            lambda s: (s.send_head(RESPONSE), s.send_data(b"x" * 5000, True), s.send_trailers(b"")),
            "trailers after the end",
        ),
        (lambda s: (s.reset(1), s.send_end()), "data or end in CLOSED"),
    ],
)
def test_our_own_mistakes_are_told_apart_from_the_peer_s(misuse: object, message: str) -> None:
    _, _, peer, _ = Pair().exchange()
    with pytest.raises(LocalMisuse, match=message):
        misuse(peer)  # type: ignore[operator]


def test_an_open_over_the_limit_is_our_mistake() -> None:
    with pytest.raises(LocalMisuse, match="an OPEN of 65537 bytes"):
        Pair().open(payload=b"x" * (frames.MAX_HEAD + 1))


def test_the_owner_is_told_once_that_there_is_something_to_send() -> None:
    pair = Pair()
    pair.hub_side.dirty = 0
    stream, _ = pair.open()
    stream.send_data(b"x")
    stream.send_data(b"x" * 10_000)
    pair.hub.send_control(frames.REPLICAS, {"replicas": []})
    assert pair.hub_side.dirty == 1
    pair.settle()
    stream.send_data(b"x" * 10_000)
    assert pair.hub_side.dirty == 2


def test_control_frames_overtake_heads_and_data() -> None:
    pair = Pair()
    stream, _ = pair.open()
    stream.send_data(b"x" * 10_000)
    pair.hub.send_control(frames.REPLICAS, {"replicas": []})
    assert [frame[0] for frame in parse(pair.to_agent(control_only=True))] == ["REPLICAS"]
    pair.hub.send_control(frames.REPLICAS, {"replicas": []})
    assert [frame[0] for frame in parse(pair.to_agent())] == ["REPLICAS", "OPEN", "DATA"]


def test_data_does_not_overtake_its_own_open_when_heads_fill_a_message() -> None:
    pair = Pair()
    for _ in range(MESSAGE_TARGET // 60_000 + 1):
        pair.open(payload=REQUEST + b"x" * 60_000)
    stream, _ = pair.open()
    stream.send_data(b"y" * 10_000)
    pair.hub.send_control(frames.REPLICAS, {})
    first = parse(pair.to_agent())
    assert {frame[0] for frame in first} == {"REPLICAS", "OPEN"}
    assert pair.hub.has_more
    second = parse(pair.to_agent())
    assert [frame[0] for frame in second[-2:]] == ["OPEN", "DATA"]
    assert not pair.hub.has_more
    assert pair.hub.out_bytes == 0
    assert sum(len(frame[3]) + 10 for frame in first + second) == pair.hub.bytes_out - 10 - len(b'{"version":1}')


def test_a_turn_does_not_overtake_small_data_that_on_writable_added() -> None:
    pair = Pair()
    first, sink, _, _ = pair.exchange()
    second, _, _, received = pair.exchange()

    def more(_: object) -> None:
        second.send_data(b"small")
        second.send_data(b"B" * 9_000)

    sink.on_writable_hook = more
    first.send_data(b"A" * (HIGH + 1))
    pair.settle()
    assert sink.writable == 1
    assert received.body == b"small" + b"B" * 9_000


def test_the_largest_message_stays_below_the_limit() -> None:
    pair = Pair()
    streams = [pair.exchange()[0] for _ in range(20)]
    for _ in range(14):
        pair.hub.send_control(frames.REPLICAS, {"x": "y" * 60_000})
    for _ in range(20):
        pair.open(payload=REQUEST + b"x" * 60_000)
    for stream in streams:
        stream.send_data(b"x" * 30_000)
        stream.send_trailers(b"A: " + b"x" * 60_000 + b"\r\n")
    sizes = []
    while message := pair.to_agent():
        sizes.append(len(message))
    assert max(sizes) < frames.MAX_MESSAGE
    assert len(sizes) > 3
    assert not pair.hub.streams.keys() & {stream.id for stream in streams if stream.closed}
    assert pair.hub.bytes_out == pair.agent.bytes_in


def test_a_source_is_told_to_pause_and_when_to_go_on() -> None:
    pair = Pair()
    stream, _, _, received = pair.exchange()
    received.slow = True
    assert stream.send_data(b"x" * HIGH)
    assert not stream.send_data(b"y")
    assert isinstance(stream.sink, Recorder)
    while pair.to_agent():
        pass
    assert stream.queued <= LOW
    assert stream.sink.writable == 1


def test_small_chunks_wait_for_turns_when_the_connection_is_blocked() -> None:
    pair = Pair()
    greedy, _, _, much = pair.exchange()
    other, _, _, little = pair.exchange()
    for _ in range(DIRECT_BACKLOG // DIRECT + 8):
        greedy.send_data(b"x" * DIRECT)
    assert greedy.queued > 0
    assert pair.hub.out_bytes < DIRECT_BACKLOG + 2 * DIRECT
    other.send_data(b"y")
    assert other.queued == 1
    assert other.send_data(b"", True)
    pair.settle()
    assert little.body == b"y"
    assert little.ends == 1
    assert len(much.body) > DIRECT_BACKLOG - 2 * DIRECT


def test_an_end_alone_goes_out_even_when_much_waits() -> None:
    pair = Pair()
    greedy, _, _, _ = pair.exchange()
    other, _, _, received = pair.exchange()
    for _ in range(DIRECT_BACKLOG // DIRECT + 8):
        greedy.send_data(b"x" * DIRECT)
    other.send_end()
    pair.settle()
    assert received.ends == 1


def test_no_stream_opens_while_the_peer_does_not_read() -> None:
    pair = Pair()
    opened = 0
    while pair.hub.can_open:
        pair.open(payload=REQUEST + b"x" * 60_000)
        opened += 1
    assert opened <= MAX_BACKLOG // 60_000 + 1
    assert not pair.hub.overloaded


def test_resets_that_nobody_reads_end_the_session() -> None:
    pair = Pair(max_streams=10)
    while not pair.hub.overloaded:
        stream, _ = pair.open(payload=REQUEST + b"x" * 60_000)
        stream.reset(frames.CANCELLED)
    assert pair.hub.out_bytes < MAX_BACKLOG + 2 * frames.MAX_HEAD
    assert not pair.hub.tick(pair.now)


def test_stream_ids_are_never_used_again() -> None:
    pair = Pair()
    pair.hub.last_id = pair.agent.last_id = frames.MAX_STREAM_ID - 1
    stream, sink, peer, _ = pair.exchange(end=True)
    assert stream.id == frames.MAX_STREAM_ID
    assert not pair.hub.can_open
    peer.send_head(RESPONSE, FLAG_END)
    pair.settle()
    assert sink.ends == 1


def test_a_lost_tunnel_resets_every_open_stream_once() -> None:
    pair = Pair()
    first, first_sink = pair.open()
    second, second_sink = pair.open(slow=True)
    done, done_sink, done_peer, _ = pair.exchange(end=True)
    done_peer.send_head(RESPONSE, FLAG_END)
    pair.settle()
    first.send_data(b"x" * 300_000)
    second.send_data(b"x")
    first_sink.on_reset_hook = lambda _: second.reset(frames.CANCELLED)
    pair.hub.lost(frames.TUNNEL_LOST)
    pair.hub.lost(frames.TUNNEL_LOST)
    assert first_sink.resets == [frames.TUNNEL_LOST]
    assert second_sink.resets == []
    assert done_sink.resets == []
    assert done.closed
    assert first.queue is None
    assert not pair.hub.can_open
    assert not pair.hub.has_more
    assert pair.hub.data_to_send() == []
    assert (pair.hub.out_bytes, pair.hub.streams) == (0, {})


def test_nothing_is_delivered_after_the_tunnel_was_given_up_in_the_middle_of_a_message() -> None:
    pair = Pair()
    stream, _, _, received = pair.exchange()
    received.on_data_hook = lambda _: pair.agent.lost(frames.TUNNEL_LOST)
    stream.send_data(b"one")
    stream.send_data(b"two")
    pair.open()
    pair.to_agent()
    assert received.body == b"one"
    assert received.resets == [frames.TUNNEL_LOST]
    assert len(pair.agent_side.opened) == 1
    pair.open()
    pair.to_agent()
    assert pair.agent.streams == {}


def test_what_was_read_before_the_loss_may_still_be_passed_on() -> None:
    pair = Pair()
    _, sink, peer, _ = pair.exchange(slow=True)
    peer.send_head(RESPONSE)
    peer.send_data(b"x" * 200_000)
    pair.settle()
    stream = next(iter(pair.hub.streams.values()))
    pair.hub.lost(frames.TUNNEL_LOST)
    stream.consumed(sink.held)
    assert pair.hub.data_to_send() == []


def test_a_round_of_turns_is_one_budget() -> None:
    pair = Pair()
    streams = [pair.exchange()[0] for _ in range(4)]
    for stream in streams:
        stream.send_data(b"x" * 200_000)
    message = pair.to_agent()
    assert SEND_BUDGET <= len(message) < SEND_BUDGET + 2 * frames.MAX_DATA
    order = [frame[2] for frame in parse(message)]
    assert order == [stream.id for stream in streams] * 2
    assert pair.hub.has_more


def test_a_bulk_stream_does_not_delay_a_small_one() -> None:
    pair = Pair()
    _, _, bulk, _ = pair.exchange(end=True)
    bulk.send_head(RESPONSE)
    bulk.send_data(b"x" * 4_000_000)
    _, sink = pair.open(end=True)
    pair.to_agent()
    small = pair.agent_side.opened[-1][0]
    small.send_head(RESPONSE)
    small.send_data(b"y" * 20_000, True)
    pair.to_hub()
    assert sink.ends == 1
    assert bulk.queued > 0


def test_sessions_have_no_attributes_beyond_their_slots() -> None:
    assert not hasattr(Session(0, Pair().hub_side, 0.0), "__dict__")


def test_a_receiver_alone_knows_no_frames_of_the_session() -> None:
    receiver = Receiver(HUB, Side(), 0.0, 8)
    with pytest.raises(LocalMisuse, match="PING came to a Receiver"):
        receiver.receive(frames.frame(frames.PING, 0, 0, bytes(8)), 1.0)
