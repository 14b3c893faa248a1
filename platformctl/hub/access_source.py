"""Where a replica's access rules come from: the policy file and the store's tokens and satellites, kept current."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from platformctl.access.policy import Policy
from platformctl.access.policy_file import load_policy
from platformctl.access.tokens import ClientTokens
from platformctl.errors import AccessDenied, ConfigError
from platformctl.hub.store import SatelliteRecord, Store
from platformctl.net.tls import PeerIdentity

log = logging.getLogger("platformctl.hub.access")


class AccessSource:
    """Reads policy, tokens and satellites; `refresh` again whenever the store's version or the file changed.

    Args:
        on_access: gets the policy and tokens in force.
        on_revoked: gets the name of each satellite that lost its right to connect.
    """

    def __init__(
        self,
        store: Store,
        policy_file: Path | None,
        trust_domain: str,
        *,
        on_access: Callable[[Policy, ClientTokens], None],
        on_revoked: Callable[[str], None],
    ) -> None:
        self.satellites: dict[str, SatelliteRecord] = {}
        self.problem = ""
        self._store = store
        self._file = policy_file
        self._trust_domain = trust_domain
        self._on_access = on_access
        self._on_revoked = on_revoked
        self._policy = Policy()
        self._version = -1

    def load(self) -> None:
        """The first load: a broken policy file is an error here. Raises ConfigError, StoreError."""
        self._policy = self._read_policy()
        self.refresh(force=True)

    async def reload_policy(self) -> None:
        """The policy file changed: a broken one changes nothing, and says so."""
        try:
            self._policy = self._read_policy()
        except ConfigError as e:
            self.problem = str(e)
            log.error("the policy file is broken; the former policy stays", extra={"reason": str(e)})
            return
        self.problem = ""
        self.refresh(force=True)
        log.info("the access policy was reloaded")

    def refresh(self, *, force: bool = False) -> None:
        """Take over what changed in the store. Raises StoreError."""
        version = self._store.version()
        if version == self._version and not force:
            return
        self._version = version
        before = self.satellites
        self.satellites = {record.name: record for record in self._store.list_satellites()}
        self._on_access(self._policy, ClientTokens(self._store.list_client_tokens()))
        for name, old in before.items():
            new = self.satellites.get(name)
            if old.state == "active" and (new is None or new.state != "active"):
                self._on_revoked(name)

    def labels(self, satellite: str) -> Mapping[str, str] | None:
        """The labels that a satellite was joined with; None when it is not known."""
        record = self.satellites.get(satellite)
        return record.labels if record is not None else None

    def active_labels(self, satellite: str) -> dict[str, str] | None:
        """The labels of a satellite that may connect; None when it may not."""
        record = self.satellites.get(satellite)
        return dict(record.labels) if record is not None and record.state == "active" else None

    def authenticate(self, peer: PeerIdentity | None) -> PeerIdentity:
        """Check a client certificate against the store, not only against what was read before. Raises AccessDenied."""
        if peer is None:
            raise AccessDenied("a tunnel needs a client certificate")
        if peer.kind != "satellite" or peer.trust_domain != self._trust_domain:
            raise AccessDenied(f"the certificate is not one of a satellite of {self._trust_domain}")
        record = self._store.get_satellite(peer.name)
        if record is None or not record.accepts(peer.serial):
            raise AccessDenied(f"satellite {peer.name} may not connect with this certificate")
        self.satellites[peer.name] = record
        return peer

    def _read_policy(self) -> Policy:
        if self._file is None:
            return Policy()
        try:
            return load_policy([(str(self._file), self._file.read_text("utf-8"))])
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"cannot be read: {e}", source=str(self._file)) from e
