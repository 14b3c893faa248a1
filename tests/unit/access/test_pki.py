from __future__ import annotations

import secrets
import shutil
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from platformctl.access import pki
from platformctl.errors import AccessDenied, JoinRefused, LocalMisuse, StoreError, UsageError

NOW = float(int(datetime.now(UTC).timestamp()))
DAY = 86400.0


def key() -> ec.EllipticCurvePrivateKey:
    return pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))


def entropy() -> bytes:
    return secrets.token_bytes(pki.SERIAL_BYTES)


def authority(trust_domain: str = "hub.test", now: float = NOW, **rest: float) -> pki.Authority:
    return pki.Authority.load(*pki.create_ca(now, trust_domain, key(), entropy=entropy(), **rest))


CA = authority()


def satellite(ca: pki.Authority = CA, name: str = "edge-1", now: float = NOW, **rest: float) -> tuple[bytes, bytes]:
    own = key()
    cert = pki.sign_satellite(ca, pki.make_csr(own, name), name, now, entropy=entropy(), **rest)
    return cert, pki.key_pem(own)


def server(ca: pki.Authority = CA, now: float = NOW) -> tuple[bytes, bytes]:
    own = key()
    names = ["hub.test", "*.edge-1.hub.test"]
    cert = pki.sign_server(ca, names, ["127.0.0.1", "::1"], now, key=own.public_key(), entropy=entropy())
    return cert, pki.key_pem(own)


def context(side: int, ca: bytes, cert: tuple[bytes, bytes], folder: Path) -> ssl.SSLContext:
    (folder / "pair.pem").write_bytes(cert[0] + cert[1])
    made = ssl.SSLContext(side)
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(folder / "pair.pem")
    made.load_verify_locations(cadata=ca.decode())
    return made


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """A whole TLS handshake in memory; gives the server's side of it."""
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(a, b, server_hostname=name), server.wrap_bio(b, a, server_side=True)]
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1]


@pytest.mark.parametrize("name", ["hub.test", "echo.edge-1.hub.test", "127.0.0.1", "::1"])
def test_hub_and_satellite_meet_under_strict_checks(tmp_path: Path, name: str) -> None:
    hub = context(ssl.PROTOCOL_TLS_SERVER, CA.cert_pem, server(), tmp_path)
    agent = context(ssl.PROTOCOL_TLS_CLIENT, CA.cert_pem, satellite(), tmp_path)
    der = handshake(agent, hub, name).getpeercert(binary_form=True)
    assert der
    assert pki.satellite_name(der, "hub.test") == "edge-1"


@pytest.mark.parametrize("name", ["other.test", "a.b.edge-1.hub.test", "127.0.0.2"])
def test_the_hubs_certificate_is_for_its_names_only(tmp_path: Path, name: str) -> None:
    hub = context(ssl.PROTOCOL_TLS_SERVER, CA.cert_pem, server(), tmp_path)
    agent = context(ssl.PROTOCOL_TLS_CLIENT, CA.cert_pem, satellite(), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(agent, hub, name)


def test_a_satellite_cannot_pose_as_the_hub(tmp_path: Path) -> None:
    impostor = context(ssl.PROTOCOL_TLS_SERVER, CA.cert_pem, satellite(), tmp_path)
    agent = context(ssl.PROTOCOL_TLS_CLIENT, CA.cert_pem, satellite(), tmp_path)
    agent.check_hostname = False
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(agent, impostor, "hub.test")


def test_a_satellites_certificate_cannot_sign_another(tmp_path: Path) -> None:
    cert, own = satellite()
    forged_ca = pki.Authority(
        x509.load_pem_x509_certificate(cert), serialization.load_pem_private_key(own, None), "hub.test"
    )
    forged = satellite(forged_ca, "edge-2")
    hub = context(ssl.PROTOCOL_TLS_SERVER, CA.cert_pem, server(), tmp_path)
    agent = context(ssl.PROTOCOL_TLS_CLIENT, CA.cert_pem, (forged[0] + cert, forged[1]), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(agent, hub, "hub.test")


def test_a_satellite_of_another_ca_is_not_let_in(tmp_path: Path) -> None:
    hub = context(ssl.PROTOCOL_TLS_SERVER, CA.cert_pem, server(), tmp_path)
    agent = context(ssl.PROTOCOL_TLS_CLIENT, CA.cert_pem, satellite(authority()), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(agent, hub, "hub.test")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_openssl_verifies_with_strict_flags(tmp_path: Path, purpose: str) -> None:
    (tmp_path / "ca.pem").write_bytes(CA.cert_pem)
    (tmp_path / "leaf.pem").write_bytes((satellite() if purpose == "sslclient" else server())[0])
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "leaf.pem"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "leaf.pem: OK\n", done.stderr


def test_the_request_decides_nothing_but_the_key() -> None:
    own = key()
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub")])
    )
    wish = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://hub.test/satellite/edge-9")])
    request = builder.add_extension(wish, False).add_extension(x509.BasicConstraints(True, None), True)
    pem = request.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    cert = x509.load_pem_x509_certificate(pki.sign_satellite(CA, pem, "edge-1", NOW, entropy=entropy()))
    assert cert.subject.rfc4514_string() == "CN=edge-1"
    assert cert.public_key() == own.public_key()
    assert pki.satellite_name(cert.public_bytes(serialization.Encoding.DER), "hub.test") == "edge-1"
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def _csr(own: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge-1")])
    algorithm = None if isinstance(own, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(own, algorithm)
    return request.public_bytes(serialization.Encoding.PEM)


def _forged_csr() -> bytes:
    """One whose signature was changed."""
    der = x509.load_pem_x509_csr(_csr(key())).public_bytes(serialization.Encoding.DER)
    swapped = bytearray(der)
    swapped[-1] ^= 1
    request = x509.load_der_x509_csr(bytes(swapped))
    return request.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        (b"", "cannot be read"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "cannot be read"),
        (b"x" * 20_000, "larger than"),
        (_csr(ec.generate_private_key(ec.SECP256K1())), "not ECDSA P-256 or P-384"),
        (_csr(ed25519.Ed25519PrivateKey.generate()), "not ECDSA P-256 or P-384"),
        (_csr(rsa.generate_private_key(65537, 2048)), "not ECDSA P-256 or P-384"),
        (_forged_csr(), "not signed by its own key"),
    ],
    ids=["empty", "garbage", "large", "k1", "ed25519", "rsa", "forged"],
)
def test_a_request_that_proves_nothing_is_refused(pem: bytes, message: str) -> None:
    with pytest.raises(JoinRefused, match=message):
        pki.sign_satellite(CA, pem, "edge-1", NOW, entropy=entropy())


def test_a_p384_key_may_join() -> None:
    own = ec.generate_private_key(ec.SECP384R1())
    cert = pki.sign_satellite(CA, _csr(own), "edge-1", NOW, entropy=entropy())
    assert x509.load_pem_x509_certificate(cert).public_key() == own.public_key()


def test_times_are_backdated_and_renewal_is_due_at_two_thirds() -> None:
    cert, _ = satellite()
    loaded = x509.load_pem_x509_certificate(cert)
    assert loaded.not_valid_before_utc.timestamp() == NOW - 300
    assert pki.not_after(cert) == NOW + 30 * DAY
    due = NOW - 300 + (30 * DAY + 300) * 2 / 3
    assert pki.renewal_in(cert, NOW) == pytest.approx(due - NOW)
    assert not pki.renewal_due(cert, due - 1)
    assert pki.renewal_due(cert, due)
    assert pki.renewal_due(cert, NOW + 60 * DAY)


def test_no_certificate_outlives_its_ca() -> None:
    short = authority(days=10)
    cert, _ = satellite(short)
    assert pki.not_after(cert) == NOW + 10 * DAY
    with pytest.raises(StoreError, match="CA expired"):
        satellite(short, now=NOW + 11 * DAY)


def test_serial_numbers_are_positive_short_and_from_the_entropy() -> None:
    own = pki.make_csr(key(), "edge-1")
    serials = [
        x509.load_pem_x509_certificate(pki.sign_satellite(CA, own, "edge-1", NOW, entropy=e)).serial_number
        for e in (bytes(16), b"\xff" * 16)
    ]
    assert serials == [1 << 127, (1 << 128) - 1]
    assert (
        pki.serial(pki.sign_satellite(CA, own, "edge-1", NOW, entropy=bytes(16))) == "80000000000000000000000000000000"
    )


def test_keys_come_from_their_entropy_alone() -> None:
    seed = secrets.token_bytes(pki.KEY_ENTROPY_BYTES)
    assert pki.make_key(seed).private_numbers() == pki.make_key(seed).private_numbers()
    assert pki.make_key(bytes(40)).private_numbers().private_value == 1
    with pytest.raises(LocalMisuse):
        pki.make_key(b"short")
    with pytest.raises(LocalMisuse):
        pki.create_ca(NOW, "hub.test", key(), entropy=b"short")


def test_a_ca_is_loaded_only_whole() -> None:
    cert, own = pki.create_ca(NOW, "hub.test", key(), entropy=entropy())
    loaded = pki.Authority.load(cert, own)
    assert loaded.trust_domain == "hub.test"
    assert loaded.cert_pem == cert
    assert "key" not in repr(loaded)
    rsa_key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for wrong in (pki.key_pem(key()), rsa_key):
        with pytest.raises(StoreError, match="does not belong"):
            pki.Authority.load(cert, wrong)
    for broken in ((b"", own), (cert, b""), (cert, cert)):
        with pytest.raises(StoreError, match="cannot be read"):
            pki.Authority.load(*broken)
    server_cert, server_key = server()
    with pytest.raises(StoreError, match="names no trust domain"):
        pki.Authority.load(server_cert, server_key)


def test_a_ca_needs_a_trust_domain() -> None:
    with pytest.raises(UsageError, match="trust domain"):
        pki.create_ca(NOW, "Hub Test", key(), entropy=entropy())


@pytest.mark.parametrize(
    ("names", "ips", "message"),
    [
        (["hub test"], [], "not a host name"),
        (["*"], [], "not a host name"),
        (["a.*.b"], [], "not a host name"),
        (["a" * 254], [], "not a host name"),
        (["hub.test"], ["hub"], "not an IP address"),
        ([], [], "needs a name"),
    ],
)
def test_a_server_certificate_is_for_real_names(names: list[str], ips: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pki.sign_server(CA, names, ips, NOW, key=key().public_key(), entropy=entropy())


def test_the_ca_pin_stays_when_the_certificate_is_made_anew() -> None:
    own = key()
    first, _ = pki.create_ca(NOW, "hub.test", own, entropy=entropy())
    second, _ = pki.create_ca(NOW + DAY, "hub.test", own, entropy=entropy())
    pin = pki.ca_pin(first)
    assert pin == pki.ca_pin(second)
    assert pki.fingerprint(first) != pki.fingerprint(second)
    pki.check_pin(second, pin)
    pki.check_pin(x509.load_pem_x509_certificate(first).public_bytes(serialization.Encoding.DER), pin)
    with pytest.raises(JoinRefused, match="is not the pinned one"):
        pki.check_pin(CA.cert_pem, pin)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_the_pin_is_what_openssl_says(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(CA.cert_pem)
    script = "openssl x509 -in ca.pem -pubkey -noout | openssl pkey -pubin -outform DER | openssl sha256 -r"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    assert pki.ca_pin(CA.cert_pem) == "sha256:" + done.stdout.split()[0]


@pytest.mark.parametrize("pin", ["", "sha256:", "sha256:" + "A" * 64, "md5:" + "a" * 64, "sha256:" + "a" * 64 + "\n"])
def test_a_malformed_pin_is_a_usage_error(pin: str) -> None:
    with pytest.raises(UsageError, match="not a CA pin"):
        pki.check_pin(CA.cert_pem, pin)


def test_both_sides_see_the_same_pin_of_a_satellites_key() -> None:
    csr = pki.make_csr(key(), "edge-1")
    cert = pki.sign_satellite(CA, csr, "edge-1", NOW, entropy=entropy())
    assert pki.csr_pin(csr) == pki.ca_pin(cert)


def test_a_certificate_of_another_trust_domain_names_nobody_here() -> None:
    cert, _ = satellite(authority("other.test"))
    with pytest.raises(AccessDenied, match=r"trust domain 'other\.test'"):
        pki.satellite_name(cert, "hub.test")


def test_a_certificate_without_exactly_one_uri_names_nobody() -> None:
    with pytest.raises(AccessDenied, match="exactly one"):
        pki.satellite_name(server()[0], "hub.test")
    with pytest.raises(AccessDenied, match="does not name a satellite"):
        pki.satellite_name(CA.cert_pem, "hub.test")
    own = key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge-1")])
    plain = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(own.public_key()).serial_number(1)
    moment = datetime.fromtimestamp(NOW, UTC)
    cert = plain.not_valid_before(moment).not_valid_after(moment).sign(own, hashes.SHA256())
    with pytest.raises(AccessDenied, match="exactly one"):
        pki.satellite_name(cert.public_bytes(serialization.Encoding.PEM), "hub.test")
