"""An ASGI application behind a real connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from platformctl.net import asgi
from platformctl.net.address import Address
from platformctl.net.deadlines import Deadlines
from platformctl.net.health_listener import health_server
from tests.integration.data_plane.peers import until

pytestmark = pytest.mark.integration

App = Callable[[Any, Any, Any], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(app: App) -> AsyncIterator[Streams]:
    deadlines = Deadlines(time.monotonic)
    deadlines.start(asyncio.get_running_loop())
    server = await health_server(Address("127.0.0.1", 0), app, deadlines)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()
        server.close()
        deadlines.stop()
        await until(lambda: not deadlines.members)


async def answer(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
    return head, await reader.readexactly(int(length[0].split(":")[1])) if length else b""


async def whole_body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            return body


async def reply(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def test_requests_follow_each_other_on_a_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, scope["method"].encode() + b" " + scope["path"].encode() + b" " + await whole_body(receive))

    async with connected(app) as (reader, writer):
        writer.write(
            b"GET /a%20b HTTP/1.1\r\nHost: h\r\n\r\nPOST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz"
        )
        assert (await answer(reader))[1] == b"GET /a b "
        assert (await answer(reader))[1] == b"POST /c xyz"


async def test_an_application_hears_that_its_client_is_gone_when_it_sends() -> None:
    errors: list[BaseException] = []
    began, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                began.set()
                await asyncio.sleep(0.01)
        except OSError as e:
            errors.append(e)
            raise
        finally:
            ended.set()

    async with connected(app) as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await began.wait()
        writer.close()
        await ended.wait()
    assert len(errors) == 1


async def test_an_application_that_listens_on_hears_the_end_of_its_response() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await whole_body(receive)
        await reply(send, b"ok")
        heard.append((await receive())["type"])

    async with connected(app) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await answer(reader))[1] == b"ok"
        await asyncio.sleep(0)
        assert heard == ["http.disconnect"] * 2


async def test_a_body_that_breaks_is_a_400_and_the_application_is_told() -> None:
    heard: list[str] = []
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            heard.append(message["body"].decode())
        ended.set()

    async with connected(app) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await until(lambda: heard)
        writer.write(b"zz\r\n")
        head, _ = await answer(reader)
        assert head.startswith("HTTP/1.1 400")
        assert "connection: close" in head
        await ended.wait()
        assert await reader.read() == b""
    assert heard == ["abc"]


async def test_a_body_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.1)
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    async with connected(app) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await ended.wait()


async def test_an_application_that_fails_is_a_500_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("the password is hunter2")

    async with connected(app) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        head, body = await answer(reader)
        assert head.startswith("HTTP/1.1 500")
        assert b"hunter2" not in body
    assert "the application failed" in caplog.text


async def test_expect_100_continue_is_answered_when_the_body_is_wanted() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, await whole_body(receive))

    async with connected(app) as (reader, writer):
        writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert (await answer(reader))[1] == b"hi"


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_stream_is_framed_for_the_version(version: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    async with connected(app) as (reader, writer):
        writer.write(f"GET / HTTP/{version}\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert body == (b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n" if version == "1.1" else b"onetwo")
        assert (b"transfer-encoding: chunked" in head) == (version == "1.1")


async def test_a_client_that_does_not_read_holds_the_application_up() -> None:
    sent = [0]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            sent[0] += 100_000

    async with connected(app) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        before = -1
        while sent[0] != before:
            before = sent[0]
            await asyncio.sleep(0.1)
        assert 0 < sent[0] < 50_000_000
        writer.transport.abort()
