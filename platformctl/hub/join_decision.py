"""Whether a satellite may join, and its certificate: the rules, with time and randomness as arguments.

1. The token is looked at before anything that costs, and consumed only after the request was found to be good.
2. Consuming is the store's atomic step: of all callers with one token, exactly one gets past it.
3. A join replaces: certificates that the satellite had before are refused from then on, a revocation is lifted, for the
   token that was created after it says so.
4. While a joined satellite works, a join that needs approval does not take its place: nobody loses service by a request
   that nobody has looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from platformctl.access import pki
from platformctl.access.tokens import JoinToken, check_join_token, token_id
from platformctl.errors import Conflict, JoinRefused
from platformctl.hub.store import SatelliteRecord, Store, update_satellite
from platformctl.net.joining import JoinRequest

__all__ = ["Candidate", "JoinRules"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A satellite whose token was consumed. `fingerprint` is the pin of its key."""

    name: str
    token: JoinToken
    csr: bytes
    fingerprint: str


@dataclass(frozen=True, slots=True)
class JoinRules:
    """`entropy(n)` gives n random bytes."""

    store: Store
    ca: pki.Authority
    entropy: Callable[[int], bytes]
    certificate_days: float = pki.SATELLITE_DAYS

    def check_token(self, request: JoinRequest, now: float) -> JoinToken:
        """The token that the request proves to have. JoinRefused if it does not."""
        record = self.store.get_join_token(token_id(request.token))
        check_join_token(record, request.token, request.name, request.labels, now)
        assert record is not None  # the check refuses None
        return record

    def admit(self, request: JoinRequest, token: JoinToken, now: float, *, approval: bool) -> tuple[Candidate, bytes]:
        """Consume the token. Gives the candidate and, unless approval is required, its certificate (PEM).

        JoinRefused, or Conflict for rule 4; the token is not used up then, unless somebody else was faster.
        """
        csr = request.csr.encode("utf-8", "replace")
        # Signing is how the request is checked in full; nobody gets the certificate before the token is consumed.
        certificate = self._sign(csr, request.name, now)
        if approval and self._works(request.name):
            raise Conflict(
                f"satellite {request.name!r} is joined already, and joins need approval",
                hint=f"Revoke it first: platformctl revoke satellite {request.name}",
            )
        candidate = Candidate(request.name, token, csr, pki.csr_pin(csr))
        if not self.store.consume_join_token(token.id, now):
            raise JoinRefused(
                f"join token {token.id} was used already; it works once",
                hint=f"Create a new one at the hub: platformctl token create --satellite {request.name}",
            )
        serials = () if approval else (pki.serial(certificate),)
        update_satellite(self.store, request.name, lambda old: _record(old, candidate, serials, now))
        return candidate, b"" if approval else certificate

    def decided(self, candidate: Candidate) -> bool:
        """Whether the candidate was accepted; False while nobody decided. JoinRefused if it was turned away."""
        record = self.store.get_satellite(candidate.name)
        if record is None or record.fingerprint != candidate.fingerprint or record.state == "revoked":
            raise JoinRefused(
                f"the join of satellite {candidate.name!r} was not accepted",
                hint="Somebody refused it, or a later join took its place; ask the hub's operators.",
            )
        return record.state == "active"

    def certify(self, candidate: Candidate, now: float) -> bytes:
        """The certificate (PEM) of an accepted candidate."""
        certificate = self._sign(candidate.csr, candidate.name, now)

        def add(old: SatelliteRecord | None) -> SatelliteRecord:
            if old is None or old.state != "active" or old.fingerprint != candidate.fingerprint:
                raise JoinRefused(f"the join of satellite {candidate.name!r} was withdrawn", hint="Join again.")
            return old.with_serial(pki.serial(certificate))

        update_satellite(self.store, candidate.name, add)
        return certificate

    def withdraw(self, candidate: Candidate) -> None:
        """The candidate went away before anybody decided: nothing is left to accept."""
        record = self.store.get_satellite(candidate.name)
        if record is not None and record.state == "pending" and record.fingerprint == candidate.fingerprint:
            self.store.delete_satellite(candidate.name)

    def _works(self, name: str) -> bool:
        record = self.store.get_satellite(name)
        return record is not None and record.state == "active" and bool(record.serials)

    def _sign(self, csr: bytes, name: str, now: float) -> bytes:
        serial = self.entropy(pki.SERIAL_BYTES)
        return pki.sign_satellite(self.ca, csr, name, now, entropy=serial, days=self.certificate_days)


def _record(old: SatelliteRecord | None, joined: Candidate, serials: tuple[str, ...], now: float) -> SatelliteRecord:
    new = SatelliteRecord(
        name=joined.name,
        labels=dict(joined.token.labels),
        state="active" if serials else "pending",
        fingerprint=joined.fingerprint,
        serials=serials,
        created=now,
    )
    return new if old is None else replace(new, generation=old.generation)
