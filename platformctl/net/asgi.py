"""Mounts an ASGI 3 application into an HttpConnection: control API, console, MCP gateway.

The application runs as a task of its own; its body input is bounded by pausing the client, its output by awaiting the
transport. Streaming answers (SSE) go out as they come.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

from platformctl.errors import HeadError
from platformctl.net.dates import http_date
from platformctl.net.deadlines import NEVER
from platformctl.net.http1 import HttpConnection
from platformctl.net.tasks import spawn
from platformctl.wire.heads import RequestHead

log = logging.getLogger("platformctl.asgi")

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

MAX_QUEUED: Final = 256 * 1024
# A request body of which nothing came for so long is given up (seconds).
BODY_SECONDS: Final = 30.0
_NO_BODY: Final = (204, 304)


class AsgiExchange:
    """One request of an ASGI application (see Exchange in net/http1)."""

    def __init__(
        self, connection: HttpConnection, app: App, request: RequestHead, path: str, state: dict[str, Any]
    ) -> None:
        self.answered = False
        self._connection = connection
        self._request = request
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._ended = not connection.reading_body
        self._body_seen = False
        self._gone = False
        self._arrived = False
        self._wake = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._started = False
        self._chunked = False
        self._bodyless = False
        self._keep_alive = request.keep_alive
        self._headers: list[tuple[bytes, bytes]] = []
        self._status = 500
        self._request_id = str(state.get("request_id", ""))
        raw_path, _, query = path.partition("?")
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1" if request.minor else "1.0",
            "method": request.method.decode("ascii"),
            "scheme": "https" if connection.secure else "http",
            "path": unquote(raw_path),
            "raw_path": raw_path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": [(lower, value) for lower, _, value in request.fields],
            "client": (connection.peer, 0),
            "server": None,
            "state": state,
        }
        if not self._ended:
            connection.deadline = time.monotonic() + BODY_SECONDS
        self._task = spawn(self._run(app), "asgi-request")

    # ---- Exchange ------------------------------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        self._arrived = True
        self._queue.append(data)
        self._queued += len(data)
        if self._queued > MAX_QUEUED:
            self._connection.pause()
        self._wake.set()

    def on_body_end(self, trailers: bytes) -> None:
        self._ended = True
        self._connection.deadline = NEVER
        self._wake.set()

    def on_bad_body(self, error: HeadError) -> None:
        self.on_gone()
        if self._started:
            self._connection.abort()
        else:
            self._connection.refuse(error.status, error.code, str(error), request_id=self._request_id)
            self._keep_alive = False
            self._finish()

    def on_client_blocked(self) -> None:
        self._writable.clear()

    def on_client_writable(self) -> None:
        self._writable.set()

    def on_gone(self) -> None:
        self._gone = True
        self._wake.set()
        self._writable.set()

    def on_timeout(self, now: float) -> None:
        """An answer has no deadline, for an event stream lives as long as its client; the body of a request has one."""
        if self._ended:
            return
        if self._arrived or self._queue:
            self._arrived = False
            self._connection.deadline = now + BODY_SECONDS
        else:
            self.on_gone()
            self._connection.abort()

    # ---- ASGI ----------------------------------------------------------------------------------------------------

    async def _receive(self) -> Message:
        if self._request.expects_continue and not self._started and not self._queue and not self._ended:
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._request.expects_continue = False
        while not (self._queue or self._ended or self._gone):
            self._wake.clear()
            await self._wake.wait()
        if self._queue:
            data = b"".join(self._queue)
            self._queue.clear()
            self._queued = 0
            self._connection.resume()
            self._body_seen = self._ended
            return {"type": "http.request", "body": data, "more_body": not self._ended}
        if self._ended and not self._gone and not self._body_seen:
            self._body_seen = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while not self._gone:
            self._wake.clear()
            await self._wake.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._gone:
            raise ConnectionResetError("the client is gone")  # ASGI 2.4: that is how an application learns of it
        if message["type"] == "http.response.start":
            self._status = int(message["status"])
            self._headers = [(bytes(n).lower(), bytes(v)) for n, v in message.get("headers", [])]
        elif message["type"] == "http.response.body":
            self._write(bytes(message.get("body", b"")), bool(message.get("more_body", False)))
            await self._writable.wait()

    def _write(self, body: bytes, more: bool) -> None:
        head = b""
        if not self._started:
            self._started = True
            head = self._head(len(body), more)
        if self._bodyless:
            body = b""
        elif self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        if head or body:
            self._connection.transport.write(head + body)
        if not more:
            self._finish()

    def _head(self, size: int, more: bool) -> bytes:
        self._bodyless = self._request.method == b"HEAD" or self._status in _NO_BODY
        declared = any(name == b"content-length" for name, _ in self._headers)
        extra: list[tuple[bytes, bytes]] = []
        if not declared and self._status not in _NO_BODY:
            if not more:
                extra.append((b"content-length", b"%d" % size))
            elif self._request.minor:
                self._chunked = True
                extra.append((b"transfer-encoding", b"chunked"))
            else:
                self._keep_alive = False
        if self._connection.options.draining or self._connection.reading_body:
            self._keep_alive = False
        if not self._keep_alive:
            extra.append((b"connection", b"close"))
        elif not self._request.minor:
            extra.append((b"connection", b"keep-alive"))
        if not any(name == b"date" for name, _ in self._headers):
            extra.append((b"date", http_date().encode("ascii")))
        if self._request_id and not any(name == b"x-request-id" for name, _ in self._headers):
            extra.append((b"x-request-id", self._request_id.encode("latin-1")))
        lines = [b"HTTP/1.1 %d %b\r\n" % (self._status, _phrase(self._status))]
        lines += [b"%b: %b\r\n" % field for field in self._headers + extra]
        return b"".join(lines) + b"\r\n"

    def _finish(self) -> None:
        self.answered = True
        self.on_gone()  # an application that goes on listening hears that it is over
        if self._connection.exchange is self:
            self._connection.finish(self._keep_alive)

    async def _run(self, app: App) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        except Exception:
            if self._gone and not self.answered:
                return
            log.exception("the application failed on %s", self._scope["path"])
            if not self._started and not self._gone:
                self._connection.refuse(
                    500, "internal", "the hub failed to answer", request_id=self._request_id, close=True
                )
                self._keep_alive = False
                self._finish()
                return
        if not self.answered and not self._gone and self._connection.exchange is self:
            self._connection.abort()


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Unknown"
