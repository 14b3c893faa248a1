"""What the control API may see of the hub: snapshots, taken in the event loop's thread, that nobody changes
afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from platformctl.hub.store import Store

__all__ = [
    "HubView",
    "ReplicaState",
    "ReplicaView",
    "SatelliteState",
    "SatelliteView",
    "ServiceState",
    "ServiceView",
    "TunnelView",
    "VersionView",
]

SatelliteState = Literal["connected", "degraded", "offline", "pending", "revoked"]
"""connected: a tunnel to every replica; degraded: to some; offline: to none; pending: waits for approval; revoked:
refused for good.
"""
ServiceState = Literal["healthy", "unhealthy", "ejected", "offline"]
"""unhealthy: by the agent's checks; ejected: by the hub, after failures; offline: no tunnel serves it."""
ReplicaState = Literal["ready", "draining", "unknown"]


@dataclass(frozen=True, slots=True)
class SatelliteView:
    """`connected` and `expected` count hub replicas; `rtt_ms` is the best tunnel's, None before its first PONG;
    `tunnels` are ids.
    """

    name: str
    state: SatelliteState
    connected: int
    expected: int
    labels: Mapping[str, str] = field(default_factory=dict)
    rtt_ms: float | None = None
    version: str = ""
    instance: str = ""
    services: Sequence[str] = ()
    tunnels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ServiceView:
    """`path` and `host` are where the hub serves it; `in_flight` and `waiting` count the requests of this replica.
    `kind` is "" while the service is unhealthy: the hub then knows its name alone.
    """

    satellite: str
    name: str
    kind: Literal["http", "tcp", "mcp", "kube", ""]
    state: ServiceState
    path: str = ""
    host: str = ""
    in_flight: int = 0
    waiting: int = 0
    tunnels: int = 0


@dataclass(frozen=True, slots=True)
class TunnelView:
    """`connected_at` is in seconds since the epoch; bytes are as seen from the hub: `received` came from the
    satellite.
    """

    id: str
    satellite: str
    replica: str
    instance: str = ""
    lane: int = 0
    remote: str = ""
    rtt_ms: float | None = None
    streams: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    connected_at: float = 0.0
    draining: bool = False


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """`url` is where agents dial; `current` marks the replica that answers."""

    id: str
    url: str
    state: ReplicaState
    current: bool = False
    version: str = ""
    started_at: float | None = None
    tunnels: int | None = None


@dataclass(frozen=True, slots=True)
class VersionView:
    version: str
    replica: str
    wire_versions: Sequence[int]
    python: str = ""
    commit: str = ""


class HubView(Protocol):
    """The hub, as the API sees it. Snapshots may come in any order; the API sorts and pages them."""

    @property
    def store(self) -> Store: ...

    def satellites(self) -> Sequence[SatelliteView]: ...

    def services(self) -> Sequence[ServiceView]: ...

    def tunnels(self) -> Sequence[TunnelView]: ...

    def replicas(self) -> Sequence[ReplicaView]: ...

    def version(self) -> VersionView: ...

    def ca_pin(self) -> str:
        """`sha256:<hex>` of the hub CA's SubjectPublicKeyInfo."""
        ...

    def join_url(self) -> str:
        """Where a new satellite joins, `https://host:port`."""
        ...

    def now(self) -> float:
        """Seconds since the epoch; the clock that token expiry is measured by."""
        ...
