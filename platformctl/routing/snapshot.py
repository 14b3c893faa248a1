"""The registry as JSON-able data, for the API and `platformctl status`."""

from __future__ import annotations

from platformctl.routing.endpoint import Endpoint, Lease
from platformctl.routing.registry import Registry, Satellite

__all__ = ["snapshot"]


def snapshot(registry: Registry, now: float) -> list[dict[str, object]]:
    """Satellites by name, each with `name, instance, labels, tunnels, services, unhealthy`; `idle` is in seconds."""
    return [_satellite(record, now) for record in registry.satellites()]


def _satellite(record: Satellite, now: float) -> dict[str, object]:
    return {
        "name": record.name,
        "instance": record.instance,
        "labels": dict(record.labels),
        "tunnels": [_tunnel(lease) for lease in record.leases.values()],
        "services": [_service(record.endpoints[name], now) for name in sorted(record.endpoints)],
        "unhealthy": sorted(record.unhealthy),
    }


def _tunnel(lease: Lease) -> dict[str, object]:
    return {
        "id": lease.generation,
        "instance": lease.instance,
        "lane": lease.tunnel.lane,
        "inflight": lease.tunnel.inflight,
        "draining": lease.tunnel.draining,
        "superseded": lease.superseded,
    }


def _service(endpoint: Endpoint, now: float) -> dict[str, object]:
    return {
        **endpoint.spec.to_wire(),
        "tunnels": len(endpoint.tunnels),
        "inflight": endpoint.inflight,
        "waiting": endpoint.gate.waiting,
        "ejected": endpoint.health.ejected(now),
        "idle": now - endpoint.last_used if endpoint.last_used > float("-inf") else None,
    }
