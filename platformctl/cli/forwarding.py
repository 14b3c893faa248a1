"""A local TCP port that leads to a service behind the hub: one CONNECT (RFC 9110 section 9.3.6) for each connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from platformctl.errors import AccessDenied, HubUnreachable, NotFound, PlatformError, excerpt

__all__ = ["Forwarder", "Route"]

CHUNK = 64 * 1024
CONNECT_SECONDS = 15.0
MAX_HEAD = 64 * 1024

LINGER_SECONDS = 2.0
"""TLS cannot close one direction alone (RFC 8446 section 6.1 allows it; servers end the connection). So when the local
side has said everything, what still comes back is waited for as long as it keeps coming within this time."""


@dataclass(frozen=True)
class Route:
    """`authority` is `service.satellite:port`; `tls` None for a plain http:// hub. The token is not shown."""

    hub: str
    authority: str
    token: str | None
    tls: ssl.SSLContext | None

    def __repr__(self) -> str:
        return f"Route({self.hub!r}, {self.authority!r})"

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw stream to the service. PlatformError when the hub cannot be reached or refuses."""
        parts = urlsplit(self.hub)
        port = parts.port or (443 if self.tls else 80)
        writer = None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=self.tls, limit=MAX_HEAD)
                fields = [f"CONNECT {self.authority} HTTP/1.1", f"Host: {self.authority}"]
                if self.token:
                    fields.append(f"Authorization: Bearer {self.token}")
                writer.write("\r\n".join([*fields, "", ""]).encode("ascii"))
                head = await reader.readuntil(b"\r\n\r\n")
                await _accepted(head, reader, self.authority)
        except BaseException as e:
            if writer is not None:
                writer.close()
            if isinstance(e, ssl.SSLCertVerificationError):
                raise HubUnreachable(f"the certificate of {self.hub} was refused: {e.verify_message}") from e
            if isinstance(e, TimeoutError):
                raise HubUnreachable(f"{self.hub} did not answer in {CONNECT_SECONDS:g} s") from e
            if isinstance(e, OSError | asyncio.IncompleteReadError | asyncio.LimitOverrunError):
                raise HubUnreachable(f"cannot reach the hub at {self.hub}: {e}") from e
            raise
        return reader, writer


async def _accepted(head: bytes, reader: asyncio.StreamReader, authority: str) -> None:
    """Return when the hub said 2xx, else raise what its problem document says."""
    line, *fields = head.split(b"\r\n")
    status = int(line.split()[1]) if line.startswith(b"HTTP/1.") and line[9:12].isdigit() else 0
    if 200 <= status < 300:
        return
    length = next(
        (int(f[15:]) for f in fields if f.lower().startswith(b"content-length:") and f[15:].strip().isdigit()), 0
    )
    body = await reader.readexactly(min(length, MAX_HEAD))
    try:
        problem = json.loads(body)
        detail, hint = str(problem["detail"]), str(problem.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        detail, hint = excerpt(body or line), ""
    kind = {401: AccessDenied, 403: AccessDenied, 404: NotFound, 503: HubUnreachable}.get(status, PlatformError)
    if status == 401:  # the hub's own hint speaks of request headers
        hint = "Give a token with --token-file, or a context that has one."
    service = authority.rpartition(":")[0]
    raise kind(f"{service}: the hub answered {status}: {excerpt(detail, 300)}", hint=excerpt(hint, 300))


class Forwarder:
    """Listens on loopback; `report` gets one line for each connection that could not be made."""

    def __init__(self, route: Route, report: Callable[[str], None], *, linger: float = LINGER_SECONDS) -> None:
        self._route = route
        self._report = report
        self._linger = linger
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Start listening; the port (chosen when 0). PlatformError when it is taken."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=CHUNK)
        except OSError as e:
            raise PlatformError(
                f"cannot listen on {host}:{port}: {e.strerror}", hint="Give another port: forward … 0:"
            ) from e
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        # The top of the connection's own task: a cancellation (by `close`) ends here, on purpose.
        with contextlib.suppress(asyncio.CancelledError):
            await self._relay(reader, writer)
        self._tasks.discard(task)
        writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hub_reader, hub_writer = await self._route.dial()
        except PlatformError as e:
            self._report(e.message)
            return
        try:
            returned = asyncio.Event()
            progress = [0]
            async with asyncio.TaskGroup() as group:
                group.create_task(self._out(reader, hub_writer, returned, progress), name="to the hub")
                group.create_task(_back(hub_reader, writer, returned, progress), name="from the hub")
        except* (OSError, asyncio.IncompleteReadError):
            pass  # either side hung up: both are closed below, and the other sees it
        finally:
            hub_writer.close()

    async def _out(
        self, reader: asyncio.StreamReader, hub: asyncio.StreamWriter, returned: asyncio.Event, progress: list[int]
    ) -> None:
        await _copy(reader, hub, [0])
        if hub.can_write_eof():
            hub.write_eof()
            return
        seen = -1
        while not returned.is_set() and progress[0] != seen:
            seen = progress[0]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger):
                    await returned.wait()
        hub.close()


async def _back(
    hub: asyncio.StreamReader, writer: asyncio.StreamWriter, returned: asyncio.Event, progress: list[int]
) -> None:
    try:
        await _copy(hub, writer, progress)
        if writer.can_write_eof():
            writer.write_eof()
    finally:
        returned.set()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, progress: list[int]) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
        progress[0] += len(data)
