"""HTTP backends: a stream's request goes out on a pooled connection, the response comes back strictly parsed."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from platformctl.errors import FrameError, HeadError
from platformctl.net.deadlines import NEVER
from platformctl.net.transports import needs_care, read_on
from platformctl.satellite.discard import DISCARD
from platformctl.wire import frames
from platformctl.wire.chunked import ChunkedDecoder
from platformctl.wire.frames import FLAG_END, FLAG_INTERIM, UNKNOWN_LENGTH, head_payload
from platformctl.wire.heads import ResponseHead, clean_trailers, parse_response

if TYPE_CHECKING:
    from platformctl.satellite.pool import BackendPool
    from platformctl.wire.stream import Stream

log = logging.getLogger("platformctl.satellite.backend")

MAX_RESPONSE_HEAD: Final = 60 * 1024  # with our own fields it must fit into a HEAD frame
WRITE_HIGH: Final = 256 * 1024
REMEMBERED: Final = 256
IDLE_CHECKS: Final = 4
# A connection that is being closed has this long; TLS may wait for a farewell.
CLOSING_SECONDS: Final = 5.0

_IDLE: Final = 0
_HEAD: Final = 1
_FIXED: Final = 2
_CHUNKED: Final = 3
_UNTIL_CLOSE: Final = 4
_RAW: Final = 5

_REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})  # RFC 9110 9.2.2


class HttpCall:
    """One request on its way to a connection; the stream's sink until a connection takes over.

    Attributes:
        head: the request head as the backend gets it.
        body_length: 0 none, n exact, UNKNOWN_LENGTH chunked.
        early: body bytes that came before a connection was there; bounded by the stream's credit.
        fresh: only a new connection will do: a kept one was found dead.
        deadline: while it waits for a connection; see net/deadlines.
    """

    __slots__ = (
        "abandoned",
        "body_length",
        "deadline",
        "early",
        "early_end",
        "fresh",
        "head",
        "method",
        "pool",
        "stream",
        "upgrade",
    )

    def __init__(
        self, pool: BackendPool, stream: Stream, method: bytes, head: bytes, body_length: int, upgrade: bool
    ) -> None:
        self.pool = pool
        self.stream = stream
        self.method = method
        self.head = head
        self.body_length = body_length
        self.upgrade = upgrade
        self.early: list[bytes] = []
        self.early_end: bytes | None = None
        self.fresh = False
        self.abandoned = False
        self.deadline = NEVER

    def on_head(self, stream: Stream, payload: bytes, flags: int) -> None:
        self.early_end = payload

    def on_data(self, stream: Stream, data: bytes | memoryview, end: bool) -> None:
        if data:
            self.early.append(bytes(data))
        if end:
            self.early_end = b""

    def on_reset(self, stream: Stream, code: int) -> None:
        self._abandon()

    def on_writable(self, stream: Stream) -> None:
        """Nothing has been sent on this stream yet."""

    def on_deadline(self, now: float) -> None:
        self.deadline = NEVER
        self.fail(frames.OVERLOADED)

    def fail(self, code: int) -> None:
        if not self.abandoned:
            self._abandon()
            self.stream.reset(code)

    def _abandon(self) -> None:
        self.abandoned = True
        self.early = []
        self.pool.inflight -= 1
        self.pool.forget(self)


# Heads by their bytes: a backend that repeats itself is parsed once (hub/responses does the same at the other end).
_known: Final[dict[tuple[bytes, bool], tuple[ResponseHead, bytes]]] = {}


class HttpBackend:
    """One connection to an http backend; at most one call at a time. Also the sink of the call's stream."""

    __slots__ = (
        "_blocked",
        "_buffer",
        "_call",
        "_chunked_out",
        "_decoder",
        "_ended",
        "_idle",
        "_keep",
        "_left",
        "_out_left",
        "_owed",
        "_request_done",
        "_seen",
        "_state",
        "_tail",
        "_used",
        "connected",
        "deadline",
        "pool",
        "stream",
        "transport",
    )

    def __init__(self, pool: BackendPool) -> None:
        self.pool = pool
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set in connection_made
        self.stream: Stream | None = None
        self.deadline = NEVER
        self.connected = False  # it ever was
        self._call: HttpCall | None = None
        self._state = _IDLE
        self._buffer = b""
        self._left = 0
        self._decoder: ChunkedDecoder | None = None
        self._keep = True
        self._blocked = False
        self._owed = 0
        self._chunked_out = False
        self._out_left = 0
        self._request_done = True
        self._used = False
        self._seen = False
        self._ended = False
        self._idle = 0
        self._tail = 0

    # ---- calls ---------------------------------------------------------------------------------------------------

    def start(self, call: HttpCall) -> None:
        """Send a call's request."""
        stream = call.stream
        self._call = call
        self.stream = stream
        stream.sink = self
        self._state = _HEAD
        self._keep = True
        self._owed = 0
        length = call.body_length
        self._chunked_out = length == UNKNOWN_LENGTH and not call.upgrade
        self._out_left = length
        self._request_done = length == 0 and not call.upgrade
        self._seen = False
        timeouts = self.pool.export.spec.timeouts
        if self._request_done or call.upgrade:
            self.deadline = time.monotonic() + timeouts.response
        else:
            self._idle = 0
            self.deadline = time.monotonic() + timeouts.idle / IDLE_CHECKS
        self.transport.write(call.head)
        if call.early or call.early_end is not None:
            early, call.early = call.early, []
            end, call.early_end = call.early_end, None
            for data in early:
                self.on_data(stream, data, False)
            if end is not None and self.stream is stream:
                if end:
                    self.on_head(stream, end, frames.FLAG_END)
                else:
                    self.on_data(stream, b"", True)

    # ---- sink: the request body ----------------------------------------------------------------------------------

    def on_head(self, stream: Stream, payload: bytes, flags: int) -> None:
        """Trailers of the request."""
        try:
            trailers = clean_trailers(payload)
        except FrameError:
            self._fail(frames.PROTOCOL)
            return
        if self._chunked_out:
            self.transport.write(b"0\r\n" + trailers + b"\r\n")
        elif self._state != _RAW and self._out_left > 0:
            self._fail(frames.PROTOCOL)
            return
        self._on_request_end()

    def on_data(self, stream: Stream, data: bytes | memoryview, end: bool) -> None:
        n = len(data)
        self._seen = True
        if self._chunked_out:
            data = b"".join((b"%x\r\n" % n, data, b"\r\n")) if n else b""
            if end:
                data += b"0\r\n\r\n"
        elif self._state != _RAW and self._out_left >= 0:
            self._out_left -= n
            if self._out_left < 0 or (end and self._out_left):
                self._fail(frames.PROTOCOL)
                return
        if data:
            self.transport.write(data)
        if n:
            if self._blocked:
                self._owed += n
            else:
                stream.consumed(n)
        if end:
            self._on_request_end()

    def _on_request_end(self) -> None:
        self._request_done = True
        if self._state == _HEAD:
            self.deadline = time.monotonic() + self.pool.export.spec.timeouts.response
        elif self._state != _RAW:
            return
        elif self._ended or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.transport.write_eof()

    def on_reset(self, stream: Stream, code: int) -> None:
        """The client is gone, or the tunnel: the backend must see it."""
        self._forget()
        self.transport.abort()

    def on_writable(self, stream: Stream) -> None:
        self._resume()

    def _resume(self) -> None:
        if needs_care(self.transport):
            asyncio.get_running_loop().call_soon(self._read_on)
        else:
            self.transport.resume_reading()

    def _read_on(self) -> None:
        stream = self.stream
        if not self.transport.is_closing() and (stream is None or not stream.blocked):
            read_on(self.transport)

    # ---- asyncio.Protocol: the response --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.connected = True
        self.transport.set_write_buffer_limits(WRITE_HIGH)
        self.pool.deadlines.members.add(self)

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

    def data_received(self, data: bytes) -> None:
        self._seen = True
        state = self._state
        if state == _FIXED:
            self._on_fixed(data)
        elif state == _HEAD:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            self._on_head_bytes(data)
        elif state == _CHUNKED:
            self._on_chunked(data)
        elif state in (_UNTIL_CLOSE, _RAW):
            self._send(data, False)
        else:
            self.transport.abort()  # a backend that speaks out of turn: its bytes would be the next call's answer

    def eof_received(self) -> bool:
        if self._state != _RAW or self.stream is None:
            return False
        self._ended = True
        self.stream.send_end()
        # Half-closed: the client may go on sending. TLS cannot do that (RFC 8446 6.1).
        return not self._request_done and self.transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.deadlines.members.discard(self)
        stream = self.stream
        call = self._call
        if stream is not None and call is not None:
            if self._state == _UNTIL_CLOSE and exc is None:
                self._finish_stream(stream)
                stream.send_end()
            elif self._state == _RAW and (self._ended or exc is None):
                ended = self._ended
                self._finish_stream(stream)
                if not ended:
                    stream.send_end()
            elif self._state == _HEAD and not self._seen and self._used and self._may_repeat(call):
                self._retry(call)
            else:
                self._fail(frames.BACKEND_CLOSED)
        self.pool.lost(self)

    def _may_repeat(self, call: HttpCall) -> bool:
        """A kept connection may be closed by the backend as we send: RFC 9110 9.2.2 lets idempotent requests go
        again.
        """
        return call.method in _REPEATABLE and call.body_length == 0 and not call.fresh and not call.upgrade

    def _retry(self, call: HttpCall) -> None:
        self.stream = None
        self._call = None
        self.deadline = NEVER
        call.fresh = True
        call.stream.sink = call
        self.pool.run(call)

    def _on_head_bytes(self, data: bytes) -> None:
        while data and self._state == _HEAD and self.stream is not None:
            data = self._on_one_head(data)

    def _on_one_head(self, data: bytes) -> bytes:
        """Take a head off `data`; what is left when it was an interim one, for another head follows."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = data
            if len(data) > MAX_RESPONSE_HEAD:
                self._bad("the response head is too large")
            return b""
        end += 4
        call = self._call
        stream = self.stream
        assert call is not None and stream is not None
        raw = data[:end]
        try:
            head, payload = self._parse(raw, call)
        except HeadError as e:
            self._bad(str(e))
            return b""
        rest = data[end:] if end != len(data) else b""
        if head.status < 200:
            return self._on_interim(head, payload, rest)
        self._used = True
        self._keep = head.keep_alive
        if head.body_length == 0:
            stream.send_head(payload, FLAG_END)
            self._done(rest)
        else:
            self._start_body(stream, head, payload, rest)
        return b""

    def _start_body(self, stream: Stream, head: ResponseHead, payload: bytes, rest: bytes) -> None:
        timeouts = self.pool.export.spec.timeouts
        stream.send_head(payload)
        self._idle = 0
        self.deadline = time.monotonic() + timeouts.idle / IDLE_CHECKS
        if head.until_close:
            self._state = _UNTIL_CLOSE
            if rest:
                self._send(rest, False)
        elif head.body_length == UNKNOWN_LENGTH:
            self._state = _CHUNKED
            self._decoder = ChunkedDecoder()
            if rest:
                self._on_chunked(rest)
        else:
            self._state = _FIXED
            self._left = head.body_length
            if rest:
                self._on_fixed(rest)

    def _parse(self, raw: bytes, call: HttpCall) -> tuple[ResponseHead, bytes]:
        key = (raw, call.method == b"HEAD")
        known = _known.get(key)
        if known is None:
            if len(raw) > MAX_RESPONSE_HEAD:
                raise HeadError(502, "bad-backend-response", "the response head is too large")
            head = parse_response(raw, call.method)
            block = head.block
            length = head.body_length
            if head.status == 101:
                block += b"Upgrade: %b\r\n" % head.upgrade
            elif head.status in (204, 304) or call.method == b"HEAD":
                length = head.declared
            known = (head, head_payload(head.status, length, block))
            if len(_known) >= REMEMBERED:
                _known.clear()
            _known[key] = known
        return known

    def _on_interim(self, head: ResponseHead, payload: bytes, rest: bytes) -> bytes:
        stream = self.stream
        call = self._call
        assert stream is not None and call is not None
        if head.status == 101:
            if not call.upgrade:
                self._bad("a 101 that nobody asked for")
                return b""
            self._state = _RAW
            self._keep = False
            self._idle = 0
            self.deadline = time.monotonic() + self.pool.export.spec.timeouts.idle / IDLE_CHECKS
            stream.send_head(payload)
            if rest:
                self._send(rest, False)
            return b""
        stream.send_head(payload, FLAG_INTERIM)
        return rest

    def _on_fixed(self, data: bytes) -> None:
        stream = self.stream
        assert stream is not None
        left = self._left - len(data)
        if left > 0:
            self._left = left
            self._send(data, False)
            return
        rest = data[left:] if left else b""
        if left:
            data = data[:left]
        stream.send_data(data, True)
        self._done(rest)

    def _on_chunked(self, data: bytes) -> None:
        stream = self.stream
        decoder = self._decoder
        assert stream is not None and decoder is not None
        try:
            pieces = decoder.feed(data)
            trailers = clean_trailers(decoder.trailers) if decoder.done else b""
        except (HeadError, FrameError) as e:
            self._bad(str(e))
            return
        last = len(pieces) - 1 if decoder.done and not trailers else -1
        for index, piece in enumerate(pieces):
            self._send(piece, index == last)
        if decoder.done:
            if trailers:
                stream.send_trailers(trailers)
            elif not pieces:
                stream.send_end()
            self._decoder = None
            self._done(decoder.rest)

    def _send(self, data: bytes, end: bool) -> None:
        stream = self.stream
        if stream is not None and not stream.send_data(data, end):
            self.transport.pause_reading()

    # ---- ends ----------------------------------------------------------------------------------------------------

    def _done(self, rest: bytes) -> None:
        """The response is complete."""
        stream = self.stream
        assert stream is not None
        self._finish_stream(stream)
        if stream.blocked:
            # Its tail is still queued: this connection may read on for the next call.
            self._resume()
        if rest:
            log.warning("the backend sent more than its response", extra={"service": self.pool.export.name})
        if rest or not self._keep:
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # the rest of a request that was answered early: nobody may ever read it
            else:
                self.deadline = time.monotonic() + CLOSING_SECONDS
                self.transport.close()
            return
        self.pool.release(self)

    def _finish_stream(self, stream: Stream) -> None:
        if not self._request_done or self._blocked:
            self._keep = False
        if self._owed:
            stream.consumed(self._owed)
            self._owed = 0
        stream.sink = DISCARD
        self._forget()

    def _forget(self) -> None:
        if self.stream is not None:
            self.pool.inflight -= 1
        self.stream = None
        self._call = None
        self._state = _IDLE
        self._buffer = b""
        self._decoder = None
        self.deadline = NEVER

    def _fail(self, code: int) -> None:
        stream = self.stream
        if stream is not None:
            self._forget()
            stream.reset(code)
        self.transport.abort()

    def _bad(self, why: str) -> None:
        log.warning("bad response from the backend", extra={"service": self.pool.export.name, "reason": why})
        self._fail(frames.BACKEND_PROTOCOL)

    def on_deadline(self, now: float) -> None:
        self.deadline = NEVER
        state = self._state
        stream = self.stream
        call = self._call
        if stream is None or call is None:
            if self.transport.is_closing():
                self.transport.abort()
            else:
                self.deadline = now + CLOSING_SECONDS
                self.transport.close()
            return
        if state == _HEAD and (self._request_done or call.upgrade):
            self._fail(frames.RESPONSE_TIMEOUT)
            return
        # What waits for the hub's credit is not this backend's silence: the hub sees its client, and judges.
        if self._seen or stream.queued or self._backend_reads():
            self._seen = False
            self._idle = 0
        else:
            self._idle += 1
        if self._idle >= IDLE_CHECKS:
            self._fail(frames.IDLE_TIMEOUT)
        else:
            self.deadline = now + self.pool.export.spec.timeouts.idle / IDLE_CHECKS

    def _backend_reads(self) -> bool:
        """Whether some of what waits for the backend has gone out since the last call."""
        tail, self._tail = self._tail, self.transport.get_write_buffer_size()
        return self._tail < tail
