"""The server side of an HTTP/1.1 connection: heads, bodies, pipelining, timeouts; one exchange at a time.

Bytes go to the current `Exchange` (hub/ingress proxies, net/asgi answers locally); what the client sends beyond it
waits unparsed, with reading paused, so a pipeline costs no more memory than one read.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import aiofastnet

from platformctl.errors import HeadError
from platformctl.net.dates import http_date
from platformctl.net.deadlines import NEVER, Deadlines
from platformctl.net.problem import render_http1
from platformctl.net.transports import cut, needs_care, read_on
from platformctl.wire.chunked import ChunkedDecoder
from platformctl.wire.frames import UNKNOWN_LENGTH
from platformctl.wire.heads import MAX_REQUEST_HEAD, RequestHead, parse_request

if TYPE_CHECKING:
    from collections.abc import Callable

# Pipelined bytes that may wait behind an exchange before reading pauses.
MAX_PIPELINED: Final = 64 * 1024
# How much of a body that nobody wants is read to keep a connection (Go's net/http takes the same).
MAX_DISCARDED: Final = 256 * 1024
# How long a client has to read the last answer and close, while what it still sends is discarded (RFC 9112 9.6).
LINGER_SECONDS: Final = 5.0
# nginx and envoy buffer about as much per connection before they push back.
WRITE_HIGH: Final = 256 * 1024

_HEAD: Final = 0
_FIXED: Final = 1
_CHUNKED: Final = 2
_RAW: Final = 3
_DISCARD: Final = 4


class Exchange(Protocol):
    """One request and its response, seen from the connection. `answered`: `finish` has been called for this request."""

    answered: bool

    def on_body(self, data: bytes) -> None: ...
    def on_body_end(self, trailers: bytes) -> None: ...
    def on_bad_body(self, error: HeadError) -> None: ...
    def on_client_writable(self) -> None: ...
    def on_client_blocked(self) -> None: ...
    def on_gone(self) -> None: ...
    def on_timeout(self, now: float) -> None: ...


class Handler(Protocol):
    """Starts exchanges for one connection."""

    def begin(self, request: RequestHead, raw: bytes) -> Exchange: ...
    def repeat(self) -> Exchange | None: ...
    def adapt(self, raw: bytes) -> Exchange | None: ...
    def closed(self) -> None: ...


@dataclass
class ServerOptions:
    """What all connections of a listener share. Seconds. `draining` answers every request with `Connection: close`."""

    deadlines: Deadlines
    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    draining: bool = False
    connections: set[HttpConnection] = field(default_factory=set)


class HttpConnection:
    """One client connection.

    Attributes:
        memo: the bytes of the last body-less request head, when the handler can repeat it without parsing.
        deadline: see net/deadlines.
        writes_views: the transport copies what it cannot send at once, so it may be given a view that is only lent.
        blocked: the transport's buffer is over its high-water mark.
    """

    __slots__ = (
        "_body_left",
        "_buffer",
        "_careful",
        "_decoder",
        "_discarded",
        "_dispatching",
        "_head_begun",
        "_paused",
        "_state",
        "_unsent",
        "blocked",
        "deadline",
        "exchange",
        "handler",
        "memo",
        "options",
        "peer",
        "secure",
        "transport",
        "writes_views",
    )

    def __init__(self, options: ServerOptions, make_handler: Callable[[HttpConnection], Handler]) -> None:
        self.options = options
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set in connection_made
        self.peer = ""
        self.secure = False
        self.writes_views = False
        self.exchange: Exchange | None = None
        self.blocked = False
        self.deadline = NEVER
        self.memo = b""
        self._state = _HEAD
        self._buffer = b""
        self._body_left = 0
        self._decoder: ChunkedDecoder | None = None
        self._paused = False
        self._careful = False
        self._discarded = 0
        self._unsent = 0
        self._head_begun = False
        self._dispatching = False
        self.handler = make_handler(self)

    # ---- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.transport.set_write_buffer_limits(WRITE_HIGH)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if address else ""
        self.secure = transport.get_extra_info("ssl_object") is not None
        self._careful = needs_care(transport)
        self.writes_views = isinstance(transport, aiofastnet.Transport)
        self.options.connections.add(self)
        self.options.deadlines.members.add(self)
        self.deadline = time.monotonic() + self.options.head_timeout

    @property
    def tls(self) -> ssl.SSLObject | None:
        return self.transport.get_extra_info("ssl_object")  # type: ignore[no-any-return]

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == _HEAD:
            if self.exchange is not None or self.blocked:
                self._hold(data)
            elif not self.memo or self._buffer or not self._repeat(data):
                self._buffer = self._buffer + data if self._buffer else data
                self._advance()
        else:
            self._on_body(data)

    def _repeat(self, data: bytes) -> bool:
        """Whether the handler took `data` as one more head like the last one; there is nothing else in it then."""
        if data == self.memo:
            exchange = self.handler.repeat()
        elif data.find(b"\r\n\r\n") == len(data) - 4:
            exchange = self.handler.adapt(data)
        else:
            return False
        if exchange is None:
            return False
        if not exchange.answered:
            self.exchange = exchange
        return True

    def eof_received(self) -> bool:
        exchange = self.exchange
        if self._state == _RAW and exchange is not None and not self.secure:
            exchange.on_body_end(b"")
            return True  # half-closed: the other direction goes on
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.options.connections.discard(self)
        self.options.deadlines.members.discard(self)
        exchange, self.exchange = self.exchange, None
        self._state = _DISCARD
        if exchange is not None:
            exchange.on_gone()
        self.handler.closed()

    def pause_writing(self) -> None:
        self.blocked = True
        if self.exchange is not None:
            self.exchange.on_client_blocked()

    def resume_writing(self) -> None:
        self.blocked = False
        if self.exchange is not None:
            self.exchange.on_client_writable()
        elif self._state == _HEAD:
            self.resume()
            self._advance()

    # ---- for exchanges -------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Stop reading: the request body has nowhere to go."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            if self._careful:
                asyncio.get_running_loop().call_soon(self._read_on)
            else:
                self.transport.resume_reading()

    def _read_on(self) -> None:
        if not self._paused and not self.transport.is_closing():
            read_on(self.transport)

    def go_raw(self) -> None:
        """An upgrade or CONNECT was accepted: from here on bytes are bytes."""
        self._state = _RAW
        self.deadline = NEVER
        if self._buffer and self.exchange is not None:
            data, self._buffer = self._buffer, b""
            self.exchange.on_body(data)
        self.resume()

    @property
    def reading_body(self) -> bool:
        """The request body has not been read to its end yet."""
        return self._state in (_FIXED, _CHUNKED)

    @property
    def can_keep(self) -> bool:
        """The connection may stay after an answer that comes now: of the body, if any, only a little is missing."""
        state = self._state
        return state == _HEAD or (state == _FIXED and self._body_left <= MAX_DISCARDED)

    def client_reads(self) -> bool:
        """Whether some of what waits for the client has gone out since the last call."""
        unsent = self.transport.get_write_buffer_size()
        moved = unsent < self._unsent
        self._unsent = unsent
        return moved

    def finish(self, keep_alive: bool) -> None:
        """The response has been written. The connection goes on to the next request, or closes."""
        self.exchange = None
        if self.transport.is_closing():
            return
        if not keep_alive:
            self._close()
            return
        if self.reading_body:
            # The response came early: read what is left of the body, within bounds, to keep the connection.
            self.deadline = time.monotonic() + LINGER_SECONDS
        else:
            self.deadline = time.monotonic() + self.options.idle_timeout
        if self._paused:
            self.resume()
        if self._buffer:
            self._advance()

    def abort(self) -> None:
        """Cut the connection: the client must see that the response is not complete."""
        self.exchange = None
        cut(self.transport)

    def refuse(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        close: bool = True,
        head_only: bool = False,
        headers: list[tuple[str, str]] | None = None,
    ) -> None:
        """Answer with a problem (RFC 9457); the caller then calls `finish(not close)`."""
        self.transport.write(
            render_http1(
                status,
                code,
                detail,
                hint=hint,
                request_id=request_id,
                retry_after=retry_after,
                close=close,
                head_only=head_only,
                date=http_date(),
                headers=headers or (),
            )
        )

    # ---- heads ---------------------------------------------------------------------------------------------------

    def _hold(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if len(self._buffer) > MAX_PIPELINED:
            self.pause()

    def _on_head(self, data: bytes) -> bool:
        """Take a request head off `data`; False when it is not complete yet."""
        start = 0
        while data.startswith(b"\r\n", start) and start < 8:  # RFC 9112 2.2: tolerate empty lines before a request
            start += 2
        end = data.find(b"\r\n\r\n", start)
        if end < 0:
            self._on_partial(data[start:] if start else data)
            return False
        end += 4
        self._head_begun = False
        raw = data if start == 0 and end == len(data) else data[start:end]
        try:
            request = parse_request(raw)
        except HeadError as e:
            self._refuse_head(e)
            return True
        length = request.body_length
        if length == UNKNOWN_LENGTH:
            self._state = _CHUNKED
            self._decoder = ChunkedDecoder()
        elif length:
            self._state = _FIXED
            self._body_left = length
        else:
            self._buffer = data[end:] if end != len(data) else b""
        self.deadline = NEVER
        self._discarded = 0
        exchange = self.handler.begin(request, raw)
        if not exchange.answered:
            self.exchange = exchange
        if length and end != len(data):
            self._on_body(data[end:])
        return True

    def _advance(self) -> None:
        """Start what has been read already; a loop, for a pipeline must not become a recursion."""
        if self._dispatching:
            return  # the loop below is what called us
        self._dispatching = True
        try:
            while (
                self._buffer
                and self._state == _HEAD
                and self.exchange is None
                and not self.blocked
                and not self.transport.is_closing()
            ):
                data, self._buffer = self._buffer, b""
                if not self._on_head(data):
                    break
        finally:
            self._dispatching = False
        if len(self._buffer) > MAX_PIPELINED:
            self.pause()

    def _on_partial(self, data: bytes) -> None:
        if len(data) > MAX_REQUEST_HEAD:
            self._refuse_head(HeadError(431, "head-too-large", f"the request head is over {MAX_REQUEST_HEAD} bytes"))
            return
        self._buffer = data
        if not self._head_begun:
            # Once, at its first byte: a head that trickles in has no more time than any other.
            self._head_begun = True
            self.deadline = time.monotonic() + self.options.head_timeout
        # A bare LF cannot become right by waiting for more.
        if b"\n\n" in data or (b"\n" in data and b"\r\n" not in data):
            self._refuse_head(HeadError(400, "bad-request", "the request head has a bare LF"))

    def _refuse_head(self, error: HeadError) -> None:
        self._buffer = b""
        self._state = _DISCARD
        self.refuse(error.status, error.code, str(error))
        self._linger()

    # ---- bodies --------------------------------------------------------------------------------------------------

    def _on_body(self, data: bytes) -> None:
        state = self._state
        if state == _FIXED:
            left = self._body_left - len(data)
            rest = b""
            if left < 0:
                rest = data[left:]
                data = data[:left]
                left = 0
            self._body_left = left
            if left == 0:
                self._state = _HEAD
            self._deliver(data)
            if left == 0:
                self._body_end(b"", rest)
        elif state == _CHUNKED:
            self._on_chunked(data)
        elif state == _RAW and self.exchange is not None:
            self.exchange.on_body(data)
        # Else it is discarded, until the client has seen the answer and closes, or its time is over.

    def _on_chunked(self, data: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        try:
            pieces = decoder.feed(data)
        except HeadError as e:
            self._decoder = None
            self._state = _DISCARD
            if self.exchange is not None:
                self.exchange.on_bad_body(e)
            else:
                self._close()  # the answer was given before the body turned out to be broken
            return
        if decoder.done:
            self._state = _HEAD
            self._decoder = None
        for piece in pieces:
            self._deliver(piece)
        if decoder.done:
            self._body_end(decoder.trailers, decoder.rest)

    def _deliver(self, data: bytes) -> None:
        if self.exchange is not None:
            self.exchange.on_body(data)
            return
        self._discarded += len(data)
        if self._discarded > MAX_DISCARDED and self._state != _DISCARD:
            self._close()

    def _body_end(self, trailers: bytes, rest: bytes) -> None:
        exchange = self.exchange
        if exchange is not None:
            if rest:
                self._hold(rest)
            exchange.on_body_end(trailers)
        elif self._state == _HEAD and not self.transport.is_closing():
            self.deadline = time.monotonic() + self.options.idle_timeout
            self._buffer = rest
            self._advance()

    # ---- ends ----------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """Close once the client has what was written."""
        if self.reading_body or self._state == _DISCARD or self._buffer:
            self._linger()
            return
        self._state = _DISCARD
        self.client_reads()
        self.deadline = time.monotonic() + self.options.idle_timeout
        self.transport.close()

    def _linger(self) -> None:
        """Close so that the client still reads the answer: half-close, then discard for a moment (RFC 9112 9.6)."""
        self._state = _DISCARD
        self._buffer = b""
        self.memo = b""
        self.resume()
        self.client_reads()
        self.deadline = time.monotonic() + LINGER_SECONDS
        if self.secure or not self.transport.can_write_eof():
            self.transport.close()  # says so, and discards what comes until the client agrees (RFC 8446 6.1)
        else:
            self.transport.write_eof()

    def on_deadline(self, now: float) -> None:
        self.deadline = NEVER
        exchange = self.exchange
        if exchange is not None:
            exchange.on_timeout(now)
        elif self._state == _DISCARD:
            self._on_closing_deadline(now)
        elif self.blocked:
            if self.client_reads():
                self.deadline = now + self.options.idle_timeout
            else:
                self.abort()
        elif self._state == _HEAD and self._buffer:
            self._refuse_head(HeadError(408, "head-timeout", "the request head did not come in time"))
        else:
            self._close()

    def _on_closing_deadline(self, now: float) -> None:
        """The client still reads, or had its time: a connection that nobody reads must not stay for ever."""
        if self.client_reads():
            self.deadline = now + self.options.idle_timeout
        else:
            self.transport.abort()

    def drain(self) -> None:
        """The listener is closing: an idle connection ends now, a busy one after its response."""
        if self.exchange is None and self._state == _HEAD and not self._buffer:
            self._close()
