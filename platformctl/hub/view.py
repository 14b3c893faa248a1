"""The hub as the control API sees it (hub/api/view.HubView)."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import platformctl
from platformctl.access.pki import ca_pin
from platformctl.hub.api.view import ReplicaView, SatelliteState, SatelliteView, ServiceView, TunnelView, VersionView
from platformctl.hub.tunnels import HubTunnel
from platformctl.wire.frames import VERSIONS

if TYPE_CHECKING:
    from platformctl.hub.server import HubServer
    from platformctl.hub.store import SatelliteRecord, Store
    from platformctl.routing.endpoint import Endpoint


class ServerView:
    """Snapshots of a running HubServer."""

    def __init__(self, server: HubServer) -> None:
        self._server = server

    @property
    def store(self) -> Store:
        return self._server.store

    def satellites(self) -> Sequence[SatelliteView]:
        access = self._server.access
        return [self._satellite(record) for record in access.satellites.values()]

    def _satellite(self, record: SatelliteRecord) -> SatelliteView:
        server = self._server
        tunnels = [t for t in server.tunnels.members if t.satellite == record.name and t.lease is not None]
        attached = server.registry.satellite(record.name)
        others = server.upkeep.seen.others(server.config.id)
        expected = 1 + len(others.replicas)
        connected = others.connected(record.name) + bool(tunnels)
        state: SatelliteState
        if record.state != "active":
            state = "pending" if record.state == "pending" else "revoked"
        elif connected == 0:
            state = "offline"
        else:
            state = "connected" if connected >= expected else "degraded"
        rtts = [t.session.rtt for t in tunnels if t.session.rtt > 0.0]
        newest = max(tunnels, key=lambda t: t.connected_at, default=None)
        return SatelliteView(
            name=record.name,
            state=state,
            connected=connected,
            expected=expected,
            labels=dict(record.labels),
            rtt_ms=round(min(rtts) * 1000, 3) if rtts else None,
            version=newest.version if newest is not None else "",
            instance=newest.instance if newest is not None else "",
            services=sorted(attached.endpoints) if attached is not None else (),
            tunnels=sorted(t.id for t in tunnels),
        )

    def services(self) -> Sequence[ServiceView]:
        found = []
        for satellite in self._server.registry.satellites():
            found += [self._service(endpoint) for endpoint in satellite.endpoints.values()]
            # Withdrawn by the agent until their backend is well again: known by name alone.
            found += [
                ServiceView(
                    satellite=satellite.name,
                    name=name,
                    kind="",
                    state="unhealthy",
                    host=self._host(satellite.name, name),
                )
                for name in satellite.unhealthy
            ]
        return found

    def _host(self, satellite: str, service: str) -> str:
        return f"{service}.{satellite}.{self._server.config.domain}"

    def _service(self, endpoint: Endpoint) -> ServiceView:
        return ServiceView(
            satellite=endpoint.satellite,
            name=endpoint.service,
            kind=endpoint.spec.kind,  # type: ignore[arg-type]  # checked against KINDS when it was registered
            state="ejected" if endpoint.health.ejected(time.monotonic()) else "healthy",
            path=f"/s/{endpoint.satellite}/{endpoint.service}/" if endpoint.spec.kind != "tcp" else "",
            host=self._host(endpoint.satellite, endpoint.service),
            in_flight=endpoint.inflight,
            waiting=endpoint.gate.waiting,
            tunnels=len(endpoint.tunnels),
        )

    def tunnels(self) -> Sequence[TunnelView]:
        return [self._tunnel(tunnel) for tunnel in self._server.tunnels.members if tunnel.lease is not None]

    def _tunnel(self, tunnel: HubTunnel) -> TunnelView:
        session = tunnel.session
        return TunnelView(
            id=tunnel.id,
            satellite=tunnel.satellite,
            replica=self._server.config.id,
            instance=tunnel.instance,
            lane=tunnel.lane,
            remote=tunnel.remote,
            rtt_ms=round(session.rtt * 1000, 3) if session.rtt > 0.0 else None,
            streams=len(session.streams),
            bytes_received=session.bytes_in,
            bytes_sent=session.bytes_out,
            connected_at=tunnel.connected_at,
            draining=tunnel.draining,
        )

    def replicas(self) -> Sequence[ReplicaView]:
        server = self._server
        return [
            ReplicaView(
                id=one.id,
                url=one.tunnel_url,
                state="draining" if one.id == server.config.id and server.draining else "ready",
                current=one.id == server.config.id,
                version=platformctl.__version__ if one.id == server.config.id else "",
                started_at=server.started_at if one.id == server.config.id else None,
                tunnels=len(server.upkeep.seen.holds.get(one.id, ())),
            )
            for one in server.upkeep.seen.replicas
        ]

    def version(self) -> VersionView:
        return VersionView(
            version=platformctl.__version__,
            replica=self._server.config.id,
            wire_versions=VERSIONS,
            python=platform.python_version(),
        )

    def ca_pin(self) -> str:
        return ca_pin(self._server.ca.cert_pem)

    def join_url(self) -> str:
        return self._server.tunnel_url.replace("wss://", "https://", 1)

    def now(self) -> float:
        return time.time()
