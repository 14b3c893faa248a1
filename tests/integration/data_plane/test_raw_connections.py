"""Connections that carry bytes: WebSocket and other upgrades, CONNECT, declared TCP ports, SNI passthrough, forward."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.integration.data_plane.conftest import ENVIRONMENT, ROOT, Platform
from tests.integration.data_plane.peers import Peer, ok, serving

pytestmark = pytest.mark.integration

MIB = 1024 * 1024


async def echo(peer: Peer) -> None:
    with suppress(ConnectionError):
        while data := await peer.reader.read(65536):
            peer.writer.write(data)
            await peer.writer.drain()


# ---- upgrades --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "public"])
async def test_a_websocket_talks_both_ways(platform: Platform, kind: str) -> None:
    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        await socket.send(socket.request.headers["Platform-Identity"])
        async for message in socket:
            await socket.send(message)

    scheme = "wss" if kind == "public" else "ws"
    url = f"{scheme}://127.0.0.1:{platform.port(kind)}/s/sat-1/plain/chat"
    async with serve(handler, "127.0.0.1", platform.services.ports["plain"], max_size=2**23):
        async with connect(
            url,
            additional_headers={"Authorization": f"Bearer {platform.token}"},
            ssl=platform.tls() if kind == "public" else None,
            max_size=2**23,
        ) as socket:
            assert await socket.recv() == "token:admin"
            for message in ("hello", b"\0\xff", "x" * 100_000, b"y" * (5 * MIB)):
                await socket.send(message)
                assert await socket.recv() == message
            latency = await (await socket.ping())
            assert latency < 1
            await socket.close(4001, "enough")
        assert (socket.close_code, socket.close_reason) == (4001, "enough")


async def test_a_websocket_that_the_server_closes_is_closed_cleanly(platform: Platform) -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.send("bye")
        await socket.close(1011, "broken")

    url = f"ws://127.0.0.1:{platform.port()}/s/sat-1/plain/"
    async with (
        serve(handler, "127.0.0.1", platform.services.ports["plain"]),
        connect(url, additional_headers={"Authorization": f"Bearer {platform.token}"}) as socket,
    ):
        assert await socket.recv() == "bye"
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "broken")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_any_protocol_can_be_upgraded_to(platform: Platform, method: str) -> None:
    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert (head.get("connection"), head.get("upgrade")) == ("Upgrade", "SPDY/3.1")
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-A: 1\r\n\r\nfirst"
        )
        await echo(peer)

    async with platform.backend("plain", script), await platform.connect() as peer:
        request = platform.head(method, "/exec", "Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0")
        await peer.send(request)
        head = await peer.head()
        assert (head.status, head.get("upgrade"), head.get("x-a")) == (101, "SPDY/3.1", "1")
        assert (head.get("connection") or "").lower() == "upgrade"
        assert await peer.read(5) == b"first"
        await peer.send(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n")  # bytes are bytes now
        assert await peer.read(22) == b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"
        peer.half_close()
        assert await peer.rest() == b""


async def test_an_upgrade_with_a_body_is_an_ordinary_request(platform: Platform) -> None:
    async def script(peer: Peer) -> None:
        head, body, _ = await peer.request()
        assert (head.get("upgrade"), body) == (None, b"abc")
        await peer.send(ok())

    async with platform.backend("plain", script), await platform.connect() as peer:
        await peer.send(
            platform.head("POST", "/", "Connection: upgrade", "Upgrade: foo", "Transfer-Encoding: chunked")
            + b"3\r\nabc\r\n0\r\n\r\n"
        )
        assert (await peer.answer()).status == 200


# ---- CONNECT ---------------------------------------------------------------------------------------------------------


def tunnel(platform: Platform, authority: str) -> bytes:
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{platform.auth}\r\n".encode()


@pytest.mark.parametrize("kind", ["http", "public"])
async def test_connect_makes_a_tunnel(platform: Platform, kind: str) -> None:
    async with platform.backend("raw", echo), await platform.connect(kind) as peer:
        await peer.send(tunnel(platform, "raw.sat-1:9") + b"early")
        assert (await peer.head()).first == "HTTP/1.1 200 Connection established"
        assert await peer.read(5) == b"early"
        for _ in range(3):
            await peer.send(b"ping\r\n\r\n")
            assert await peer.read(8) == b"ping\r\n\r\n"


@pytest.mark.parametrize("proxied", ["raw.sat-1:1", "raw.sat-1.platform.localhost:443"])
async def test_connect_takes_short_and_long_names(platform: Platform, proxied: str) -> None:
    async with platform.backend("raw", echo), await platform.connect() as peer:
        await peer.send(tunnel(platform, proxied))
        assert (await peer.head()).status == 200


@pytest.mark.parametrize(
    ("authority", "status", "code"),
    [
        ("plain.sat-1:80", 405, "method-not-allowed"),
        ("nothing.sat-1:80", 404, "service-unknown"),
        ("raw.nowhere:80", 404, "satellite-unknown"),
        ("raw.sat-1:80", 502, "backend-unreachable"),
    ],
)
async def test_a_connect_that_fails_says_why_and_ends(
    platform: Platform, authority: str, status: int, code: str
) -> None:
    async with await platform.connect() as peer:
        # What a client sends in good faith into a tunnel that is not there must not become a request.
        await peer.send(tunnel(platform, authority) + platform.head("GET", "/smuggled"))
        answer = await peer.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (status, code)
        assert await peer.closed() == b""


async def test_a_tcp_service_is_not_called_with_http(platform: Platform) -> None:
    answer = await platform.get(service="raw")
    assert answer.status == 400
    assert "forward" in json.loads(answer.body)["hint"]


# ---- declared ports --------------------------------------------------------------------------------------------------


def port_of(platform: Platform, service: str) -> int:
    return int(platform.env["tcp_addresses"][f"{service}.sat-1"].rpartition(":")[2])


async def test_either_side_of_a_tcp_connection_may_end_first(platform: Platform) -> None:
    async def backend_first(peer: Peer) -> None:
        await peer.send(b"server says all")
        peer.half_close()
        assert await peer.rest() == b"client says more"

    async def client_first(peer: Peer) -> None:
        assert await peer.rest() == b"client says all"
        await peer.send(b"server says more")

    async with platform.backend("raw", backend_first) as backend, await Peer.connect(port_of(platform, "raw")) as peer:
        assert await peer.rest() == b"server says all"
        await peer.send(b"client says more")
        peer.half_close()
        await backend.done()
    async with platform.backend("raw", client_first) as backend, await Peer.connect(port_of(platform, "raw")) as peer:
        await peer.send(b"client says all")
        peer.half_close()
        assert await peer.rest() == b"server says more"
        await backend.done()


@pytest.mark.parametrize("how", ["port", "connect"])
async def test_nothing_of_a_tcp_stream_is_lost_when_one_side_is_gone_early(platform: Platform, how: str) -> None:
    size = 4 * MIB
    block = bytes(range(256)) * 256

    async def source(peer: Peer) -> None:
        for _ in range(size // len(block)):
            await peer.send(block)

    async with platform.backend("raw", source) as backend:
        peer = await Peer.connect(port_of(platform, "raw")) if how == "port" else await platform.connect()
        async with peer:
            if how == "connect":
                await peer.send(tunnel(platform, "raw.sat-1:1"))
                assert (await peer.head()).status == 200
            peer.half_close()
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(0.3)
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            got = await peer.rest()
            assert len(got) == size
            assert hashlib.sha256(got).digest() == hashlib.sha256(block * (size // len(block))).digest()
        await backend.done()

    got_there: list[int] = []

    async def slow_sink(peer: Peer) -> None:
        peer.half_close()
        await asyncio.sleep(0.3)
        got_there.append(len(await peer.rest()))

    async with platform.backend("raw", slow_sink) as backend, await Peer.connect(port_of(platform, "raw")) as peer:
        for _ in range(size // len(block)):
            await peer.send(block)
        peer.half_close()
        assert await peer.rest() == b""
        await backend.done()
    assert got_there == [size]


async def test_a_reset_on_one_side_is_seen_on_the_other(platform: Platform) -> None:
    async def cut(peer: Peer) -> None:
        assert await peer.read(1) == b"x"
        peer.cut()

    async def watch(peer: Peer) -> None:
        assert await peer.read(1) == b"x"
        with pytest.raises(ConnectionResetError):
            await peer.rest()

    async with platform.backend("raw", cut), await Peer.connect(port_of(platform, "raw")) as peer:
        await peer.send(b"x")
        with pytest.raises(ConnectionResetError):
            await peer.rest()
    async with platform.backend("raw", watch) as backend:
        peer = await Peer.connect(port_of(platform, "raw"))
        async with peer:
            await peer.send(b"x")
            assert await peer.is_quiet()
            peer.cut()
        await backend.done()


async def test_a_tcp_connection_without_a_backend_is_reset(platform: Platform) -> None:
    with suppress(ConnectionResetError):  # which may come as early as in `connect`
        async with await Peer.connect(port_of(platform, "raw")) as peer:
            assert await peer.rest() == b""


async def test_a_tcp_connection_that_nobody_uses_is_ended(platform: Platform) -> None:
    async with platform.backend("slow-raw", echo) as backend:
        peer = await platform.connect()
        async with peer:
            await peer.send(tunnel(platform, "slow-raw.sat-1:1"))
            assert (await peer.head()).status == 200
            for _ in range(4):
                await asyncio.sleep(0.5)
                await peer.send(b"x")
                assert await peer.read(1) == b"x"
            assert await peer.closed() == b""
        await backend.done()


@pytest.fixture
def redis(platform: Platform, tmp_path: Path) -> Iterator[str]:
    """A Redis server behind the platform; its path for redis-cli."""
    port = platform.services.ports["redis"]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        for _ in range(100):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield str(port)
        process.terminate()


async def test_redis_works_through_a_declared_port(platform: Platform, redis: str) -> None:
    async def command(peer: Peer, *words: bytes) -> bytes:
        await peer.send(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))
        return (await peer.reader.readuntil(b"\r\n")).strip()

    async with await Peer.connect(port_of(platform, "redis")) as peer:
        assert await command(peer, b"PING") == b"+PONG"
        value = b"\0\r\n" * MIB
        assert await command(peer, b"SET", b"key", value) == b"+OK"
        assert await command(peer, b"GET", b"key") == b"$%d" % len(value)
        assert await peer.read(len(value) + 2) == value + b"\r\n"
        # A pipeline, and a subscriber that waits while others work.
        await peer.send(b"PING\r\n" * 1000)
        assert await peer.read(7000) == b"+PONG\r\n" * 1000
        async with await Peer.connect(port_of(platform, "redis")) as subscriber:
            await subscriber.send(b"SUBSCRIBE news\r\n")
            assert b"subscribe" in await subscriber.some()
            assert await command(peer, b"PUBLISH", b"news", b"hello") == b":1"
            assert b"hello" in await subscriber.some()


# ---- SNI passthrough -------------------------------------------------------------------------------------------------


def served(platform: Platform) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    platform.certificate.configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def trusting(platform: Platform) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    platform.authority.configure_trust(context)
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    return context


def sni_port(platform: Platform) -> int:
    return int(platform.env["sni_address"].rpartition(":")[2])


async def test_tls_passes_through_by_its_name_unopened(platform: Platform) -> None:
    async with platform.backend("passthrough", echo, tls=served(platform)):
        name = "passthrough.sat-1.platform.localhost"
        async with await Peer.connect(sni_port(platform), trusting(platform), name) as peer:
            tls = peer.writer.get_extra_info("ssl_object")
            assert tls.getpeercert(True) == ssl.PEM_cert_to_DER_cert(
                platform.certificate.cert_chain_pems[0].bytes().decode()
            )
            assert tls.selected_alpn_protocol() == "h2"
            await peer.send(b"z" * MIB)
            assert await peer.read(MIB) == b"z" * MIB


async def test_openssl_finds_the_service_by_its_name(platform: Platform) -> None:
    async with platform.backend("passthrough", echo, tls=served(platform)):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{sni_port(platform)}", "-brief"]
        command += ["-servername", "passthrough.sat-1.platform.localhost", "-quiet", "-no_ign_eof"]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        async with asyncio.timeout(5):
            assert await process.stdout.readline() == b"hello\n"
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 5)


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"x" * 100,
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
        b"\x80.\x01",
    ],
)
async def test_what_is_no_tls_on_the_passthrough_port_is_cut(platform: Platform, first: bytes) -> None:
    async with await Peer.connect(sni_port(platform)) as peer:
        await peer.send(first)
        assert await peer.closed() == b""


@pytest.mark.parametrize("name", ["nothing.sat-1.platform.localhost", "plain.sat-1.platform.localhost", "other.test"])
async def test_a_name_that_is_no_tcp_service_is_cut(platform: Platform, name: str) -> None:
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await Peer.connect(sni_port(platform), trusting(platform), name)


async def test_a_client_hello_may_come_in_pieces(platform: Platform) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting(platform).wrap_bio(incoming, outgoing, server_hostname="passthrough.sat-1.platform.localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    async with (
        platform.backend("passthrough", echo, tls=served(platform)),
        await Peer.connect(sni_port(platform)) as peer,
    ):
        for at in range(0, len(hello), 50):
            await peer.send(hello[at : at + 50])
            await asyncio.sleep(0.002)
        assert (await peer.some())[:1] == b"\x16"  # the backend's ServerHello


# ---- platformctl forward ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True])
async def test_forward_opens_a_local_port(platform: Platform, secure: bool, tmp_path: Path) -> None:
    where = ["--state", str(platform.state)]
    if secure:
        replica = platform.env["replicas"][0]["public_url"]
        where = [
            "--hub",
            replica,
            "--ca-file",
            platform.env["ca_file"],
            "--token-file",
            platform.env["admin_token_file"],
        ]
    environment = {"PYTHONPATH": str(ROOT), "PLATFORMCTL_CONFIG": str(tmp_path / "config.yaml"), **ENVIRONMENT}
    async with platform.backend("raw", echo):
        process = await asyncio.create_subprocess_exec(
            *platform.command("forward", "raw.sat-1", "0:", *where),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            async with asyncio.timeout(10):
                line = (await process.stdout.readline()).decode()
            assert "raw.sat-1" in line, (await process.stderr.read()).decode()
            port = int(line.split()[0].rpartition(":")[2])
            async with await Peer.connect(port) as peer:
                await peer.send(b"q" * MIB)
                assert await peer.read(MIB) == b"q" * MIB
                peer.half_close()
                assert await peer.rest() == b""
        finally:
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.communicate(), 10)


def test_the_tools_of_this_file_are_there() -> None:
    assert [tool for tool in ("redis-server", "openssl") if shutil.which(tool) is None] == []


async def test_a_plain_request_still_works_beside_all_this(platform: Platform) -> None:
    async with platform.backend("plain", serving()):
        assert (await platform.get()).status == 200
