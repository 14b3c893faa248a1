"""The books of a session: the credit that its peer has, for streams that are open, parked, or no more."""

from __future__ import annotations

from typing import Final

from platformctl.errors import SessionError
from platformctl.wire import frames
from platformctl.wire.frames import END, FLAG_END, NAMES, RESET, SLOW_CONSUMER, U32, WINDOW
from platformctl.wire.sender import Sender
from platformctl.wire.stream import Owner, Stream
from platformctl.wire.windows import SESSION_CAP, SESSION_INITIAL, ReceiveWindow

# Streams that we reset and whose last frames may still be on their way.
MAX_LINGERING: Final = 4096
# What readers that stalled may hold together, in bytes.
PARKED_LIMIT: Final = 64 * 1024 * 1024


class Ledger(Sender):
    """Second layer of a Session (see session.py)."""

    __slots__ = ("_evicted", "_lingering", "_prepaid", "now", "parked_bytes", "parked_limit", "rtt", "window")

    def __init__(self, role: int, owner: Owner, now: float) -> None:
        super().__init__(role, owner)
        self.now = now
        self.rtt = 0.0
        self.window = ReceiveWindow(SESSION_INITIAL, SESSION_CAP)
        self.parked_bytes = 0
        self.parked_limit = PARKED_LIMIT
        self._prepaid: dict[int, Stream] = {}  # parked streams, closed ones too, whose bytes the session got back
        self._lingering: dict[int, int] = {}
        self._evicted = 0  # the highest id that left _lingering for lack of room

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
        while self.parked_bytes > self.parked_limit:
            slowest = max(self._prepaid.values(), key=lambda stream: stream.prepaid)
            slowest.reset(SLOW_CONSUMER)
            slowest.sink.on_reset(slowest, SLOW_CONSUMER)
