"""The hub's half of a tunnel: greeting, registration, drain; and all tunnels of this replica."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from platformctl.errors import AccessDenied, Conflict, SessionError, excerpt
from platformctl.net.link import Link
from platformctl.net.tls import PeerIdentity, peer_identity
from platformctl.routing.registry import Registry
from platformctl.routing.spec import SpecError, specs_from_wire
from platformctl.telemetry.metrics import TunnelMetrics
from platformctl.wire import frames
from platformctl.wire.session import DEFAULT_MAX_STREAMS, HUB
from platformctl.wire.stream import Stream

if TYPE_CHECKING:
    from platformctl.routing.endpoint import Endpoint, Lease

log = logging.getLogger("platformctl.hub.tunnels")

MAX_LANES: Final = 16
# A satellite's older agent goes when the newer one serves all that it does, or after this long (seconds).
SUPERSEDE_SECONDS: Final = 10.0
SUPERSEDE_STEP: Final = 0.25
# What streams of an older agent have to end in, in seconds; then its tunnel is closed.
RETIRE_SECONDS: Final = 30.0
# A draining replica tells its agents, one by one, when to come back: so many of them in a second.
RETURNS_PER_SECOND: Final = 200.0
_MAX_TEXT: Final = 64


class Flushable(Protocol):
    def flush(self) -> None: ...


class HubTunnel:
    """One tunnel from one agent (a routing Tunnel and a LinkOwner)."""

    def __init__(self, tunnels: HubTunnels) -> None:
        self.tunnels = tunnels
        self.remote = ""
        self.id = uuid.uuid4().hex[:12]
        self.satellite = ""
        self.serial = ""
        self.instance = ""
        self.version = ""
        self.lane = 0
        self.lanes = 1
        self.inflight = 0
        self.draining = False
        self.connected_at = time.time()
        self.lease: Lease | None = None
        self.unflushed: list[Flushable] = []
        self.link = Link(HUB, self, ping_interval=tunnels.ping_interval, max_streams=DEFAULT_MAX_STREAMS)
        self.session = self.link.session

    # ---- LinkOwner -----------------------------------------------------------------------------------------------

    def on_up(self, link: Link) -> None:
        """The WebSocket is open: whose certificate is it? The agent's HELLO comes next."""
        assert link.transport is not None
        underlying = link.transport.underlying_transport
        remote = underlying.get_extra_info("peername")
        self.remote = str(remote[0]) if remote else ""
        try:
            peer = self.tunnels.authenticate(peer_identity(underlying.get_extra_info("ssl_object")))
        except AccessDenied as e:
            log.warning("tunnel refused", extra={"reason": e.message, "remote": self.remote})
            link.fail(SessionError(frames.UNAUTHORIZED, e.message))
            return
        self.satellite = peer.name
        self.serial = peer.serial
        self.tunnels.members.add(self)

    def on_received(self) -> None:
        if self.unflushed:
            pending, self.unflushed = self.unflushed, []
            for exchange in pending:
                exchange.flush()

    def on_control(self, kind: int, message: dict[str, Any]) -> None:
        if kind == frames.HELLO:
            self._on_hello(message)
        elif self.lease is None:
            raise SessionError(frames.PROTOCOL, f"{frames.NAMES[kind]} before the greeting was accepted")
        elif kind == frames.REGISTER:
            self._on_register(self.lease, message)
        elif kind == frames.DEREGISTER:
            self._on_deregister(self.lease, message)
        elif kind == frames.GOAWAY:
            # Nothing more is opened here: the session's answer has told the agent so (SPEC.md, "Drain").
            self.draining = True

    def on_open(self, stream: Stream, payload: bytes, end: bool) -> None:
        raise SessionError(frames.PROTOCOL, "an agent opens no streams")

    def on_rtt(self, seconds: float) -> None:
        """The session keeps the smoothed value; metrics and status read it there."""

    def on_down(self, reason: str) -> None:
        self.draining = True
        self.tunnels.members.discard(self)
        lease, self.lease = self.lease, None
        if lease is not None:
            self.tunnels.counters(self.satellite).down(self.session)
            self.tunnels.removed(self.tunnels.registry.detach(lease))
            self.tunnels.changed()
        log.info("tunnel down", extra={"satellite": self.satellite, "tunnel": self.id, "reason": reason})

    # ---- control messages ----------------------------------------------------------------------------------------

    def _on_hello(self, message: dict[str, Any]) -> None:
        versions = message.get("versions")
        common = [v for v in frames.VERSIONS if isinstance(versions, list) and v in versions]
        if not common:
            raise SessionError(
                frames.VERSION, f"no common version: the hub speaks {frames.VERSIONS}, the agent {versions!r:.60}"
            )
        if message.get("satellite") != self.satellite:
            raise SessionError(frames.UNAUTHORIZED, f"the certificate is for satellite {self.satellite}, HELLO is not")
        instance = message.get("instance")
        if not isinstance(instance, str) or not 1 <= len(instance) <= _MAX_TEXT:
            raise SessionError(frames.PROTOCOL, "HELLO without an instance id")
        lane = message.get("lane", 0)
        lanes = message.get("lanes", 1)
        if type(lane) is not int or type(lanes) is not int or not 0 <= lane < MAX_LANES or lanes > MAX_LANES:
            raise SessionError(frames.PROTOCOL, f"HELLO with lane {lane!r:.20} of {lanes!r:.20}")
        labels = self.tunnels.labels(self.satellite)
        if labels is None:
            raise SessionError(frames.UNAUTHORIZED, f"satellite {self.satellite} is not accepted by this hub")
        if self.tunnels.retired_elsewhere(self.satellite, instance):
            raise SessionError(frames.SUPERSEDED, f"a newer agent of satellite {self.satellite} runs already")
        self.instance = instance
        self.lane = lane
        self.lanes = max(lanes, lane + 1)
        self.version = excerpt(str(message.get("agent_version", "")), _MAX_TEXT)
        try:
            self.lease, superseded = self.tunnels.registry.attach(self.satellite, instance, labels, self)
        except Conflict as e:
            raise SessionError(frames.SUPERSEDED, f"{e.message}: {e.hint}") from e
        self.session.send_control(frames.WELCOME, self.tunnels.welcome(max(common)))
        for old in superseded:
            self.tunnels.supersede(old)
        self.tunnels.count_up(self)
        self.tunnels.changed()
        log.info("tunnel up", extra={"satellite": self.satellite, "tunnel": self.id, "remote": self.remote})

    def _on_register(self, lease: Lease, message: dict[str, Any]) -> None:
        try:
            specs, refused = specs_from_wire(message.get("services"))
        except SpecError as e:
            raise SessionError(frames.PROTOCOL, f"REGISTER: {e}") from e
        accepted, more = self.tunnels.registry.register(lease, specs)
        for name in accepted:
            endpoint = self.tunnels.registry.endpoint(self.satellite, name)
            if endpoint is not None:
                self.tunnels.adopt(endpoint)
        reasons = [{"name": name, "reason": reason} for name, reason in [*refused, *more]]
        if reasons:
            log.warning("services refused", extra={"satellite": self.satellite, "refused": reasons[:10]})
        self.session.send_control(frames.REGISTERED, {"accepted": accepted, "refused": reasons[:100]})
        self.tunnels.changed()

    def _on_deregister(self, lease: Lease, message: dict[str, Any]) -> None:
        names = message.get("services")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SessionError(frames.PROTOCOL, "DEREGISTER without a list of names")
        unhealthy = message.get("reason") == "unhealthy"
        self.tunnels.removed(self.tunnels.registry.deregister(lease, names, unhealthy))
        self.tunnels.changed()


class HubTunnels:
    """All tunnels of this replica.

    Args:
        labels: a satellite's labels as they were bound at its join; None when it may not connect (unknown, revoked).
        adopt: called with an endpoint that was registered, so that it gets its metric handles.
        removed: called with endpoints that left the registry: what waits in their gates must be answered.
        changed: the set of tunnels or services changed.
        counters: the metric handle of a satellite's tunnels to this replica.
        authenticate: whether a certificate may open tunnels; raises AccessDenied.
        retired_elsewhere: whether another replica has seen a newer instance of a satellite than this one.
    """

    def __init__(
        self,
        registry: Registry,
        replica: str,
        ping_interval: float,
        *,
        labels: Callable[[str], dict[str, str] | None],
        adopt: Callable[[Endpoint], None],
        removed: Callable[[list[Endpoint]], None],
        changed: Callable[[], None],
        counters: Callable[[str], TunnelMetrics],
        authenticate: Callable[[PeerIdentity | None], PeerIdentity],
        retired_elsewhere: Callable[[str, str], bool] = lambda satellite, instance: False,
    ) -> None:
        self.registry = registry
        self.replica = replica
        self.ping_interval = ping_interval
        self.labels = labels
        self.adopt = adopt
        self.removed = removed
        self.changed = changed
        self.counters = counters
        self.authenticate = authenticate
        self.retired_elsewhere = retired_elsewhere
        self.members: set[HubTunnel] = set()
        self.replicas: list[dict[str, str]] = []
        self._lanes_seen: set[tuple[str, int]] = set()
        self._expected: set[str] = set()

    def holds(self) -> dict[str, list[str]]:
        """The satellites with a tunnel here, each with its instances that were superseded."""
        return {one.name: list(one.retired) for one in self.registry.satellites()}

    def expect(self, satellites: Iterable[str]) -> None:
        """These may connect, so each should have its tunnels here; all others none."""
        names = set(satellites)
        for name in names:
            counters = self.counters(name)
            counters.expected = counters.expected or 1
        for name in self._expected - names:
            self.counters(name).expected = 0
        self._expected = names

    def count_up(self, tunnel: HubTunnel) -> None:
        counters = self.counters(tunnel.satellite)
        place = (tunnel.satellite, tunnel.lane)
        counters.reconnects += place in self._lanes_seen
        self._lanes_seen.add(place)
        counters.expected = tunnel.lanes
        counters.up(tunnel.session)

    def welcome(self, version: int) -> dict[str, Any]:
        return {
            "version": version,
            "hub": self.replica,
            "replicas": self.replicas,
            "ping_interval": self.ping_interval,
            "max_streams": DEFAULT_MAX_STREAMS,
        }

    def set_replicas(self, replicas: list[dict[str, str]]) -> None:
        """Tell every agent when the list of hub replicas has changed."""
        if replicas == self.replicas:
            return
        self.replicas = replicas
        for tunnel in self.members:
            if tunnel.lease is not None:
                tunnel.session.send_control(frames.REPLICAS, {"replicas": replicas})

    def supersede(self, old: Lease, waited: float = 0.0) -> None:
        """A newer agent of the satellite is here. Make before break: the older one serves until the newer one does."""
        tunnel = old.tunnel
        assert isinstance(tunnel, HubTunnel)
        if tunnel.lease is not old:
            return
        loop = asyncio.get_running_loop()
        satellite = self.registry.satellite(old.satellite)
        current = satellite is not None and satellite.has_current()
        if current and waited < SUPERSEDE_SECONDS and self._serves(old):
            loop.call_later(SUPERSEDE_STEP, self.supersede, old, waited + SUPERSEDE_STEP)
            return
        # Without a successor it may come back at once, as the current instance.
        code = frames.SUPERSEDED if current else frames.NO_ERROR
        tunnel.session.goaway(code, "a newer agent of this satellite has connected")
        loop.call_later(RETIRE_SECONDS, tunnel.link.close, "a newer agent of this satellite has taken over")

    def _serves(self, lease: Lease) -> bool:
        endpoints = (self.registry.endpoint(lease.satellite, name) for name in lease.services)
        return any(endpoint is not None and lease in endpoint.leases for endpoint in endpoints)

    def drain(self, retry_after: float) -> None:
        """Ask every agent for its replacement, one after the other; streams go on until the hub closes."""
        for number, tunnel in enumerate(list(self.members)):
            wait = retry_after + number / RETURNS_PER_SECOND
            tunnel.session.goaway(frames.NO_ERROR, "this hub replica is shutting down", round(wait, 3))

    def enforce(self, accepts: Callable[[str, str], bool]) -> None:
        """Close now the tunnels of satellites that `accepts(name, certificate serial)` no longer."""
        for tunnel in list(self.members):
            if not accepts(tunnel.satellite, tunnel.serial):
                tunnel.session.goaway(frames.UNAUTHORIZED, "this satellite, or its certificate, was revoked")
                tunnel.link.close("revoked")

    def close(self) -> None:
        for tunnel in list(self.members):
            tunnel.link.close("the hub is shutting down")
