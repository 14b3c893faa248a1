"""TCP backends: a stream is a connection, byte for byte, with half-close in both directions."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from platformctl.net.deadlines import NEVER, Deadlines
from platformctl.net.tasks import spawn
from platformctl.net.transports import cut
from platformctl.satellite.discard import DISCARD
from platformctl.satellite.pool import DialError, dial
from platformctl.wire import frames

if TYPE_CHECKING:
    from platformctl.satellite.exports import Export
    from platformctl.wire.stream import Stream

WRITE_HIGH: Final = 256 * 1024
IDLE_CHECKS: Final = 4

_CONNECTED: Final = frames.head_payload(200, frames.UNKNOWN_LENGTH, b"")


class TcpBackend(asyncio.Protocol):
    """One backend connection and the sink of its stream."""

    __slots__ = (
        "_blocked",
        "_early",
        "_end",
        "_ended",
        "_export",
        "_idle",
        "_owed",
        "_seen",
        "_tail",
        "deadline",
        "deadlines",
        "stream",
        "transport",
    )

    def __init__(self, export: Export, stream: Stream, deadlines: Deadlines) -> None:
        self.stream: Stream | None = stream
        self.deadlines = deadlines
        self.deadline = NEVER
        self.transport: asyncio.Transport | None = None
        self._export = export
        self._early: list[bytes] = []
        self._end = False  # the client has said everything
        self._ended = False  # so has the backend
        self._blocked = False
        self._owed = 0
        self._seen = False
        self._idle = 0
        self._tail = 0
        stream.sink = self
        spawn(self._dial(), "backend-dial")

    async def _dial(self) -> None:
        try:
            await dial(self._export, lambda: self)
        except DialError as e:
            if self.stream is not None:
                self.stream.reset(e.code)
                self.stream = None

    # ---- sink ----------------------------------------------------------------------------------------------------

    def on_head(self, stream: Stream, payload: bytes, flags: int) -> None:
        stream.reset(frames.PROTOCOL)  # a TCP stream has no trailers
        self._close(abort=True)

    def on_data(self, stream: Stream, data: bytes | memoryview, end: bool) -> None:
        self._seen = True
        self._end = self._end or end
        if self.transport is None:
            if data:
                self._early.append(bytes(data))
            return
        self._write(stream, data)
        if end:
            self._write_end()

    def on_reset(self, stream: Stream, code: int) -> None:
        self._close(abort=True)

    def on_writable(self, stream: Stream) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def _write(self, stream: Stream, data: bytes | memoryview) -> None:
        if not data or self.transport is None:
            return
        self.transport.write(data)
        if self._blocked:
            self._owed += len(data)
        else:
            stream.consumed(len(data))

    def _write_end(self) -> None:
        if self.transport is not None:
            if self._ended or not self.transport.can_write_eof():
                self.transport.close()
            else:
                self.transport.write_eof()

    # ---- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        stream = self.stream
        if stream is None or stream.closed:
            self._close(abort=True)
            return
        assert self.transport is not None
        self.transport.set_write_buffer_limits(WRITE_HIGH)
        self.deadlines.members.add(self)
        self.deadline = time.monotonic() + self._export.spec.timeouts.idle / IDLE_CHECKS
        stream.send_head(_CONNECTED)
        early, self._early = self._early, []
        for data in early:
            self._write(stream, data)
        if self._end:
            self._write_end()

    def data_received(self, data: bytes) -> None:
        self._seen = True
        if self.stream is not None and not self.stream.send_data(data) and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self.stream is None:
            return False
        self.stream.send_end()
        return not self._end  # half-closed: the client may go on sending

    def pause_writing(self) -> None:
        self._blocked = True
        if self.stream is not None:
            self.stream.park()

    def resume_writing(self) -> None:
        self._blocked = False
        owed, self._owed = self._owed, 0
        if self.stream is not None:
            self.stream.unpark()
            if owed:
                self.stream.consumed(owed)

    def connection_lost(self, exc: Exception | None) -> None:
        self.deadlines.members.discard(self)
        stream, self.stream = self.stream, None
        if stream is None:
            return
        if self._ended:
            # What the backend said may still be on its way; only what the client says now has no reader.
            stream.sink = DISCARD
            if self._owed:
                stream.consumed(self._owed)
        else:
            stream.reset(frames.BACKEND_CLOSED)

    def on_deadline(self, now: float) -> None:
        self.deadline = now + self._export.spec.timeouts.idle / IDLE_CHECKS
        # What waits for the hub's credit is not this backend's silence: the hub sees its client, and judges.
        if self._seen or self._waits_for_hub() or self._backend_reads():
            self._seen = False
            self._idle = 0
            return
        self._idle += 1
        if self._idle >= IDLE_CHECKS:
            if self.stream is not None:
                self.stream.reset(frames.IDLE_TIMEOUT)
            self._close(abort=True)

    def _waits_for_hub(self) -> bool:
        return self.stream is not None and self.stream.queued > 0

    def _backend_reads(self) -> bool:
        """Whether some of what waits for the backend has gone out since the last call."""
        assert self.transport is not None
        tail, self._tail = self._tail, self.transport.get_write_buffer_size()
        return self._tail < tail

    def _close(self, *, abort: bool) -> None:
        self.stream = None
        self._early = []
        if self.transport is not None:
            if abort:
                cut(self.transport)
            else:
                self.transport.close()
