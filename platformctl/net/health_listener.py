"""A listener that serves one ASGI application on a port of its own: health and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from platformctl.net.address import Address
from platformctl.net.asgi import App, AsgiExchange
from platformctl.net.deadlines import Deadlines
from platformctl.net.http1 import Exchange, HttpConnection, ServerOptions
from platformctl.wire.heads import RequestHead


class AppHandler:
    """Gives every request of a connection to one application."""

    def __init__(self, connection: HttpConnection, app: App) -> None:
        self._connection = connection
        self._app = app

    def begin(self, request: RequestHead, raw: bytes) -> Exchange:
        state: dict[str, Any] = {}
        return AsgiExchange(self._connection, self._app, request, request.target.decode("ascii"), state)

    def repeat(self) -> Exchange | None:
        return None

    def adapt(self, raw: bytes) -> Exchange | None:
        return None

    def closed(self) -> None:
        """Nothing is kept for a connection."""


async def health_server(address: Address, app: App, deadlines: Deadlines) -> asyncio.AbstractServer:
    """Listen on `address`, plain HTTP."""
    options = ServerOptions(deadlines)
    loop = asyncio.get_running_loop()

    def connected() -> Any:  # a protocol by its methods: compiled, it cannot inherit from a class of the interpreter
        return HttpConnection(options, lambda connection: AppHandler(connection, app))

    return await loop.create_server(
        connected,
        address.host or None,
        address.port,
    )
