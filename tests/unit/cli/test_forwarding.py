"""The forwarder against a hub's side written out byte by byte, over plain TCP and over TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from platformctl.cli.client import tls_context
from platformctl.cli.forward import _ports
from platformctl.cli.forwarding import Forwarder, Route
from platformctl.errors import AccessDenied, HubUnreachable, NotFound, PlatformError, UsageError
from tests.unit.cli.conftest import Cli

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def hub_that(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A hub that reads the CONNECT head and goes on as told; its URL."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def refusing(status: int, document: object) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        writer.write(b"HTTP/1.1 %d No\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()

    return serve


async def through(forwarder: Forwarder, data: bytes) -> bytes:
    """Send all of it, say that it is all, and read what comes back until the other side says so too."""
    port = await forwarder.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()
        await forwarder.close()


async def test_bytes_go_both_ways_and_each_direction_closes_by_itself() -> None:
    data = bytes(range(256)) * 4096
    reports: list[str] = []
    async with hub_that(echo) as url:
        assert await through(Forwarder(Route(url, "db.sat-1:443", None, None), reports.append), data) == data
    assert reports == []


async def test_over_tls_what_still_comes_back_is_waited_for(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    data = b"x" * 300_000
    async with hub_that(echo, server) as url:
        route = Route(url, "db.sat-1:443", "ct-1.secret", tls_context(tmp_path / "ca.pem"))
        assert await through(Forwarder(route, print, linger=0.2), data) == data


async def test_the_request_names_service_and_identity() -> None:
    heads: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with hub_that(note) as url:
        _, writer = await Route(url, "db.sat-1:5432", "ct-1.secret", None).dial()
        writer.close()
    assert heads == [
        b"CONNECT db.sat-1:5432 HTTP/1.1\r\nHost: db.sat-1:5432\r\nAuthorization: Bearer ct-1.secret\r\n\r\n"
    ]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AccessDenied), (403, AccessDenied), (404, NotFound), (503, HubUnreachable), (500, PlatformError)],
)
async def test_a_refusal_is_told_in_the_hubs_words(status: int, kind: type[PlatformError]) -> None:
    async with hub_that(refusing(status, {"detail": "no rule lets you", "hint": "ask"})) as url:
        with pytest.raises(kind) as caught:
            await Route(url, "db.sat-1:443", None, None).dial()
    assert type(caught.value) is kind
    assert caught.value.message == f"db.sat-1: the hub answered {status}: no rule lets you"
    assert ("--token-file" in caught.value.hint) if status == 401 else (caught.value.hint == "ask")


async def test_a_refusal_that_is_no_problem_document_is_made_printable() -> None:
    async with hub_that(refusing(502, b"\x1b[2Jgone")) as url:
        with pytest.raises(PlatformError, match=r"the hub answered 502: \\x1b\[2Jgone"):
            await Route(url, "db.sat-1:443", None, None).dial()


async def test_what_does_not_speak_http_is_refused() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n\r\n")

    async with hub_that(speak) as url:
        with pytest.raises(PlatformError, match=r"the hub answered 0: SSH-2\.0-x"):
            await Route(url, "db.sat-1:443", None, None).dial()


async def test_a_hub_that_hangs_up_is_unreachable() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    async with hub_that(hang_up) as url:
        with pytest.raises(HubUnreachable, match="cannot reach the hub"):
            await Route(url, "db.sat-1:443", None, None).dial()
    with pytest.raises(HubUnreachable, match="cannot reach the hub"):
        await Route(url, "db.sat-1:443", None, None).dial()


async def test_a_connection_that_cannot_be_made_is_reported_and_the_port_stays_open() -> None:
    reports: list[str] = []
    async with hub_that(refusing(404, {"detail": "no such service"})) as url:
        forwarder = Forwarder(Route(url, "db.sat-1:443", None, None), reports.append)
        assert await through(forwarder, b"hello") == b""
    assert reports == ["db.sat-1: the hub answered 404: no such service"]


async def test_a_taken_port_is_told() -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    with pytest.raises(PlatformError, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
        await Forwarder(Route("http://h", "a.b:1", None, None), print).listen("127.0.0.1", port)
    taken.close()


async def test_closing_ends_the_connections_that_are_open() -> None:
    async with hub_that(echo) as url:
        forwarder = Forwarder(Route(url, "db.sat-1:443", None, None), print)
        port = await forwarder.listen("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        await forwarder.close()
        assert await reader.read() == b""
        writer.close()


def test_a_route_does_not_show_its_token() -> None:
    assert "secret" not in repr(Route("https://h", "a.b:1", "ct-1.secret", None))


@pytest.mark.parametrize(
    ("text", "ports"),
    [(None, (0, 443)), ("5432", (5432, 443)), ("5432:", (5432, 443)), ("0:80", (0, 80)), (":80", (0, 80))],
)
def test_ports_are_local_and_remote(text: str | None, ports: tuple[int, int]) -> None:
    assert _ports(text) == ports


@pytest.mark.parametrize("text", ["x", "70000", "1:0", "1:2:3", "-1"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a port"):
        _ports(text)


def test_a_service_needs_its_satellite(cli: Cli) -> None:
    outcome = cli("forward", "db", "--hub", "http://127.0.0.1:1")
    assert outcome.code == 2
    assert "SERVICE.SATELLITE" in outcome.err
