"""A context that follows its files: new handshakes see the new certificate, broken files change nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiofastnet
import pytest

from platformctl.access import pki
from platformctl.errors import ConfigError
from platformctl.net.tls import trust, tunnel_server_context
from platformctl.net.tls_reload import ReloadingContext


def make(cert: Path, key: Path, ca: Path | None) -> ssl.SSLContext:
    assert ca is not None
    return tunnel_server_context(cert, key, ca)


def new_ca() -> pki.Authority:
    key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
    return pki.Authority.load(*pki.create_ca(time.time(), "hub.test", key, entropy=secrets.token_bytes(16)))


class Files:
    def __init__(self, folder: Path) -> None:
        self.ca = new_ca()
        self.cert, self.key, self.ca_file = folder / "tls.crt", folder / "tls.key", folder / "ca.pem"
        self.ca_file.write_bytes(self.ca.cert_pem)
        self.renew()

    def renew(self) -> str:
        """Write a new pair; its serial number."""
        key = pki.make_key(secrets.token_bytes(pki.KEY_ENTROPY_BYTES))
        cert = pki.sign_server(
            self.ca, ["localhost"], [], time.time(), key=key.public_key(), entropy=secrets.token_bytes(16)
        )
        self.cert.write_bytes(cert)
        self.key.write_bytes(pki.key_pem(key))
        return pki.serial(cert)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(params=["asyncio", "aiofastnet"])
async def port(request: pytest.FixtureRequest, reloading: ReloadingContext) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    if request.param == "aiofastnet":
        server = await aiofastnet.create_server(loop, asyncio.Protocol, "127.0.0.1", 0, ssl=reloading.context)
    else:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=reloading.context)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
def reloading(files: Files) -> ReloadingContext:
    return ReloadingContext(make, files.cert, files.key, files.ca_file)


async def shown(port: int, ca: pki.Authority) -> str:
    """The serial number of the certificate that a new connection gets."""
    _, writer = await asyncio.open_connection("localhost", port, ssl=trust(ca.cert_pem.decode()))
    der = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.transport.abort()
    return pki.serial(der)


async def test_new_handshakes_get_the_new_certificate_from_the_same_listener(
    files: Files, reloading: ReloadingContext, port: int
) -> None:
    before = await shown(port, files.ca)
    context = reloading.context
    after = files.renew()
    assert await shown(port, files.ca) == before

    assert reloading.refresh() is True

    assert await shown(port, files.ca) == after
    assert reloading.context is context
    assert reloading.error is None


async def test_a_connection_that_was_open_stays_open(files: Files, reloading: ReloadingContext, port: int) -> None:
    reader, writer = await asyncio.open_connection("localhost", port, ssl=trust(files.ca.cert_pem.decode()))
    files.renew()
    reloading.refresh()

    writer.write(b"still here")
    await writer.drain()
    assert not reader.at_eof()
    writer.transport.abort()


@pytest.mark.parametrize("fault", ["junk", "foreign key", "absent", "ca"])
async def test_a_broken_file_keeps_the_old_certificate_and_says_so(
    files: Files, reloading: ReloadingContext, port: int, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = await shown(port, files.ca)
    old_key = files.key.read_bytes()
    after = files.renew()
    new_key = files.key.read_bytes()
    if fault == "junk":
        files.key.write_bytes(b"junk")
    elif fault == "foreign key":
        files.key.write_bytes(old_key)
    elif fault == "absent":
        files.key.unlink()
    else:
        files.ca_file.write_bytes(b"junk")

    with caplog.at_level(logging.ERROR):
        assert reloading.refresh() is False

    assert "old one stays" in caplog.text
    assert isinstance(reloading.error, ConfigError)
    assert await shown(port, files.ca) == before

    files.key.write_bytes(new_key)
    files.ca_file.write_bytes(files.ca.cert_pem)
    assert reloading.refresh() is True
    assert await shown(port, files.ca) == after


def test_an_added_ca_is_trusted_in_place(files: Files, reloading: ReloadingContext) -> None:
    context = reloading.context
    files.ca_file.write_bytes(files.ca.cert_pem + new_ca().cert_pem)

    assert reloading.refresh() is True

    assert reloading.context is context
    assert len(context.get_ca_certs()) == 2


def test_a_removed_ca_needs_a_new_context_and_the_listener_is_told(files: Files) -> None:
    replaced: list[ssl.SSLContext] = []
    files.ca_file.write_bytes(files.ca.cert_pem + new_ca().cert_pem)
    reloading = ReloadingContext(make, files.cert, files.key, files.ca_file, replaced.append)
    before = reloading.context
    files.ca_file.write_bytes(files.ca.cert_pem)

    assert reloading.refresh() is True

    assert replaced == [reloading.context]
    assert reloading.context is not before
    assert len(reloading.context.get_ca_certs()) == 1


def test_a_removed_ca_without_a_listener_to_tell(files: Files, reloading: ReloadingContext) -> None:
    before = reloading.context
    files.ca_file.write_bytes(new_ca().cert_pem)

    assert reloading.refresh() is True
    assert reloading.context is not before


def test_it_works_where_the_system_has_no_memory_files(
    files: Files, reloading: ReloadingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    files.renew()

    assert reloading.refresh() is True


async def test_the_watch_sees_the_files(files: Files, reloading: ReloadingContext, port: int) -> None:
    watch = reloading.watch()
    assert await watch.check() is False
    after = files.renew()

    assert await watch.check() is True

    assert await shown(port, files.ca) == after


def test_the_first_build_must_work(files: Files) -> None:
    files.cert.write_bytes(b"junk")
    with pytest.raises(ConfigError):
        ReloadingContext(make, files.cert, files.key, files.ca_file)
