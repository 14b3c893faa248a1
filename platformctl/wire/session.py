"""One tunnel's protocol engine, pure: `receive(bytes, now)` in, `data_to_send()` out, calls on the owner and on sinks.

The caller's duty (net/link.py is the only one in the product):
- pass every message to `receive`, and on WireError send `goaway(error)`, flush, and close the connection;
- bound the time that the greeting may take;
- call `tick(now)` about once a second, and close the connection when it returns False (the peer is dead);
- send `data_to_send()` when the owner's `on_dirty` was called, once a loop tick, and again while `has_more`. While the
  connection is blocked only `control_only=True`, and not even that when the connection's buffer keeps growing;
- call `lost(code)` once when the connection is gone: every stream that is still open is reset.

A Session is one object in four files, each a layer on the one before: sender.py (queues and turns), ledger.py (credit),
receiver.py (frames), and this one (greeting, opening, liveness, end). They are layers of one class for speed:
inheritance costs nothing for each frame, calls between objects would.
"""

from __future__ import annotations

from typing import Any, Final

from platformctl.errors import FrameError, LocalMisuse, SessionError
from platformctl.wire import frames
from platformctl.wire.frames import (
    FLAG_END,
    GOAWAY,
    HEADER_SIZE,
    HELLO,
    MAX_HEAD,
    MAX_STREAM_ID,
    NAMES,
    OPEN,
    PING,
    PONG,
    WELCOME,
)
from platformctl.wire.ledger import MAX_LINGERING, PARKED_LIMIT
from platformctl.wire.receiver import Receiver
from platformctl.wire.sender import AGENT, HUB, MAX_CONTROL_BACKLOG, MESSAGE_TARGET, SEND_BUDGET
from platformctl.wire.states import CLOSED, REQ_DONE_RSP_HEAD
from platformctl.wire.stream import MAX_BACKLOG, Owner, Sink, Stream

__all__ = [
    "AGENT",
    "DEFAULT_MAX_STREAMS",
    "HUB",
    "MAX_CONTROL_BACKLOG",
    "MAX_LINGERING",
    "MESSAGE_TARGET",
    "PARKED_LIMIT",
    "SEND_BUDGET",
    "Owner",
    "Session",
]

_FINAL: Final = frames.control(GOAWAY, {"code": frames.NO_ERROR, "reason": "", "retry_after": 0, "final": True})[
    HEADER_SIZE:
]
DEFAULT_MAX_STREAMS: Final = 2048
# The second wait for a PONG is shorter, so that a dead peer is found in less than three intervals after its last word.
SECOND_WAIT: Final = 0.7


class Session(Receiver):
    """One end of a tunnel.

    Args:
        role: HUB (opens streams) or AGENT.
        owner: gets control messages, new streams, and the call that there is something to send.
        now: seconds, monotonic; the same clock as for `receive` and `tick`.
        ping_interval: seconds between PINGs; two unanswered ones make the peer dead.
        max_streams: open streams at a time; the agent refuses more, the hub does not open more.
    """

    __slots__ = ("ping_interval",)

    def __init__(
        self,
        role: int,
        owner: Owner,
        now: float,
        *,
        ping_interval: float = 5.0,
        max_streams: int = DEFAULT_MAX_STREAMS,
    ) -> None:
        super().__init__(role, owner, now, max_streams)
        self.ping_interval = ping_interval

    @property
    def can_open(self) -> bool:
        """False before the handshake, at the stream limit, after the agent's GOAWAY, and when the tunnel is lost.

        False too while the peer does not read (heads take no credit, so the unsent ones are bounded here), and when the
        stream ids are used up: after 2³² streams the session must be replaced.
        """
        return (
            self.greeted
            and not self.goaway_received
            and not self.closed
            and len(self.streams) < self.max_streams
            and self.out_bytes <= MAX_BACKLOG
            and self.last_id < MAX_STREAM_ID
        )

    @property
    def drained(self) -> bool:
        """The agent may close: the hub has said that it opens nothing more, and every stream has come to its end."""
        return self.goaway_final and not self.streams and not self.has_more

    def open(self, payload: bytes, end: bool, sink: Sink) -> Stream:
        """Open a stream (hub). The caller has checked `can_open`."""
        if len(payload) > MAX_HEAD:
            raise LocalMisuse(f"an OPEN of {len(payload)} bytes")
        stream_id = self.last_id + 1
        self.last_id = stream_id
        stream = Stream(self, stream_id, sink)
        self.streams[stream_id] = stream
        if end:
            stream.state = REQ_DONE_RSP_HEAD
            self.emit(OPEN, FLAG_END, stream_id, payload)
        else:
            self.emit(OPEN, 0, stream_id, payload)
        return stream

    def tick(self, now: float) -> bool:
        """Send a PING when it is time; False when two went unanswered and nothing else was heard."""
        self.now = now
        if self.overloaded:
            return False
        if not self.greeted or now < self._next_ping:
            return True
        if self._heard <= self._ping_at:
            self._misses += 1
            if self._misses >= 2:
                return False
        # From the planned time, so that late ticks do not add up; unless this process itself stood still.
        due = self._next_ping + self.ping_interval * (SECOND_WAIT if self._misses else 1.0)
        self._next_ping = due if due > now else now + self.ping_interval * SECOND_WAIT
        self._ping_at = now
        self._ping_id += 1
        self.emit_control(PING, 0, self._ping_id.to_bytes(8, "big"))
        return True

    def _on_session_frame(self, kind: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise FrameError(frames.PROTOCOL, f"{NAMES[kind]} on stream {stream_id}")
        greeting = kind in (HELLO, WELCOME)
        if greeting == self.greeted and kind != GOAWAY:
            raise SessionError(frames.PROTOCOL, f"{NAMES[kind]} {'after' if greeting else 'before'} the greeting")
        if kind in (PING, PONG):
            if len(payload) != 8:
                raise FrameError(frames.PROTOCOL, f"{NAMES[kind]} with a payload of {len(payload)} bytes")
            if kind == PONG:
                self._on_pong(payload)
            elif self.overloaded:
                raise SessionError(frames.OVERLOADED, "the peer asks and does not read the answers")
            else:
                self.emit_control(PONG, 0, payload)
            return
        message = frames.parse_control(kind, payload)
        if greeting:
            self.greeted = True
            self._next_ping = self.now  # the round trip is known from the start
        elif kind == GOAWAY:
            self._on_goaway(message)
        self.owner.on_control(kind, message)

    def _on_goaway(self, message: dict[str, Any]) -> None:
        if self.role == AGENT:
            self.goaway_final = self.goaway_final or message.get("final") is True
        elif not self.goaway_received:
            # From here on `can_open` is False, so the answer keeps its promise; it comes after every OPEN.
            self.goaway_sent = True
            self.emit(GOAWAY, 0, 0, _FINAL)
        self.goaway_received = True

    def _on_pong(self, payload: bytes) -> None:
        if int.from_bytes(payload, "big") != self._ping_id or self._ping_at < 0.0:
            return  # an answer to an older PING, or a second one, says nothing about the path now
        sample = max(self.now - self._ping_at, 0.0)
        self._ping_at = -1.0
        # RFC 6298 2.3: a smoothed round trip with gain 1/8.
        self.rtt = sample if self.rtt == 0.0 else self.rtt + (sample - self.rtt) / 8.0
        self.owner.on_rtt(sample)

    def lost(self, code: int) -> None:
        """The connection is gone: reset every open stream, once."""
        if self.closed:
            return
        self.closed = True
        for stream in list(self.streams.values()):
            if stream.state == CLOSED:
                continue  # reset by another stream's sink just now
            stream.state = CLOSED
            self.forget(stream)
            self.settle(stream)
            stream.sink.on_reset(stream, code)
        self._out.clear()
        self.out_bytes = 0
        self._control.clear()
        self._control_bytes = 0
        self._lingering.clear()
