"""The hub's own certificate authority: ECDSA P-256, one level, made to pass OpenSSL's strict checks (RFC 5280).

Satellites get client certificates that name them by URI, the hub gets server certificates; neither can do the other's
job. Everything is text in, text out: time is Unix seconds, randomness is `entropy` (`KEY_ENTROPY_BYTES` for a key,
`SERIAL_BYTES` for a serial number), so the caller decides where it comes from and where keys are kept.
Times that certificates carry start five minutes early: a clock that is behind a little must not refuse a new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from platformctl.access.identity import spiffe_uri, trust_domain_uri
from platformctl.access.pins import (
    ca_pin,
    check_pin,
    csr_pin,
    fingerprint,
    not_after,
    satellite_name,
    serial,
    spki_pin,
)
from platformctl.errors import JoinRefused, LocalMisuse, StoreError, UsageError, excerpt

__all__ = [
    "KEY_ENTROPY_BYTES",
    "SERIAL_BYTES",
    "Authority",
    "ca_pin",
    "check_pin",
    "create_ca",
    "csr_pin",
    "fingerprint",
    "key_pem",
    "make_csr",
    "make_key",
    "not_after",
    "renewal_due",
    "renewal_in",
    "satellite_name",
    "serial",
    "sign_satellite",
    "sign_server",
]

KEY_ENTROPY_BYTES = 40
"""64 bits more than the curve's order, so that the remainder is not biased (FIPS 186-5, A.2.1)."""

SERIAL_BYTES = 16
CA_DAYS = 3650
SATELLITE_DAYS = 30
SERVER_DAYS = 90
BACKDATE = timedelta(minutes=5)
MAX_CSR_BYTES = 16 * 1024
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_DNS_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that can sign. `trust_domain` comes from its certificate's SPIFFE ID."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    trust_domain: str

    @classmethod
    def load(cls, cert_pem: bytes, key_pem: bytes) -> Authority:
        """From what `create_ca` returned. StoreError when the two don't belong together or are not of this CA."""
        try:
            certificate = x509.load_pem_x509_certificate(cert_pem)
            key = serialization.load_pem_private_key(key_pem, None)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound) as e:
            raise StoreError("the CA's certificate or key cannot be read", hint=_RESTORE) from e
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise StoreError("the CA's key does not belong to its certificate", hint=_RESTORE)
        if len(uris) != 1 or not uris[0].startswith("spiffe://"):
            raise StoreError("the CA's certificate names no trust domain", hint=_RESTORE)
        return cls(certificate, key, uris[0].removeprefix("spiffe://"))

    @property
    def cert_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


_RESTORE = "restore the hub's state from a backup; with a new CA every satellite has to join again"


def make_key(entropy: bytes) -> ec.EllipticCurvePrivateKey:
    """A P-256 key from KEY_ENTROPY_BYTES of a cryptographic source."""
    if len(entropy) != KEY_ENTROPY_BYTES:
        raise LocalMisuse(f"a key takes {KEY_ENTROPY_BYTES} random bytes, not {len(entropy)}")
    return ec.derive_private_key(int.from_bytes(entropy, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8 in PEM, not encrypted: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def create_ca(
    now: float, trust_domain: str, key: ec.EllipticCurvePrivateKey, *, entropy: bytes, days: float = CA_DAYS
) -> tuple[bytes, bytes]:
    """A new CA for `trust_domain`: (certificate PEM, key PEM). It can sign end entities only (path length 0)."""
    # The key's hash is in the name, so that two CAs of one hub can be told apart while both are trusted.
    name = _name(f"platformctl CA {spki_pin(key.public_key())[7:15]}")
    builder = _builder(name, name, key.public_key(), now, days, entropy)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(ca=True), critical=True)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(trust_domain_uri(trust_domain))]), critical=False
    )
    certificate = _sign(builder, key.public_key(), key)
    return certificate, key_pem(key)


def make_csr(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """A signing request (PKCS #10) in PEM. The name is for people who look at it: the CA decides on names itself."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def sign_satellite(
    ca: Authority, csr_pem: bytes, name: str, now: float, *, entropy: bytes, days: float = SATELLITE_DAYS
) -> bytes:
    """A client certificate (PEM) for satellite `name` and the key of `csr_pem`, of which nothing else is used.

    JoinRefused for a request that cannot be read, has another key than P-256 or P-384, or is not signed by its key.
    """
    key = _requested_key(csr_pem)
    uri = x509.UniformResourceIdentifier(spiffe_uri(ca.trust_domain, name))
    builder = _leaf(ca, name, key, now, days, entropy)
    builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return _sign(builder, ca.key.public_key(), ca.key)


def sign_server(
    ca: Authority,
    names: Iterable[str],
    ips: Iterable[str],
    now: float,
    *,
    key: ec.EllipticCurvePublicKey,
    entropy: bytes,
    days: float = SERVER_DAYS,
) -> bytes:
    """A server certificate (PEM) for DNS names (`*.` allowed in front) and IP addresses. UsageError for a wrong one.

    A wildcard covers one label (RFC 6125, 6.4.3): `*.edge-1.hub.example` for the services of edge-1, and so on.
    """
    alternatives: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        if len(name) > 253 or not _DNS_NAME.fullmatch(name):
            raise UsageError(
                f"{excerpt(name)!r} is not a host name", hint="use lower-case DNS names, as in hub.example"
            )
        alternatives.append(x509.DNSName(name))
    for ip in dict.fromkeys(ips):
        try:
            alternatives.append(x509.IPAddress(ip_address(ip)))
        except ValueError:
            raise UsageError(f"{excerpt(ip)!r} is not an IP address", hint="names go with the names") from None
    if not alternatives:
        raise UsageError("a server certificate needs a name or an address", hint="give the hub's public host name")
    builder = _leaf(ca, "platformctl hub", key, now, days, entropy)
    builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return _sign(builder, ca.key.public_key(), ca.key)


def renewal_due(cert_pem: bytes, now: float) -> bool:
    """Whether two thirds of the certificate's life are over."""
    return renewal_in(cert_pem, now) == 0.0


def renewal_in(cert_pem: bytes, now: float) -> float:
    """Seconds until two thirds of the certificate's life are over; 0.0 when they are."""
    certificate = x509.load_pem_x509_certificate(cert_pem)
    start = certificate.not_valid_before_utc.timestamp()
    end = certificate.not_valid_after_utc.timestamp()
    return max(0.0, start + (end - start) * 2 / 3 - now)


def _requested_key(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    hint = "the agent makes its own request: platformctl join satellite"
    if len(csr_pem) > MAX_CSR_BYTES:
        raise JoinRefused(f"the certificate request is larger than {MAX_CSR_BYTES} bytes", hint=hint)
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as e:
        raise JoinRefused("the certificate request cannot be read", hint=hint) from e
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        raise JoinRefused("the certificate request's key is not ECDSA P-256 or P-384", hint=hint)
    if not signed:
        raise JoinRefused("the certificate request is not signed by its own key", hint=hint)
    return key


def _leaf(
    ca: Authority, name: str, key: ec.EllipticCurvePublicKey, now: float, days: float, entropy: bytes
) -> x509.CertificateBuilder:
    end = ca.certificate.not_valid_after_utc
    if _moment(now) >= end:
        raise StoreError(f"the hub's CA expired at {end:%Y-%m-%d %H:%M} UTC", hint="give the hub a new CA")
    # A certificate that outlives its CA would stop working before its renewal is due.
    days = min(days, (end - _moment(now)) / timedelta(days=1))
    builder = _builder(_name(name), ca.certificate.subject, key, now, days, entropy)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return builder.add_extension(_usage(ca=False), critical=True)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: float,
    days: float,
    entropy: bytes,
) -> x509.CertificateBuilder:
    if len(entropy) != SERIAL_BYTES:
        raise LocalMisuse(f"a serial number takes {SERIAL_BYTES} random bytes, not {len(entropy)}")
    start = _moment(now)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.not_valid_before(start - BACKDATE).not_valid_after(start + timedelta(days=days))
    # The top bit set: never zero, and the same length for all (RFC 5280, 4.1.2.2: positive, at most 20 octets).
    builder = builder.serial_number(int.from_bytes(entropy, "big") | 1 << (8 * SERIAL_BYTES - 1))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _sign(
    builder: x509.CertificateBuilder, issuer: ec.EllipticCurvePublicKey, key: ec.EllipticCurvePrivateKey
) -> bytes:
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)
    certificate = builder.add_extension(authority, critical=False).sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(int(now), UTC)
