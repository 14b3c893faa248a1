"""Both ends of a conversation, byte for byte: a raw HTTP client, and a backend that a test scripts."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

SECONDS = 10.0


@dataclass
class Head:
    """`first`: the request or status line. `fields`: (lower-case name, value) in order."""

    first: str
    fields: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        split = [line.partition(":") for line in lines]
        return cls(first, [(name.lower(), value.strip()) for name, _, value in split])

    @property
    def status(self) -> int:
        return int(self.first.split()[1])

    def all(self, name: str) -> list[str]:
        return [value for lower, value in self.fields if lower == name]

    def get(self, name: str) -> str | None:
        found = self.all(name)
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None


@dataclass
class Answer:
    head: Head
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[Head] = field(default_factory=list)

    @property
    def status(self) -> int:
        return self.head.status


async def ended(writer: asyncio.StreamWriter) -> None:
    """Close a connection and see it closed: a transport that outlives its loop is a warning in some other test."""
    transport = writer.transport
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None) or transport
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(2):
            await writer.wait_closed()
    if getattr(below, "_sock", None) is not None:
        below.abort()  # what the other end never read holds it open, under TLS even after `wait_closed`
    for _ in range(3):
        await asyncio.sleep(0)


class Peer:
    """One end of a connection; every wait is bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(
        cls, port: int, tls: ssl.SSLContext | None = None, name: str | None = None, source: str | None = None
    ) -> Self:
        host = "127.0.0.1"
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection(
                host,
                port,
                ssl=tls,
                server_hostname=(name or host) if tls else None,
                local_addr=(source, 0) if source else None,
                limit=2**20,
            )
        return cls(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await ended(self.writer)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(SECONDS):
            await self.writer.drain()

    def half_close(self) -> None:
        self.writer.write_eof()

    def cut(self) -> None:
        """End it with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def read(self, n: int) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.readexactly(n)

    async def some(self, n: int = 65536) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.read(n)

    async def rest(self) -> bytes:
        """Everything until the other end closes its side."""
        async with asyncio.timeout(SECONDS):
            return await self.reader.read(-1)

    async def closed(self) -> bytes:
        """What comes until the connection ends, whether closed or reset."""
        got = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(SECONDS):
                while data := await self.reader.read(65536):
                    got += data
        return got

    async def is_quiet(self, seconds: float = 0.15) -> bool:
        """Nothing comes, not even an end."""
        try:
            async with asyncio.timeout(seconds):
                data = await self.reader.read(1)
        except TimeoutError:
            return True
        raise AssertionError(f"not quiet: {data!r}")

    async def head(self) -> Head:
        async with asyncio.timeout(SECONDS):
            return Head.parse(await self.reader.readuntil(b"\r\n\r\n"))

    async def chunks(self) -> tuple[list[bytes], list[tuple[str, str]]]:
        """A chunked body as its chunks, and its trailers."""
        found = []
        async with asyncio.timeout(60):
            while True:
                size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
                if size == 0:
                    break
                found.append(await self.reader.readexactly(size))
                assert await self.reader.readexactly(2) == b"\r\n"
            block = b""
            while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                block += line
        return found, Head.parse(b"x\r\n" + block + b"\r\n").fields if block else []

    async def body(self, head: Head, *, request: bool = False) -> tuple[bytes, list[tuple[str, str]]]:
        if head.get("transfer-encoding") == "chunked":
            pieces, trailers = await self.chunks()
            return b"".join(pieces), trailers
        length = head.get("content-length")
        if length is not None:
            async with asyncio.timeout(60):
                return await self.reader.readexactly(int(length)), []
        return (b"" if request else await self.rest()), []

    async def answer(self, method: str = "GET") -> Answer:
        """A whole response."""
        interim = []
        while (head := await self.head()).status < 200 and head.status != 101:
            interim.append(head)
        if method == "HEAD" or head.status in (101, 204, 304):
            return Answer(head, interim=interim)
        body, trailers = await self.body(head)
        return Answer(head, body, trailers, interim)

    async def request(self) -> tuple[Head, bytes, list[tuple[str, str]]]:
        """A whole request, at a backend."""
        head = await self.head()
        return head, *await self.body(head, request=True)


async def until(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait for something outside of this process, which has no event to wait for."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


Script = Callable[[Peer], Awaitable[None]]


class Backend:
    """Listens on `port`; each connection is given to the next of `scripts`, and to the last one once they are used up.

    What goes wrong in a script is raised when the backend is left.
    """

    def __init__(self, port: int, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.connections = 0
        self._scripts = scripts
        self._tls = tls
        self._failures: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls, limit=2**20)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        if self._failures and kind is None:
            raise self._failures[0]

    async def done(self) -> None:
        """Every script that began has come to its end."""
        async with asyncio.timeout(SECONDS):
            while self._tasks:
                await asyncio.wait(self._tasks)
        if self._failures:
            raise self._failures[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        peer = Peer(reader, writer)
        try:
            await script(peer)
        except asyncio.CancelledError:
            pass  # the test is over
        except (Exception, AssertionError) as e:
            self._failures.append(e)
        finally:
            await ended(writer)
            self._tasks.discard(task)


def ok(body: bytes = b"ok", *fields: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


OK = ok()


def serving(reply: bytes | Callable[[Head, bytes], bytes] = OK) -> Script:
    """Answers every request of a kept connection."""

    async def script(peer: Peer) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                async with asyncio.timeout(30):
                    head, body, _ = await peer.request()
                await peer.send(reply if isinstance(reply, bytes) else reply(head, body))

    return script
