"""The receiving side of a session: each frame is checked against bounds, state and credit, then delivered."""

from __future__ import annotations

from typing import Any, Final

from platformctl.errors import FrameError, LocalMisuse, SessionError
from platformctl.wire import frames, states
from platformctl.wire.frames import (
    DATA,
    END,
    FLAG_END,
    FLAG_INTERIM,
    FLAG_TRAILERS,
    FLAGS_ALLOWED,
    GOAWAY,
    HEAD,
    HEADER,
    HEADER_SIZE,
    HELLO,
    MAX_DATA,
    MAX_HEAD,
    MAX_INTERIM,
    MAX_MESSAGE,
    MAX_WINDOW,
    NAMES,
    OPEN,
    PING,
    PONG,
    RESET,
    SLOW_CONSUMER,
    U32,
    WELCOME,
    WINDOW,
)
from platformctl.wire.sender import AGENT, HUB, Sender
from platformctl.wire.states import CLOSED, INVALID, NEXT
from platformctl.wire.stream import Owner, Stream
from platformctl.wire.windows import SESSION_CAP, SESSION_INITIAL, ReceiveWindow

# What each role may receive (SPEC.md, "Who sends what").
TO_HUB: Final = frozenset(
    {HELLO, frames.REGISTER, frames.DEREGISTER, GOAWAY, PING, PONG, HEAD, DATA, END, RESET, WINDOW}
)
TO_AGENT: Final = frozenset(
    {WELCOME, frames.REGISTERED, frames.REPLICAS, GOAWAY, PING, PONG, OPEN, HEAD, DATA, END, RESET, WINDOW}
)

# Streams that we reset and whose last frames may still be on their way.
MAX_LINGERING: Final = 4096
PARKED_LIMIT: Final = 64 * 1024 * 1024

_EMPTY: Final = b""
_FINAL: Final = frames.control(GOAWAY, {"code": frames.NO_ERROR, "reason": "", "retry_after": 0, "final": True})[
    HEADER_SIZE:
]


class Receiver(Sender):
    """Second layer of a Session (see session.py)."""

    __slots__ = (
        "_allowed",
        "_evicted",
        "_heard",
        "_lingering",
        "_misses",
        "_next_ping",
        "_peer_data",
        "_peer_end",
        "_ping_at",
        "_ping_id",
        "_prepaid",
        "bytes_in",
        "goaway_final",
        "goaway_received",
        "greeted",
        "max_streams",
        "now",
        "parked_bytes",
        "rtt",
        "window",
    )

    def __init__(self, role: int, owner: Owner, now: float, max_streams: int) -> None:
        super().__init__(role, owner)
        self.now = now
        self.max_streams = max_streams
        self.greeted = False  # HELLO (at the hub) or WELCOME (at the agent) has come
        self.goaway_received = False
        self.goaway_final = False  # at the agent: the hub opens nothing more here
        self.window = ReceiveWindow(SESSION_INITIAL, SESSION_CAP)
        self.rtt = 0.0
        self.bytes_in = 0
        self.parked_bytes = 0
        self._prepaid: dict[int, Stream] = {}  # parked streams, closed ones too, whose bytes the session got back
        self._allowed = TO_HUB if role == HUB else TO_AGENT
        self._peer_data = states.RSP_DATA if role == HUB else states.REQ_DATA
        self._peer_end = states.RSP_END if role == HUB else states.REQ_END
        self._lingering: dict[int, int] = {}
        self._evicted = 0  # the highest id that left _lingering for lack of room
        self._next_ping = now
        self._ping_at = -1.0  # when the last PING went out; -1 when its PONG has come
        self._ping_id = 0
        self._misses = 0
        self._heard = now

    def receive(self, message: bytes, now: float) -> None:
        """Take one WebSocket message.

        Raises:
            FrameError, SessionError: the peer broke the protocol; the session is unusable (see the caller's duty).
        """
        self.now = now
        self._heard = now
        self._misses = 0
        size = len(message)
        if size > MAX_MESSAGE:
            raise FrameError(frames.PROTOCOL, f"a message of {size} bytes is over the limit of {MAX_MESSAGE}")
        self.bytes_in += size
        streams = self.streams
        allowed = self._allowed
        unpack = HEADER.unpack_from
        position = 0
        while position < size and not self.closed:
            if size - position < HEADER_SIZE:
                raise FrameError(frames.PROTOCOL, "a frame header is truncated")
            length, kind, flags, stream_id = unpack(message, position)
            position += HEADER_SIZE
            end = position + length
            if end > size:
                raise FrameError(frames.PROTOCOL, f"a frame of {length} bytes is longer than its message")
            if kind not in allowed:
                raise FrameError(frames.PROTOCOL, f"unexpected frame {NAMES.get(kind, str(kind))}")
            if flags and flags & ~FLAGS_ALLOWED.get(kind, 0):
                raise FrameError(frames.PROTOCOL, f"{NAMES[kind]} with flags {flags:#x}")
            if kind == DATA:
                if length > MAX_DATA or length == 0:
                    raise FrameError(frames.PROTOCOL, f"DATA of {length} bytes")
                stream = streams.get(stream_id)
                if stream is None:
                    self._stale(kind, flags, stream_id, length)
                else:
                    self._on_data(stream, message[position:end], flags)
            elif kind == HEAD:
                self._on_head(stream_id, message[position:end], flags)
            elif kind == OPEN:
                self._on_open(stream_id, message[position:end], flags)
            elif kind > HEAD:
                self._on_stream_frame(kind, flags, stream_id, message[position:end])
            else:
                self._on_session_frame(kind, stream_id, message[position:end])
            position = end
        if self.parked_bytes > PARKED_LIMIT:
            self._shed()

    # ---- frames of a stream --------------------------------------------------------------------------------------

    def _on_data(self, stream: Stream, data: bytes, flags: int) -> None:
        n = len(data)
        if not stream.window.take(n) or not self.window.take(n):
            raise SessionError(frames.FLOW_CONTROL, f"stream {stream.id}: more data than credit")
        state = NEXT[stream.state][self._peer_data]
        if flags:
            state = NEXT[state][self._peer_end]  # INVALID is the row of CLOSED, where nothing is valid
        if state == INVALID:
            raise SessionError(frames.PROTOCOL, f"DATA on a stream in {states.STATE_NAMES[stream.state]}")
        stream.state = state
        if state == CLOSED:
            self.forget(stream)
        if stream.parked:
            self.prepay(stream, n)
            self.give_back(n)
        stream.sink.on_data(stream, data, flags != 0)

    def _on_head(self, stream_id: int, payload: bytes, flags: int) -> None:
        if len(payload) > MAX_HEAD:
            raise FrameError(frames.PROTOCOL, f"HEAD of {len(payload)} bytes is over {MAX_HEAD}")
        stream = self.streams.get(stream_id)
        if stream is None:
            self._stale(HEAD, flags, stream_id, 0)
            return
        event = INVALID
        if flags & FLAG_TRAILERS:
            if flags == FLAG_TRAILERS | FLAG_END:
                event = self._peer_end
        elif self.role == AGENT:
            pass  # the hub's heads are in OPEN
        elif flags & FLAG_INTERIM:
            stream.interims += 1
            if flags == FLAG_INTERIM and stream.interims <= MAX_INTERIM:
                event = states.RSP_INTERIM
        else:
            event = states.RSP_HEAD_END if flags else states.RSP_HEAD
        state = NEXT[stream.state][event] if event != INVALID else INVALID
        if state == INVALID:
            name = states.STATE_NAMES[stream.state]
            raise SessionError(frames.PROTOCOL, f"HEAD with flags {flags:#x} on a stream in {name}")
        stream.state = state
        if state == CLOSED:
            self.forget(stream)
        stream.sink.on_head(stream, payload, flags)

    def _on_open(self, stream_id: int, payload: bytes, flags: int) -> None:
        if not self.greeted or stream_id != self.last_id + 1:
            raise SessionError(frames.PROTOCOL, f"OPEN of stream {stream_id} after {self.last_id}")
        if len(payload) > MAX_HEAD:
            raise FrameError(frames.PROTOCOL, f"OPEN of {len(payload)} bytes is over {MAX_HEAD}")
        self.last_id = stream_id
        stream = Stream(self, stream_id, _NO_SINK)  # type: ignore[arg-type]
        self.streams[stream_id] = stream
        if flags:
            stream.state = states.REQ_DONE_RSP_HEAD
        if len(self.streams) > self.max_streams:
            stream.reset(frames.REFUSED)
            return
        self.owner.on_open(stream, payload, flags != 0)

    def _on_stream_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """END, RESET or WINDOW."""
        if len(payload) != (0 if kind == END else 4):
            raise FrameError(frames.PROTOCOL, f"{NAMES[kind]} with a payload of {len(payload)} bytes")
        stream = self.streams.get(stream_id)
        if kind == WINDOW:
            self._on_window(stream, stream_id, U32.unpack(payload)[0])
        elif stream is None:
            self._stale(kind, flags, stream_id, 0)
        elif kind == RESET:
            stream.state = CLOSED
            self.forget(stream)
            self.settle(stream)
            stream.sink.on_reset(stream, U32.unpack(payload)[0])
        else:
            state = NEXT[stream.state][self._peer_end]
            if state == INVALID:
                raise SessionError(frames.PROTOCOL, f"END on a stream in {states.STATE_NAMES[stream.state]}")
            stream.state = state
            if state == CLOSED:
                self.forget(stream)
            stream.sink.on_data(stream, _EMPTY, True)

    def _on_window(self, stream: Stream | None, stream_id: int, credit: int) -> None:
        if stream_id == 0 and not self.greeted:
            raise SessionError(frames.PROTOCOL, "WINDOW before the greeting")
        if credit == 0:
            raise SessionError(frames.FLOW_CONTROL, f"WINDOW of no credit for stream {stream_id}")
        if stream_id == 0:
            self.send_credit += credit
            if self.send_credit > MAX_WINDOW:
                raise SessionError(frames.FLOW_CONTROL, f"session credit of {self.send_credit}")
            if self._ready:
                self._mark_dirty()
        elif stream is not None:
            stream.send_credit += credit
            if stream.send_credit > MAX_WINDOW:
                raise SessionError(frames.FLOW_CONTROL, f"stream {stream_id}: credit of {stream.send_credit}")
            if stream.queued:
                self.schedule(stream)
        elif stream_id > self.last_id:
            raise SessionError(frames.PROTOCOL, f"WINDOW for stream {stream_id}, which was never opened")

    # ---- frames of the session -----------------------------------------------------------------------------------

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
        self.goaway_received = True
        if self.role == AGENT:
            self.goaway_final = self.goaway_final or message.get("final") is True
        else:
            # From here on `can_open` is False, so the answer keeps its promise; it comes after every OPEN.
            self.goaway_sent = True
            self.emit(GOAWAY, 0, 0, _FINAL)

    def _on_pong(self, payload: bytes) -> None:
        if int.from_bytes(payload, "big") != self._ping_id or self._ping_at < 0.0:
            return  # an answer to an older PING, or a second one, says nothing about the path now
        sample = max(self.now - self._ping_at, 0.0)
        self._ping_at = -1.0
        # RFC 6298 2.3: a smoothed round trip with gain 1/8.
        self.rtt = sample if self.rtt == 0.0 else self.rtt + (sample - self.rtt) / 8.0
        self.owner.on_rtt(sample)

    # ---- streams that are no more --------------------------------------------------------------------------------

    def linger(self, stream: Stream) -> None:
        """We reset a stream: what the peer sent before it knows is no fault."""
        self._lingering[stream.id] = stream.window.credit
        if len(self._lingering) > MAX_LINGERING:
            oldest = next(iter(self._lingering))
            del self._lingering[oldest]
            self._evicted = max(self._evicted, oldest)

    def _stale(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        """A frame for a stream that is not open: right only for one that we reset a moment ago."""
        if stream_id > self.last_id or stream_id == 0:
            raise SessionError(frames.PROTOCOL, f"{NAMES[kind]} for stream {stream_id}, which was never opened")
        left = self._lingering.get(stream_id)
        if left is None:
            if kind == RESET:
                return  # both ends ended the stream at the same time
            if stream_id > self._evicted:
                raise SessionError(frames.PROTOCOL, f"{NAMES[kind]} for stream {stream_id}, which has ended")
            left = length
        elif flags & FLAG_END or kind in (END, RESET):
            del self._lingering[stream_id]
        elif length:
            self._lingering[stream_id] = left - length
        if length:
            if length > left or not self.window.take(length):
                raise SessionError(frames.FLOW_CONTROL, f"stream {stream_id}: more data than credit")
            self.give_back(length)

    # ---- credit --------------------------------------------------------------------------------------------------

    def give_back(self, n: int) -> None:
        """Session credit for `n` consumed bytes."""
        credit = self.window.give_back(n, self.now, self.rtt)
        if credit and not self.closed:
            self.emit_control(WINDOW, 0, U32.pack(credit))

    def prepay(self, stream: Stream, n: int) -> None:
        """Book `n` held bytes (negative: bytes that have been consumed) of a stalled reader as parked."""
        stream.prepaid += n
        self.parked_bytes += n
        if stream.prepaid:
            self._prepaid[stream.id] = stream
        else:
            self._prepaid.pop(stream.id, None)

    def settle(self, stream: Stream) -> None:
        """A reset stream delivers no more: give back at once what its sink still held."""
        owed = stream.window.held - stream.prepaid
        stream.window.held = 0
        if stream.prepaid:
            self.prepay(stream, -stream.prepaid)
        if owed:
            self.give_back(owed)

    def _shed(self) -> None:
        """Too much is parked: the readers that hold most lose their streams. Not while frames are being delivered."""
        while self.parked_bytes > PARKED_LIMIT:
            slowest = max(self._prepaid.values(), key=lambda stream: stream.prepaid)
            slowest.reset(SLOW_CONSUMER)
            slowest.sink.on_reset(slowest, SLOW_CONSUMER)


class _NoSink:
    """Stands in until the owner's `on_open` has set the real sink."""

    def on_reset(self, stream: Stream, code: int) -> None:
        """A stream that nobody took has nobody to tell."""

    def __getattr__(self, name: str) -> None:
        raise LocalMisuse(f"{name}: the stream has no sink; on_open must set one or reset it")


_NO_SINK: Final = _NoSink()
