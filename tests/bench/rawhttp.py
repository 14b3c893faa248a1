"""Requests on plain sockets, for what a load generator cannot do: not to read, and to note when each answer came."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.bench.target import Target


def request_bytes(target: Target, path: str, *, close: bool = False) -> bytes:
    """A GET head for `path` below the target."""
    parts = urlsplit(target.url)
    headers = {"Host": parts.netloc, **target.headers()}
    if close:
        headers["Connection"] = "close"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {parts.path}{path} HTTP/1.1\r\n{lines}\r\n".encode()


def address_of(target: Target) -> tuple[str, int]:
    parts = urlsplit(target.url)
    return parts.hostname or "127.0.0.1", parts.port or 80


@dataclass(frozen=True)
class Answer:
    """`started` and `ended` on time.monotonic(); `status` 0: no answer at all."""

    started: float
    ended: float
    status: int

    @property
    def seconds(self) -> float:
        return self.ended - self.started


@dataclass
class Timeline:
    """Requests at a fixed rate, each on a connection of its own, with the moment and the outcome of each one.

    `new_socket` decides where they leave from: a socket made in a network namespace belongs there.
    """

    target: Target
    path: str
    per_second: int
    timeout: float = 30.0
    new_socket: Callable[[], socket.socket] = socket.socket
    answers: list[Answer] = field(default_factory=list)

    async def run(self) -> None:
        """Until cancelled; what is on its way then is dropped."""
        request = request_bytes(self.target, self.path, close=True)
        started, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._one(request))
                sent += 1
                await asyncio.sleep(max(0.0, started + sent / self.per_second - time.monotonic()))

    async def _one(self, request: bytes) -> None:
        started, status = time.monotonic(), 0
        with contextlib.suppress(OSError, TimeoutError, ValueError, IndexError):
            async with asyncio.timeout(self.timeout):
                status = await self._status(request)
        self.answers.append(Answer(started, time.monotonic(), status))

    async def _status(self, request: bytes) -> int:
        with self.new_socket() as connection:
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, address_of(self.target))
            reader, writer = await asyncio.open_connection(sock=connection)
            try:
                writer.write(request)
                head = await reader.readline()
                await reader.read()
                return int(head.split()[1])
            finally:
                writer.close()

    def since(self, moment: float) -> Iterable[Answer]:
        """Answers to requests that left after the moment, in the order in which they ended."""
        return (answer for answer in self.answers if answer.started >= moment)

    async def wait_for(self, ok: bool, *, since: float, seconds: float) -> Answer | None:
        """The first answer (200 if `ok`, anything else if not) to a request sent after `since`; None if none came."""
        deadline = since + seconds
        while time.monotonic() < deadline:
            for answer in self.since(since):
                if (answer.status == 200) is ok:
                    return answer
            await asyncio.sleep(0.01)
        return None


class StalledReader:
    """Asks for a large body, reads its beginning, then reads nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, target: Target, path: str) -> StalledReader:
        host, port = address_of(target)
        # asyncio reads on its own up to twice this limit, then pauses the socket.
        reader, writer = await asyncio.open_connection(host, port, limit=1024)
        writer.write(request_bytes(target, path))
        async with asyncio.timeout(10):
            head = await reader.readuntil(b" 200 ")
        assert head
        return cls(reader, writer)

    async def goes_on(self, amount: int, *, seconds: float = 10.0) -> bool:
        """Whether `amount` more bytes come once they are read: the stream was held, not dropped."""
        try:
            async with asyncio.timeout(seconds):
                while amount > 0:
                    got = await self._reader.read(1 << 16)
                    if not got:
                        return False
                    amount -= len(got)
        except (OSError, TimeoutError):
            return False
        return True

    def close(self) -> None:
        self._writer.transport.abort()
