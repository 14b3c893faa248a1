"""Closed-loop load: each connection sends its next request when the last one is answered.

Used by `platformctl bench` and by the latency check, so it costs little: one protocol object a connection, llhttp for
the responses, no task and no future for a request. What it measures is the chain's time plus that of one loop turn.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools

from platformctl.errors import UsageError
from platformctl.net.tasks import spawn
from platformctl.verify.network_errors import reason

__all__ = ["LoadResult", "Target", "closed_loop", "percentile"]

RECONNECT_PAUSE = 0.05
"""Seconds before a lost connection is opened again, so that a dead target is not hammered."""


@dataclass(frozen=True)
class Target:
    """What is requested. `url` is `http(s)://` with its path; `headers` may hold a credential and is not shown."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    tls: ssl.SSLContext | None = None

    def request(self) -> bytes:
        """The bytes of one request; UsageError for a URL that cannot be called."""
        at = urlsplit(self.url)
        if at.scheme not in ("http", "https") or not at.hostname:
            raise UsageError(f"{self.url} is not a URL of the form http(s)://host[:port]/path")
        fields = {"Host": at.netloc, "User-Agent": "platformctl-load", "Accept": "*/*", **self.headers}
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            fields["Content-Length"] = str(len(self.body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        path = (at.path or "/") + (f"?{at.query}" if at.query else "")
        return f"{self.method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + self.body


@dataclass(frozen=True)
class LoadResult:
    """Latencies in milliseconds, of the 2xx and 3xx answers alone.

    `errors` counts the rest by kind: "status 503", "connection lost", "connect: Connection refused".
    """

    connections: int
    requests: int
    seconds: float
    rps: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    bytes_received: int
    errors: Mapping[str, int]

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    def to_dict(self) -> dict[str, Any]:
        return {name: dict(value) if name == "errors" else value for name, value in vars(self).items()}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of ascending values (0 < share ≤ 1); 0 for none."""
    if not ordered:
        return 0.0
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))]


class _Run:
    """What the connections of one run share. `budget` is how many requests may still be begun, None without a bound."""

    def __init__(self, request: bytes, method: str, budget: int | None) -> None:
        self.request = request
        self.method = method
        self.budget = budget
        self.over = False
        self.latencies: list[float] = []
        self.bytes = 0
        self.errors: Counter[str] = Counter()

    def take(self) -> bool:
        """Whether one more request may begin."""
        if self.over:
            return False
        if self.budget is not None:
            if self.budget <= 0:
                return False
            self.budget -= 1
        return True


class _Connection(asyncio.Protocol):
    """One keep-alive connection. `ended` is done when it closed, or has nothing left to send."""

    def __init__(self, run: _Run) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._began = 0.0
        self._waiting = False
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def _next(self) -> None:
        assert self._transport is not None
        if not self._run.take():
            self._transport.close()
            return
        # llhttp forgets that a HEAD response has no body, so the parser lives as long as one response.
        self._parser = httptools.HttpResponseParser(self)
        self._waiting = True
        self._began = time.perf_counter()
        self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        self._run.bytes += len(data)
        if not self._waiting or self._parser is None:
            self._break("unexpected data")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break("unexpected upgrade")
        except httptools.HttpParserError:
            self._break("malformed response")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self._status = self._parser.get_status_code()
        if self._run.method == "HEAD" and self._status >= 200:
            self._complete()

    def on_message_complete(self) -> None:
        if self._run.method != "HEAD" and self._status >= 200:
            self._complete()

    def _complete(self) -> None:
        run = self._run
        assert self._parser is not None
        assert self._transport is not None
        self._waiting = False
        if 200 <= self._status < 400:
            run.latencies.append(time.perf_counter() - self._began)
        else:
            run.errors[f"status {self._status}"] += 1
        if self._parser.should_keep_alive():
            # Not from inside the parser's callback: the rest of this segment must be seen first.
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._transport.close()

    def _break(self, kind: str) -> None:
        assert self._transport is not None
        if self._waiting:
            self._waiting = False
            self._run.errors[kind] += 1
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting and not self._run.over:
            self._run.errors["connection lost"] += 1
        self._waiting = False
        if not self.ended.done():
            self.ended.set_result(None)

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def closed_loop(
    target: Target, *, connections: int, requests: int | None = None, seconds: float | None = None
) -> LoadResult:
    """Load `target` from `connections` keep-alive connections, for `seconds`, or until `requests` were sent, or both.

    UsageError when neither bound is given or the URL cannot be called; a target that cannot be reached makes errors.
    """
    if requests is None and seconds is None:
        raise UsageError("a load needs a number of requests or a duration")
    run = _Run(target.request(), target.method, requests)
    opened: set[_Connection] = set()
    began = time.perf_counter()
    workers = [spawn(_worker(run, target, opened), f"load {n}") for n in range(connections)]
    try:
        await asyncio.wait(workers, timeout=seconds)
    finally:
        took = time.perf_counter() - began
        run.over = True
        for connection in opened:
            connection.stop()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return _summary(run, connections, took)


async def _worker(run: _Run, target: Target, opened: set[_Connection]) -> None:
    """One connection at a time, opened again when the other side closes it."""
    at = urlsplit(target.url)
    loop = asyncio.get_running_loop()
    tls = target.tls if at.scheme == "https" else None
    port = at.port or (443 if at.scheme == "https" else 80)
    while not run.over and run.budget != 0:
        try:
            _, connection = await loop.create_connection(lambda: _Connection(run), at.hostname or "", port, ssl=tls)
        except OSError as error:
            if run.take():
                run.errors[f"connect: {reason(error)}"] += 1
            await asyncio.sleep(RECONNECT_PAUSE)
            continue
        opened.add(connection)
        try:
            await connection.ended
        finally:
            opened.discard(connection)


def _summary(run: _Run, connections: int, took: float) -> LoadResult:
    ordered = sorted(run.latencies)

    def ms(value: float) -> float:
        return round(value * 1000, 3)

    return LoadResult(
        connections=connections,
        requests=len(ordered),
        seconds=round(took, 3),
        rps=round(len(ordered) / took, 1) if took else 0.0,
        p50_ms=ms(percentile(ordered, 0.50)),
        p90_ms=ms(percentile(ordered, 0.90)),
        p99_ms=ms(percentile(ordered, 0.99)),
        max_ms=ms(ordered[-1]) if ordered else 0.0,
        bytes_received=run.bytes,
        errors=dict(run.errors),
    )
