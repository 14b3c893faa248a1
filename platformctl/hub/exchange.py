"""A request at the hub, from its plan to its end: the state, and every way in which it ends.

`Ingress` is one object in four files, each a layer on the one before: exchange.py (state and ends), outbound.py (to the
satellite), inbound.py (back from it) and ingress.py (the client's connection). They are layers of one class for speed:
a request on a kept connection makes no object but its stream.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from platformctl.hub.plan import Plan
from platformctl.net.deadlines import NEVER
from platformctl.net.http1 import HttpConnection
from platformctl.wire import frames

if TYPE_CHECKING:
    from platformctl.hub.front import Caller, Front
    from platformctl.hub.template import Template
    from platformctl.hub.tunnels import HubTunnel
    from platformctl.routing.endpoint import Endpoint
    from platformctl.wire.stream import Stream

# How often a raw connection that has ended on both sides is looked at until its last bytes are out, in seconds.
TAIL_STEP: Final = 1.0
# The way to a backend is at fault, not what it answers (routing/outlier).
_PATH_FAILURES: Final = (502, 503, 504)

IDLE: Final = 0
QUEUED: Final = 1  # waits in the service's gate
WAITING: Final = 2  # sent, no head yet
STREAMING: Final = 3  # head written
DRAINING: Final = 4  # complete, the client still reads
EMPTY: Final = b""


class ExchangeState:
    """The request that a connection has in progress."""

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
        self._phase = IDLE
        self._request_id = EMPTY
        self._started = 0.0
        self._status = 0
        self._attempts = 0
        self._left = 0
        self._chunked = False
        self._raw = False
        self._pending = EMPTY
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

    def _complete(self) -> None:
        """The response is whole. The connection goes on once the client has read it."""
        if self.connection.blocked:
            self._phase = DRAINING
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
        if endpoint is None or self._phase == IDLE:
            return
        if self.stream is not None:
            self.stream = None
            self._leave_tunnel(endpoint)
        self._phase = IDLE
        self._pending = EMPTY
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
        if self._phase == IDLE:
            self._phase = WAITING
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
        if self._phase == WAITING:
            self._fail(502, "bad-backend-response", f"satellite {endpoint.satellite} sent {why}")
        else:
            self._cut(frames.PROTOCOL)

    def _lie(self, left: int) -> None:
        """More or fewer bytes than Content-Length said. Whole responses of others follow on this connection: cut it."""
        endpoint = self._endpoint
        assert endpoint is not None
        self.front.suspicious(endpoint, f"a body {-left} bytes longer" if left < 0 else f"a body {left} bytes shorter")
        if self._pending:
            self._pending = EMPTY
            self._phase = WAITING
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

    def _end_raw(self) -> None:
        """Both sides have said everything; wait until it is out."""
        stream = self.stream
        endpoint = self._endpoint
        assert stream is not None and endpoint is not None
        connection = self.connection
        if self._phase != DRAINING:
            self._phase = DRAINING
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
