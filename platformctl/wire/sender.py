"""The sending side of a session: what waits to go out, and in which order it goes.

Three queues, in this order in each message: control frames, which overtake everything; heads and small data, in the
order of the calls; then streams with queued data in turns of one DATA frame, so that no stream stalls another.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from platformctl.wire import frames
from platformctl.wire.frames import (
    DATA,
    FLAG_END,
    FLAG_TRAILERS,
    GOAWAY,
    HEAD,
    HEADER,
    HEADER_SIZE,
    MAX_DATA,
    NO_ERROR,
    OVERLOADED,
    SUPERSEDED,
)
from platformctl.wire.states import CLOSED, NEXT, REQ_DATA, REQ_END, RSP_DATA, RSP_END
from platformctl.wire.stream import LOW, Owner, Stream
from platformctl.wire.windows import SESSION_INITIAL

HUB: Final = 0
AGENT: Final = 1

# Control bytes that may wait for a peer that does not read; PING floods end here.
MAX_CONTROL_BACKLOG: Final = 1024 * 1024
# The shares of one message: control, then heads and small data, then turns. The largest message is their sum, plus one
# DATA frame and one block of trailers over the last: below MAX_MESSAGE.
CONTROL_TARGET: Final = 128 * 1024
MESSAGE_TARGET: Final = 512 * 1024
# The unit in which control frames can overtake data.
SEND_BUDGET: Final = 256 * 1024

# A GOAWAY that leaves the streams alone keeps its place after the last OPEN; any other is the end, and overtakes.
ORDERLY: Final = frozenset({NO_ERROR, SUPERSEDED, OVERLOADED})

Parts = list[bytes | memoryview]


class Sender:
    """First layer of a Session (see session.py): one object, split into files by direction."""

    __slots__ = (
        "_control",
        "_control_bytes",
        "_dirty",
        "_out",
        "_ready",
        "bytes_out",
        "closed",
        "credit_stalls",
        "data_event",
        "end_event",
        "goaway_sent",
        "last_id",
        "out_bytes",
        "overloaded",
        "owner",
        "role",
        "send_credit",
        "streams",
    )

    def __init__(self, role: int, owner: Owner) -> None:
        self.role = role
        self.owner = owner
        self.streams: dict[int, Stream] = {}
        self.last_id = 0
        self.closed = False
        self.goaway_sent = False
        self.overloaded = False
        self.send_credit = SESSION_INITIAL
        self.credit_stalls = 0
        self.bytes_out = 0
        self.out_bytes = 0
        self.data_event = REQ_DATA if role == HUB else RSP_DATA
        self.end_event = REQ_END if role == HUB else RSP_END
        self._control: Parts = []  # overtakes everything
        self._control_bytes = 0
        self._out: Parts = []  # heads and small data, in order, whole frames
        self._ready: deque[Stream] = deque()
        self._dirty = False

    def send_control(self, kind: int, message: dict[str, Any]) -> None:
        """Queue a JSON control frame."""
        self._queue_control(frames.control(kind, message))

    def goaway(self, code: int, reason: str = "", retry_after: float = 0.0) -> None:
        """Say that this end is leaving (SPEC.md, "Drain"). `retry_after` is in seconds.

        An orderly GOAWAY is said once; one that ends the session may still follow it.
        """
        if self.goaway_sent and code in ORDERLY:
            return
        self.goaway_sent = True
        data = frames.control(GOAWAY, {"code": code, "reason": reason[:512], "retry_after": retry_after})
        if code in ORDERLY:
            self._out.append(data)
            self.out_bytes += len(data)
            self._mark_dirty()
        else:
            self._queue_control(data)

    def emit(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Queue a frame that keeps its place among heads and small data."""
        n = len(payload)
        self._out.append(HEADER.pack(n, kind, flags, stream_id) + payload)
        self.out_bytes += HEADER_SIZE + n
        if not self._dirty:
            self._dirty = True
            self.owner.on_dirty()

    def emit_control(self, kind: int, stream_id: int, payload: bytes) -> None:
        """Queue a frame that overtakes heads and data."""
        self._queue_control(HEADER.pack(len(payload), kind, 0, stream_id) + payload)

    def _queue_control(self, data: bytes) -> None:
        self._control.append(data)
        self._control_bytes += len(data)
        if self._control_bytes > MAX_CONTROL_BACKLOG:
            self.overloaded = True  # the peer makes us answer and reads nothing: `tick` ends this session
        if not self._dirty:
            self._dirty = True
            self.owner.on_dirty()

    def schedule(self, stream: Stream) -> None:
        """Give a stream with queued data its place in the round."""
        if not stream.scheduled:
            stream.scheduled = True
            self._ready.append(stream)
            self._mark_dirty()

    def forget(self, stream: Stream) -> None:
        """Take a closed stream off the books; its sink may still hold and later consume what it got."""
        self.streams.pop(stream.id, None)
        if stream.queue is not None:
            stream.queue = None
            stream.queued = 0
            stream.trailers = None
            if stream.scheduled:  # a reset: it must not wait, with all that its sink holds, for a turn it will not take
                stream.scheduled = False
                self._ready.remove(stream)

    @property
    def has_more(self) -> bool:
        """True when `data_to_send` stopped at its budget and would give more at once."""
        return bool(self._out or self._control) or (bool(self._ready) and self.send_credit > 0)

    def data_to_send(self, control_only: bool = False) -> Parts:
        """The next message as a list of parts, empty when nothing can go: control, heads and small data, then turns.

        `control_only`: the connection is blocked: only what must overtake data.
        """
        self._dirty = False
        parts: Parts = []
        if self._control:
            parts, self._control, taken = _split(self._control, self._control_bytes, CONTROL_TARGET)
            self._control_bytes -= taken
            self.bytes_out += taken
        if control_only:
            return parts
        if self._out:
            out, self._out, taken = _split(self._out, self.out_bytes, MESSAGE_TARGET)
            self.out_bytes -= taken
            self.bytes_out += taken
            if parts:
                parts += out
            else:
                parts = out
        if self._ready:
            self._take_turns(parts)
        return parts

    def _take_turns(self, parts: Parts) -> None:
        ready = self._ready
        budget = SEND_BUDGET
        # A turn must not overtake its own stream's OPEN, HEAD or small data; `on_writable` may add some at any time.
        while ready and budget > 0 and not self._out:
            if self.send_credit == 0:
                self.credit_stalls += 1
                return
            stream = ready.popleft()
            stream.scheduled = False
            if stream.send_credit == 0:
                self.credit_stalls += 1  # its WINDOW schedules it again
                continue
            sent = self._send_turn(stream, parts)
            budget -= sent
            self.bytes_out += sent
            if stream.queued:
                stream.scheduled = True
                ready.append(stream)
            if stream.blocked and stream.queued <= LOW:
                stream.blocked = False
                stream.sink.on_writable(stream)

    def _send_turn(self, stream: Stream, parts: Parts) -> int:
        """One DATA frame of up to MAX_DATA bytes, with what ends the half when it was the last; returns its cost."""
        size = min(MAX_DATA, stream.queued, stream.send_credit, self.send_credit)
        stream.queued -= size
        stream.send_credit -= size
        self.send_credit -= size
        stream.state = NEXT[stream.state][self.data_event]
        last = stream.end_queued and stream.queued == 0
        trailers = stream.trailers if last else None
        parts.append(HEADER.pack(size, DATA, FLAG_END if last and trailers is None else 0, stream.id))
        _take_chunks(stream, size, parts)
        cost = HEADER_SIZE + size
        if last:
            if trailers is not None:
                parts.append(HEADER.pack(len(trailers), HEAD, FLAG_END | FLAG_TRAILERS, stream.id))
                parts.append(trailers)
                cost += HEADER_SIZE + len(trailers)
            stream.state = NEXT[stream.state][self.end_event]
            if stream.state == CLOSED:
                self.forget(stream)
        return cost

    def _mark_dirty(self) -> None:
        if not self._dirty:
            self._dirty = True
            self.owner.on_dirty()


def _split(queue: Parts, size: int, limit: int) -> tuple[Parts, Parts, int]:
    """(first whole frames up to `limit` bytes, the others, bytes of the first)."""
    if size <= limit:
        return queue, [], size
    taken = 0
    index = 0
    while taken + len(queue[index]) <= limit:
        taken += len(queue[index])
        index += 1
    return queue[:index], queue[index:], taken


def _take_chunks(stream: Stream, size: int, parts: Parts) -> None:
    queue = stream.queue
    assert queue is not None
    while size:
        chunk = queue[0]
        n = len(chunk)
        if n <= size:
            parts.append(chunk)
            queue.popleft()
            size -= n
        else:
            view = memoryview(chunk)
            parts.append(view[:size])
            queue[0] = view[size:]
            size = 0
