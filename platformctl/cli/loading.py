"""A closed-loop load generator: each keep-alive connection sends its next request when it has the answer."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["LoadResult", "Request", "load"]

READ_LIMIT = 256 * 1024
ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Request:
    """`head` is the whole request, ready to send."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    head: bytes = field(repr=False)

    @classmethod
    def get(cls, url: str, tls: ssl.SSLContext | None, token: str | None) -> Request:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        port = parts.port or (443 if tls else 80)
        fields = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", "Accept: */*", "User-Agent: platformctl-bench"]
        if token:
            fields.append(f"Authorization: Bearer {token}")
        return cls(parts.hostname or "", port, tls, "\r\n".join([*fields, "", ""]).encode("latin-1"))


@dataclass
class LoadResult:
    """`latencies` are seconds, sorted; `statuses` counts answers; `errors` counts connections that broke."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    received: int = 0

    def percentile(self, share: float) -> float:
        """Seconds; 0.0 when nothing was answered."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))] if self.latencies else 0.0

    @property
    def failed(self) -> int:
        return sum(self.errors.values()) + sum(n for status, n in self.statuses.items() if not 200 <= status < 400)

    def to_dict(self) -> dict[str, object]:
        return {
            "requests": len(self.latencies),
            "seconds": round(self.seconds, 3),
            "requests_per_second": round(len(self.latencies) / self.seconds, 1) if self.seconds else 0.0,
            "p50_ms": round(self.percentile(0.50) * 1000, 3),
            "p90_ms": round(self.percentile(0.90) * 1000, 3),
            "p99_ms": round(self.percentile(0.99) * 1000, 3),
            "max_ms": round(self.latencies[-1] * 1000, 3) if self.latencies else 0.0,
            "bytes_received": self.received,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "errors": dict(self.errors),
        }


async def load(request: Request, connections: int, seconds: float) -> LoadResult:
    """Send for `seconds`; requests on their way at the end are finished and counted."""
    result = LoadResult()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(_client(request, began + seconds, result), name=f"connection {number}")
    result.seconds = time.perf_counter() - began
    result.latencies.sort()
    return result


async def _client(request: Request, deadline: float, result: LoadResult) -> None:
    while time.perf_counter() < deadline:
        try:
            await _connection(request, deadline, result)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as e:
            result.errors[type(e).__name__] += 1
            await asyncio.sleep(0.05)  # a hub that is down must not be hammered


async def _connection(request: Request, deadline: float, result: LoadResult) -> None:
    reader, writer = await asyncio.open_connection(request.host, request.port, ssl=request.tls, limit=READ_LIMIT)
    try:
        keep = True
        while keep and time.perf_counter() < deadline:
            sent = time.perf_counter()
            writer.write(request.head)
            async with asyncio.timeout(ANSWER_SECONDS):
                status, size, keep = await _answer(reader)
            result.latencies.append(time.perf_counter() - sent)
            result.statuses[status] += 1
            result.received += size
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, int, bool]:
    """(status, body bytes, whether the connection can be used again) of one response to a GET (RFC 9112, 6.3)."""
    while True:
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        status = int(line[9:12])
        if status >= 200:
            break
    headers = {
        name.strip().lower(): value.strip().lower() for name, _, value in (f.partition(b":") for f in fields if f)
    }
    keep = headers.get(b"connection") != b"close" and line.startswith(b"HTTP/1.1")
    if status in (204, 304):
        return status, 0, keep
    if b"chunked" in headers.get(b"transfer-encoding", b""):
        return status, await _chunks(reader), keep
    if b"content-length" in headers:
        return status, await _skip(reader, int(headers[b"content-length"])), keep
    size = 0
    while data := await reader.read(READ_LIMIT):
        size += len(data)
    return status, size, False


async def _chunks(reader: asyncio.StreamReader) -> int:
    size = 0
    while length := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        size += await _skip(reader, length)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return size


async def _skip(reader: asyncio.StreamReader, length: int) -> int:
    left = length
    while left:
        data = await reader.read(min(left, READ_LIMIT))
        if not data:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(data)
    return length
