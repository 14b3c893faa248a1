"""A small HTTP/1.1 server for the sample services: a JSON API and a server-sent event stream.

    GET  /                          {"service", "endpoints"}
    GET  /healthz                   200 "ok"
    GET  /headers                   {"headers": [[name, value], …]} exactly as they came
    POST /echo                      the request's body and content type (64 MiB at most, else 413)
    POST /sha256                    {"sha256": hex, "bytes": n} of a body of any size, which is not kept
    GET  /bytes/N                   N bytes of `pattern()`
    GET  /status/N                  that status, with an empty JSON object where a body is allowed
    GET  /events?count=&interval=   SSE: `count` events (0: endless), one every `interval` seconds, each {"n", "sent"}
    GET  /events?count=&ack=KEY     the same, but each further event is sent when POST /events/KEY/ack was called
    POST /rendezvous/KEY/N          answers, each with its own body, once N requests with this key are in flight

`sent` is the sender's `time.monotonic()`: a reader compares differences, never the clock itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import h11

__all__ = ["SampleApp", "pattern"]

MAX_ECHO = 64 * 1024 * 1024
MAX_BYTES = 1 << 40
PATTERN_BLOCK = 16 * 1024
PEER_WAIT = 30.0
ENDPOINTS = (
    "GET /headers",
    "POST /echo",
    "POST /sha256",
    "GET /bytes/N",
    "GET /status/N",
    "GET /events?count=5&interval=1",
)
BODYLESS = frozenset({204, 205, 304})

Header = tuple[bytes, bytes]


def pattern(size: int) -> bytes:
    """`size` bytes in which every 16 KiB block is different, so that a lost or swapped block changes the digest."""
    return b"".join(_blocks(size))


def _blocks(size: int) -> list[bytes]:
    blocks = [_block(n) for n in range(size // PATTERN_BLOCK)]
    rest = size % PATTERN_BLOCK
    return [*blocks, _block(len(blocks))[:rest]] if rest else blocks


def _block(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest() * (PATTERN_BLOCK // 32)


class _Gone(Exception):
    """The client went away in the middle of an exchange."""


class Exchange:
    """One request and its response on an h11 connection."""

    def __init__(
        self, request: h11.Request, conn: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        target = urlsplit(request.target.decode("latin-1"))
        self.method = request.method.decode("latin-1")
        self.path = target.path
        self.query = {name: values[-1] for name, values in parse_qs(target.query).items()}
        self.headers: list[Header] = request.headers.raw_items()
        self._conn = conn
        self._reader = reader
        self._writer = writer

    def header(self, name: bytes, default: bytes = b"") -> bytes:
        return next((value for key, value in self.headers if key.lower() == name), default)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; sends 100 Continue when the client waits for it."""
        while True:
            event = await next_event(self._conn, self._reader, self._writer)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.ConnectionClosed):
                raise _Gone
            else:
                return

    async def body(self, limit: int) -> bytes | None:
        """The whole body, or None when it is longer than `limit`."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                return None
            parts.append(chunk)
        return b"".join(parts)

    async def start(self, status: int, headers: list[Header]) -> None:
        await self._send(h11.Response(status_code=status, headers=headers, reason=b""))

    async def write(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def finish(self) -> None:
        await self._send(h11.EndOfMessage())

    async def reply(self, status: int, body: bytes, content_type: bytes = b"application/json") -> None:
        headers = [(b"content-type", content_type)]
        if status not in BODYLESS:
            headers.append((b"content-length", str(len(body)).encode()))
        await self.start(status, headers)
        if body and status not in BODYLESS and self.method != "HEAD":
            await self.write(body)
        await self.finish()

    async def json(self, value: object, status: int = 200) -> None:
        await self.reply(status, json.dumps(value).encode())

    async def _send(self, event: h11.Event) -> None:
        data = self._conn.send(event)
        if data:
            self._writer.write(data)
        await self._writer.drain()


async def next_event(conn: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> h11.Event:
    while True:
        event = conn.next_event()
        if event is not h11.NEED_DATA:
            if event is h11.PAUSED:
                raise _Gone
            return event  # type: ignore[return-value]  # the two sentinels are handled above
        if conn.they_are_waiting_for_100_continue:
            writer.write(conn.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        conn.receive_data(await reader.read(65536))


@dataclass
class _Meeting:
    arrived: int = 0
    complete: asyncio.Event = field(default_factory=asyncio.Event)


class SampleApp:
    """The handlers; one instance may serve several listeners."""

    def __init__(self) -> None:
        self._meetings: dict[str, _Meeting] = {}
        self._acknowledged: dict[str, asyncio.Semaphore] = {}
        self._routes: list[tuple[re.Pattern[str], Callable[[Exchange, re.Match[str]], Awaitable[None]]]] = [
            (re.compile(r"(?:GET|HEAD) /"), self._index),
            (re.compile(r"(?:GET|HEAD) /healthz"), self._healthz),
            (re.compile(r"GET /headers"), self._headers),
            (re.compile(r"(?:POST|PUT) /echo"), self._echo),
            (re.compile(r"(?:POST|PUT) /sha256"), self._sha256),
            (re.compile(r"GET /bytes/(\d{1,12})"), self._bytes),
            (re.compile(r"[A-Z]+ /status/([2-5]\d\d)"), self._status),
            (re.compile(r"GET /events"), self._events),
            (re.compile(r"POST /events/([\w.-]+)/ack"), self._acknowledge),
            (re.compile(r"POST /rendezvous/([\w.-]+)/(\d{1,4})"), self._rendezvous),
        ]

    async def handle(self, exchange: Exchange) -> None:
        line = f"{exchange.method} {exchange.path}"
        for regex, handler in self._routes:
            match = regex.fullmatch(line)
            if match:
                await handler(exchange, match)
                return
        await exchange.json({"error": "no such endpoint", "endpoints": ENDPOINTS}, 404)

    async def _index(self, exchange: Exchange, _: re.Match[str]) -> None:
        await exchange.json({"service": "platformctl sample service", "endpoints": ENDPOINTS})

    async def _healthz(self, exchange: Exchange, _: re.Match[str]) -> None:
        await exchange.reply(200, b"ok\n", b"text/plain")

    async def _headers(self, exchange: Exchange, _: re.Match[str]) -> None:
        pairs = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in exchange.headers]
        await exchange.json({"headers": pairs})

    async def _echo(self, exchange: Exchange, _: re.Match[str]) -> None:
        body = await exchange.body(MAX_ECHO)
        if body is None:
            await exchange.json({"error": f"the body is longer than {MAX_ECHO} bytes"}, 413)
        else:
            await exchange.reply(200, body, exchange.header(b"content-type", b"application/octet-stream"))

    async def _sha256(self, exchange: Exchange, _: re.Match[str]) -> None:
        digest, size = hashlib.sha256(), 0
        async for chunk in exchange.chunks():
            digest.update(chunk)
            size += len(chunk)
        await exchange.json({"sha256": digest.hexdigest(), "bytes": size})

    async def _bytes(self, exchange: Exchange, match: re.Match[str]) -> None:
        size = min(int(match[1]), MAX_BYTES)
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(size).encode())]
        await exchange.start(200, headers)
        for number in range(-(-size // PATTERN_BLOCK)):
            await exchange.write(_block(number)[: size - number * PATTERN_BLOCK])
        await exchange.finish()

    async def _status(self, exchange: Exchange, match: re.Match[str]) -> None:
        await exchange.reply(int(match[1]), b"{}")

    async def _events(self, exchange: Exchange, _: re.Match[str]) -> None:
        try:
            count = int(exchange.query.get("count", "10"))
            interval = max(0.0, float(exchange.query.get("interval", "1")))
        except ValueError:
            await exchange.json({"error": "count is a whole number, interval a number of seconds"}, 400)
            return
        await exchange.start(200, [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")])
        key = exchange.query.get("ack")
        turn = self._acknowledged.setdefault(key, asyncio.Semaphore(0)) if key else None
        try:
            async with asyncio.timeout(PEER_WAIT if turn else None):
                for number in range(count) if count else itertools.count():
                    if number:
                        await (turn.acquire() if turn else asyncio.sleep(interval))
                    data = json.dumps({"n": number, "sent": time.monotonic()})
                    await exchange.write(f"id: {number}\nevent: tick\ndata: {data}\n\n".encode())
        finally:
            if key:
                self._acknowledged.pop(key, None)
        await exchange.finish()

    async def _acknowledge(self, exchange: Exchange, match: re.Match[str]) -> None:
        turn = self._acknowledged.get(match[1])
        if turn is None:
            await exchange.json({"error": "no event stream waits under this key"}, 404)
            return
        turn.release()
        await exchange.json({})

    async def _rendezvous(self, exchange: Exchange, match: re.Match[str]) -> None:
        body = await exchange.body(MAX_ECHO) or b""
        key, expected = match[1], int(match[2])
        meeting = self._meetings.setdefault(key, _Meeting())
        meeting.arrived += 1
        if meeting.arrived >= expected:
            meeting.complete.set()
            self._meetings.pop(key, None)
        try:
            await asyncio.wait_for(meeting.complete.wait(), PEER_WAIT)
        except TimeoutError:
            self._meetings.pop(key, None)
            await exchange.json({"error": f"{meeting.arrived} of {expected} requests arrived"}, 504)
        else:
            await exchange.reply(200, body, b"application/octet-stream")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends; what the client does wrong ends it, quietly."""
        with contextlib.suppress(_Gone, ConnectionError, TimeoutError, h11.RemoteProtocolError):
            conn = h11.Connection(h11.SERVER)
            while isinstance(request := await next_event(conn, reader, writer), h11.Request):
                exchange = Exchange(request, conn, reader, writer)
                await self.handle(exchange)
                if conn.their_state is h11.SEND_BODY:  # answered early: the next request is behind the rest
                    async for _ in exchange.chunks():
                        pass
                if conn.our_state is not h11.DONE or conn.their_state is not h11.DONE:
                    return
                conn.start_next_cycle()

    def arrived(self, key: str) -> int | None:
        """How many requests wait at a rendezvous; None when it is complete or nobody came."""
        meeting = self._meetings.get(key)
        return meeting.arrived if meeting else None
