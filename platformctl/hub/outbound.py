"""The way of a request to the satellite: gate, tunnel, stream and body, and another try when the first one failed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from platformctl.errors import FrameError, HeadError
from platformctl.hub.exchange import QUEUED, WAITING, ExchangeState
from platformctl.hub.failures import RETRY_ELSEWHERE, RETRY_UNSENT
from platformctl.hub.plan import Plan
from platformctl.wire import frames
from platformctl.wire.heads import clean_trailers

if TYPE_CHECKING:
    from platformctl.hub.tunnels import HubTunnel
    from platformctl.routing.endpoint import Endpoint

# The agent enforces a service's own timeouts and says which one it was; the hub's are a backstop behind them.
BACKSTOP_SECONDS: Final = 5.0
# An idle stream is looked at this often within its idle timeout.
IDLE_CHECKS: Final = 4
MAX_ATTEMPTS: Final = 3
# Another tunnel to the same satellite may do better.
_TUNNEL_FAILURES: Final = (frames.TUNNEL_LOST, frames.REFUSED)


class Outbound(ExchangeState):
    """Opens the stream and sends the request; see exchange.py."""

    __slots__ = ()

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
            self._phase = QUEUED
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
        self._phase = WAITING
        self._attempts += 1
        self._seen = False
        endpoint.inflight += 1
        tunnel.inflight += 1
        trace = self.front.traceparent(plan.traceparent)
        head = b"%bX-Request-Id: %b\r\ntraceparent: %b\r\n" % (plan.head, self._request_id, trace)
        self.stream = tunnel.session.open(head, plan.bodyless, self)  # type: ignore[arg-type]  # inbound.py has the sink
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

    def on_body(self, data: bytes) -> None:
        stream = self.stream
        if stream is None:
            if self._phase == QUEUED:
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
        elif self._phase == WAITING:
            self._set_deadline(time.monotonic())

    def on_bad_body(self, error: HeadError) -> None:
        """The rest of the request cannot be read: where its body ends is not known."""
        if self._phase == QUEUED:
            assert self._endpoint is not None
            self._endpoint.gate.remove(self)
        if self._phase in (QUEUED, WAITING) or self._pending:
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


def _other_tunnel(endpoint: Endpoint, tried: HubTunnel | None) -> HubTunnel | None:
    """A tunnel to the same satellite that can open a stream, when the one that was tried cannot."""
    tunnel: Any
    for tunnel in endpoint.tunnels:
        if tunnel is not tried and not tunnel.draining and tunnel.session.can_open:
            found: HubTunnel = tunnel
            return found
    return None
