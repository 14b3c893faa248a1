"""A client connection at the hub: the way of a request into a stream, and of its answer back out.

`Ingress` is the connection's handler, its exchange and the stream's sink in one object that lives as long as the
connection, so a request on a kept connection makes no objects but its stream. What a head resolves to (`Plan`) is
remembered with the head's bytes and repeated while the hub's generation stays the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from platformctl.errors import HeadError
from platformctl.hub.exchange import DRAINING, EMPTY, IDLE, QUEUED, WAITING
from platformctl.hub.inbound import Inbound
from platformctl.hub.outbound import IDLE_CHECKS
from platformctl.hub.plan import LocalPlan, Refusal
from platformctl.net.asgi import AsgiExchange
from platformctl.net.http1 import Exchange, HttpConnection
from platformctl.wire import frames
from platformctl.wire.heads import RequestHead

if TYPE_CHECKING:
    from platformctl.hub.front import Front


class Ingress(Inbound):
    """Handler, Exchange (net/http1) and Sink (wire/stream) of one client connection."""

    __slots__ = ()

    def begin(self, request: RequestHead, raw: bytes) -> Exchange:
        front = self.front
        connection = self.connection
        connection.memo = EMPTY
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
        if self._phase == DRAINING:
            if self._raw:
                self._end_raw()
            else:
                self._finish()

    def on_gone(self) -> None:
        """The client went away: the backend must see it."""
        if self._phase == QUEUED:
            assert self._endpoint is not None
            self._endpoint.gate.remove(self)
        stream = self.stream
        if stream is not None:
            if self._phase == DRAINING:
                stream.consumed(self._owed)
            else:
                stream.reset(frames.CANCELLED)
        self._owed = 0
        self._settle(self._status or 499)  # nginx's code for a client that closed first
        self._plan = None

    def on_timeout(self, now: float) -> None:
        phase = self._phase
        if phase in (IDLE, QUEUED):
            return  # the gate has a clock of its own
        if phase == DRAINING and self._raw:
            self._end_raw()
            return
        connection = self.connection
        plan = self._plan
        endpoint = self._endpoint
        assert endpoint is not None and plan is not None
        if phase == WAITING and (self._request_ended or plan.raw):
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
        elif phase == WAITING:
            self._fail(504, "backend-timeout", f"the request body for service {endpoint.service} stopped on its way")
        else:
            self._cut(frames.IDLE_TIMEOUT)


def make_handler(front: Front) -> Callable[[HttpConnection], Ingress]:
    return lambda connection: Ingress(front, connection)
