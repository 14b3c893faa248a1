"""The receiving side of a session: each frame is checked against bounds, state and credit, then delivered."""

from __future__ import annotations

from typing import Final

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
    U32,
    WELCOME,
    WINDOW,
)
from platformctl.wire.ledger import Ledger
from platformctl.wire.sender import AGENT, HUB
from platformctl.wire.states import CLOSED, INVALID, NEXT
from platformctl.wire.stream import Owner, Stream

# What each role may receive (SPEC.md, "Who sends what").
TO_HUB: Final = frozenset(
    {HELLO, frames.REGISTER, frames.DEREGISTER, GOAWAY, PING, PONG, HEAD, DATA, END, RESET, WINDOW}
)
TO_AGENT: Final = frozenset(
    {WELCOME, frames.REGISTERED, frames.REPLICAS, GOAWAY, PING, PONG, OPEN, HEAD, DATA, END, RESET, WINDOW}
)

_EMPTY: Final = b""


class Receiver(Ledger):
    """Third layer of a Session (see session.py)."""

    __slots__ = (
        "_allowed",
        "_heard",
        "_misses",
        "_next_ping",
        "_peer_data",
        "_peer_end",
        "_ping_at",
        "_ping_id",
        "bytes_in",
        "goaway_final",
        "goaway_received",
        "greeted",
        "max_streams",
    )

    def __init__(self, role: int, owner: Owner, now: float, max_streams: int) -> None:
        super().__init__(role, owner, now)
        self.max_streams = max_streams
        self.greeted = False  # HELLO (at the hub) or WELCOME (at the agent) has come
        self.goaway_received = False
        self.goaway_final = False  # at the agent: the hub opens nothing more here
        self.bytes_in = 0
        self._allowed = TO_HUB if role == HUB else TO_AGENT
        self._peer_data = states.RSP_DATA if role == HUB else states.REQ_DATA
        self._peer_end = states.RSP_END if role == HUB else states.REQ_END
        self._next_ping = now
        self._ping_at = -1.0  # when the last PING went out; -1 when its PONG has come
        self._ping_id = 0
        self._misses = 0
        self._heard = now

    def receive(self, message: bytes | memoryview, now: float) -> None:
        """Take one WebSocket message. Given as a view, it is handed on as views: no byte of a body is copied here.

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
                self._on_head(stream_id, bytes(message[position:end]), flags)
            elif kind == OPEN:
                self._on_open(stream_id, bytes(message[position:end]), flags)
            elif kind > HEAD:
                self._on_stream_frame(kind, flags, stream_id, bytes(message[position:end]))
            else:
                self._on_session_frame(kind, stream_id, bytes(message[position:end]))
            position = end
        if self.parked_bytes > self.parked_limit:
            self._shed()

    # ---- frames of a stream --------------------------------------------------------------------------------------

    def _on_data(self, stream: Stream, data: bytes | memoryview, flags: int) -> None:
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

    def _on_session_frame(self, kind: int, stream_id: int, payload: bytes) -> None:
        """Any frame below OPEN: only the next layer knows them."""
        raise LocalMisuse(f"{NAMES[kind]} came to a Receiver that is no Session")


class _NoSink:
    """Stands in until the owner's `on_open` has set the real sink."""

    def on_reset(self, stream: Stream, code: int) -> None:
        """A stream that nobody took has nobody to tell."""

    def on_head(self, stream: Stream, payload: bytes, flags: int) -> None:
        raise LocalMisuse(_NOBODY)

    def on_data(self, stream: Stream, data: bytes | memoryview, end: bool) -> None:
        raise LocalMisuse(_NOBODY)

    def on_writable(self, stream: Stream) -> None:
        raise LocalMisuse(_NOBODY)


_NOBODY: Final = "the stream has no sink; on_open must set one or reset it"
_NO_SINK: Final = _NoSink()
