"""Clients that keep their connections and miss nothing: every request that left is counted, with what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Outcome:
    """`status` is 0 when there was no whole answer, and `what` then says why; else the problem code, or ""."""

    at: float
    seconds: float
    status: int
    what: str


@dataclass
class Load:
    """`per_second` GET requests over `connections` kept connections, until `stop`; `fresh`: each on a new one."""

    url: str
    token: str
    per_second: float
    connections: int = 16
    fresh: bool = False
    outcomes: list[Outcome] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stopping: bool = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._client(number)) for number in range(self.connections)]
        try:
            yield self
        finally:
            await self.stop()

    async def stop(self) -> None:
        """The requests that are on their way end first."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def failed(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.status != 200]

    def summary(self) -> Counter[tuple[int, str]]:
        return Counter((one.status, one.what) for one in self.outcomes)

    async def first(self, *, ok: bool, since: float, seconds: float) -> Outcome:
        """The first outcome of a request that left after `since`."""
        async with asyncio.timeout(seconds):
            while True:
                for one in self.outcomes:
                    if one.at >= since and (one.status == 200) is ok:
                        return one
                await asyncio.sleep(0.005)

    async def _client(self, number: int) -> None:
        interval = self.connections / self.per_second
        due = time.monotonic() + interval * number / self.connections
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stopping:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + interval, time.monotonic() - interval)
            started = time.monotonic()
            try:
                async with asyncio.timeout(20):
                    if connection is None:
                        parts = urlsplit(self.url)
                        connection = await asyncio.open_connection(parts.hostname, parts.port)
                    status, what, keep = await self._ask(*connection)
            except (OSError, TimeoutError, EOFError, ValueError) as e:
                status, what, keep = 0, f"{type(e).__name__}: {e}", False
            self.outcomes.append(Outcome(started, time.monotonic() - started, status, what))
            if (self.fresh or not keep) and connection is not None:
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, str, bool]:
        parts = urlsplit(self.url)
        writer.write(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {self.token}\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        body = await reader.readexactly(length)
        status = int(head.split(" ", 2)[1])
        what = "" if status == 200 else body.decode().partition('"code":')[2].strip().split('"')[1]
        return status, what, "connection: close" not in head
