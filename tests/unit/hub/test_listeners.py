"""Giving up a port: who is in the queue is served, who comes later is refused."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme

from platformctl.errors import ConfigError
from platformctl.hub.listeners import FrontListeners
from platformctl.net.address import Address
from platformctl.net.loop import run_loop
from platformctl.net.tls import public_server_context
from platformctl.net.tls_reload import ReloadingContext


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert hasattr(transport, "write")  # the transports of other loops are not asyncio.Transport
        transport.write(b"hello")
        transport.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=[asyncio.run, run_loop], ids=["asyncio", "the loop of the product"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def context(request: pytest.FixtureRequest, tmp_path: Path) -> ReloadingContext | None:
    if not request.param:
        return None
    issued = trustme.CA().issue_cert("127.0.0.1")
    cert, key = tmp_path / "server.crt", tmp_path / "server.key"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    return ReloadingContext(lambda cert, key, ca: public_server_context(cert, key), cert, key)


def greet_all(clients: list[socket.socket], secure: bool) -> int:
    """How many of these connections are greeted. In a thread: TLS clients of the standard library block."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    count = 0
    for client in clients:
        client.settimeout(5)
        with trusting.wrap_socket(client) if secure else client as connection:
            count += connection.recv(100) == b"hello"
    return count


def test_connections_in_the_queue_are_served_by_a_listener_that_drains(
    run: Callable[[Coroutine[Any, Any, None]], None], context: ReloadingContext | None
) -> None:
    async def main() -> None:
        address = Address("127.0.0.1", free_port())
        listeners = FrontListeners(reuse_port=True)
        await listeners.open(address, Greeter, context)
        # The loop gets no turn between these connections and the drain, so all of them wait in the kernel.
        clients = [socket.create_connection(address) for _ in range(50)]
        await listeners.drain()
        assert await asyncio.to_thread(greet_all, clients, context is not None) == 50
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    run(main())


def test_another_replica_on_the_port_gets_what_comes_after(
    run: Callable[[Coroutine[Any, Any, None]], None], context: ReloadingContext | None
) -> None:
    async def main() -> None:
        address = Address("127.0.0.1", free_port())
        first, second = FrontListeners(reuse_port=True), FrontListeners(reuse_port=True)
        await first.open(address, Greeter, context)
        await second.open(address, Greeter, context)
        clients = [socket.create_connection(address) for _ in range(20)]
        await first.drain()
        clients += [socket.create_connection(address) for _ in range(20)]
        assert await asyncio.to_thread(greet_all, clients, context is not None) == 40
        second.close()

    run(main())


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(*taken.getsockname())
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{address.port}"):
            await FrontListeners(reuse_port=False).open(address, Greeter)
