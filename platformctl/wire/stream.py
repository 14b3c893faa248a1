"""One exchange in a tunnel: its state, its credit, and what waits to be sent."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from platformctl.errors import LocalMisuse
from platformctl.wire import frames, states
from platformctl.wire.states import CLOSED, INVALID, NEXT
from platformctl.wire.windows import INITIAL, STREAM_CAP, ReceiveWindow

if TYPE_CHECKING:
    from platformctl.wire.session import Session

# Up to this size a chunk joins the current message at once; a longer one waits for its stream's turn.
DIRECT: Final = 4096
# Above this much unsent, small chunks take turns too: a blocked connection must not make it first come, first served.
DIRECT_BACKLOG: Final = 256 * 1024
# A source should pause above HIGH queued bytes; `on_writable` comes when the queue is down to LOW.
HIGH: Final = 256 * 1024
LOW: Final = 64 * 1024
# Unsent frames above this: the peer makes us answer and reads nothing, and the session ends.
MAX_BACKLOG: Final = 16 * 1024 * 1024


class Sink(Protocol):
    """Where a stream delivers.

    `data` may be a view that is valid only during the call: whoever keeps it makes a copy. Calls come in stream order,
    none of a half after its end, and none at all after `on_reset` or the stream's own `reset`. `on_reset` may still
    come after both ends when bytes are held for a parked reader (SLOW_CONSUMER).
    """

    def on_head(self, stream: Stream, payload: bytes, flags: int) -> None: ...
    def on_data(self, stream: Stream, data: bytes | memoryview, end: bool) -> None: ...
    def on_reset(self, stream: Stream, code: int) -> None: ...
    def on_writable(self, stream: Stream) -> None: ...


class Owner(Protocol):
    """Who runs the session: the hub's tunnel or the agent's."""

    def on_control(self, kind: int, message: dict[str, Any]) -> None: ...
    def on_open(self, stream: Stream, payload: bytes, end: bool) -> None: ...
    def on_dirty(self) -> None: ...
    def on_rtt(self, seconds: float) -> None: ...


class Stream:
    """One end of a stream. The sink's duty: call `consumed(n)` for every byte of `on_data`, once it is passed on.

    Attributes:
        id: 1, 2, 3 … in the order of opening; never reused in a session.
        state: see states.py.
        sink: the object that gets what the peer sends.
        queued: bytes accepted by `send_data` that still wait for credit or for their turn.
    """

    __slots__ = (
        "blocked",
        "end_queued",
        "id",
        "interims",
        "parked",
        "prepaid",
        "queue",
        "queued",
        "scheduled",
        "send_credit",
        "session",
        "sink",
        "state",
        "trailers",
        "window",
    )

    def __init__(self, session: Session, stream_id: int, sink: Sink) -> None:
        self.session = session
        self.id = stream_id
        self.sink = sink
        self.state = states.REQ_OPEN_RSP_HEAD
        self.send_credit = INITIAL
        self.window = ReceiveWindow(INITIAL, STREAM_CAP)
        self.queue: deque[bytes | memoryview] | None = None
        self.queued = 0
        self.end_queued = False
        self.trailers: bytes | None = None
        self.scheduled = False
        self.blocked = False
        self.parked = False
        self.prepaid = 0  # held bytes that the session got back already, because the reader stalled
        self.interims = 0

    @property
    def closed(self) -> bool:
        return self.state == CLOSED

    def send_head(self, payload: bytes, flags: int = 0) -> None:
        """Send a response head (agent): interim with FLAG_INTERIM, with no body with FLAG_END.

        Interim heads beyond MAX_INTERIM are dropped: they only inform, and nothing else would bound them.
        """
        if len(payload) > frames.MAX_HEAD:
            raise LocalMisuse(f"stream {self.id}: a head of {len(payload)} bytes")
        if flags & frames.FLAG_INTERIM:
            event = states.RSP_INTERIM
            self.interims += 1
            if self.interims > frames.MAX_INTERIM:
                return
        elif flags & frames.FLAG_END:
            event = states.RSP_HEAD_END
        else:
            event = states.RSP_HEAD
        state = NEXT[self.state][event]
        if state == INVALID:
            self._misused(states.EVENT_NAMES[event])
        self.state = state
        self.session.emit(frames.HEAD, flags, self.id, payload)
        if state == CLOSED:
            self.session.forget(self)

    def send_data(self, data: bytes, end: bool = False) -> bool:
        """Send body bytes; False when the source should pause until `on_writable`."""
        session = self.session
        n = len(data)
        if self.queued or (
            n and (n > DIRECT or n > self.send_credit or n > session.send_credit or session.out_bytes > DIRECT_BACKLOG)
        ):
            return self._enqueue(data, end)
        state = self.state
        if n:
            state = NEXT[state][session.data_event]
        if end:
            state = NEXT[state][session.end_event]  # INVALID is the row of CLOSED, where nothing is valid
        if state == INVALID:
            self._misused("data or end")
        self.state = state
        if n:
            self.send_credit -= n
            session.send_credit -= n
            session.emit(frames.DATA, frames.FLAG_END if end else 0, self.id, data)
        elif end:
            session.emit(frames.END, 0, self.id, data)
        if state == CLOSED and end:
            session.forget(self)
        return True

    def send_trailers(self, block: bytes) -> None:
        """End this half with trailer fields, after what is queued. `block` is checked `Name: value CRLF` lines."""
        if len(block) > frames.MAX_HEAD:
            raise LocalMisuse(f"stream {self.id}: trailers of {len(block)} bytes")
        session = self.session
        if self.queued:
            if self.end_queued:
                self._misused("trailers after the end")
            self.trailers = block
            self.end_queued = True
            return
        state = NEXT[self.state][session.end_event]
        if state == INVALID:
            self._misused("trailers")
        self.state = state
        session.emit(frames.HEAD, frames.FLAG_END | frames.FLAG_TRAILERS, self.id, block)
        if state == CLOSED:
            session.forget(self)

    def send_end(self) -> None:
        """Half-close: no more bytes from this end."""
        self.send_data(b"", True)

    def reset(self, code: int) -> None:
        """Close both halves at once and give up what the sink still holds.

        On a stream that has ended by itself only the second part is left to do, so late clean-ups need no check.
        """
        session = self.session
        if self.state != CLOSED:
            self.state = CLOSED
            # Not a control frame: it must not overtake this stream's own OPEN or HEAD.
            session.emit(frames.RESET, 0, self.id, frames.U32.pack(code))
            if session.out_bytes > MAX_BACKLOG:
                session.overloaded = True
            session.linger(self)
            session.forget(self)
        if self.window.held:
            session.settle(self)

    def consumed(self, n: int) -> None:
        """`n` bytes of `on_data` have been passed on; gives credit back to the peer."""
        session = self.session
        window = self.window
        if n > window.held:
            n = window.held  # a reset has settled the rest
        if self.prepaid:
            paid = min(n, self.prepaid)
            session.prepay(self, -paid)
            if n > paid:
                session.give_back(n - paid)
        else:
            session.give_back(n)
        if self.state == CLOSED:
            window.held -= n
            return
        credit = window.give_back(n, session.now, session.rtt)
        if credit:
            session.emit_control(frames.WINDOW, self.id, frames.U32.pack(credit))

    def park(self) -> None:
        """The reader stalled: its bytes stop counting against the session, so that it stalls no other stream."""
        if not self.parked:
            self.parked = True
            held = self.window.held - self.prepaid
            if held:
                self.session.prepay(self, held)
                self.session.give_back(held)

    def unpark(self) -> None:
        """The reader reads again; what comes from now on counts as everybody's."""
        self.parked = False

    def _enqueue(self, data: bytes, end: bool) -> bool:
        if self.end_queued:
            self._misused("data after its end")
        # The state is advanced when the bytes go out; here only the order of calls is checked.
        if NEXT[self.state][self.session.data_event] == INVALID:
            self._misused("data")
        if self.queue is None:
            self.queue = deque()
        if data:
            self.queue.append(data)
            self.queued += len(data)
        self.end_queued = end
        self.session.schedule(self)
        if self.queued > HIGH:
            self.blocked = True
            return False
        return True

    def _misused(self, what: str) -> NoReturn:
        raise LocalMisuse(f"stream {self.id}: {what} in {states.STATE_NAMES[self.state]}")
