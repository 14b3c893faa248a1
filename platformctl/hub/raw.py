"""Raw connections into a service: declared TCP ports, and TLS passed through by its SNI. No byte of them is changed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from platformctl.access.identity import ANONYMOUS
from platformctl.hub.client_hello import NeedMore, NotTls, server_name
from platformctl.net.deadlines import NEVER
from platformctl.net.transports import cut
from platformctl.routing.addressing import ServiceTarget
from platformctl.wire import frames

if TYPE_CHECKING:
    from platformctl.hub.front import Front
    from platformctl.hub.tunnels import HubTunnel
    from platformctl.routing.endpoint import Endpoint
    from platformctl.wire.stream import Stream

log = logging.getLogger("platformctl.hub.raw")

WRITE_HIGH: Final = 256 * 1024
MAX_HELLO: Final = 16 * 1024
HELLO_SECONDS: Final = 10.0
BACKSTOP_SECONDS: Final = 5.0
IDLE_CHECKS: Final = 4
# How often a connection that has ended on both sides is looked at until its last bytes are out, in seconds.
TAIL_STEP: Final = 1.0
# A connection that is being closed stays for as long as its client reads in this time.
CLOSING_SECONDS: Final = 30.0


class RawConnection(asyncio.Protocol):
    """One client of a TCP port (`target` given) or of the SNI port (`target` None: the ClientHello says where to).

    Such a client has no identity of ours: the policy decides for `anonymous`, and only a rule without limits of
    methods and paths can allow it.
    """

    __slots__ = (
        "_blocked",
        "_client_ended",
        "_early",
        "_ended",
        "_endpoint",
        "_front",
        "_idle",
        "_owed",
        "_seen",
        "_started",
        "_tail",
        "_target",
        "_tunnel",
        "deadline",
        "stream",
        "transport",
    )

    def __init__(self, front: Front, target: ServiceTarget | None) -> None:
        self.stream: Stream | None = None
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set in connection_made
        self.deadline = NEVER
        self._front = front
        self._target = target
        self._endpoint: Endpoint | None = None
        self._tunnel: HubTunnel | None = None
        self._early = b""
        self._blocked = False
        self._owed = 0
        self._seen = False
        self._client_ended = False
        self._ended = False  # the backend has said everything
        self._idle = 0
        self._tail = (0, 0)
        self._started = 0.0

    # ---- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.transport.set_write_buffer_limits(WRITE_HIGH)
        self._front.options.deadlines.members.add(self)
        self._started = time.monotonic()
        self.deadline = self._started + HELLO_SECONDS
        if self._target is not None:
            self._open(self._target)

    def data_received(self, data: bytes) -> None:
        self._seen = True
        if self.stream is not None:
            assert self._endpoint is not None
            self._endpoint.metrics.bytes_in += len(data)  # type: ignore[attr-defined]
            if not self.stream.send_data(data):
                self.transport.pause_reading()
            return
        self._early += data
        if self._target is not None:
            return
        try:
            name = server_name(self._early)
        except NeedMore:
            if len(self._early) > MAX_HELLO:
                self.transport.abort()
            return
        except NotTls as e:
            self._refuse(f"not a TLS ClientHello: {e}")
            return
        found = self._front.addressing.from_sni(name)
        if found is None:
            self._refuse(f"no service is called {name[:80]!r}")
            return
        self._target = ServiceTarget(found[0], found[1], "")
        self._open(self._target)

    def eof_received(self) -> bool:
        if self.stream is None:
            return False
        self._client_ended = True
        self.stream.send_end()
        if self._ended:
            self._end()
        return True

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
            if self._ended and self._client_ended:
                self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.options.deadlines.members.discard(self)
        stream = self.stream
        if stream is not None and not stream.closed:
            stream.reset(frames.CANCELLED)
        self._settle(499)

    # ---- opening -------------------------------------------------------------------------------------------------

    def _open(self, target: ServiceTarget) -> None:
        front = self._front
        peer = self.transport.get_extra_info("peername")
        ip = str(peer[0]) if peer else ""
        labels = front.known(target.satellite) or {}
        grant = front.policy.grant(ANONYMOUS, target.satellite, labels, target.service, ip)
        decision = grant.check_raw()
        front.count_decision(decision.allowed)
        if not decision.allowed:
            front.record_raw(target, ip, decision)
            self._refuse(decision.reason)
            return
        endpoint = front.registry.endpoint(target.satellite, target.service)
        tunnel: HubTunnel | None = endpoint.pick(self._started) if endpoint is not None else None  # type: ignore[assignment]
        if endpoint is None or tunnel is None or not tunnel.session.can_open or endpoint.spec.kind != "tcp":
            self._refuse(f"service {target.service} of satellite {target.satellite} is not there as a tcp service")
            return
        if not endpoint.gate.try_enter():
            self._refuse(f"service {target.service} of satellite {target.satellite} is at its limit")
            return
        self._endpoint = endpoint
        self._tunnel = tunnel
        endpoint.inflight += 1
        tunnel.inflight += 1
        prefix = frames.open_prefix(frames.KIND_TCP, target.service.encode("ascii"), frames.UNKNOWN_LENGTH)
        self.stream = tunnel.session.open(prefix, False, self)
        self.deadline = self._started + endpoint.spec.timeouts.connect + BACKSTOP_SECONDS
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)

    def _refuse(self, reason: str) -> None:
        log.info("raw connection refused", extra={"reason": reason})
        self.transport.abort()

    # ---- sink ----------------------------------------------------------------------------------------------------

    def on_head(self, stream: Stream, payload: bytes, flags: int) -> None:
        assert self._endpoint is not None
        self._seen = True
        self.deadline = time.monotonic() + self._endpoint.spec.timeouts.idle / IDLE_CHECKS

    def on_data(self, stream: Stream, data: bytes | memoryview, end: bool) -> None:
        self._seen = True
        n = len(data)
        if n:
            assert self._endpoint is not None
            self._endpoint.metrics.bytes_out += n  # type: ignore[attr-defined]
            self.transport.write(data)
            if self._blocked:
                self._owed += n
            else:
                stream.consumed(n)
        if end:
            self._ended = True
            if self._client_ended:
                self._end()
            else:
                self.transport.write_eof()

    def on_reset(self, stream: Stream, code: int) -> None:
        self._settle(502)
        cut(self.transport)

    def on_writable(self, stream: Stream) -> None:
        self.transport.resume_reading()

    # ---- ends ----------------------------------------------------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        if self.stream is None or self._endpoint is None:
            if self.transport.is_closing() and self._moved():
                self.deadline = now + CLOSING_SECONDS
            else:
                self.transport.abort()
            return
        if self._ended and self._client_ended:
            self._end()
            return
        self.deadline = now + self._endpoint.spec.timeouts.idle / IDLE_CHECKS
        # What waits for the satellite's credit is not this client's silence: the agent sees the backend, and judges.
        if self._seen or self.stream.queued or self._moved():
            self._seen = False
            self._idle = 0
            return
        self._idle += 1
        if self._idle >= IDLE_CHECKS:
            self.stream.reset(frames.IDLE_TIMEOUT)
            self._settle(504)
            cut(self.transport)

    def _moved(self) -> bool:
        """Whether some of what waits on either side has gone out since the last call."""
        queued = self.stream.queued if self.stream is not None else 0
        before, self._tail = self._tail, (queued, self.transport.get_write_buffer_size())
        return self._tail[0] < before[0] or self._tail[1] < before[1]

    def _end(self) -> None:
        """Both sides have said everything; wait until it is out, as long as somebody reads."""
        stream = self.stream
        endpoint = self._endpoint
        assert stream is not None and endpoint is not None
        if not stream.queued and not self._blocked:
            self._settle(200)
            self._moved()
            self.deadline = time.monotonic() + CLOSING_SECONDS
            self.transport.close()
            return
        self._idle = 0 if self._moved() else self._idle + 1
        if self._idle * TAIL_STEP > endpoint.spec.timeouts.idle:
            stream.reset(frames.IDLE_TIMEOUT)
            self._settle(504)
            cut(self.transport)
        else:
            self.deadline = time.monotonic() + TAIL_STEP

    def _settle(self, status: int) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is None:
            return
        self.stream = None
        endpoint.inflight -= 1
        if self._tunnel is not None:
            self._tunnel.inflight -= 1
        endpoint.metrics.observe(status, time.monotonic() - self._started)  # type: ignore[attr-defined]
        self._front.leave(endpoint)


def make_raw(front: Front, target: ServiceTarget | None) -> Callable[[], RawConnection]:
    return lambda: RawConnection(front, target)
