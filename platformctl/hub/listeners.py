"""The ports that clients connect to, and how they are given up without losing a connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiofastnet

from platformctl.errors import ConfigError
from platformctl.net.address import Address
from platformctl.net.tasks import spawn
from platformctl.net.tls_reload import ReloadingContext

log = logging.getLogger("platformctl.hub.listeners")

# An idle client that does not answer close_notify must not hold a draining replica (asyncio waits 30 s).
SHUTDOWN_SECONDS: Final = 2.0
BACKLOG: Final = 4096  # as net.core.somaxconn is by default; a full queue costs a client a second

# An asyncio.Protocol by its methods: the compiled ones cannot inherit from a class of the interpreter.
Factory = Callable[[], Any]


@dataclass
class _Listener:
    server: asyncio.Server
    factory: Factory
    context: ReloadingContext | None
    native: bool


async def opened(address: Address, opening: Awaitable[Any]) -> Any:
    """The server that `opening` makes at `address`. ConfigError when the address cannot be had."""
    try:
        return await opening
    except OSError as e:
        raise ConfigError(
            f"cannot listen on {address}: {e.strerror or e}",
            hint="Stop what uses the port, or choose another one in the configuration.",
        ) from e


class FrontListeners:
    """All listeners for clients of a replica."""

    def __init__(self, *, reuse_port: bool) -> None:
        self._reuse_port = reuse_port
        self._listeners: list[_Listener] = []

    async def open(self, address: Address, factory: Factory, context: ReloadingContext | None = None) -> None:
        """Listen; ConfigError when that is not possible."""
        loop = asyncio.get_running_loop()
        host, port = address.host or None, address.port
        serving: Awaitable[Any]
        native = context is None and not isinstance(loop, asyncio.BaseEventLoop)
        if native:
            # uvloop's own server accepts without a task for each connection: measured, 70 instead of 110 µs. asyncio's
            # forgets connections that it has accepted in the turn before it is closed.
            serving = loop.create_server(factory, host, port, reuse_port=self._reuse_port, backlog=BACKLOG)
        else:
            serving = aiofastnet.create_server(
                loop,
                factory,
                host,
                port,
                ssl=context.context if context is not None else None,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS if context is not None else None,
                reuse_port=self._reuse_port,
                backlog=BACKLOG,
            )
        self._listeners.append(_Listener(await opened(address, serving), factory, context, native))

    async def drain(self) -> None:
        """Stop listening. Whoever is in a queue already is served.

        A closed socket resets what waits in its accept queue (Linux inet_csk_listen_stop), and with SO_REUSEPORT the
        kernel keeps putting connections there until the end. So the queue is emptied in the breath that closes it.
        """
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            if not listener.native:
                for each in listener.server.sockets:
                    loop.remove_reader(each.fileno())
        # Connections that were accepted but not set up yet need the server for one turn more.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for listener in self._listeners:
            left = [each.dup() for each in listener.server.sockets]
            listener.server.close()  # the duplicates keep the queues alive
            for each in left:
                for connection in _emptied(each):
                    spawn(_adopt(listener, connection), "late-connection")
        self._listeners.clear()

    def close(self) -> None:
        """Stop listening at once."""
        for listener in self._listeners:
            listener.server.close()
        self._listeners.clear()


def _emptied(listening: socket.socket) -> list[socket.socket]:
    """The connections that waited in the queue; the socket is closed."""
    connections = []
    listening.setblocking(False)
    with listening:
        while True:
            try:
                connections.append(listening.accept()[0])
            except ConnectionAbortedError:
                continue
            except OSError:  # BlockingIOError: the queue is empty
                break
    return connections


async def _adopt(listener: _Listener, connection: socket.socket) -> None:
    context = listener.context.context if listener.context is not None else None
    with contextlib.suppress(OSError):  # a client that gave up in its handshake
        loop = asyncio.get_running_loop()
        if listener.native:
            await loop.connect_accepted_socket(listener.factory, connection)
        else:
            await aiofastnet.connect_accepted_socket(loop, listener.factory, connection, ssl=context)
