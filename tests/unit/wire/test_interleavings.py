"""Random interleavings of everything two sessions may do, with the invariants of the protocol checked all the way.

Messages are delivered late and in other portions than they were sent in (frames regrouped into new messages), chunk
sizes are random, readers are slow, stall, are parked and come back, streams are reset from either end, both ends leave.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from platformctl.errors import LocalMisuse
from platformctl.wire import frames, states
from platformctl.wire.frames import FLAG_END, HEADER, HEADER_SIZE
from platformctl.wire.session import AGENT, HUB, SEND_BUDGET, Session
from platformctl.wire.stream import DIRECT, HIGH, Stream
from platformctl.wire.windows import INITIAL, SESSION_CAP, STREAM_CAP
from tests.unit.wire.pair import REQUEST, RESPONSE, check_books

SIZES = st.one_of(
    st.integers(0, 40),
    st.sampled_from([DIRECT - 1, DIRECT, DIRECT + 1, frames.MAX_DATA, frames.MAX_DATA + 1, INITIAL // 2, INITIAL + 1]),
    st.integers(0, 600_000),
)
PATTERN = bytes(range(251)) * 4000


def piece(start: int, size: int) -> bytes:
    """`size` bytes of a stream's content from position `start`: lost, doubled or moved bytes do not fit."""
    offset = start % 251
    repeats = (offset + size) // len(PATTERN) + 1
    return (PATTERN * repeats)[offset : offset + size]


@dataclass(eq=False)
class End:
    """One end of a stream, as its user sees it: what it has sent and got, and how it ended."""

    world: World
    stream: Stream | None = None
    peer: End | None = None
    sent: int = 0
    sent_end: bool = False
    reset_sent: bool = False
    got: int = 0
    got_end: bool = False
    got_reset: bool = False
    held: int = 0
    head_sent: bool = False
    head_got: bool = False
    slow: bool = False
    dropped: bool = False
    turns: list[int] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return self.got_reset or self.reset_sent

    def on_head(self, stream: Stream, payload: bytes, flags: int) -> None:
        assert stream is self.stream
        assert not self.over
        assert not self.got_end
        if flags & frames.FLAG_TRAILERS:
            self.finish()
        else:
            assert not self.head_got
            self.head_got = not flags & frames.FLAG_INTERIM
            if flags & FLAG_END:
                self.finish()

    def on_data(self, stream: Stream, data: bytes, end: bool) -> None:
        assert stream is self.stream
        assert not self.over
        assert not self.got_end
        assert data == piece(self.got, len(data)), f"stream {stream.id}: bytes lost, doubled or reordered"
        self.got += len(data)
        if end:
            self.finish()
        if self.slow:
            self.held += len(data)
        else:
            stream.consumed(len(data))

    def finish(self) -> None:
        self.got_end = True
        assert self.peer is not None
        assert self.got == self.peer.sent, "ended before everything had come"

    def on_reset(self, stream: Stream, code: int) -> None:
        assert stream is self.stream
        assert not self.over
        self.got_reset = True
        self.held = 0

    def on_writable(self, stream: Stream) -> None:
        assert not self.over


class Owner:
    def __init__(self, world: World) -> None:
        self.world = world

    def on_control(self, kind: int, message: dict[str, Any]) -> None:
        pass

    def on_open(self, stream: Stream, payload: bytes, end: bool) -> None:
        self.world.opened(stream, end)

    def on_dirty(self) -> None:
        pass

    def on_rtt(self, seconds: float) -> None:
        assert seconds >= 0


class World:
    def __init__(self) -> None:
        self.now = 10.0
        self.hub = Session(HUB, Owner(self), self.now, max_streams=16)
        self.agent = Session(AGENT, Owner(self), self.now, max_streams=16)
        self.on_way: dict[int, bytearray] = {HUB: bytearray(), AGENT: bytearray()}  # by receiver, whole frames
        self.pairs: dict[int, tuple[End, End]] = {}
        self.agent.send_control(frames.HELLO, {})
        self.flush(AGENT)
        self.deliver(HUB, 10**9)
        self.hub.send_control(frames.WELCOME, {})
        self.flush(HUB)
        self.deliver(AGENT, 10**9)

    def session(self, role: int) -> Session:
        return self.hub if role == HUB else self.agent

    def opened(self, stream: Stream, end: bool) -> None:
        mine = self.pairs[stream.id][1]
        assert mine.stream is None
        mine.stream = stream
        mine.got_end = end
        stream.sink = mine

    def flush(self, role: int, control_only: bool = False) -> int:
        message = b"".join(self.session(role).data_to_send(control_only))
        assert len(message) <= frames.MAX_MESSAGE
        self.on_way[1 - role] += message
        return len(message)

    def deliver(self, role: int, limit: int) -> int:
        """Give a receiver the next whole frames up to `limit` bytes (at least one) as one message."""
        waiting = self.on_way[role]
        end = 0
        while end < len(waiting):
            length = HEADER.unpack_from(waiting, end)[0] + HEADER_SIZE
            if end and end + length > min(limit, frames.MAX_MESSAGE):
                break
            end += length
        message = bytes(waiting[:end])
        del waiting[:end]
        self.session(role).receive(message, self.now)
        return end

    def settle(self) -> None:
        while (
            self.flush(HUB) + self.flush(AGENT) + self.deliver(HUB, frames.MAX_MESSAGE)
            + self.deliver(AGENT, frames.MAX_MESSAGE)
        ):
            pass


class Interleavings(RuleBasedStateMachine):
    ends = Bundle("ends")

    @initialize()
    def start(self) -> None:
        self.world = World()

    # ---- streams -------------------------------------------------------------------------------------------------

    @rule(target=ends, bodyless=st.booleans(), slow=st.booleans())
    def open(self, bodyless: bool, slow: bool) -> Any:
        world = self.world
        if not world.hub.can_open:
            return multiple()
        mine, theirs = End(world, slow=slow), End(world, slow=slow)
        mine.peer, theirs.peer = theirs, mine
        theirs.head_got = True
        mine.head_sent = True
        mine.sent_end = bodyless
        world.pairs[world.hub.last_id + 1] = (mine, theirs)
        mine.stream = world.hub.open(REQUEST, bodyless, mine)
        return multiple(mine, theirs)

    @rule(end=ends, interim=st.booleans(), last=st.booleans())
    def head(self, end: End, interim: bool, last: bool) -> None:
        if end.stream is None or end.over or end.head_sent:
            return
        if interim:
            end.stream.send_head(RESPONSE, frames.FLAG_INTERIM)
        else:
            end.head_sent = True
            end.sent_end = last
            end.stream.send_head(RESPONSE, FLAG_END if last else 0)

    @rule(end=ends, size=SIZES, last=st.booleans())
    def data(self, end: End, size: int, last: bool) -> None:
        if end.stream is None or end.over:
            return
        if end.sent_end or not end.head_sent:
            if size or last:
                try:
                    end.stream.send_data(b"x" * size, last)
                except LocalMisuse:
                    return
                raise AssertionError("data was taken where none is allowed")
            return
        if end.stream.blocked:
            size = 0  # a source pauses when it is told to
        data = piece(end.sent, size)
        end.sent += size
        end.sent_end = last
        accepted = end.stream.send_data(data, last)
        assert accepted == (end.stream.queued <= HIGH)

    @rule(end=ends)
    def trailers(self, end: End) -> None:
        if end.stream is not None and not end.over and end.head_sent and not end.sent_end:
            end.sent_end = True
            end.stream.send_trailers(b"A: b\r\n")

    @rule(end=ends, code=st.sampled_from([frames.CANCELLED, frames.BACKEND_CLOSED]))
    def reset(self, end: End, code: int) -> None:
        if end.stream is not None and not end.over:
            end.reset_sent = not end.stream.closed
            end.stream.reset(code)
            end.held = 0
            end.dropped = True

    # ---- readers -------------------------------------------------------------------------------------------------

    @rule(end=ends, share=st.floats(0, 1))
    def read(self, end: End, share: float) -> None:
        if end.stream is not None and end.held:
            n = max(1, int(end.held * share))
            end.held -= n
            end.stream.consumed(n)

    @rule(end=ends, stalls=st.booleans())
    def park(self, end: End, stalls: bool) -> None:
        if end.stream is not None and not end.over:
            end.slow = end.slow or stalls
            if stalls:
                end.stream.park()
            else:
                end.stream.unpark()

    @rule(end=ends)
    def wake(self, end: End) -> None:
        end.slow = False
        if end.stream is not None:
            end.stream.unpark()
            end.stream.consumed(end.held)
            end.held = 0

    # ---- the tunnel ----------------------------------------------------------------------------------------------

    @rule(role=st.sampled_from([HUB, AGENT]), control_only=st.booleans())
    def flush(self, role: int, control_only: bool) -> None:
        self.world.flush(role, control_only)

    @rule(role=st.sampled_from([HUB, AGENT]), limit=st.sampled_from([1, 100, 40_000, 10**9]))
    def deliver(self, role: int, limit: int) -> None:
        self.world.deliver(role, limit)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.1, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        for session in (self.world.hub, self.world.agent):
            session.tick(self.world.now)

    @rule(role=st.sampled_from([HUB, AGENT]))
    def leave(self, role: int) -> None:
        self.world.session(role).goaway(frames.NO_ERROR, "leaving")

    # ---- what always holds ---------------------------------------------------------------------------------------

    @invariant()
    def credit_is_never_negative_and_bounds_memory(self) -> None:
        if not hasattr(self, "world"):
            return
        for role in (HUB, AGENT):
            session = self.world.session(role)
            assert session.send_credit >= 0
            window = session.window
            assert 0 <= window.held <= window.size <= SESSION_CAP
            assert window.credit + window.held + window.owed == window.size
            for stream in session.streams.values():
                assert stream.send_credit >= 0
                assert 0 <= stream.window.held <= stream.window.size <= STREAM_CAP
                assert stream.queued == sum(len(chunk) for chunk in stream.queue or ())
                assert stream.queued <= HIGH + 600_000
                assert stream.scheduled == (stream in session._ready)
            assert session.out_bytes == sum(len(part) for part in session._out)
            ends = [pair[role] for pair in self.world.pairs.values()]
            held = sum(end.held for end in ends)
            parked = sum(end.stream.prepaid for end in ends if end.stream is not None)
            assert parked == session.parked_bytes
            assert held == window.held + parked
            for end in ends:
                if end.stream is not None:
                    assert end.held == end.stream.window.held

    @rule()
    def books_agree_when_all_is_quiet(self) -> None:
        self.world.settle()
        check_books(self.world.hub, self.world.agent)
        check_books(self.world.agent, self.world.hub)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.settle()
        ends = [end for pair in world.pairs.values() for end in pair]
        for end in ends:
            self.wake(end)
        for mine, theirs in world.pairs.values():
            for end in (theirs, mine):
                if end.stream is not None and not end.over and not end.sent_end:
                    if not end.head_sent:
                        end.head_sent = True
                        end.stream.send_head(RESPONSE)
                    end.sent_end = True
                    end.stream.send_end()
        world.settle()
        check_books(world.hub, world.agent)
        check_books(world.agent, world.hub)
        assert not world.hub.streams
        assert not world.agent.streams
        assert world.hub.parked_bytes == world.agent.parked_bytes == 0
        assert world.hub.window.held == world.agent.window.held == 0
        for end in ends:
            assert end.peer is not None
            if end.stream is None:
                assert not world.hub.can_open or end.peer.reset_sent
            else:
                assert end.stream.state == states.CLOSED
                assert end.got_end or end.over, "a stream has no end"
            if end.got_end and not end.peer.over:
                assert end.got == end.peer.sent
        if world.agent.goaway_sent:
            assert world.agent.drained
        world.hub.lost(frames.TUNNEL_LOST)
        world.agent.lost(frames.TUNNEL_LOST)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_no_stream_starves_whatever_the_others_send() -> None:
    """Every stream with data gets a turn before any other gets its second one."""
    world = World()
    ends = []
    for _ in range(12):
        mine, theirs = End(world), End(world)
        mine.peer, theirs.peer = theirs, mine
        world.pairs[world.hub.last_id + 1] = (mine, theirs)
        mine.stream = world.hub.open(REQUEST, False, mine)
        ends.append(mine)
    for i, end in enumerate(ends):
        assert end.stream is not None
        end.sent = 50_000 + i * 20_000
        end.stream.send_data(piece(0, end.sent), True)
    turns: dict[int, int] = {end.stream.id: 0 for end in ends if end.stream}
    while message := b"".join(world.hub.data_to_send()):
        assert len(message) < SEND_BUDGET + 13 * len(REQUEST) + 2 * frames.MAX_DATA
        position = 0
        while position < len(message):
            length, kind, _, stream_id = HEADER.unpack_from(message, position)
            if kind == frames.DATA:
                waiting = [s.id for s in world.hub.streams.values() if s.queued]
                assert all(turns[stream_id] <= turns[other] for other in waiting)
                turns[stream_id] += 1
            position += HEADER_SIZE + length
        world.agent.receive(message, world.now)
    assert all(theirs.got_end for _, theirs in world.pairs.values())
