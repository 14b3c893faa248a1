"""What a certificate says about itself: pins, fingerprints, serial numbers, and the satellite that it names."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from platformctl.access.identity import parse_spiffe_uri
from platformctl.errors import AccessDenied, JoinRefused, UsageError, excerpt

__all__ = ["ca_pin", "check_pin", "csr_pin", "fingerprint", "not_after", "satellite_name", "serial", "spki_pin"]

_PIN = re.compile(r"sha256:[0-9a-f]{64}")


class _HasPublicBytes(Protocol):
    def public_bytes(self, encoding: serialization.Encoding, format: serialization.PublicFormat, /) -> bytes: ...


def spki_pin(key: _HasPublicBytes | CertificatePublicKeyTypes) -> str:
    """`sha256:<hex>` of a key's SubjectPublicKeyInfo in DER: what kubeadm calls the discovery hash."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def ca_pin(cert: bytes) -> str:
    """The pin of a certificate's key; PEM or DER. It stays the same when the CA's certificate is made anew."""
    return spki_pin(_load(cert).public_key())


def csr_pin(csr_pem: bytes) -> str:
    """The pin of a request's key: what is compared on both sides before a satellite is accepted."""
    return spki_pin(x509.load_pem_x509_csr(csr_pem).public_key())


def check_pin(cert: bytes, pin: str) -> None:
    """Returns when `cert` (PEM or DER) has the pinned key. UsageError: a malformed pin; JoinRefused: another key."""
    if not _PIN.fullmatch(pin):
        raise UsageError(
            f"{excerpt(pin)!r} is not a CA pin",
            hint="a pin is sha256: and 64 hex digits; copy it from what `platformctl token create` printed",
        )
    found = ca_pin(cert)
    if not hmac.compare_digest(found, pin):
        raise JoinRefused(
            f"the hub's CA is not the pinned one: expected {pin}, found {found}",
            hint="nothing was sent. Either the pin is of another hub, or something answers in this hub's place",
        )


def fingerprint(cert: bytes) -> str:
    """`sha256:<hex>` of the whole certificate (PEM or DER) in DER."""
    return f"sha256:{_load(cert).fingerprint(hashes.SHA256()).hex()}"


def serial(cert: bytes) -> str:
    """The serial number in hex, as records keep it."""
    return f"{_load(cert).serial_number:x}"


def not_after(cert: bytes) -> float:
    """When the certificate expires, in Unix seconds."""
    return _load(cert).not_valid_after_utc.timestamp()


def satellite_name(cert: bytes, trust_domain: str) -> str:
    """The satellite that a client certificate (PEM or DER) names; its chain is the TLS engine's to verify.

    AccessDenied unless it has exactly one URI, of this trust domain: SPIFFE X509-SVID, section 2, asks for one.
    """
    try:
        names = _load(cert).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        uris = []
    if len(uris) != 1:
        raise AccessDenied(
            "the client certificate does not name exactly one satellite",
            hint="tunnels take certificates of this hub's CA only; join the satellite again",
        )
    domain, name = parse_spiffe_uri(uris[0])
    if domain != trust_domain:
        raise AccessDenied(
            f"the certificate of satellite {name!r} is of trust domain {domain!r}, not {trust_domain!r}",
            hint="this satellite joined another hub; join it to this one",
        )
    return name


def _load(cert: bytes) -> x509.Certificate:
    if cert.startswith(b"\x30"):
        return x509.load_der_x509_certificate(cert)
    return x509.load_pem_x509_certificate(cert)
