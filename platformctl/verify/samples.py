"""The sample services: what the demo exports and what `platformctl verify` calls through the hub.

    python -m platformctl.verify.samples [--host ADDRESS] [--port-base PORT]

prints one line of JSON, {"http": port, "events": port, "websocket": port, "tcp": port}, once all four listen, and
serves until SIGTERM or SIGINT. With --port-base the ports are PORT … PORT+3, in this order; otherwise free ones.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from platformctl.verify.sample_http import SampleApp

__all__ = ["NAMES", "SampleServices"]

NAMES = ("http", "events", "websocket", "tcp")

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class _EchoListener(WSListener):
    """Sends every message back as it came, fragments included."""

    def __init__(self, transports: set[WSTransport]) -> None:
        self._transports = transports

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transports.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transports.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            transport.send(frame.msg_type, frame.get_payload_as_bytes(), frame.fin)


async def _echo_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes as they come, in pieces of any size; a half-closed client still gets everything back."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


class SampleServices:
    """The four listeners. `ports` is filled by `start()`; `stop()` closes them and what is open on them."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.app = SampleApp()
        self.ports: dict[str, int] = {}
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._transports: set[WSTransport] = set()

    async def start(self, port_base: int = 0) -> None:
        """Listen; OSError when a port is taken (then nothing is left open)."""
        http = self._tracked(self.app.serve)
        starters: tuple[Callable[[int], Awaitable[asyncio.Server]], ...] = (
            lambda port: asyncio.start_server(http, self.host, port),
            lambda port: asyncio.start_server(http, self.host, port),
            lambda port: ws_create_server(self._accept, self.host, port, use_aiofastnet=False),
            lambda port: asyncio.start_server(self._tracked(_echo_tcp), self.host, port),
        )
        try:
            for offset, (name, starter) in enumerate(zip(NAMES, starters, strict=True)):
                server = await starter(port_base + offset if port_base else 0)
                self._servers.append(server)
                self.ports[name] = server.sockets[0].getsockname()[1]
        except BaseException:
            await self.stop()
            raise

    def _accept(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        if "Upgrade" in request.headers:
            return _EchoListener(self._transports)
        # A health check or a curious browser: say what this is, in plain HTTP.
        response = WSUpgradeResponse.create_ok_response(b"WebSocket echo: connect with ws://\n")
        return WSUpgradeResponseWithListener(response, None)

    def _tracked(self, serve: _Serve) -> _Serve:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            # This is the top of the connection's own task: a cancellation (by `stop`) ends here, on purpose.
            with contextlib.suppress(asyncio.CancelledError):
                await serve(reader, writer)
            self._connections.discard(task)
            writer.close()

        return connected

    def url(self, name: str) -> str:
        """Where a satellite on this machine reaches the service: `http://host:port`, or `tcp://host:port`."""
        return f"{'tcp' if name == 'tcp' else 'http'}://{self.host}:{self.ports[name]}"

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        for task in self._connections:
            task.cancel()
        for transport in list(self._transports):
            transport.disconnect(graceful=False)
        if self._connections:
            await asyncio.wait(self._connections)
        await asyncio.sleep(0)


async def _run(host: str, port_base: int) -> None:
    services = SampleServices(host)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    await services.start(port_base)
    print(json.dumps(services.ports), flush=True)
    await stopping.wait()
    await services.stop()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m platformctl.verify.samples", description="Run the sample services."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port-base", type=int, default=0, help="first of four ports (default: free ports)")
    options = parser.parse_args(argv)
    try:
        asyncio.run(_run(options.host, options.port_base))
    except OSError as error:
        print(f"samples: cannot listen on {options.host}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
