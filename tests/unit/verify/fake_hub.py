"""A small hub that does what the real one promises, and breaks each promise on demand (`faults`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
import uuid
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

import h11
import yaml

from platformctl.errors import PlatformError
from platformctl.verify.backend import Export

ADMIN, DENIED = "adm.secret", "den.secret"
HUB_SET = {
    b"platform-identity", b"platform-groups", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
    b"x-forwarded-prefix", b"x-real-ip", b"forwarded", b"traceparent", b"x-request-id",
    b"authorization", b"host", b"connection", b"content-length", b"transfer-encoding", b"expect",
}  # fmt: skip


class FakeSatellites:
    """What both replicas share: exports files on disk are the truth, as with a real agent."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.files = {name: folder / f"{name}.yaml" for name in names}
        self.unhealthy: set[str] = set()
        self.refuse_exports = False
        self.withdrawals: list[tuple[str, tuple[str, ...]]] = []
        for file in self.files.values():
            file.write_text("services: [{name: api, to: 'http://127.0.0.1:9'}]\n")

    def services(self, satellite: str) -> dict[str, str]:
        return {row["name"]: row["to"] for row in yaml.safe_load(self.files[satellite].read_text())["services"]}

    async def export(self, satellite: str, services: Sequence[Export]) -> None:
        if self.refuse_exports:
            raise PlatformError("the exports file is read-only")
        known = self.services(satellite) | {service.name: service.to for service in services}
        self._write(satellite, known)

    async def withdraw(self, satellite: str, names: Sequence[str]) -> None:
        self.withdrawals.append((satellite, tuple(names)))
        self._write(satellite, {name: to for name, to in self.services(satellite).items() if name not in names})

    def _write(self, satellite: str, services: dict[str, str]) -> None:
        rows = [{"name": name, "to": to} for name, to in services.items()]
        self.files[satellite].write_text(yaml.safe_dump({"services": rows}))


class FakeHub:
    """One replica: TLS public listener, plain health listener, audit file."""

    def __init__(self, name: str, satellites: FakeSatellites, audit: Path, expected: int) -> None:
        self.name = name
        self.satellites = satellites
        self.audit = audit
        self.expected = expected
        self.faults: set[str] = set()
        self.cut_off: set[str] = set()
        self.date_offset = 0.0
        self.public_url = ""
        self.health_url = ""
        self._turn = asyncio.Lock()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, tls: ssl.SSLContext) -> None:
        for context in (tls, None):
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=context)
            self._servers.append(server)
        self.public_url, self.health_url = (
            f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for scheme, server in zip(("https", "http"), self._servers, strict=True)
        )

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(asyncio.CancelledError, ConnectionError, h11.RemoteProtocolError, ssl.SSLError):
                await FakeConnection(self, reader, writer).serve()
        finally:
            self._tasks.discard(task)
            writer.close()


class FakeConnection:
    def __init__(self, hub: FakeHub, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hub, self.reader, self.writer = hub, reader, writer
        self.conn = h11.Connection(h11.SERVER)
        self.request_id = ""

    async def serve(self) -> None:
        while isinstance(request := await self._event(), h11.Request):
            body = b""
            while isinstance(event := await self._event(), h11.Data):
                body += event.data
            self.request_id = uuid.uuid4().hex
            if await self._route(request, body):
                return
            if self.conn.our_state is not h11.DONE:
                return
            self.conn.start_next_cycle()

    async def _event(self) -> object:
        while (event := self.conn.next_event()) is h11.NEED_DATA:
            self.conn.receive_data(await self.reader.read(65536))
        return event

    async def _route(self, request: h11.Request, body: bytes) -> bool:
        """True when the connection carries bytes from now on, and is over."""
        target = request.target.decode()
        if target == "/readyz":
            broken = "not-ready" in self.hub.faults
            failed = [{"name": "store", "detail": "disk is full"}] if broken else []
            if "broken-exports" in self.hub.faults:  # this listener answers for the satellites' agents too
                failed.append({"name": "exports", "detail": "exports.yaml:2: not valid YAML"})
            await self._json({"ready": not broken, "failed": failed}, 503 if broken else 200)
        elif target == "/livez":
            await self._json({}, 500 if "dead" in self.hub.faults else 200)
        elif target.startswith("/api/v1/"):
            at = urlsplit(target)
            await self._api(at.path.removeprefix("/api/v1/"), at.query)
        else:
            return await self._service(request, target, body)
        return False

    async def _api(self, what: str, parameters: str) -> None:
        hub = self.hub
        if "api-500" in hub.faults:
            await self._problem(500, "internal", "the store is gone")
            return
        here = [name for name in hub.satellites.files if name not in hub.cut_off]
        unhealthy = hub.satellites.unhealthy
        items: dict[str, list[dict[str, object]]] = {
            "satellites": [
                {"name": name, "connected": hub.expected - (name in hub.cut_off), "expected": hub.expected}
                for name in hub.satellites.files
                if not (name in hub.cut_off and "forgets" in hub.faults)
            ],
            "tunnels": [{"satellite": name, "replica": hub.name, "draining": False} for name in here],
            "services": [
                {
                    "satellite": one,
                    "name": name,
                    "state": "unhealthy" if name.split("-")[-1] in unhealthy else "healthy",
                }
                for one in here
                for name in [*hub.satellites.services(one), *(["ghost"] if "ghost" in hub.faults else [])]
                if not (name == "api" and "missing" in hub.faults)
            ],
        }
        if what == "version":
            await self._json({"version": "0.1.0"})
        else:  # pages of two, so that a reader which stops at the first page is found out
            rows = items[what]
            query = dict(part.partition("=")[::2] for part in parameters.split("&"))
            start = int(query.get("continue", "0"))
            following = str(start + 2) if len(rows) > start + 2 else None
            await self._json({"items": rows[start : start + 2], "next": following})

    async def _service(self, request: h11.Request, target: str, body: bytes) -> bool:
        hub = self.hub
        identity = self._identity(request)
        connect = request.method == b"CONNECT"
        if identity is None:
            await self._problem(401, "unauthenticated", "no credential", [(b"www-authenticate", b"Bearer")])
            return connect
        if connect:
            service, _, rest = target.partition(".")
            satellite, path = rest.partition(":")[0], ""
        else:
            parts = target.split("/", 4)
            satellite, service, path = parts[2], parts[3], "/" + (parts[4] if len(parts) > 4 else "")
        if satellite not in hub.satellites.files or service not in hub.satellites.services(satellite):
            await self._unknown(satellite, service)
            return connect
        if identity == "token:denied" and "denied-allowed" not in hub.faults:
            if "no-audit" not in hub.faults:
                with hub.audit.open("a") as file:
                    file.write(
                        ("broken " if "bad-audit" in hub.faults else "")
                        + json.dumps({"request_id": self.request_id})
                        + "\n"
                    )
            await self._problem(403, "access-denied", "not allowed")
            return connect
        if satellite in hub.cut_off or (connect and "refuse-connect" in hub.faults):
            await self._problem(503, "satellite-offline", f"satellite {satellite} is not connected")
            return connect
        at = urlsplit(hub.satellites.services(satellite)[service])
        if connect:
            backend = await asyncio.open_connection(at.hostname, at.port)
            self.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await self._relay_raw(*backend)
            return True
        head = self._forward_head(request, path, identity, f"/s/{satellite}/{service}", len(body))
        if any(name == b"upgrade" for name, _ in request.headers):
            backend = await asyncio.open_connection(at.hostname, at.port)
            backend[1].write(head)
            await self._relay_raw(*backend)
            return True
        if "crossed" in hub.faults and path.startswith("/rendezvous/"):
            body = body[::-1]
        async with hub._turn if "serialize" in hub.faults else contextlib.nullcontext():
            await self._relay_http(await asyncio.open_connection(at.hostname, at.port), head, body, path)
        return False

    def _identity(self, request: h11.Request) -> str | None:
        fields = dict(request.headers)
        token = fields.get(b"authorization", b"").decode().removeprefix("Bearer ")
        known = {ADMIN: "token:admin", DENIED: "token:denied"}.get(token)
        return "anonymous:" if known is None and "anonymous-allowed" in self.hub.faults else known

    def _forward_head(self, request: h11.Request, path: str, identity: str, prefix: str, length: int) -> bytes:
        fields = dict(request.headers)
        keep = {b"authorization"} if "pass-token" in self.hub.faults else set()
        lines = [(name, value) for name, value in request.headers if name not in HUB_SET - keep]
        upgrade = fields.get(b"upgrade")
        parent = fields.get(b"traceparent", b"00-" + uuid.uuid4().hex.encode() + b"-00").split(b"-")
        trace = uuid.uuid4().hex.encode() if "new-trace" in self.hub.faults else parent[1]
        if "drop-headers" not in self.hub.faults:
            lines += [
                (b"platform-identity", identity.encode()),
                (b"x-request-id", self.request_id.encode()),
                (b"traceparent", b"00-%b-00f067aa0ba902b7-01" % trace),
                (b"x-forwarded-for", b"127.0.0.1"),
                (b"x-forwarded-proto", b"https"),
                (b"x-forwarded-prefix", prefix.encode()),
            ]
        if "pass-forged" in self.hub.faults:
            lines += [(name, value) for name, value in request.headers if name in (b"platform-groups", b"x-real-ip")]
        lines += [(b"host", b"backend"), (b"content-length", str(length).encode())]
        if not upgrade:
            lines.append((b"connection", b"close"))
        else:
            lines.append((b"connection", b"upgrade"))
        return (
            request.method
            + f" {path} HTTP/1.1\r\n".encode()
            + b"".join(b"%b: %b\r\n" % line for line in lines)
            + b"\r\n"
        )

    async def _relay_http(
        self, backend: tuple[asyncio.StreamReader, asyncio.StreamWriter], head: bytes, body: bytes, path: str
    ) -> None:
        faults = self.hub.faults
        reader, writer = backend
        if "corrupt-upload" in faults and body:
            body = b"\x00" + body[1:]
        try:
            writer.write(head + body)
            client = h11.Connection(h11.CLIENT)
            method, target = head.split(b" ", 2)[:2]
            client.send(h11.Request(method=method, target=target, headers=[(b"host", b"x"), (b"connection", b"close")]))
            client.send(h11.EndOfMessage())
            held: list[bytes] = []
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    client.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Response):
                    status = 503 if "flaky" in faults and path == "/healthz" else event.status_code
                    fields = [(name, value) for name, value in event.headers if name != b"connection"]
                    if "wrong-type" in faults:
                        fields = [(name, b"text/html" if name == b"content-type" else value) for name, value in fields]
                    await self._send(h11.Response(status_code=status, headers=[*fields, *self._fields()]))
                elif isinstance(event, h11.Data):
                    data = bytes(event.data)
                    if "corrupt-download" in faults:
                        data = bytes(len(data))
                    if "buffer" in faults:
                        held.append(data)
                    else:
                        await self._send(h11.Data(data=data))
            for data in held:
                await self._send(h11.Data(data=data))
            await self._send(h11.EndOfMessage())
        finally:
            writer.close()

    async def _relay_raw(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, corrupt: bool) -> None:
            while data := await source.read(65536):
                sink.write(data[:100] + bytes(len(data) - 100) if corrupt and len(data) > 1000 else data)
                await sink.drain()
            sink.close()

        writer.write(self.conn.trailing_data[0])
        corrupt = "corrupt-raw" in self.hub.faults
        tasks = [
            asyncio.create_task(pump(self.reader, writer, False)),
            asyncio.create_task(pump(reader, self.writer, corrupt)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()

    async def _unknown(self, satellite: str, service: str) -> None:
        if "html-404" in self.hub.faults:
            await self._answer(404, b"<h1>Not found</h1>", b"text/html")
        elif "ok-404" in self.hub.faults:
            await self._json({})
        else:
            await self._problem(404, "unknown-service", f"satellite {satellite} exports no service named {service}")

    async def _problem(self, status: int, code: str, detail: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        bare = "bare-problem" in self.hub.faults
        document = {"status": status, "code": code, "detail": detail, "hint": "" if bare else "do this"}
        document["request_id"] = self.request_id
        sent = [] if "no-challenge" in self.hub.faults else headers
        await self._answer(status, json.dumps(document).encode(), b"application/problem+json", sent)

    async def _json(self, value: object, status: int = 200) -> None:
        await self._answer(status, json.dumps(value).encode(), b"application/json")

    async def _answer(self, status: int, body: bytes, kind: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        fields = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *headers, *self._fields()]
        await self._send(h11.Response(status_code=status, headers=fields))
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    def _fields(self) -> list[tuple[bytes, bytes]]:
        fields = [] if "no-request-id" in self.hub.faults else [(b"x-request-id", self.request_id.encode())]
        if "no-date" not in self.hub.faults:
            fields.append((b"date", formatdate(time.time() + self.hub.date_offset, usegmt=True).encode()))
        return fields

    async def _send(self, event: h11.Event) -> None:
        self.writer.write(self.conn.send(event) or b"")
        await self.writer.drain()
