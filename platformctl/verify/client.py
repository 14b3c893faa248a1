"""One replica, as verify calls it: ordinary HTTP, the control API, CONNECT and WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from picows import WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport, ws_connect

from platformctl.errors import excerpt
from platformctl.verify.model import CheckFailed
from platformctl.verify.network_errors import reason

__all__ = ["Problem", "ReplicaClient", "Unreachable", "problem_of"]

MAX_HEAD = 64 * 1024
PROBLEM = "application/problem+json"


class Unreachable(Exception):
    """No answer came: refused, reset, TLS refused. The text names the cause without the library's class names."""


class Problem(Exception):
    """The hub answered with an error; `code` and `hint` are those of its problem document, "" when it sent none."""

    def __init__(self, status: int, body: bytes, content_type: str = "") -> None:
        document: Mapping[str, Any] = {}
        if content_type.startswith(PROBLEM):
            with contextlib.suppress(ValueError):
                document = json.loads(body)
        self.status = status
        self.code = str(document.get("code", ""))
        self.hint = str(document.get("hint", ""))
        said = str(document.get("detail", "")) or excerpt(body)
        super().__init__(f"HTTP {status}" + (f" {self.code}" if self.code else "") + (f": {said}" if said else ""))


def problem_of(response: httpx.Response) -> Problem:
    return Problem(response.status_code, response.content, response.headers.get("content-type", ""))


class ReplicaClient:
    """`base` is the replica's public URL. Every request carries the token unless its headers say otherwise."""

    def __init__(self, base: str, token: str, tls: ssl.SSLContext, *, timeout: float = 10.0) -> None:
        self.base = base
        self.token = token
        self.tls = tls
        self._http = httpx.AsyncClient(
            base_url=base,
            verify=tls,
            timeout=timeout,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
        )

    async def close(self) -> None:
        await self._http.aclose()

    def authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        token: str | None = "",
    ) -> httpx.Response:
        """Any status is returned; Unreachable when none came. `token`: "" is the client's own, None sends none."""
        sent = dict(headers or {})
        if token is not None:
            sent["authorization"] = f"Bearer {token or self.token}"
        try:
            return await self._http.request(method, path, content=content or None, headers=sent)
        except httpx.TimeoutException as error:
            raise Unreachable("no answer in time") from error
        except httpx.HTTPError as error:
            raise Unreachable(reason(error)) from error

    async def get_ok(self, path: str, *, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """GET; Problem unless the status is 200."""
        return self._ok(await self.request("GET", path, headers=headers))

    async def post_ok(self, path: str, content: bytes) -> httpx.Response:
        return self._ok(await self.request("POST", path, content=content))

    async def list_all(self, path: str) -> list[dict[str, Any]]:
        """Every item of a paged list of the control API."""
        items: list[dict[str, Any]] = []
        query = ""
        while True:
            page = (await self.get_ok(f"{path}?limit=500{query}")).json()
            items += page["items"]
            if not page.get("next"):
                return items
            query = f"&continue={page['next']}"

    @contextlib.asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[httpx.Response]:
        try:
            async with self._http.stream("GET", path, headers=self.authorization()) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise problem_of(response)
                yield response
        except httpx.HTTPError as error:
            raise Unreachable(reason(error)) from error

    @contextlib.asynccontextmanager
    async def connect(self, authority: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A raw stream to `service.satellite:port` by CONNECT (RFC 9110 section 9.3.6)."""
        url = urlsplit(self.base)
        tls = self.tls if url.scheme == "https" else None
        try:
            reader, writer = await asyncio.open_connection(url.hostname, url.port or (443 if tls else 80), ssl=tls)
        except OSError as error:
            raise Unreachable(reason(error)) from error
        try:
            fields = f"Host: {authority}\r\nAuthorization: Bearer {self.token}\r\n"
            writer.write(f"CONNECT {authority} HTTP/1.1\r\n{fields}\r\n".encode("ascii"))
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._accepted(head, reader)
                yield reader, writer
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                raise Unreachable(f"the connection broke off: {reason(error)}") from error
        finally:
            writer.close()

    async def _accepted(self, head: bytes, reader: asyncio.StreamReader) -> None:
        lines = head.decode("latin-1").split("\r\n")
        status = lines[0].split(" ")[1:2]
        if status and status[0].startswith("2"):
            return
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body = await reader.readexactly(min(int(fields.get("content-length", "0")), MAX_HEAD))
        raise Problem(int(status[0]) if status and status[0].isdigit() else 0, body, fields.get("content-type", ""))

    async def websocket(self, path: str) -> WebSocket:
        """An open WebSocket; Problem when the upgrade was answered with something else."""
        url = "ws" + self.base.removeprefix("http") + path
        try:
            transport, listener = await ws_connect(
                WebSocket,
                url,
                ssl_context=self.tls,
                extra_headers=self.authorization(),
                use_aiofastnet=False,
                max_redirects=0,
            )
        except WSHandshakeError as error:
            if error.response is None:
                raise Unreachable("the connection closed during the WebSocket handshake") from error
            kind = error.response.headers.get("content-type", "")
            raise Problem(error.response.status, error.raw_body or b"", kind) from error
        except OSError as error:
            raise Unreachable(reason(error)) from error
        assert isinstance(listener, WebSocket)
        listener.transport = transport
        return listener

    def _ok(self, response: httpx.Response) -> httpx.Response:
        if response.status_code != 200:
            raise problem_of(response)
        return response


class WebSocket(WSListener):
    """Messages as a queue; None follows the last one."""

    transport: WSTransport

    def __init__(self) -> None:
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._parts: list[bytes] = []

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
        elif frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._parts.append(frame.get_payload_as_bytes())
            if frame.fin:
                self._messages.put_nowait(b"".join(self._parts))
                self._parts.clear()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._messages.put_nowait(None)

    def send(self, message: bytes, kind: WSMsgType = WSMsgType.BINARY) -> None:
        self.transport.send(kind, message)

    async def receive(self) -> bytes:
        message = await self._messages.get()
        if message is None:
            raise CheckFailed("the WebSocket closed before the answer came")
        return message

    async def close(self) -> None:
        self.transport.send_close()
        self.transport.disconnect()
        await self.transport.wait_disconnected()
