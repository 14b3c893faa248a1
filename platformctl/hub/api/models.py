"""Bodies of the control API. The response models read the dataclasses of `view` by attribute; requests are closed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from platformctl.access.identity import MAX_LABELS
from platformctl.access.tokens import JOIN_TTL_SECONDS, MAX_JOIN_TTL_SECONDS
from platformctl.hub.api.view import ReplicaState, SatelliteState, ServiceState

__all__ = [
    "Caller",
    "JoinToken",
    "NewJoinToken",
    "Page",
    "Problem",
    "Replica",
    "Satellite",
    "Service",
    "TokenRequest",
    "Tunnel",
    "Version",
]

# A name becomes a DNS label and a part of a SPIFFE URI (RFC 1123 section 2.1).
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Rtt = Annotated[float | None, Field(description="Round-trip time in milliseconds; null before it was measured.")]

Item = TypeVar("Item", bound=BaseModel)


class Read(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[Item]):
    """One page of a list; `next` is passed on as `continue`, and is null on the last page."""

    items: list[Item]
    next: str | None = None


class Satellite(Read):
    name: str
    labels: dict[str, str]
    state: SatelliteState
    connected: Annotated[int, Field(description="Hub replicas that it has a tunnel to.")]
    expected: Annotated[int, Field(description="Hub replicas that it should have a tunnel to.")]
    rtt_ms: Rtt
    version: str
    services: list[str]
    instance: str
    tunnels: Annotated[list[str], Field(description="Ids of its tunnels; see /api/v1/tunnels.")]


class Service(Read):
    satellite: str
    name: str
    kind: str
    state: ServiceState
    path: str
    host: str
    in_flight: int
    waiting: int
    tunnels: int


class Tunnel(Read):
    id: str
    satellite: str
    replica: str
    instance: str
    lane: int
    remote: str
    rtt_ms: Rtt
    streams: int
    bytes_received: Annotated[int, Field(description="From the satellite.")]
    bytes_sent: Annotated[int, Field(description="To the satellite.")]
    connected_at: datetime
    draining: bool


class Replica(Read):
    id: str
    url: str
    state: ReplicaState
    current: Annotated[bool, Field(description="True for the replica that answered.")]
    version: str
    started_at: datetime | None
    tunnels: int | None


class Version(Read):
    version: str
    replica: str
    wire_versions: list[int]
    python: str
    commit: str
    hot_path: Annotated[str, Field(description="`compiled`, or `pure` with the reason.")]


class Caller(Read):
    """The identity that the hub verified for this request."""

    kind: str
    name: str
    groups: list[str]


class TokenRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    satellite: Name
    labels: Annotated[dict[str, str], Field(max_length=MAX_LABELS, description="As Kubernetes labels.")] = {}
    ttl_seconds: Annotated[int, Field(gt=0, le=int(MAX_JOIN_TTL_SECONDS), strict=True)] = int(JOIN_TTL_SECONDS)


class JoinToken(BaseModel):
    """A join token without its secret, which the hub does not keep."""

    id: str
    satellite: str
    labels: dict[str, str]
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    uses: Annotated[int, Field(description="0 or 1: a join token works once.")]
    state: Annotated[Literal["unused", "used", "expired"], Field(description="unused: it can still be redeemed.")]


class NewJoinToken(BaseModel):
    id: str
    token: Annotated[str, Field(repr=False, description="Shown this once; the hub keeps its hash alone.")]
    satellite: str
    labels: dict[str, str]
    expires_at: datetime
    ca_pin: str
    join_command: str


class Problem(BaseModel):
    """RFC 9457; docs/reference/errors.md lists every code."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str
    request_id: str
