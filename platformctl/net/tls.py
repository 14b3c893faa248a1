"""TLS contexts for every socket of the project, and what a verified peer's certificate says.

Tunnels speak TLS 1.3 only; the public listener 1.2 with forward-secret AEAD suites, and 1.3. Nothing here turns
verification off, except where a pin replaces it (`backend_context`) or where nothing secret is sent and what comes back
is checked against a pin (`fetch_context`).
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from cryptography import x509

from platformctl.access.pins import ca_pin
from platformctl.errors import ConfigError

__all__ = [
    "BackendTls",
    "PeerIdentity",
    "PinMismatch",
    "backend_context",
    "fetch_context",
    "load_certificate",
    "peer_identity",
    "public_server_context",
    "trust",
    "tunnel_client_context",
    "tunnel_server_context",
]

# RFC 7540 appendix A leaves only these shapes for TLS 1.2: ephemeral key exchange and an AEAD.
TLS12_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"

IDENTITY_KEY = "identity.key"
IDENTITY_CERT = "identity.crt"
IDENTITY_CA = "ca.pem"


class TlsObject(Protocol):
    """The part of `ssl.SSLObject` that the stand-ins of other event loops have as well."""

    def getpeercert(self, binary_form: Literal[True], /) -> bytes | None: ...


class PinMismatch(ssl.SSLError):
    """The peer's public key is not the pinned one."""


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What a peer's certificate claims; true only if the context that accepted it verifies its chain.

    `uri` is the only `spiffe://` URI among the SANs ("" if there is none or more than one, X509-SVID section 2),
    `serial` lower-case hex, `fingerprint` the SHA-256 of the certificate, `not_after` with its time zone (UTC).
    """

    uri: str
    trust_domain: str
    kind: str
    name: str
    serial: str
    fingerprint: str
    not_after: datetime
    common_name: str = ""


@dataclass(frozen=True, slots=True)
class BackendTls:
    """How to speak TLS with one backend: pass `context` and `server_name` to the dialer, then call `check`."""

    context: ssl.SSLContext
    server_name: str | None = None
    pin: str = ""

    def check(self, peer: TlsObject) -> None:
        """Raise PinMismatch unless the peer has the pinned key. To be called before the first byte is sent."""
        if not self.pin:
            return
        der = peer.getpeercert(True)
        found = ca_pin(der) if der is not None else "no certificate"
        if not hmac.compare_digest(found, self.pin):
            raise PinMismatch(f"the backend's key is {found}, the pin in the exports file is {self.pin}")


def tunnel_server_context(cert: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    """The hub's tunnel listener. TLS 1.3 only; a client certificate is verified if there is one.

    Joining satellites have none yet, so its presence is the business of whoever serves the path. No tickets: a resumed
    session would outlive the check of its certificate.
    """
    context = _server(cert, key)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _verify_clients(context, client_ca)
    return context


def public_server_context(cert: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """The hub's public listener: HTTP/1.1 over TLS 1.2 or 1.3. Client certificates are optional, and verified against
    `client_ca`; without it none is asked for.
    """
    context = _server(cert, key)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12_SUITES)
    context.set_alpn_protocols(["http/1.1"])
    if client_ca is not None:
        _verify_clients(context, client_ca)
    return context


def tunnel_client_context(identity: Path) -> ssl.SSLContext:
    """The agent's side: certificate and key from the folder `identity`, the hub verified against the CA in it."""
    context = trust((identity / IDENTITY_CA).read_text())
    load_certificate(context, identity / IDENTITY_CERT, identity / IDENTITY_KEY)
    return context


def trust(ca_pem: str) -> ssl.SSLContext:
    """A TLS 1.3 client context that believes these CAs, by name, and nobody else."""
    context = _client()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as e:
        raise ConfigError("the CA bundle is not a PEM certificate", hint="Join again to fetch the hub's CA.") from e
    return context


def fetch_context() -> ssl.SSLContext:
    """For the one request that carries no secret and whose answer is checked against the CA pin: no verification."""
    context = _client()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    # The answer is checked against the CA pin, and nothing secret is sent.
    context.verify_mode = ssl.CERT_NONE  # noqa: TID251
    return context


def backend_context(ca_file: Path | None = None, pin: str = "", server_name: str = "") -> BackendTls:
    """TLS towards a backend. Without anything: the system's CAs. `ca_file`: those and no other. `pin` (`sha256:<hex>`
    of the SubjectPublicKeyInfo) alone: the key is the identity, chain and name do not matter; with `ca_file`: both.
    """
    context = _client()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12_SUITES)
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as e:
            raise ConfigError("cannot be read as a PEM bundle of CAs", source=str(ca_file)) from e
    elif pin:
        context.check_hostname = False
        # `BackendTls.check` compares the key with the pin.
        context.verify_mode = ssl.CERT_NONE  # noqa: TID251
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return BackendTls(context, server_name or None, pin.lower())


def peer_identity(peer: TlsObject) -> PeerIdentity | None:
    """The identity in the peer's certificate; None if it sent none. Parsed from DER, for not every TLS engine that we
    run on parses certificates into dicts.
    """
    der = peer.getpeercert(True)
    if der is None:
        return None
    cert = x509.load_der_x509_certificate(der)
    uri = _spiffe_uri(cert)
    domain, _, path = uri.removeprefix("spiffe://").partition("/")
    kind, _, name = path.partition("/")
    names = cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return PeerIdentity(
        uri=uri,
        trust_domain=domain,
        kind=kind,
        name=name,
        serial=f"{cert.serial_number:x}",
        fingerprint="sha256:" + hashlib.sha256(der).hexdigest(),
        not_after=cert.not_valid_after_utc,
        common_name=str(names[0].value) if names else "",
    )


def load_certificate(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Load a certificate chain and its key, or say which file is wrong."""
    for path in (cert, key):
        try:
            with path.open("rb"):
                pass
        except OSError as e:
            raise ConfigError(f"cannot be read: {e.strerror}", source=str(path)) from e
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, ValueError) as e:
        reason = getattr(e, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"the key in {key} does not belong to this certificate", source=str(cert)) from e
        raise ConfigError(
            f"not a PEM certificate with the key in {key} ({reason or e})",
            source=str(cert),
            hint="The key must be PEM and not encrypted.",
        ) from e


def _no_password() -> str:
    # Without this OpenSSL would ask at the terminal, and a daemon would hang.
    raise ValueError("the key is encrypted")


def _server(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    load_certificate(context, cert, key)
    return context


def _client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _verify_clients(context: ssl.SSLContext, client_ca: Path) -> None:
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    try:
        context.load_verify_locations(cafile=client_ca)
    except (OSError, ssl.SSLError) as e:
        raise ConfigError("cannot be read as a PEM bundle of CAs", source=str(client_ca)) from e


def _spiffe_uri(cert: x509.Certificate) -> str:
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if len(uris) == 1 and uris[0].startswith("spiffe://") else ""
