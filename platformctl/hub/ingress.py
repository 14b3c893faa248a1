"""A client connection at the hub: the way of a request into a stream, and of its answer back out.

`Ingress` is the connection's handler, its exchange and the stream's sink in one object that lives as long as the
connection, so a request on a kept connection makes no objects but its stream. What a head resolves to (`Plan`) is
remembered with the head's bytes and repeated while the hub's generation stays the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from platformctl.errors import FrameError, HeadError
from platformctl.hub.failures import RETRY_ELSEWHERE, RETRY_UNSENT, describe
from platformctl.hub.plan import LocalPlan, Plan, Refusal
from platformctl.net.asgi import AsgiExchange
from platformctl.net.deadlines import NEVER
from platformctl.net.http1 import Exchange, HttpConnection
from platformctl.wire import frames
from platformctl.wire.heads import RequestHead, clean_trailers

if TYPE_CHECKING:
    from platformctl.hub.front import Caller, Front
    from platformctl.hub.template import Template
    from platformctl.hub.tunnels import HubTunnel
    from platformctl.routing.endpoint import Endpoint
    from platformctl.wire.stream import Stream

# The agent enforces a service's own timeouts and says which one it was; the hub's are a backstop behind them.
BACKSTOP_SECONDS: Final = 5.0
# An idle stream is looked at this often within its idle timeout.
IDLE_CHECKS: Final = 4
MAX_ATTEMPTS: Final = 3
# How often a raw connection that has ended on both sides is looked at until its last bytes are out, in seconds.
TAIL_STEP: Final = 1.0

_IDLE: Final = 0
_QUEUED: Final = 1  # waits in the service's gate
_WAITING: Final = 2  # sent, no head yet
_STREAMING: Final = 3  # head written
_DRAINING: Final = 4  # complete, the client still reads

_EMPTY: Final = b""
_NO_LENGTH: Final = (204, 304)
# The way to a backend is at fault, not what it answers (routing/outlier).
_PATH_FAILURES: Final = (502, 503, 504)
# Another tunnel to the same satellite may do better.
_TUNNEL_FAILURES: Final = (frames.TUNNEL_LOST, frames.REFUSED)


class Ingress:
    """Handler, Exchange (net/http1) and Sink (wire/stream) of one client connection."""

    __slots__ = (
        "_attempts",
        "_caller",
        "_chunked",
        "_early",
        "_early_end",
        "_endpoint",
        "_entered",
        "_idle",
        "_left",
        "_owed",
        "_pending",
        "_phase",
        "_plan",
        "_raw",
        "_request_ended",
        "_request_id",
        "_response_ended",
        "_seen",
        "_sent_body",
        "_started",
        "_status",
        "_tail",
        "_template",
        "_tunnel",
        "answered",
        "connection",
        "front",
        "stream",
    )

    def __init__(self, front: Front, connection: HttpConnection) -> None:
        self.front = front
        self.connection = connection
        self.answered = False
        self.stream: Stream | None = None
        self._caller: Caller | None = None
        self._plan: Plan | None = None
        self._template: Template | None = None
        self._endpoint: Endpoint | None = None
        self._tunnel: HubTunnel | None = None
        self._phase = _IDLE
        self._request_id = _EMPTY
        self._started = 0.0
        self._status = 0
        self._attempts = 0
        self._left = 0
        self._chunked = False
        self._raw = False
        self._pending = _EMPTY
        self._owed = 0
        self._entered = False
        self._early: list[bytes] | None = None
        self._early_end: bytes | None = None
        self._request_ended = True
        self._response_ended = False
        self._sent_body = False
        self._seen = False
        self._idle = 0
        self._tail = 0

    # ---- handler: a request begins -------------------------------------------------------------------------------

    def begin(self, request: RequestHead, raw: bytes) -> Exchange:
        front = self.front
        connection = self.connection
        connection.memo = _EMPTY
        self._template = None
        self.answered = False
        self._started = time.monotonic()
        self._request_id = front.request_id(request)
        if self._caller is None:
            self._caller = front.caller(connection)
        try:
            plan = front.resolve(self._caller, request, self._request_id)
        except Refusal as refusal:
            self._refuse(request, refusal)
            return self
        except HeadError as error:  # another name: mypyc gives a variable one type
            self._refuse(request, Refusal(error.status, error.code, str(error)))
            return self
        if isinstance(plan, LocalPlan):
            return AsgiExchange(connection, plan.app, request, plan.path, plan.state)
        if plan.bodyless and not plan.raw and plan.target is None:
            connection.memo = raw
        self._dispatch(plan)
        return self

    def repeat(self) -> Exchange | None:
        plan = self._plan
        front = self.front
        if plan is None or plan.generation != front.generation:
            return None
        self.answered = False
        self._started = time.monotonic()
        self._request_id = plan.request_id or front.new_request_id()
        self._dispatch(plan)
        return self

    def adapt(self, raw: bytes) -> Exchange | None:
        """Another head of the same shape as the last one (hub/template); None: parse it in full."""
        plan = self._plan
        if plan is None or plan.generation != self.front.generation or plan.template is None:
            return None
        template = self._template
        if template is None:
            template = self._template = plan.template(self.connection.memo)
        head = template.adapt(raw)
        if head is None:
            return None
        plan.head = head
        plan.path = template.path.decode("ascii")
        plan.traceparent = template.traceparent
        plan.request_id = template.request_id
        self.connection.memo = raw
        return self.repeat()

    def closed(self) -> None:
        """The connection is gone; `on_gone` has ended what was in progress."""
        self._plan = None

    def _refuse(self, request: RequestHead, refusal: Refusal) -> None:
        connection = self.connection
        self._plan = None
        keep_alive = request.keep_alive and refusal.status != 400 and request.method != b"CONNECT"
        keep_alive = keep_alive and not request.expects_continue and not connection.options.draining
        keep_alive = keep_alive and connection.can_keep
        connection.refuse(
            refusal.status,
            refusal.code,
            refusal.detail,
            hint=refusal.hint,
            request_id=self._request_id.decode("latin-1"),
            retry_after=refusal.retry_after,
            close=not keep_alive,
            head_only=request.method == b"HEAD",
        )
        self.front.count_local(refusal.status)
        self.answered = True
        connection.finish(keep_alive)

    # ---- opening -------------------------------------------------------------------------------------------------

    def _dispatch(self, plan: Plan) -> None:
        self._plan = plan
        self._attempts = 0
        self._status = 0
        self._request_ended = plan.bodyless
        self._sent_body = False
        self._raw = False
        self._owed = 0
        endpoint = plan.endpoint
        if endpoint.gate.concurrency:
            self._enter(endpoint)
        else:
            self._open(endpoint)

    def _enter(self, endpoint: Endpoint) -> None:
        gate = endpoint.gate
        if gate.try_enter():
            self._entered = True
            self._open(endpoint)
            return
        self._endpoint = endpoint
        elsewhere = self._alternate(endpoint)
        if elsewhere is not None:
            self._entered = bool(elsewhere.gate.concurrency)
            self._open(elsewhere)
            return
        if gate.enqueue(self, self._started):
            self._phase = _QUEUED
            self.front.queued.add(endpoint)
            if not self._request_ended:
                self.connection.pause()
            return
        self._fail(
            503,
            "overloaded",
            f"service {endpoint.service} of satellite {endpoint.satellite} is at its limits of concurrency and queue",
            retry_after=1.0,
        )

    def admitted(self) -> None:
        """The gate let this waiter in."""
        endpoint = self._endpoint
        assert endpoint is not None
        self._entered = True
        if endpoint.gone:
            self._fail(503, "satellite-disconnected", f"satellite {endpoint.satellite} left while the request waited")
            return
        self._open(endpoint, None, time.monotonic())
        stream = self.stream
        if stream is not None and not self._request_ended and not stream.blocked:
            self.connection.resume()

    def expired(self) -> None:
        """The gate kept this waiter for longer than the service's queue timeout, or lost its satellite."""
        endpoint = self._endpoint
        assert endpoint is not None
        if endpoint.gone:
            self._fail(503, "satellite-disconnected", f"satellite {endpoint.satellite} left while the request waited")
            return
        self._fail(
            503,
            "overloaded",
            f"service {endpoint.service} of satellite {endpoint.satellite} had no room for this request in time",
            retry_after=1.0,
        )

    def _open(self, endpoint: Endpoint, tunnel: HubTunnel | None = None, since: float = 0.0) -> None:
        """Open a stream; `since`: when this attempt began, if not with the request."""
        plan = self._plan
        assert plan is not None
        self._endpoint = endpoint
        if tunnel is None:
            picked: Any = endpoint.pick(self._started)
            tunnel = picked if picked is not None and picked.session.can_open else _other_tunnel(endpoint, picked)
        if tunnel is None:
            satellite = endpoint.satellite
            if endpoint.serving():
                self._fail(503, "overloaded", f"satellite {satellite} has no tunnel with room", retry_after=1.0)
            else:
                self._fail(503, "satellite-draining", f"every tunnel of {satellite} is draining", retry_after=1.0)
            return
        self._tunnel = tunnel
        self._phase = _WAITING
        self._attempts += 1
        self._seen = False
        endpoint.inflight += 1
        tunnel.inflight += 1
        trace = self.front.traceparent(plan.traceparent)
        head = b"%bX-Request-Id: %b\r\ntraceparent: %b\r\n" % (plan.head, self._request_id, trace)
        self.stream = tunnel.session.open(head, plan.bodyless, self)
        self._set_deadline(since or self._started)
        if self._early is not None:
            self._send_early()

    def _set_deadline(self, since: float) -> None:
        """Until the response head: its own timeout, or while the request still comes in, the idle one."""
        plan = self._plan
        endpoint = self._endpoint
        assert plan is not None and endpoint is not None
        timeouts = endpoint.spec.timeouts
        if self._request_ended or plan.raw:
            self.connection.deadline = since + timeouts.connect + timeouts.response + BACKSTOP_SECONDS
        else:
            self._idle = 0
            self.connection.deadline = since + timeouts.connect + timeouts.idle / IDLE_CHECKS

    # ---- exchange: the client's side -----------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        stream = self.stream
        if stream is None:
            if self._phase == _QUEUED:
                if self._early is None:
                    self._early = []
                self._early.append(data)
            return
        if stream.closed:
            return
        self._seen = True
        self._sent_body = True
        endpoint = self._endpoint
        assert endpoint is not None
        endpoint.metrics.bytes_in += len(data)  # type: ignore[attr-defined]
        if not stream.send_data(data):
            self.connection.pause()

    def on_body_end(self, trailers: bytes) -> None:
        stream = self.stream
        self._request_ended = True
        if stream is None:
            self._early_end = trailers
            if self._early is None:
                self._early = []
            return
        if not stream.closed:
            if trailers:
                try:
                    trailers = clean_trailers(trailers)
                except FrameError as e:
                    self.on_bad_body(HeadError(400, "bad-request", f"the trailer fields are malformed: {e}"))
                    return
            if trailers:
                stream.send_trailers(trailers)
            else:
                stream.send_end()
        if self._raw:
            if self._response_ended:
                self._end_raw()
        elif self._phase == _WAITING:
            self._set_deadline(time.monotonic())

    def on_bad_body(self, error: HeadError) -> None:
        """The rest of the request cannot be read: where its body ends is not known."""
        if self._phase == _QUEUED:
            assert self._endpoint is not None
            self._endpoint.gate.remove(self)
        if self._phase in (_QUEUED, _WAITING) or self._pending:
            self._fail(error.status, error.code, str(error))
        else:
            self._cut(frames.CANCELLED)

    def _send_early(self) -> None:
        """What the client sent while the request waited in the gate."""
        early, self._early = self._early, None
        for data in early or ():
            self.on_body(data)
        end, self._early_end = self._early_end, None
        if end is not None:
            self.on_body_end(end)

    def on_client_blocked(self) -> None:
        if self.stream is not None:
            self.stream.park()

    def on_client_writable(self) -> None:
        stream = self.stream
        if stream is None:
            return
        stream.unpark()
        owed, self._owed = self._owed, 0
        if owed:
            stream.consumed(owed)
        if self._phase == _DRAINING:
            if self._raw:
                self._end_raw()
            else:
                self._finish()

    def on_gone(self) -> None:
        """The client went away: the backend must see it."""
        if self._phase == _QUEUED:
            assert self._endpoint is not None
            self._endpoint.gate.remove(self)
        stream = self.stream
        if stream is not None:
            if self._phase == _DRAINING:
                stream.consumed(self._owed)
            else:
                stream.reset(frames.CANCELLED)
        self._owed = 0
        self._settle(self._status or 499)  # nginx's code for a client that closed first
        self._plan = None

    def on_timeout(self, now: float) -> None:
        phase = self._phase
        if phase in (_IDLE, _QUEUED):
            return  # the gate has a clock of its own
        if phase == _DRAINING and self._raw:
            self._end_raw()
            return
        connection = self.connection
        plan = self._plan
        endpoint = self._endpoint
        assert endpoint is not None and plan is not None
        if phase == _WAITING and (self._request_ended or plan.raw):
            self._fail(504, "backend-timeout", f"no response from service {endpoint.service} in time")
            return
        # What waits for the satellite's credit is not this client's silence: the agent sees the backend, and judges.
        waiting = self.stream is not None and self.stream.queued > 0
        if self._seen or waiting or connection.client_reads():
            self._seen = False
            self._idle = 0
        else:
            self._idle += 1
        if self._idle < IDLE_CHECKS:
            connection.deadline = now + endpoint.spec.timeouts.idle / IDLE_CHECKS
        elif phase == _WAITING:
            self._fail(504, "backend-timeout", f"the request body for service {endpoint.service} stopped on its way")
        else:
            self._cut(frames.IDLE_TIMEOUT)

    # ---- sink: the satellite's side ------------------------------------------------------------------------------

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
        self._phase = _STREAMING
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
                self._plan = plan = _closing(plan)
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
            self._pending = _EMPTY
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
            data = b"".join((b"%x\r\n" % n, data, b"\r\n")) if n else _EMPTY
            if end:
                data += b"0\r\n\r\n"
        if self._pending:
            data = self._pending + data
            self._pending = _EMPTY
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
        if self._phase == _DRAINING and code != frames.SLOW_CONSUMER:
            return  # the response is whole: the client has it, or reads it
        if self._pending:
            self._pending = _EMPTY  # a head that no client has seen
            self._phase = _WAITING
        if self._phase == _WAITING:
            if not self._try_again(code):
                status, problem, detail, retry_after = describe(code, self._endpoint)
                self._fail(status, problem, detail, retry_after=retry_after)
            return
        self._cut(code)

    def on_writable(self, stream: Stream) -> None:
        if stream is self.stream:
            self.connection.resume()

    # ---- ends ----------------------------------------------------------------------------------------------------

    def _complete(self) -> None:
        """The response is whole. The connection goes on once the client has read it."""
        if self.connection.blocked:
            self._phase = _DRAINING
            self.connection.deadline = time.monotonic() + self.front.options.idle_timeout
            return
        self._finish()

    def _finish(self) -> None:
        stream = self.stream
        plan = self._plan
        assert plan is not None
        if stream is not None and not stream.closed:
            stream.reset(frames.NO_ERROR)  # an early response: the rest of the request has no reader
        if plan.target is not None:
            self._judge()
        self._settle(self._status)
        self.answered = True
        self.connection.finish(plan.keep_alive)

    def _settle(self, status: int) -> None:
        """Books: in-flight counts, the gate, the metrics. Once for each request."""
        endpoint = self._endpoint
        if endpoint is None or self._phase == _IDLE:
            return
        if self.stream is not None:
            self.stream = None
            self._leave_tunnel(endpoint)
        self._phase = _IDLE
        self._pending = _EMPTY
        self._early = None
        self._early_end = None
        self.connection.deadline = NEVER
        endpoint.metrics.observe(status, time.monotonic() - self._started)  # type: ignore[attr-defined]
        if self._entered:
            self._entered = False
            self.front.leave(endpoint)

    def _leave_tunnel(self, endpoint: Endpoint) -> None:
        endpoint.inflight -= 1
        tunnel = self._tunnel
        if tunnel is not None:
            tunnel.inflight -= 1
            self._tunnel = None

    def _fail(self, status: int, code: str, detail: str, *, retry_after: float | None = None) -> None:
        """Answer with a problem; nothing of a response has been written yet."""
        stream = self.stream
        plan = self._plan
        connection = self.connection
        assert plan is not None
        if self._phase == _IDLE:
            self._phase = _WAITING
        if stream is not None:
            stream.reset(frames.CANCELLED)
        keep_alive = plan.keep_alive and not connection.options.draining and not plan.expects_continue
        # What follows a CONNECT that failed may be bytes for the tunnel that is not there, and must not be requests.
        keep_alive = keep_alive and connection.can_keep and status != 400 and plan.method != "CONNECT"
        self._count_failure(status)
        self._settle(status)
        connection.refuse(
            status,
            code,
            detail,
            request_id=self._request_id.decode("latin-1"),
            retry_after=retry_after,
            close=not keep_alive,
            head_only=plan.head_request,
        )
        self.answered = True
        connection.finish(keep_alive)

    def _cut(self, code: int) -> None:
        """The response cannot be completed: the client must see it cut, never as if it were whole."""
        stream = self.stream
        if stream is not None:
            stream.reset(code)
        self._count_failure(502)
        self._settle(self._status)
        self.answered = True
        self.connection.abort()

    def _bad_response(self, why: str) -> None:
        endpoint = self._endpoint
        assert endpoint is not None and self.stream is not None
        self.stream.reset(frames.PROTOCOL)
        self.front.suspicious(endpoint, why)
        if self._phase == _WAITING:
            self._fail(502, "bad-backend-response", f"satellite {endpoint.satellite} sent {why}")
        else:
            self._cut(frames.PROTOCOL)

    def _lie(self, left: int) -> None:
        """More or fewer bytes than Content-Length said. Whole responses of others follow on this connection: cut it."""
        endpoint = self._endpoint
        assert endpoint is not None
        self.front.suspicious(endpoint, f"a body {-left} bytes longer" if left < 0 else f"a body {left} bytes shorter")
        if self._pending:
            self._pending = _EMPTY
            self._phase = _WAITING
            self._fail(502, "bad-backend-response", "the response body is not as long as its head says")
            return
        self._cut(frames.PROTOCOL)

    def _count_failure(self, status: int) -> None:
        plan = self._plan
        if plan is None or plan.target is None or self._endpoint is None or not self._attempts:
            return
        if status in _PATH_FAILURES:
            self._endpoint.health.failure(time.monotonic())

    def _judge(self) -> None:
        """What a whole response says about the way to the backend."""
        if self._status in _PATH_FAILURES:
            self._count_failure(self._status)
        elif self._endpoint is not None:
            self._endpoint.health.success(time.monotonic())

    def _try_again(self, code: int) -> bool:
        """Fail over: to another tunnel, or for a selector to another satellite, when that is safe."""
        plan = self._plan
        endpoint = self._endpoint
        assert plan is not None and endpoint is not None
        unsent = code in RETRY_UNSENT and not self._sent_body and (plan.bodyless or not self._request_ended)
        again = plan.idempotent and plan.bodyless and code in RETRY_ELSEWHERE
        if not (unsent or again) or self._attempts >= MAX_ATTEMPTS:
            return False
        tunnel = _other_tunnel(endpoint, self._tunnel) if code in _TUNNEL_FAILURES else None
        following = endpoint if tunnel is not None else self._alternate(endpoint)
        if following is None:
            return False
        self._count_failure(502)
        endpoint.metrics.failovers += 1  # type: ignore[attr-defined]
        self.stream = None
        self._leave_tunnel(endpoint)
        if following is not endpoint:
            entered, self._entered = self._entered, bool(following.gate.concurrency)
            if entered:
                self.front.leave(endpoint)
        self._open(following, tunnel, time.monotonic())
        return True

    def _alternate(self, endpoint: Endpoint) -> Endpoint | None:
        """Another satellite that a selector allows; its gate, if it has one, has been entered."""
        plan = self._plan
        assert plan is not None
        while plan.alternates:
            one = plan.alternates.pop(0)
            if one is not endpoint and one.serving() and (not one.gate.concurrency or one.gate.try_enter()):
                return one
        return None

    # ---- interim heads, trailers, raw connections ----------------------------------------------------------------

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
        self._pending = _EMPTY
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
        self._phase = _STREAMING
        self._raw = True
        self._left = -1
        self._chunked = False
        self._idle = 0
        self._request_ended = False
        self._response_ended = False
        self.connection.go_raw()
        if self._phase != _STREAMING:
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

    def _end_raw(self) -> None:
        """Both sides have said everything; wait until it is out."""
        stream = self.stream
        endpoint = self._endpoint
        assert stream is not None and endpoint is not None
        connection = self.connection
        if self._phase != _DRAINING:
            self._phase = _DRAINING
            self._idle = 0
        tail = stream.queued
        if not tail and not connection.blocked:
            self._finish()
            return
        self._idle = 0 if connection.client_reads() or tail != self._tail else self._idle + 1
        self._tail = tail
        if self._idle * TAIL_STEP > endpoint.spec.timeouts.idle:
            self._cut(frames.IDLE_TIMEOUT)
        else:
            connection.deadline = time.monotonic() + TAIL_STEP


def _other_tunnel(endpoint: Endpoint, tried: HubTunnel | None) -> HubTunnel | None:
    """A tunnel to the same satellite that can open a stream, when the one that was tried cannot."""
    tunnel: Any
    for tunnel in endpoint.tunnels:
        if tunnel is not tried and not tunnel.draining and tunnel.session.can_open:
            found: HubTunnel = tunnel
            return found
    return None


def _closing(plan: Plan) -> Plan:
    """The same plan, but the connection ends after it: the hub is draining."""
    plan.keep_alive = False
    return plan


def make_handler(front: Front) -> Callable[[HttpConnection], Ingress]:
    return lambda connection: Ingress(front, connection)
