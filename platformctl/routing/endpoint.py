"""`Endpoint`: one service of one satellite as the hub sees it, and the tunnels that lead there."""

from __future__ import annotations

from typing import Protocol

from platformctl.routing.gate import Gate
from platformctl.routing.outlier import Outlier
from platformctl.routing.spec import ServiceSpec

__all__ = ["Endpoint", "Lease", "Tunnel"]


class Tunnel(Protocol):
    """What routing needs to know of a tunnel. Lane 0 is for small requests, the others for bulk."""

    @property
    def inflight(self) -> int: ...

    @property
    def lane(self) -> int: ...

    @property
    def draining(self) -> bool: ...


class Lease:
    """A tunnel's right to serve for its satellite, from attach to detach.

    `generation` is unique in the registry and grows. `superseded`: a newer instance of the satellite has attached;
    what this lease serves it serves until the newer one has registered it, and it gets no new services.
    """

    __slots__ = ("generation", "instance", "labels", "satellite", "services", "superseded", "tunnel")

    def __init__(self, satellite: str, instance: str, labels: dict[str, str], tunnel: Tunnel, generation: int) -> None:
        self.satellite = satellite
        self.instance = instance
        self.labels = labels
        self.tunnel = tunnel
        self.generation = generation
        self.superseded = False
        self.services: set[str] = set()


class Endpoint:
    """Its identity is stable while any tunnel serves it, so that `metrics` (the caller's handles) and `health`
    survive reconnects.

    `labels` are the service's with the satellite's over them: the satellite's are bound to its identity, so a service
    cannot pretend to be elsewhere. `inflight` is the caller's to count. `tunnels` and `leases` belong to the registry.
    `gone` is set when the endpoint leaves the registry; whoever holds on to it must route anew.
    """

    __slots__ = (
        "gate",
        "gone",
        "health",
        "inflight",
        "key",
        "labels",
        "last_used",
        "leases",
        "metrics",
        "satellite",
        "service",
        "spec",
        "tunnels",
    )

    def __init__(self, satellite: str, spec: ServiceSpec, labels: dict[str, str]) -> None:
        self.satellite = satellite
        self.service: str = spec.name
        self.key: str = f"{satellite}/{spec.name}"
        self.spec = spec
        self.labels: dict[str, str] = {**spec.labels, **labels}
        self.gate = Gate(spec.limits)
        self.health = Outlier()
        self.inflight: int = 0
        self.last_used: float = float("-inf")
        self.metrics: object = None
        self.gone: bool = False
        self.leases: list[Lease] = []
        self.tunnels: list[Tunnel] = []

    def pick(self, now: float) -> Tunnel | None:
        """The tunnel for the next stream: the least busy of the spec's lane, else the least busy of all; None if all
        drain."""
        self.last_used = now
        tunnels = self.tunnels
        if len(tunnels) == 1:
            tunnel = tunnels[0]
            return None if tunnel.draining else tunnel
        bulk = self.spec.lane == "bulk"
        best: Tunnel | None = None
        best_in_lane = False
        best_load = 0
        for tunnel in tunnels:
            if tunnel.draining:
                continue
            in_lane = (tunnel.lane > 0) is bulk
            load = tunnel.inflight
            if best is None or (in_lane and not best_in_lane) or (in_lane is best_in_lane and load < best_load):
                best = tunnel
                best_in_lane = in_lane
                best_load = load
        return best

    def serving(self) -> bool:
        """Whether a new stream could be opened now."""
        for tunnel in self.tunnels:  # noqa: SIM110
            if not tunnel.draining:
                return True
        return False

    def renew(self, lease: Lease, spec: ServiceSpec) -> None:
        """`lease` has registered `spec`: it serves from now on, and leases of older instances no longer do."""
        if spec.limits != self.spec.limits:
            self.gate.resize(spec.limits)
        self.spec = spec
        self.labels = {**spec.labels, **lease.labels}
        serving = [one for one in self.leases if one is not lease and not one.superseded]
        serving.append(lease)
        self._serve(serving)

    def drop(self, lease: Lease) -> bool:
        """`lease` no longer serves this. True: none is left."""
        self._serve([one for one in self.leases if one is not lease])
        return not self.leases

    def _serve(self, leases: list[Lease]) -> None:
        # Lists are replaced, never changed in place: a caller may be walking the old one.
        self.leases = leases
        self.tunnels = [lease.tunnel for lease in leases]
