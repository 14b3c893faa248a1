"""What must outlive a hub process: the CA, tokens, satellites, replicas, settings. One protocol, several stores.

The rules that every store keeps (tests/conformance/store checks them against each implementation):

1. A change is whole or not there, also when the process dies in the middle of it.
2. What must happen once happens once among all processes on one store: making the CA, consuming a join token.
3. Satellites are replaced by compare-and-set on `generation`: who writes back an outdated record gets Conflict,
   so no renewal can undo a revocation that came between its reading and its writing.
4. `version()` grows with every change that any process makes, heartbeats that tell nothing new excepted; a replica
   polls it and reads again only when it moved.
5. Whatever goes wrong with the storage itself is a StoreError with a hint; secrets are in none of them.

Methods block for about a millisecond (a commit to disk) and are called rarely: on joins, renewals, CLI verbs, polls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from platformctl.access.tokens import ClientToken, JoinToken
from platformctl.errors import Conflict

__all__ = [
    "CaMaterial",
    "ClientToken",
    "JoinToken",
    "Replica",
    "SatelliteRecord",
    "SatelliteState",
    "Store",
    "update_satellite",
]

SatelliteState = Literal["pending", "active", "revoked"]

KEPT_SERIALS = 8
_ATTEMPTS = 16


@dataclass(frozen=True, slots=True)
class CaMaterial:
    """The CA's certificate and key, both PEM."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SatelliteRecord:
    """A satellite as the hub knows it.

    `fingerprint` is the pin of its key (`sha256:<hex>`), `serials` its certificates' serial numbers in hex, the newest
    last; a certificate that is not among them is refused, so that one from before a revocation never comes back.
    `created` is Unix seconds. `generation` is the store's: 0 for a record that was not stored yet.
    """

    name: str
    labels: Mapping[str, str]
    state: SatelliteState
    fingerprint: str
    serials: tuple[str, ...]
    created: float
    generation: int = 0

    def accepts(self, serial: str) -> bool:
        """Whether a certificate with this serial number may open tunnels."""
        return self.state == "active" and serial in self.serials

    def with_serial(self, serial: str) -> SatelliteRecord:
        """The record after one more certificate was signed; the oldest are forgotten, and refused, beyond eight."""
        return replace(self, serials=(*self.serials, serial)[-KEPT_SERIALS:])

    def revoked(self) -> SatelliteRecord:
        return replace(self, state="revoked", serials=())


@dataclass(frozen=True, slots=True)
class Replica:
    """A running hub replica: where it can be reached, and when it last said so (Unix seconds)."""

    id: str
    tunnel_url: str
    public_url: str
    metrics_url: str
    seen_at: float


class Store(Protocol):
    """See the module's rules. Every method may raise StoreError."""

    def get_or_create_ca(self, factory: Callable[[], CaMaterial]) -> CaMaterial:
        """The CA; `factory` is called when there is none, at most once among all processes that race for it."""
        ...

    def put_join_token(self, token: JoinToken) -> None:
        """Keep a new token; Conflict when its id is taken."""
        ...

    def get_join_token(self, id: str) -> JoinToken | None: ...

    def list_join_tokens(self) -> list[JoinToken]:
        """All, used and expired ones too, oldest first."""
        ...

    def delete_join_token(self, id: str) -> bool:
        """True when it was there."""
        ...

    def consume_join_token(self, id: str, now: float) -> bool:
        """Mark it used; True for exactly one caller, ever, and for none after it expired or was deleted."""
        ...

    def put_client_token(self, token: ClientToken) -> None:
        """Keep a new token; Conflict when its id is taken."""
        ...

    def list_client_tokens(self) -> list[ClientToken]: ...

    def delete_client_token(self, id: str) -> bool: ...

    def put_satellite(self, record: SatelliteRecord) -> SatelliteRecord:
        """Create (generation 0) or replace; gives the record with its new generation, or raises Conflict."""
        ...

    def get_satellite(self, name: str) -> SatelliteRecord | None: ...

    def list_satellites(self) -> list[SatelliteRecord]:
        """By name."""
        ...

    def revoke_satellite(self, name: str) -> bool:
        """Refuse all its certificates from now on; whatever its generation. False when there is no such satellite."""
        ...

    def delete_satellite(self, name: str) -> bool: ...

    def heartbeat(self, replica: Replica) -> None:
        """Add the replica, or note that it was seen."""
        ...

    def list_replicas(self, *, seen_since: float) -> list[Replica]:
        """Those seen at that time or later, by id."""
        ...

    def remove_replica(self, id: str) -> bool: ...

    def get_setting(self, key: str) -> str | None: ...

    def put_setting(self, key: str, value: str) -> None: ...

    def version(self) -> int: ...

    def close(self) -> None: ...


def update_satellite(
    store: Store, name: str, change: Callable[[SatelliteRecord | None], SatelliteRecord]
) -> SatelliteRecord:
    """Read, change, write back, again when someone else was faster. `change` may run several times, and may raise.

    It keeps the `generation` of the record it was given (`dataclasses.replace` does). Conflict when it never ends.
    """
    for _ in range(_ATTEMPTS):
        try:
            return store.put_satellite(change(store.get_satellite(name)))
        except Conflict:
            continue
    raise Conflict(f"satellite {name} was changed by others {_ATTEMPTS} times in a row", hint="try again in a moment")
