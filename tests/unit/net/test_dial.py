"""A TCP connection, quickly or not at all."""

from __future__ import annotations

import asyncio
import socket

import pytest

from platformctl.net.dial import dial


async def test_it_connects() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"wss://127.0.0.1:{server.getsockname()[1]}/tunnel"
        with await dial(url, 5.0) as connection:
            assert connection.getpeername() == server.getsockname()


async def test_each_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        async def found(*args: object, **more: object) -> list[object]:
            addresses = (unused.getsockname(), server.getsockname())
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found, raising=False)
        with await dial("wss://hub.example", 5.0) as connection:
            assert connection.getpeername() == server.getsockname()


async def test_nothing_listens_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await dial(f"wss://127.0.0.1:{unused.getsockname()[1]}", 5.0)


async def test_whoever_does_not_answer_in_time_is_named() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        # A queue of one is full now: the kernel lets the next SYN wait.
        with socket.create_connection(address), pytest.raises(TimeoutError, match=f"127.0.0.1 port {address[1]}"):
            await dial(f"wss://127.0.0.1:{address[1]}", 0.05)
