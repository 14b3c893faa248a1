from __future__ import annotations

import asyncio
import hashlib
import json
import ssl

import pytest

from tests.integration.data_plane.conftest import Platform
from tests.integration.data_plane.peers import Peer, ok, serving
from tests.integration.data_plane.test_bodies import MIB, digest, download, upload

pytestmark = pytest.mark.integration


def context(platform: Platform) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    platform.certificate.configure_cert(made)
    return made


@pytest.mark.parametrize("service", ["tls-ca", "tls-pin"])
async def test_a_backend_with_the_right_certificate_is_called(platform: Platform, service: str) -> None:
    async with platform.backend(service, serving(ok(b"secret")), tls=context(platform)) as backend:
        for _ in range(3):
            assert (await platform.get(service=service)).body == b"secret"
        assert backend.connections == 1


@pytest.mark.parametrize("service", ["tls-other-ca", "tls-wrong-pin"])
async def test_a_backend_with_another_certificate_gets_no_request(platform: Platform, service: str) -> None:
    said: list[bytes] = []

    async def script(peer: Peer) -> None:
        said.append(await peer.closed())

    async with platform.backend(service, script, tls=context(platform)):
        for _ in range(3):
            answer = await platform.get(service=service)
            assert (answer.status, json.loads(answer.body)["code"]) == (502, "backend-unreachable")
    assert b"".join(said) == b""


async def test_a_backend_without_tls_is_not_talked_to_in_the_clear(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        assert b"GET" not in await peer.some()
        peer.cut()

    async with platform.backend("tls-ca", script):
        assert (await platform.get(service="tls-ca")).status == 502


async def test_bodies_go_both_ways_through_tls(platform: Platform) -> None:
    size = 5 * MIB + 1
    async with platform.backend("tls-ca", download, tls=context(platform)), await platform.connect() as peer:
        for how in ("", "?chunked"):
            await peer.send(platform.head("GET", f"/{size}{how}", service="tls-ca"))
            await asyncio.sleep(0.3)  # the client reads late: the agent has to stop reading and go on
            answer = await peer.answer()
            assert hashlib.sha256(answer.body).hexdigest() == digest(size)
    async with platform.backend("tls-ca", upload, tls=context(platform)), await platform.connect() as peer:
        await peer.send(platform.head("PUT", "/", f"Content-Length: {size}", service="tls-ca"))
        from tests.integration.data_plane.test_bodies import blocks

        for block in blocks(size):
            await peer.send(block)
        assert (await peer.answer()).body.decode() == digest(size)


async def test_an_upgrade_works_through_tls(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        while data := await peer.reader.read(100):
            await peer.send(data)

    async with platform.backend("tls-ca", script, tls=context(platform)) as backend:
        async with await platform.connect() as peer:
            await peer.send(platform.head("GET", "/", "Connection: upgrade", "Upgrade: x", service="tls-ca"))
            assert (await peer.head()).status == 101
            await peer.send(b"ping")
            assert await peer.read(4) == b"ping"
        await backend.done()
