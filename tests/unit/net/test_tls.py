"""TLS contexts against real handshakes on loopback, on every engine that the project runs on."""

from __future__ import annotations

import asyncio
import datetime
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiofastnet
import pytest
import trustme
from cryptography import x509

from platformctl.access import pki
from platformctl.errors import ConfigError
from platformctl.net import tls

# Longer than any handshake on loopback; a test that needs it fails.
PATIENCE = 5.0


@dataclass
class Files:
    folder: Path
    ca: pki.Authority

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    @property
    def ca_file(self) -> Path:
        return self.write("ca.pem", self.ca.cert_pem)

    def server(self, *names: str, ca: pki.Authority | None = None) -> tuple[Path, Path]:
        key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
        cert = pki.sign_server(
            ca or self.ca, names or ("localhost",), (), time.time(), key=key.public_key(), entropy=serial()
        )
        return self.write("server.crt", cert), self.write("server.key", pki.key_pem(key))

    def identity(self, name: str, ca: pki.Authority | None = None, now: float | None = None) -> Path:
        folder = self.folder / name
        folder.mkdir()
        key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
        moment = time.time() if now is None else now
        cert = pki.sign_satellite(ca or self.ca, pki.make_csr(key, name), name, moment, entropy=serial())
        (folder / "identity.crt").write_bytes(cert)
        (folder / "identity.key").write_bytes(pki.key_pem(key))
        (folder / "ca.pem").write_bytes(self.ca.cert_pem)
        return folder


def serial() -> bytes:
    return secrets.token_bytes(pki.SERIAL_BYTES)


def authority(domain: str = "hub.test", now: float | None = None) -> pki.Authority:
    key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
    moment = time.time() if now is None else now
    return pki.Authority.load(*pki.create_ca(moment, domain, key, entropy=serial()))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, authority())


class Greeter(asyncio.Protocol):
    """Says hello, and notes whom it talked to."""

    seen: asyncio.Queue[tls.PeerIdentity | None]

    def connection_made(self, transport: Any) -> None:
        self.seen.put_nowait(tls.peer_identity(transport.get_extra_info("ssl_object")))
        transport.write(b"hello")
        transport.close()


@asynccontextmanager
async def serving(context: ssl.SSLContext, engine: str = "asyncio") -> AsyncIterator[tuple[int, asyncio.Queue[Any]]]:
    seen: asyncio.Queue[Any] = asyncio.Queue()

    def protocol() -> Greeter:
        greeter = Greeter()
        greeter.seen = seen
        return greeter

    loop = asyncio.get_running_loop()
    if engine == "aiofastnet":
        server = await aiofastnet.create_server(loop, protocol, "127.0.0.1", 0, ssl=context)
    else:
        server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await server.wait_closed()


async def greet(port: int, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLObject:
    """Connect, and read the greeting: TLS 1.3 tells a client that it was refused only when it reads."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        async with asyncio.timeout(PATIENCE):
            if await reader.read(5) != b"hello":
                raise ConnectionResetError("no greeting")
        found: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return found
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("engine", ["asyncio", "aiofastnet"])
async def test_a_tunnel_shows_each_side_who_the_other_is(files: Files, engine: str) -> None:
    server = tls.tunnel_server_context(*files.server(), files.ca_file)
    folder = files.identity("edge-1")
    cert = (folder / "identity.crt").read_bytes()

    async with serving(server, engine) as (port, seen):
        mine = await greet(port, tls.tunnel_client_context(folder))
        peer = await seen.get()

    assert mine.version() == "TLSv1.3"
    assert (peer.uri, peer.trust_domain, peer.kind, peer.name) == (
        "spiffe://hub.test/satellite/edge-1",
        "hub.test",
        "satellite",
        "edge-1",
    )
    assert peer.serial == pki.serial(cert)
    assert peer.fingerprint == pki.fingerprint(cert)
    assert peer.not_after.timestamp() == pki.not_after(cert)
    assert peer.not_after.tzinfo is datetime.UTC
    assert peer.common_name == "edge-1"


@pytest.mark.parametrize("engine", ["asyncio", "aiofastnet"])
async def test_a_satellite_without_a_certificate_may_connect_to_join_and_has_no_identity(
    files: Files, engine: str
) -> None:
    server = tls.tunnel_server_context(*files.server(), files.ca_file)

    async with serving(server, engine) as (port, seen):
        await greet(port, tls.trust(files.ca.cert_pem.decode()))
        assert await seen.get() is None


@pytest.mark.parametrize("engine", ["asyncio", "aiofastnet"])
@pytest.mark.parametrize("case", ["another ca", "expired"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_certificate_that_is_not_good_is_refused(files: Files, engine: str, case: str) -> None:
    server = tls.tunnel_server_context(*files.server(), files.ca_file)
    if case == "expired":
        folder = files.identity("edge-1", now=time.time() - 40 * 86400)
    else:
        folder = files.identity("edge-1", ca=authority())

    async with serving(server, engine) as (port, seen):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await greet(port, tls.tunnel_client_context(folder))
        assert seen.empty()


async def test_a_server_certificate_opens_no_tunnel(files: Files) -> None:
    cert, key = files.server()
    server = tls.tunnel_server_context(cert, key, files.ca_file)
    folder = files.folder / "thief"
    folder.mkdir()
    for source, name in ((cert, "identity.crt"), (key, "identity.key"), (files.ca_file, "ca.pem")):
        (folder / name).write_bytes(source.read_bytes())

    async with serving(server) as (port, seen):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await greet(port, tls.tunnel_client_context(folder))
        assert seen.empty()


async def test_the_tunnel_takes_no_tls_1_2(files: Files) -> None:
    old = tls.trust(files.ca.cert_pem.decode())
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    async with serving(tls.tunnel_server_context(*files.server(), files.ca_file)) as (port, _):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await greet(port, old)
        await greet(port, tls.trust(files.ca.cert_pem.decode()))


async def test_the_agent_refuses_a_hub_of_another_ca_or_another_name(files: Files) -> None:
    folder = files.identity("edge-1")
    server = tls.tunnel_server_context(*files.server("hub.test"), files.ca_file)

    async with serving(server) as (port, _):
        await greet(port, tls.tunnel_client_context(folder), "hub.test")
        with pytest.raises(ssl.SSLCertVerificationError, match="elsewhere"):
            await greet(port, tls.tunnel_client_context(folder), "elsewhere.test")
        with pytest.raises(ssl.SSLCertVerificationError):
            await greet(port, tls.trust(authority().cert_pem.decode()), "hub.test")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_public_listener_speaks_http_1_1_over_tls_1_2_and_1_3(files: Files, version: ssl.TLSVersion) -> None:
    client = ssl.create_default_context(cadata=files.ca.cert_pem.decode())
    client.minimum_version = client.maximum_version = version
    client.set_alpn_protocols(["h2", "http/1.1"])

    async with serving(tls.public_server_context(*files.server())) as (port, _):
        found = await greet(port, client)

    assert found.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("suite", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-SHA"])
async def test_the_public_listener_takes_no_weak_suite(files: Files, suite: str) -> None:
    client = ssl.create_default_context(cadata=files.ca.cert_pem.decode())
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(suite + ":@SECLEVEL=0")

    async with serving(tls.public_server_context(*files.server())) as (port, _):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await greet(port, client)


async def test_the_public_listener_asks_for_client_certificates_only_with_a_client_ca(files: Files) -> None:
    folder = files.identity("alice")
    without = tls.public_server_context(*files.server())
    having = tls.public_server_context(*files.server(), client_ca=files.ca_file)

    async with serving(without) as (port, seen):
        await greet(port, tls.tunnel_client_context(folder))
        assert await seen.get() is None
    async with serving(having) as (port, seen):
        await greet(port, tls.tunnel_client_context(folder))
        assert (await seen.get()).name == "alice"
        await greet(port, tls.trust(files.ca.cert_pem.decode()))
        assert await seen.get() is None


async def test_a_backend_is_verified_against_its_ca_file_and_server_name(files: Files) -> None:
    server = tls.public_server_context(*files.server("db.internal"))
    backend = tls.backend_context(files.ca_file, server_name="db.internal")
    other = tls.backend_context(files.write("other.pem", authority().cert_pem))

    assert backend.server_name == "db.internal"
    async with serving(server) as (port, _):
        backend.check(await greet(port, backend.context, "db.internal"))
        with pytest.raises(ssl.SSLCertVerificationError):
            await greet(port, other.context, "db.internal")
        with pytest.raises(ssl.SSLCertVerificationError):
            await greet(port, tls.backend_context().context, "db.internal")


async def test_a_pin_alone_is_enough_and_another_key_is_refused(files: Files) -> None:
    cert, key = files.server("whatever.test")
    pin = pki.ca_pin(cert.read_bytes())
    good = tls.backend_context(pin=pin.upper().replace("SHA256", "sha256"))
    bad = tls.backend_context(pin="sha256:" + "0" * 64)

    async with serving(tls.public_server_context(cert, key)) as (port, _):
        good.check(await greet(port, good.context))
        peer = await greet(port, bad.context)
        with pytest.raises(tls.PinMismatch, match=pin):
            bad.check(peer)


async def test_a_pin_with_a_ca_file_demands_both(files: Files) -> None:
    cert, key = files.server()
    both = tls.backend_context(files.write("other.pem", authority().cert_pem), pki.ca_pin(cert.read_bytes()))

    async with serving(tls.public_server_context(cert, key)) as (port, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            await greet(port, both.context)


class Shows:
    """A TLS object with this certificate."""

    def __init__(self, pem: bytes | None) -> None:
        self._pem = pem

    def getpeercert(self, _: Literal[True], /) -> bytes | None:
        return ssl.PEM_cert_to_DER_cert(self._pem.decode()) if self._pem else None


def test_a_peer_without_a_certificate_matches_no_pin() -> None:
    with pytest.raises(tls.PinMismatch, match="no certificate"):
        tls.backend_context(pin="sha256:" + "0" * 64).check(Shows(None))


def test_a_certificate_of_another_pki_has_no_spiffe_name() -> None:
    leaf = trustme.CA().issue_cert("user@example.com", common_name="user")
    found = tls.peer_identity(Shows(leaf.cert_chain_pems[0].bytes()))

    assert found is not None
    assert (found.uri, found.trust_domain, found.kind, found.name, found.common_name) == ("", "", "", "", "user")


def with_uris(*uris: str) -> bytes:
    key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(255).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=True)
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "uris", [(), ("https://a.test/satellite/x",), ("spiffe://a/satellite/x", "spiffe://a/satellite/y")]
)
def test_anything_but_one_spiffe_uri_is_none(uris: tuple[str, ...]) -> None:
    found = tls.peer_identity(Shows(with_uris(*uris)))

    assert found is not None
    assert found.uri == ""
    assert found.serial == "ff"
    assert found.common_name == ""


def test_what_is_wrong_with_a_file_is_said(files: Files) -> None:
    cert, key = files.server()
    other = files.write("other.key", pki.key_pem(pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))))
    junk = files.write("junk.pem", b"junk")
    absent = files.folder / "absent.pem"

    with pytest.raises(ConfigError, match=f"{absent}: cannot be read: No such file"):
        tls.public_server_context(absent, key)
    with pytest.raises(ConfigError, match=f"{cert}: the key in {other} does not belong"):
        tls.public_server_context(cert, other)
    with pytest.raises(ConfigError, match=f"{junk}: not a PEM certificate"):
        tls.public_server_context(junk, key)
    for ca in (junk, absent):
        with pytest.raises(ConfigError, match=f"{ca}: cannot be read as a PEM bundle"):
            tls.tunnel_server_context(cert, key, ca)
        with pytest.raises(ConfigError, match=f"{ca}: cannot be read as a PEM bundle"):
            tls.backend_context(ca)
    with pytest.raises(ConfigError, match="not a PEM certificate"):
        tls.trust("junk")


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_password(files: Files) -> None:
    from cryptography.hazmat.primitives import serialization as s

    cert, key = files.server()
    loaded = s.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(loaded.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"pass")))

    with pytest.raises(ConfigError) as caught:
        tls.public_server_context(cert, key)
    assert "not encrypted" in caught.value.hint
