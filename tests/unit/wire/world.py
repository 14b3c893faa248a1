"""A world of two sessions and their users, for random interleavings: what each end has sent and got is written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from platformctl.errors import LocalMisuse
from platformctl.wire import frames, states
from platformctl.wire.frames import FLAG_END, HEADER, HEADER_SIZE
from platformctl.wire.session import AGENT, HUB, Session
from platformctl.wire.stream import HIGH, Stream
from platformctl.wire.windows import SESSION_CAP, STREAM_CAP
from tests.unit.wire.pair import REQUEST, RESPONSE, check_books

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

    def on_data(self, stream: Stream, data: bytes | memoryview, end: bool) -> None:
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
        if not self.sent_end:
            for size in (10, 9_000):
                data = piece(self.sent, size)
                self.sent += size
                stream.send_data(data)


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
        self.as_view = False
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
        message = waiting[:end]
        del waiting[:end]
        # As a view that is worth nothing after the call, as the WebSocket library gives it; or as bytes.
        self.as_view = not self.as_view
        self.session(role).receive(memoryview(message) if self.as_view else bytes(message), self.now)
        message[:] = b"\xee" * end
        return end

    def settle(self) -> None:
        moved = 1
        while moved:
            moved = self.flush(HUB) + self.flush(AGENT)
            moved += self.deliver(HUB, frames.MAX_MESSAGE) + self.deliver(AGENT, frames.MAX_MESSAGE)


class Users:
    """Everything that the users of both ends may do, on streams that are named by a number; and what must hold."""

    def __init__(self) -> None:
        self.world = World()
        self.ends: list[End] = []

    def end(self, index: int) -> End | None:
        """An end that is known to its side, or None."""
        if not self.ends:
            return None
        end = self.ends[index % len(self.ends)]
        return end if end.stream is not None else None

    # ---- streams -------------------------------------------------------------------------------------------------

    def open(self, bodyless: bool, slow: bool) -> None:
        world = self.world
        if not world.hub.can_open:
            return
        mine, theirs = End(world, slow=slow), End(world, slow=slow)
        mine.peer, theirs.peer = theirs, mine
        theirs.head_got = mine.head_sent = True
        mine.sent_end = bodyless
        world.pairs[world.hub.last_id + 1] = (mine, theirs)
        mine.stream = world.hub.open(REQUEST, bodyless, mine)
        self.ends += [mine, theirs]

    def head(self, index: int, interim: bool, last: bool) -> None:
        end = self.end(index)
        if end is None or end.over or end.head_sent:
            return
        assert end.stream is not None
        if interim:
            end.stream.send_head(RESPONSE, frames.FLAG_INTERIM)
        else:
            end.head_sent = True
            end.sent_end = last
            end.stream.send_head(RESPONSE, FLAG_END if last else 0)

    def data(self, index: int, size: int, last: bool) -> None:
        end = self.end(index)
        if end is None or end.over:
            return
        assert end.stream is not None
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
        assert end.stream.send_data(data, last) == (end.stream.queued <= HIGH)

    def trailers(self, index: int) -> None:
        end = self.end(index)
        if end is not None and end.stream is not None and not end.over and end.head_sent and not end.sent_end:
            end.sent_end = True
            end.stream.send_trailers(b"A: b\r\n")

    def reset(self, index: int, code: int) -> None:
        end = self.end(index)
        if end is not None and end.stream is not None and not end.over:
            end.reset_sent = not end.stream.closed
            end.stream.reset(code)
            end.held = 0

    # ---- readers -------------------------------------------------------------------------------------------------

    def read(self, index: int, share: float) -> None:
        end = self.end(index)
        if end is not None and end.stream is not None and end.held:
            n = max(1, int(end.held * share))
            end.held -= n
            end.stream.consumed(n)

    def park(self, index: int, stalls: bool) -> None:
        end = self.end(index)
        if end is not None and end.stream is not None and not end.over:
            end.slow = end.slow or stalls
            if stalls:
                end.stream.park()
            else:
                end.stream.unpark()

    def wake(self, index: int) -> None:
        end = self.end(index)
        if end is not None and end.stream is not None:
            end.slow = False
            end.stream.unpark()
            end.stream.consumed(end.held)
            end.held = 0

    # ---- the tunnel ----------------------------------------------------------------------------------------------

    def flush(self, role: int, control_only: bool) -> None:
        self.world.flush(role, control_only)

    def deliver(self, role: int, limit: int) -> None:
        self.world.deliver(role, limit)

    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        for session in (self.world.hub, self.world.agent):
            session.tick(self.world.now)

    def leave(self, role: int) -> None:
        self.world.session(role).goaway(frames.NO_ERROR, "leaving")

    # ---- what must hold ------------------------------------------------------------------------------------------

    def check_always(self) -> None:
        """Credit is never negative, and bounds the memory."""
        for role in (HUB, AGENT):
            session = self.world.session(role)
            assert session.send_credit >= 0
            window = session.window
            assert 0 <= window.held <= window.size <= SESSION_CAP
            assert window.credit + window.held + window.owed == window.size
            assert len(session._ready) == sum(stream.scheduled for stream in session.streams.values())
            for stream in session.streams.values():
                assert stream.send_credit >= 0
                assert 0 <= stream.window.held <= stream.window.size <= STREAM_CAP
                assert stream.queued == sum(len(chunk) for chunk in stream.queue or ())
            assert session.out_bytes == sum(len(part) for part in session._out)
            ends = [pair[role] for pair in self.world.pairs.values()]
            held = sum(end.held for end in ends)
            parked = sum(end.stream.prepaid for end in ends if end.stream is not None)
            assert parked == session.parked_bytes
            assert held == window.held + parked
            for end in ends:
                if end.stream is not None:
                    assert end.held == end.stream.window.held

    def check_quiet(self) -> None:
        """Nothing is on its way: both ends' books agree, and nothing that could go waits."""
        self.world.settle()
        check_books(self.world.hub, self.world.agent)
        check_books(self.world.agent, self.world.hub)
        for session in (self.world.hub, self.world.agent):
            for stream in session.streams.values():
                assert not stream.queued or not stream.send_credit or not session.send_credit

    def finish(self) -> None:
        """Readers wake, senders end: then every stream ends exactly once, and the books are as at the start."""
        world = self.world
        self.check_quiet()
        for index in range(len(self.ends)):
            self.wake(index)
        for end in self.ends[1::2] + self.ends[::2]:
            if end.stream is not None and not end.over and not end.sent_end:
                if not end.head_sent:
                    end.head_sent = True
                    end.stream.send_head(RESPONSE)
                end.sent_end = True
                end.stream.send_end()
        self.check_quiet()
        self.check_always()
        assert not world.hub.streams
        assert not world.agent.streams
        assert world.hub.window.held == world.agent.window.held == 0
        for end in self.ends:
            assert end.peer is not None
            assert end.stream is not None, "an OPEN was lost"
            assert end.stream.state == states.CLOSED
            assert end.got_end or end.over, "a stream has no end"
            if end.got_end:
                assert end.got == end.peer.sent
            if end.got_reset:
                assert end.peer.reset_sent
        if world.agent.goaway_sent:
            assert world.agent.drained
        world.hub.lost(frames.TUNNEL_LOST)
        world.agent.lost(frames.TUNNEL_LOST)
