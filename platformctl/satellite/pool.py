"""Keep-alive connections to one backend: bounded, last used first, nobody waits for ever."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import aiofastnet

from platformctl.errors import ConfigError
from platformctl.net.deadlines import Deadlines
from platformctl.net.tasks import spawn
from platformctl.satellite.backend_trust import backend_tls
from platformctl.wire import frames

if TYPE_CHECKING:
    from platformctl.satellite.backend_http import HttpBackend, HttpCall
    from platformctl.satellite.exports import Export

# Shorter than the keep-alive of common servers (nginx 75 s, Apache 5 s is the exception that the retry covers).
IDLE_SECONDS: Final = 55.0
# Calls that may wait for a connection, for each connection that there may be.
WAITERS_PER_CONNECTION: Final = 4


# A backend that is away is in the log so often, not once a request.
COMPLAINT_SECONDS: Final = 10.0

log = logging.getLogger("platformctl.satellite.pool")


class DialError(Exception):
    """A backend could not be reached; `code` is the stream reset code that says why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


async def dial(export: Export, factory: type[asyncio.Protocol] | object) -> tuple[asyncio.Transport, asyncio.Protocol]:
    """Connect to a backend within its connect timeout, with its TLS if it has any. Raises DialError."""
    loop = asyncio.get_running_loop()
    backend = export.backend
    try:
        tls = backend_tls(export.trust) if backend.scheme == "https" else None
        async with asyncio.timeout(export.spec.timeouts.connect):
            connected: tuple[asyncio.Transport, asyncio.Protocol] = await aiofastnet.create_connection(
                loop,
                factory,  # type: ignore[arg-type]
                backend.host,
                backend.port,
                ssl=tls.context if tls is not None else None,
                server_hostname=(tls.server_name or backend.host) if tls is not None else None,
            )
    except TimeoutError as e:
        raise DialError(frames.CONNECT_TIMEOUT, f"{backend} did not accept in time") from e
    except (OSError, ValueError, ConfigError) as e:  # ssl.SSLError is an OSError, a name that IDNA refuses a ValueError
        raise DialError(frames.CONNECT_FAILED, f"{backend}: {e}") from e
    transport, protocol = connected
    if tls is not None:
        try:
            tls.check(transport.get_extra_info("ssl_object"))
        except OSError as e:
            transport.abort()
            raise DialError(frames.CONNECT_FAILED, f"{backend}: {e}") from e
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return transport, protocol


class BackendPool:
    """The connections of one http export. `factory` makes the protocol of a new one."""

    def __init__(self, export: Export, deadlines: Deadlines, factory: type[HttpBackend]) -> None:
        self.export = export
        self.deadlines = deadlines
        self.inflight = 0
        self.open = 0
        self.closed = False
        self._complained = float("-inf")
        self._factory = factory
        self._idle: list[HttpBackend] = []
        self._waiting: OrderedDict[HttpCall, None] = OrderedDict()

    def take(self) -> HttpBackend | None:
        """An idle connection, the most recently used one, which is the least likely to be stale."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    def run(self, call: HttpCall) -> None:
        """Give the call a connection: an idle one now, a new one, or the next that becomes free."""
        connection = None if call.fresh else self.take()
        if connection is not None:
            connection.start(call)
        elif self.open < self.export.connections:
            self.open += 1
            spawn(self._dial(call), "backend-dial")
        elif len(self._waiting) < WAITERS_PER_CONNECTION * self.export.connections:
            self._waiting[call] = None
            call.deadline = time.monotonic() + self.export.spec.timeouts.connect
            self.deadlines.members.add(call)
        else:
            call.fail(frames.OVERLOADED)

    def forget(self, call: HttpCall) -> None:
        """A call does not wait for a connection any more."""
        if self._waiting.pop(call, self) is None:
            self.deadlines.members.discard(call)

    def _next(self) -> HttpCall | None:
        """The call that has waited longest."""
        for call in self._waiting:
            self.forget(call)
            return call
        return None

    def release(self, connection: HttpBackend) -> None:
        """A connection is free and clean."""
        call = self._next() if self._waiting else None
        if call is not None:
            connection.start(call)
            return
        if self.closed:
            connection.transport.close()
            return
        connection.deadline = time.monotonic() + IDLE_SECONDS
        self._idle.append(connection)

    def lost(self, connection: HttpBackend) -> None:
        """A connection has ended; a waiting call may open one in its place."""
        if connection in self._idle:
            self._idle.remove(connection)
        self._make_room()

    def _make_room(self) -> None:
        self.open -= 1
        call = self._next() if self.open < self.export.connections else None
        if call is not None:
            self.open += 1
            spawn(self._dial(call), "backend-dial")

    def close(self) -> None:
        """No new idle connections; busy ones end with their calls."""
        self.closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.transport.close()

    def _complain(self, reason: str) -> None:
        """Say why a dial failed; not for each request of many."""
        now = time.monotonic()
        if now - self._complained > COMPLAINT_SECONDS:
            self._complained = now
            log.warning("cannot connect to the backend", extra={"service": self.export.name, "reason": reason})

    async def _dial(self, call: HttpCall) -> None:
        connection = self._factory(self)
        try:
            await dial(self.export, lambda: connection)
        except DialError as e:
            # One that was connected, and turned out to be somebody else, tells `lost` when it is closed.
            if not connection.connected:
                self._make_room()
            self._complain(str(e))
            call.fail(e.code)
            return
        if call.abandoned:
            self.release(connection)
        else:
            connection.start(call)
