"""Where a replica's access rules come from: the policy file and the store's tokens and satellites, kept current.

`read` and `read_policy` wait for disks and compile, so they belong in another thread; `apply` and `apply_policy` take
over what they brought, in the event loop's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from platformctl.access.policy import Policy
from platformctl.access.policy_file import load_policy
from platformctl.access.tokens import ClientTokens
from platformctl.errors import AccessDenied, ConfigError, StoreError
from platformctl.hub.store import ClientToken, SatelliteRecord, Store
from platformctl.net.tls import PeerIdentity

log = logging.getLogger("platformctl.hub.access")


@dataclass(frozen=True)
class AccessSnapshot:
    """What the store said when its version was `version`."""

    version: int
    satellites: dict[str, SatelliteRecord]
    tokens: list[ClientToken]


class AccessSource:
    """Policy, tokens and satellites in force.

    Args:
        store: asked when a certificate is presented.
        on_access: gets the policy and tokens in force, whenever one of them or a satellite's labels changed.
        on_satellites: called when satellites came, went, or lost or got a certificate.

    Attributes:
        problem: why the policy file on disk is not the policy in force; "" when it is.
    """

    def __init__(
        self,
        store: Store,
        policy_file: Path | None,
        trust_domain: str,
        *,
        on_access: Callable[[Policy, ClientTokens], None],
        on_satellites: Callable[[], None],
    ) -> None:
        self.satellites: dict[str, SatelliteRecord] = {}
        self.problem = ""
        self._store = store
        self._file = policy_file
        self._trust_domain = trust_domain
        self._on_access = on_access
        self._on_satellites = on_satellites
        self._policy = Policy()
        self._tokens: list[ClientToken] = []
        self._version = -1

    def load(self) -> None:
        """The first load: a broken policy file is an error here. Raises ConfigError, StoreError."""
        snapshot = self.read(self._store)
        assert snapshot is not None  # nothing was read before
        self._policy = self.read_policy()
        self._take(snapshot)
        self._on_access(self._policy, ClientTokens(self._tokens))

    # ---- store ---------------------------------------------------------------------------------------------------

    def read(self, store: Store) -> AccessSnapshot | None:
        """What the store says now; None when nothing has changed since the last one. Raises StoreError."""
        version = store.version()
        if version == self._version:
            return None
        satellites = {record.name: record for record in store.list_satellites()}
        return AccessSnapshot(version, satellites, store.list_client_tokens())

    def apply(self, snapshot: AccessSnapshot) -> None:
        """Take it over. Open connections keep what they worked out unless it can have become wrong."""
        tokens, before = self._tokens, self.satellites
        self._take(snapshot)
        if self._tokens != tokens or _labels(self.satellites) != _labels(before):
            self._on_access(self._policy, ClientTokens(self._tokens))
        if self.satellites != before:
            self._on_satellites()

    def _take(self, snapshot: AccessSnapshot) -> None:
        # A satellite that joined while this was read, and dialled: its generation is a later version.
        newer = {name: one for name, one in self.satellites.items() if one.generation > snapshot.version}
        self._version = snapshot.version
        self.satellites = {**snapshot.satellites, **newer}
        self._tokens = snapshot.tokens

    # ---- policy --------------------------------------------------------------------------------------------------

    def read_policy(self) -> Policy:
        """The policy in the file. Raises ConfigError."""
        if self._file is None:
            return Policy()
        try:
            return load_policy([(str(self._file), self._file.read_text("utf-8"))])
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"cannot be read: {e}", source=str(self._file)) from e

    def apply_policy(self, policy: Policy) -> None:
        """A new policy, for open connections too."""
        self.problem = ""
        self._policy = policy
        self._on_access(policy, ClientTokens(self._tokens))
        log.info("the access policy was reloaded")

    def refuse_policy(self, reason: ConfigError) -> None:
        """The policy file is broken: that changes nothing, and is said."""
        self.problem = str(reason)
        log.error("the policy file is broken; the former policy stays in force", extra={"reason": self.problem})

    # ---- satellites ----------------------------------------------------------------------------------------------

    def labels(self, satellite: str) -> Mapping[str, str] | None:
        """The labels that a satellite was joined with; None when it is not known."""
        record = self.satellites.get(satellite)
        return record.labels if record is not None else None

    def active_labels(self, satellite: str) -> dict[str, str] | None:
        """The labels of a satellite that may connect; None when it may not."""
        record = self.satellites.get(satellite)
        return dict(record.labels) if record is not None and record.state == "active" else None

    def active(self) -> list[str]:
        """The names of the satellites that may connect."""
        return [name for name, record in self.satellites.items() if record.state == "active"]

    def accepts(self, satellite: str, serial: str) -> bool:
        """Whether a tunnel that was opened with this certificate may go on."""
        record = self.satellites.get(satellite)
        return record is not None and record.accepts(serial)

    def authenticate(self, peer: PeerIdentity | None) -> PeerIdentity:
        """Check a client certificate against the store, not only against what was read before. Raises AccessDenied.

        With a store that cannot be read, what was read before decides: its trouble stops no tunnel.
        """
        if peer is None:
            raise AccessDenied("a tunnel needs a client certificate")
        if peer.kind != "satellite" or peer.trust_domain != self._trust_domain:
            raise AccessDenied(f"the certificate is not one of a satellite of {self._trust_domain}")
        try:
            record = self._store.get_satellite(peer.name)
        except StoreError as e:
            log.warning("the store cannot be read; deciding by what is known", extra={"reason": e.message})
            record = self.satellites.get(peer.name)
        if record is None or not record.accepts(peer.serial):
            raise AccessDenied(f"satellite {peer.name} may not connect with this certificate")
        self.satellites[peer.name] = record
        return peer


def _labels(satellites: dict[str, SatelliteRecord]) -> dict[str, Mapping[str, str]]:
    return {name: record.labels for name, record in satellites.items()}
