"""What is there: satellites, services, tunnels, replicas, the version, and who is asking. All of it read-only."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from platformctl import speedups
from platformctl.errors import NotFound, excerpt
from platformctl.hub.api.models import Caller, Page, Replica, Satellite, Service, Tunnel, Version
from platformctl.hub.api.paging import cut, listing
from platformctl.hub.api.view import HubView

__all__ = ["Continue", "Limit", "View", "router"]

router = APIRouter()


def _view(request: Request) -> HubView:
    view: HubView = request.app.state.view
    return view


View = Annotated[HubView, Depends(_view)]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most items of one page.")]
Continue = Annotated[str | None, Query(alias="continue", max_length=2048, description="`next` of the page before.")]
SatelliteFilter = Annotated[str | None, Query(max_length=63, description="Only those of this satellite.")]
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The caller has this list already (If-None-Match)."}
}


@router.get("/satellites", response_model=Page[Satellite], responses=_NOT_MODIFIED, tags=["satellites"])
async def list_satellites(request: Request, view: View, limit: Limit = 500, after: Continue = None) -> Response:
    """List the satellites that have joined, whether connected or not."""
    items = [Satellite.model_validate(each) for each in view.satellites()]
    return listing(request, cut(items, lambda each: (each.name,), limit, after))


@router.get("/satellites/{name}", tags=["satellites"])
async def get_satellite(view: View, name: Annotated[str, Path(max_length=253)]) -> Satellite:
    """Read one satellite."""
    for each in view.satellites():
        if each.name == name:
            return Satellite.model_validate(each)
    raise NoSuchSatellite(f"no satellite named {excerpt(name)!r} has joined")


@router.get("/services", response_model=Page[Service], responses=_NOT_MODIFIED, tags=["services"])
async def list_services(
    request: Request, view: View, limit: Limit = 500, after: Continue = None, satellite: SatelliteFilter = None
) -> Response:
    """List the services that satellites export."""
    items = [Service.model_validate(each) for each in view.services() if satellite in (None, each.satellite)]
    return listing(request, cut(items, lambda each: (each.satellite, each.name), limit, after))


@router.get("/tunnels", response_model=Page[Tunnel], responses=_NOT_MODIFIED, tags=["tunnels"])
async def list_tunnels(
    request: Request, view: View, limit: Limit = 500, after: Continue = None, satellite: SatelliteFilter = None
) -> Response:
    """List the open tunnels."""
    items = [Tunnel.model_validate(each) for each in view.tunnels() if satellite in (None, each.satellite)]
    return listing(request, cut(items, lambda each: (each.satellite, each.replica, each.id), limit, after))


@router.get("/replicas", response_model=Page[Replica], responses=_NOT_MODIFIED, tags=["hub"])
async def list_replicas(request: Request, view: View, limit: Limit = 500, after: Continue = None) -> Response:
    """List the hub's replicas."""
    items = [Replica.model_validate(each) for each in view.replicas()]
    return listing(request, cut(items, lambda each: (each.id,), limit, after))


@router.get("/version", tags=["hub"])
async def get_version(view: View) -> Version:
    """Read the version of the replica that answers, and the tunnel protocol versions that it speaks."""
    version = view.version()
    return Version(
        version=version.version,
        replica=version.replica,
        wire_versions=list(version.wire_versions),
        python=version.python,
        commit=version.commit,
        hot_path=speedups.state(),
    )


@router.get("/whoami", tags=["hub"])
async def get_caller(request: Request) -> Caller:
    """Read the identity that the hub verified for this very request."""
    identity = request.state.identity
    return Caller(kind=identity.kind, name=identity.name, groups=sorted(identity.groups))


class NoSuchSatellite(NotFound):
    """Answered as `satellite-unknown`."""
