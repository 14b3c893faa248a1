"""`Registry`: which satellites are attached, what they serve, and through which tunnels.

Rules:
1. A tunnel attaches once and gets a lease. Services are registered for each lease: an agent with several tunnels
   (lanes) sends REGISTER on each.
2. The newest instance of a satellite wins. Leases of older ones are superseded: they register nothing more, and a
   service of theirs is served on until the new instance has registered it or they detach (make before break).
3. An instance that was superseded cannot come back while its successor is attached. Otherwise two agents that were
   given one identity by mistake would throw each other out for ever.
4. Removal compares the lease: a late clean-up of an old tunnel never removes its successor's.
5. `generation` grows with every change, so that a remembered route is checked by one comparison.
6. The caller must end what waits in the gate of every endpoint that a method returns as removed.
"""

from __future__ import annotations

from typing import Final

from platformctl.errors import Conflict
from platformctl.routing.endpoint import Endpoint, Lease, Tunnel
from platformctl.routing.selector import EVERYTHING, Selector
from platformctl.routing.spec import ServiceSpec

__all__ = ["MAX_SERVICES", "MAX_TUNNELS", "Registry", "Satellite"]

MAX_SERVICES: Final = 1000  # of a satellite
MAX_TUNNELS: Final = 64  # of a satellite at one replica: lanes, times two while it rolls, with room
_RETIRED: Final = 8  # superseded instances that are remembered


class Satellite:
    """An attached satellite. `registered` turns true with its first REGISTER; `unhealthy` holds services that it
    withdrew for their health."""

    __slots__ = ("endpoints", "instance", "labels", "leases", "name", "registered", "retired", "unhealthy")

    def __init__(self, name: str, instance: str, labels: dict[str, str]) -> None:
        self.name = name
        self.instance = instance
        self.labels = labels
        self.registered = False
        self.leases: dict[int, Lease] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.unhealthy: set[str] = set()
        self.retired: list[str] = []

    def has_current(self) -> bool:
        """Whether any tunnel of the newest instance is attached."""
        return any(lease.instance == self.instance for lease in self.leases.values())


class Registry:
    __slots__ = ("_by_service", "_leases", "_max_services", "_max_tunnels", "_satellites", "generation")

    def __init__(self, max_services: int = MAX_SERVICES, max_tunnels: int = MAX_TUNNELS) -> None:
        self.generation: int = 0
        self._leases: int = 0
        self._max_services = max_services
        self._max_tunnels = max_tunnels
        self._satellites: dict[str, Satellite] = {}
        self._by_service: dict[str, dict[str, Endpoint]] = {}

    def attach(
        self, satellite: str, instance: str, labels: dict[str, str], tunnel: Tunnel
    ) -> tuple[Lease, list[Lease]]:
        """A tunnel is up: its lease, and the leases that it supersedes (send GOAWAY to their tunnels).

        `instance` is the agent process's id from HELLO. Raises Conflict for a superseded instance (rule 3) and for
        too many tunnels.
        """
        record = self._satellites.get(satellite)
        if record is None:
            record = Satellite(satellite, instance, labels)
            self._satellites[satellite] = record
        self._admit(record, instance)
        superseded: list[Lease] = []
        for lease in record.leases.values():
            if lease.instance != instance and not lease.superseded:
                lease.superseded = True
                superseded.append(lease)
        if record.instance != instance:
            record.retired = [one for one in record.retired if one != instance][-_RETIRED + 1 :]
            record.retired.append(record.instance)
            record.instance = instance
        record.labels = labels
        self.generation += 1
        self._leases += 1
        lease = Lease(satellite, instance, labels, tunnel, self.generation)
        record.leases[lease.generation] = lease
        return lease, superseded

    def _admit(self, record: Satellite, instance: str) -> None:
        if instance != record.instance and instance in record.retired and record.has_current():
            raise Conflict(
                f"satellite {record.name} is served by a newer agent than this one",
                hint="two agents run with one identity: stop one of them, or join it under a name of its own",
            )
        if len(record.leases) >= self._max_tunnels:
            raise Conflict(
                f"satellite {record.name} has {len(record.leases)} tunnels to this replica, as many as it may have",
                hint="check the agent's number of tunnels for each replica, and that old agents were stopped",
            )

    def register(self, lease: Lease, specs: list[ServiceSpec]) -> tuple[list[str], list[tuple[str, str]]]:
        """Add or replace services: the accepted names, and (name, reason) of the refused ones."""
        record = self._current(lease)
        if record is None:
            return [], [(spec.name, "this tunnel is no longer attached") for spec in specs]
        if lease.superseded:
            return [], [(spec.name, "a newer agent of this satellite has taken over") for spec in specs]
        record.registered = True
        accepted: list[str] = []
        refused: list[tuple[str, str]] = []
        for spec in specs:
            endpoint = record.endpoints.get(spec.name)
            if endpoint is None:
                if len(record.endpoints) >= self._max_services:
                    refused.append((spec.name, f"the satellite may have {self._max_services} services and has them"))
                    continue
                endpoint = Endpoint(record.name, spec, lease.labels)
                record.endpoints[spec.name] = endpoint
                self._by_service.setdefault(spec.name, {})[record.name] = endpoint
            endpoint.renew(lease, spec)
            lease.services.add(spec.name)
            record.unhealthy.discard(spec.name)
            accepted.append(spec.name)
        self.generation += 1
        return accepted, refused

    def deregister(self, lease: Lease, names: list[str], unhealthy: bool = False) -> list[Endpoint]:
        """Withdraw services from a lease: the endpoints that no tunnel serves any more.

        With `unhealthy` the name stays known, so that a caller is told 503 (it will come back) and not 404.
        """
        record = self._current(lease)
        if record is None:
            return []
        removed: list[Endpoint] = []
        for name in names:
            record.unhealthy.discard(name)
            if name not in lease.services:
                continue
            lease.services.discard(name)
            endpoint = record.endpoints.get(name)
            if endpoint is not None and endpoint.drop(lease):
                self._remove(record, endpoint)
                removed.append(endpoint)
                if unhealthy and len(record.unhealthy) < self._max_services:
                    record.unhealthy.add(name)
        self.generation += 1
        return removed

    def detach(self, lease: Lease) -> list[Endpoint]:
        """A tunnel is down: the endpoints that no tunnel serves any more. Harmless when called again, or late."""
        record = self._current(lease)
        if record is None:
            return []
        del record.leases[lease.generation]
        self._leases -= 1
        removed: list[Endpoint] = []
        for name in lease.services:
            endpoint = record.endpoints.get(name)
            if endpoint is not None and endpoint.drop(lease):
                self._remove(record, endpoint)
                removed.append(endpoint)
        if not record.leases:
            del self._satellites[record.name]
        self.generation += 1
        return removed

    def _current(self, lease: Lease) -> Satellite | None:
        record = self._satellites.get(lease.satellite)
        return record if record is not None and record.leases.get(lease.generation) is lease else None

    def _remove(self, record: Satellite, endpoint: Endpoint) -> None:
        endpoint.gone = True
        del record.endpoints[endpoint.service]
        satellites = self._by_service[endpoint.service]
        del satellites[record.name]
        if not satellites:
            del self._by_service[endpoint.service]

    def satellite(self, name: str) -> Satellite | None:
        return self._satellites.get(name)

    def satellites(self) -> list[Satellite]:
        """The attached satellites by name; the records are live, for reading only."""
        return [self._satellites[name] for name in sorted(self._satellites)]

    def endpoint(self, satellite: str, service: str) -> Endpoint | None:
        record = self._satellites.get(satellite)
        return None if record is None else record.endpoints.get(service)

    def endpoints(self, service: str, selector: Selector = EVERYTHING) -> list[Endpoint]:
        """All that serve `service` on satellites that `selector` matches."""
        return [one for one in self._by_service.get(service, {}).values() if selector.matches(one.labels)]

    @property
    def satellite_count(self) -> int:
        return len(self._satellites)

    @property
    def tunnel_count(self) -> int:
        return self._leases

    @property
    def service_count(self) -> int:
        """Endpoints: a service that two satellites export counts twice."""
        return sum(len(satellites) for satellites in self._by_service.values())
