"""Control API of the hub, `/api/v1`: an ASGI 3 application over a `HubView`."""

from __future__ import annotations

from platformctl.hub.api.app import create_api
from platformctl.hub.api.view import HubView, ReplicaView, SatelliteView, ServiceView, TunnelView, VersionView

__all__ = ["HubView", "ReplicaView", "SatelliteView", "ServiceView", "TunnelView", "VersionView", "create_api"]
