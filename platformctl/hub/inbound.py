"""The way back: a response that nobody trusts, checked, and written to the client; raw connections byte for byte."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from platformctl.errors import FrameError
from platformctl.hub.exchange import DRAINING, EMPTY, STREAMING, WAITING
from platformctl.hub.failures import describe
from platformctl.hub.outbound import IDLE_CHECKS, Outbound
from platformctl.hub.plan import Plan
from platformctl.wire import frames
from platformctl.wire.heads import clean_trailers

if TYPE_CHECKING:
    from platformctl.wire.stream import Stream

_NO_LENGTH: Final = (204, 304)


class Inbound(Outbound):
    """The sink of the stream (wire/stream); see exchange.py."""

    __slots__ = ()

    def on_head(self, stream: Stream, payload: bytes, flags: int) -> None:
        if stream is not self.stream:
            return
        self._seen = True
        if flags & frames.FLAG_TRAILERS:
            self._on_trailers(payload)
            return
        try:
            head = self.front.responses.get(payload)
        except FrameError as e:
            self._bad_response(str(e))
            return
        plan = self._plan
        assert plan is not None
        status = head.status
        if flags:
            if flags == frames.FLAG_INTERIM:
                self._on_interim(status, head.start)
                return
            if not self._bodyless_is_right(status, head.length, plan):
                self._bad_response(f"a {status} without the body that it announces")
                return
        elif plan.head_request or status in (204, 304):
            self._bad_response(f"a {status} to {plan.method} with a body")
            return
        if status < 200:
            if status != 101 or not plan.upgrade:
                self._bad_response(f"an unexpected final status {status}")
                return
            self._switch(head.start, head.upgrade)
            return
        if plan.raw and not plan.upgrade:
            self._on_connected(status, flags)
            return
        self._status = status
        self._phase = STREAMING
        self._start_body(plan, head.start, head.length, flags != 0)

    def _start_body(self, plan: Plan, start: bytes, length: int, end: bool) -> None:
        connection = self.connection
        self._chunked = False
        keep_alive = plan.keep_alive and not connection.options.draining
        if not plan.bodyless and connection.reading_body:
            keep_alive = False  # an early response: a client that hears this stops sending
        if length < 0:
            if end:
                if not plan.head_request and self._status not in _NO_LENGTH:
                    start += b"Content-Length: 0\r\n"  # else a client would read the next response as this body
            elif plan.minor:
                self._chunked = True
                start += b"Transfer-Encoding: chunked\r\n"
            else:
                keep_alive = False  # HTTP/1.0: the end of the connection is the end of the body
        if not keep_alive:
            head = b"%bX-Request-Id: %b\r\nConnection: close\r\n\r\n" % (start, self._request_id)
            if plan.keep_alive:
                plan.keep_alive = False  # the hub is draining: the connection ends after this response
        elif plan.minor:
            head = b"%bX-Request-Id: %b\r\n\r\n" % (start, self._request_id)
        else:
            head = b"%bX-Request-Id: %b\r\nConnection: keep-alive\r\n\r\n" % (start, self._request_id)
        self._left = length
        if end:
            connection.transport.write(head)
            self._complete()
            return
        self._pending = head
        tunnel = self._tunnel
        assert tunnel is not None
        tunnel.unflushed.append(self)
        endpoint = self._endpoint
        assert endpoint is not None
        self._idle = 0
        connection.deadline = self._started + endpoint.spec.timeouts.idle

    def flush(self) -> None:
        """The tunnel's message ended: a head without a body yet must not wait for one."""
        pending = self._pending
        if pending:
            self._pending = EMPTY
            self.connection.transport.write(pending)

    def on_data(self, stream: Stream, data: bytes | memoryview, end: bool) -> None:
        n = len(data)
        if stream is not self.stream:
            return
        self._seen = True
        connection = self.connection
        left = self._left
        if left >= 0 and not self._raw:
            left -= n
            if left < 0 or (end and left):
                self._lie(left)
                return
            self._left = left
        elif self._chunked:
            data = b"".join((b"%x\r\n" % n, data, b"\r\n")) if n else EMPTY
            if end:
                data += b"0\r\n\r\n"
        if self._pending:
            data = self._pending + data
            self._pending = EMPTY
        if data:
            # A loop's own transport may keep what it is given until it writes; a view is only lent to us.
            connection.transport.write(data if connection.writes_views else bytes(data))
        if n:
            endpoint = self._endpoint
            assert endpoint is not None
            endpoint.metrics.bytes_out += n  # type: ignore[attr-defined]
            if connection.blocked:
                self._owed += n
            else:
                stream.consumed(n)
        if end:
            if self._raw:
                self._on_raw_end(stream)
            else:
                self._complete()

    def on_reset(self, stream: Stream, code: int) -> None:
        if stream is not self.stream:
            return
        if self._phase == DRAINING and code != frames.SLOW_CONSUMER:
            return  # the response is whole: the client has it, or reads it
        if self._pending:
            self._pending = EMPTY  # a head that no client has seen
            self._phase = WAITING
        if self._phase == WAITING:
            if not self._try_again(code):
                status, problem, detail, retry_after = describe(code, self._endpoint)
                self._fail(status, problem, detail, retry_after=retry_after)
            return
        self._cut(code)

    def on_writable(self, stream: Stream) -> None:
        if stream is self.stream:
            self.connection.resume()

    def _bodyless_is_right(self, status: int, length: int, plan: Plan) -> bool:
        return length <= 0 or plan.head_request or status == 304

    def _on_interim(self, status: int, start: bytes) -> None:
        plan = self._plan
        assert plan is not None
        if status == 101 or status >= 200:
            self._bad_response(f"an interim head with status {status}")
        elif plan.minor and (status != 100 or plan.expects_continue):
            plan.expects_continue = plan.expects_continue and status != 100
            self.connection.transport.write(start + b"\r\n")

    def _on_trailers(self, block: bytes) -> None:
        try:
            trailers = clean_trailers(block)
        except FrameError as e:
            self._bad_response(str(e))
            return
        if self._left > 0:
            self._lie(self._left)
            return
        if self._chunked:
            self.connection.transport.write(self._pending + b"0\r\n" + trailers + b"\r\n")
        elif self._pending:
            self.connection.transport.write(self._pending)
        self._pending = EMPTY
        self._complete()

    def _switch(self, start: bytes, upgrade: bytes) -> None:
        self._status = 101
        self.connection.transport.write(
            b"%bConnection: Upgrade\r\nUpgrade: %b\r\nX-Request-Id: %b\r\n\r\n" % (start, upgrade, self._request_id)
        )
        self._go_raw()

    def _on_connected(self, status: int, flags: int) -> None:
        if status >= 300 or flags:
            self._bad_response(f"status {status} to a connection")
            return
        self._status = status
        self.connection.transport.write(
            b"HTTP/1.1 200 Connection established\r\nX-Request-Id: %b\r\n\r\n" % self._request_id
        )
        self._go_raw()

    def _go_raw(self) -> None:
        endpoint = self._endpoint
        assert endpoint is not None
        plan = self._plan
        assert plan is not None
        plan.keep_alive = False
        self._phase = STREAMING
        self._raw = True
        self._left = -1
        self._chunked = False
        self._idle = 0
        self._request_ended = False
        self._response_ended = False
        self.connection.go_raw()
        if self._phase != STREAMING:
            return  # what the client had sent already has ended it
        self.connection.deadline = time.monotonic() + endpoint.spec.timeouts.idle / IDLE_CHECKS

    def _on_raw_end(self, stream: Stream) -> None:
        """The backend closed its half. Plain TCP can say so; TLS clients get the whole close."""
        self._response_ended = True
        transport = self.connection.transport
        if not self._request_ended and not self.connection.secure and transport.can_write_eof():
            transport.write_eof()
            return
        if not self._request_ended:
            self._request_ended = True
            stream.send_end()
        self._end_raw()
